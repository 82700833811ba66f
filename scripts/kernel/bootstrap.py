"""Make .venv match scripts/requirements.lock exactly, with this project installed as editable.

scripts/just calls this after checking the version of Python, and passes the stamp that means "up to date". It needs
only the standard library. Failures are reported in one sentence, with exit code 2.
"""

import configparser
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "scripts" / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / ".stamp"  # written last: a .venv without it is incomplete
VENV_PYTHON = VENV / "bin" / "python"
VENV_UV = VENV / "bin" / "uv"

REMEDY = "install it (on Debian: apt install python3-venv), or set PYTHON to another Python"

# What pip and uv print if they cannot reach an index.
NO_NETWORK = re.compile(r"(?i)connection broken|error sending request|failed to fetch|timed out|from versions: none")


def main() -> None:
    """Bring .venv up to date, unless another process has just done that."""
    stamp = sys.argv[1] + "\n"
    VENV.mkdir(exist_ok=True)
    turn = take_turn()
    python = Path(sys.executable).resolve()  # never that of an activated .venv, which may be replaced
    found = STAMP.read_text() if STAMP.is_file() else ""
    whole = found.endswith(f"\n{ROOT}\n") and VENV_PYTHON.resolve() == python
    if whole and found == stamp:
        return
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)
    own_uv = shutil.which("uv", path=path_without_venv())
    if whole:
        say("bringing .venv up to date")
    else:
        say(f"making .venv with Python {sys.version.split()[0]}, once; this takes some seconds")
        make_venv(python, turn)
        if not own_uv:
            install_uv(turn)
    try:
        install_packages(own_uv or str(VENV_UV), {} if own_uv else settings_of_pip(), turn)
    except SystemExit:
        if whole:
            write_stamp(found)  # uv failed cleanly and .venv is intact, so the next attempt can continue
        raise
    write_stamp(stamp)
    say(f".venv is ready after {time.monotonic() - started:.1f} s")


def write_stamp(text: str) -> None:
    """Write the stamp atomically."""
    written = STAMP.with_suffix(".new")
    written.write_text(text)
    written.replace(STAMP)


def take_turn() -> int:
    """Wait until no other process works on .venv. The returned descriptor is the lock; children inherit it."""
    turn = os.open(VENV, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another process is making .venv; waiting for it")
        fcntl.flock(turn, fcntl.LOCK_EX)
    except OSError:
        pass  # continue without a lock, for example on some network file systems
    return turn


def path_without_venv() -> str:
    """Return PATH without the folder of an activated .venv."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder).resolve() != VENV_UV.parent)


def make_venv(python: Path, turn: int) -> None:
    """Make an empty .venv, replacing whatever is there."""
    failure = run([str(python), "-I", "-m", "venv", "--without-pip", "--clear", str(VENV)], turn)
    if "No module named venv" in failure:
        fail(f"{python} comes without venv; {REMEDY}.")
    if failure:
        fail(f"{VENV} could not be made: {reason(failure)}; fix that, and run this again.")


def install_uv(turn: int) -> None:
    """Install the lock's version of uv with the pip that is bundled with Python. Neither has to be installed."""
    pip = next(bundled_pips(), None)
    if not pip:
        fail(f"{sys.executable} comes without ensurepip; {REMEDY}, or put uv on PATH.")
    block = re.search(r"(?m)^uv==(.*\\\n)*.*", LOCK.read_text())
    if not block:
        fail(f"{LOCK} does not name uv; restore it, for example with git.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(block.group())
        requirements.flush()
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", requirements.name]
        failure = run([str(VENV_PYTHON), "-I", f"{pip}/pip", "install", *options], turn, {"PIP_USER": "0"})
    if failure:
        fail_to_install("uv", failure)


def bundled_pips() -> Iterator[Path]:
    """Yield the pip wheels bundled with ensurepip; running one directly saves seconds."""
    with contextlib.suppress(ImportError):
        import ensurepip

        yield from Path(ensurepip.__file__).with_name("_bundled").glob("pip-*.whl")
        yield from Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or os.devnull).glob("pip-*.whl")


def settings_of_pip() -> dict[str, str]:
    """Return variables that pass pip's mirror and certificate settings on to uv, which does not read pip's settings."""
    home = Path(os.environ.get("HOME") or "/")
    config = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(configparser.Error):
        config.read(
            [
                "/etc/pip.conf",
                home / "Library/Application Support/pip/pip.conf",
                home / ".pip/pip.conf",
                Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
                os.environ.get("PIP_CONFIG_FILE", os.devnull),
            ]
        )
    settings = {}
    for option, uv_variable in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        value = os.environ.get("PIP_" + option.upper().replace("-", "_"))
        for section in "install", "global":
            value = value or config.get(section, option, fallback="")
        if value and not os.environ.get(uv_variable):
            settings[uv_variable] = value
    return settings


def install_packages(uv: str, environment: Mapping[str, str], turn: int) -> None:
    """Install the packages in the lock, remove all others, and install the project itself."""
    target = ["--quiet", "--python", str(VENV_PYTHON)]
    # Compile bytecode now, otherwise the first starts would be twice as slow.
    sync = [uv, "pip", "sync", *target, "--require-hashes", "--compile-bytecode", str(LOCK)]
    if failure := run(sync, turn, environment):
        fail_to_install("the packages of scripts/requirements.lock", failure)
    # With the lock's uv, which contains the build backend.
    add_project = [str(VENV_UV), "pip", "install", *target, "--no-deps", "--editable", str(ROOT)]
    if failure := run(add_project, turn, environment):
        fail_to_install("the project of pyproject.toml", failure)


def run(command: list[str], turn: int, environment: Mapping[str, str] | None = None) -> str:
    """Run *command* silently. Return its output if it failed, otherwise an empty string."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[turn],
        check=False,
    )
    return (done.stdout.strip() or f"exit code {done.returncode}") if done.returncode else ""


def fail_to_install(what: str, failure: str) -> NoReturn:
    """Exit with the reason that pip or uv gave."""
    if NO_NETWORK.search(failure):
        why = "" if "from versions: none" in failure else f" ({reason(failure)})"  # pip gives no reason
        fail(
            f"{what} could not be downloaded, the package index does not answer{why}; check the network, "
            "or the index and the certificate that pip and uv are set to use, and run this again."
        )
    fail(f"{what} could not be installed: {reason(failure)}; fix that, and run this again.")


def reason(failure: str) -> str:
    """Return the most informative line of *failure*: the innermost cause, the first error, or the last line."""
    lines = [line.strip() for line in failure.splitlines() if line.strip()] or ["no reason was given"]
    causes = [line.removeprefix("cause: ") for line in lines if line.startswith("cause: ")]
    errors = [line for line in lines if line.lower().startswith("error")]
    return [*lines, *reversed(errors), *causes][-1]


def say(text: str) -> None:
    """Print to stderr, since stdout belongs to the recipe."""
    print(f"scripts/just: {text}", file=sys.stderr)


def fail(text: str) -> NoReturn:
    """Exit with one sentence and exit code 2."""
    say(text)
    sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(f".venv could not be made: {error}; fix that, and run this again.")
