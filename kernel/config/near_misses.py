"""Find variables that nothing reads, but whose names are similar to those of variables that are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from kernel.config.settings import KERNEL_VARIABLES

_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)\w*|PORT(_\d+_(TCP|UDP)\w*)?)$")
_NAMES = frozenset(
    (
        *(
            "_",
            "BROWSER",
            "CI",
            "COLORTERM",
            "COLUMNS",
            "CREDENTIALS_DIRECTORY",
            "DEBIAN_FRONTEND",
            "DISPLAY",
            "EDITOR",
        ),
        *("EMAIL", "FORCE_COLOR", "HISTFILE", "HISTSIZE", "HOME", "HOST", "HOSTNAME", "HOSTTYPE", "IFS", "INFOPATH"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LANGUAGE", "LINES", "LOGNAME", "LOGS_DIRECTORY", "LS_COLORS"),
        *("MACHTYPE", "MAIL", "MAINPID", "MANAGERPID", "MANPATH", "NAME", "NODE_ENV", "NOTIFY_SOCKET", "NO_COLOR"),
        *("OLDPWD", "OSTYPE", "PAGER", "PATH", "PORT", "PPID", "PWD", "RUNTIME_DIRECTORY", "SECONDS", "SHELL"),
        *("SHELLOPTS", "SHLVL", "STATE_DIRECTORY", "TEMP", "TERM", "TIMEZONE", "TMP", "TMPDIR", "TMUX", "TMUX_PANE"),
        *("TZ", "UID", "USER", "USERNAME", "VIRTUAL_ENV", "VISUAL", "WATCHDOG_PID", "WATCHDOG_USEC", "WINDOWID"),
        "XAUTHORITY",
    )
)
_PROXIES = frozenset(("ALL_PROXY", "FTP_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "RSYNC_PROXY", "SOCKS_PROXY"))
_SETS = re.compile(r"PS\d|[A-Z0-9]+_HOME")
"""Variables that shells, desktops and systems set or read. A single pattern would be slow to compile."""

_PREFIXES = (
    "CARGO",
    "DOTNET",
    "GO",
    "GRADLE",
    "JAVA",
    "LESS",
    "MAVEN",
    "MOZ",
    "NODE",
    "PERL",
    "PYTHON",
    "RUBY",
    "RUSTUP",
)
_FAMILIES = frozenset(
    (
        *("AWS", "AZURE", "BASH", "BUNDLE", "CI", "CLOUDSDK", "COMPOSE", "CONDA", "CURL", "DBUS", "DOCKER", "GH"),
        *("GIT", "GITHUB", "GITLAB", "GNOME", "GNUPG", "GPG", "GTK", "HOMEBREW", "JUST", "KDE", "KUBE", "KUBERNETES"),
        *("LC", "LD", "LISTEN", "NPM", "NVM", "OPENSSL", "PIP", "PIPX", "POETRY", "PRE", "PULSE", "PYCHARM", "PYENV"),
        *("PYTEST", "QT", "RUST", "SDKMAN", "SSH", "SSL", "SUDO", "SYSTEMD", "TERM", "TERMINAL", "TF", "UV", "VSCODE"),
        *("VTE", "WSL", "WT", "XDG", "ZSH"),
    )
)
"""How the variables of common tools begin, and their first words. They are no near misses of other services."""


def _is_everywhere(name: str) -> bool:
    return name in _NAMES or name.upper() in _PROXIES or _SETS.fullmatch(name) is not None


def _is_of_a_tool(name: str) -> bool:
    return name.startswith(_PREFIXES) or name.partition("_")[0] in _FAMILIES


def near_misses(environ: Mapping[str, str], known: Collection[str]) -> Iterable[str]:
    """Return a sentence for each variable that nothing reads, but whose name is similar to one in *known*.

    Variables that exist on every machine are ignored.
    """
    every = {*known, *KERNEL_VARIABLES}
    if any(name.startswith(("OTEL", "NATS")) for name in environ):  # otherwise avoids loading their tables
        from kernel.config.nats import NATS_VARIABLES
        from kernel.config.otel import OTEL_VARIABLES

        every.update(NATS_VARIABLES, OTEL_VARIABLES)
    joined = {name.replace("_", ""): name for name in every}
    # Comparing texts is slow, so variables are compared only with those that share their first or last word.
    firsts = {name.partition("_")[0] for name in every}
    kinds = ("OTEL_", "NATS_")  # their last words are too diverse to compare
    lasts = {name.rpartition("_")[2] for name in every if not name.startswith(kinds)}
    for name in sorted(environ.keys() - every):
        ours = name.partition("_")[0] in firsts
        if _SERVICE_LINK.search(name) or _is_everywhere(name) or (_is_of_a_tool(name) and not ours):
            continue
        hint = joined.get(name.replace("_", ""), "")
        if not hint and (ours or name.rpartition("_")[2] in lasts):
            hint = _nearest(name, every)
        if hint:
            yield f"{name} is set, but nothing reads it; did you mean {hint}?"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return the most similar name; not one that only has one more word in front: ``USER`` is not ``API_USER``."""
    from difflib import get_close_matches

    others = [other for other in known if "_" in name or not other.endswith(f"_{name}")]
    return next(iter(get_close_matches(name, others, cutoff=0.8)), "")
