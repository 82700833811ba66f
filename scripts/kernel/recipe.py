"""Shared by the scripts behind the recipes: parse arguments, refuse requests, and run git.

`just service NAME=x`, `just service x` and `just NAME=x service` are the same. The recipes pass on the values of just's
variables, then the command line's arguments, and `parse` reads all of them in the same way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from addresses import mask
from change import GITS_POINTERS, Conflict

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 40  # maximum characters of an invalid word that an error repeats
LONGEST_NAME = 63  # maximum characters, as in a DNS label; names of files and variables are derived from it
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Refusal(Exception):
    """The request is refused, and nothing was changed. The message says why, and what to do."""


def run(recipe: str, use: str, act: Callable[[dict[str, str]], object], *keys: str) -> NoReturn:
    """Call *act* with the arguments of the recipe, and exit; with 2 for a `Refusal`.

    Args:
        recipe: The name of the recipe.
        use: Its usage, for errors.
        act: Does the work. Takes the values by key, with an empty value for each that is not given.
        keys: The keys it takes. A value without a key belongs to the first one. If that ends with `...`, it takes
            several values, joined by spaces.

    """
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that unfinished work is undone at once
    try:
        if is_help(sys.argv[1:]):
            tell_use(recipe, use)
        else:
            act(parse(sys.argv[1:], use, keys))
    except Refusal as refusal:
        print(f"just {recipe}: {refusal}", file=sys.stderr)
        sys.exit(2)
    except (OSError, Conflict) as error:
        print(f"just {recipe}: {error}; fix that, and run this again.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def is_help(words: Sequence[str]) -> bool:
    """Return whether the arguments request help."""
    return not {"--help", "-h"}.isdisjoint(words)


def tell_use(recipe: str, use: str) -> None:
    """Print what a *recipe* does, according to its Justfile, and its usage."""
    words = [str(ROOT / ".venv" / "bin" / "just"), "--dump", "--dump-format=json"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, check=False).stdout
    known = json.loads(told).get("recipes", {}) if told else {}
    doc = (known.get(recipe) or {}).get("doc")
    print(f"{doc}\n\nUsage: {use}" if doc else f"Usage: {use}")


def parse(words: Sequence[str], use: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the values by key. An empty value counts as unset; of two values for a key, the later one counts.

    Raises:
        Refusal: There is a key that the recipe does not take, or a second value without a key.

    """
    several = bool(keys) and keys[0].endswith("...")
    keys = [key.removesuffix("...") for key in keys]
    values = dict.fromkeys(keys, "")
    bare: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch("[A-Z][A-Z_]*", key):
            if key not in values:
                raise Refusal(f"it takes no {key}; usage: {use}")
            values[key] = value or values[key]
        elif not word:
            raise Refusal(f"an argument is empty; usage: {use}")
        else:
            bare.append(word)
    if several and len(bare) > 1:
        bare = [" ".join(bare)]
    if len(bare) > 1 or (bare and not keys):
        raise Refusal(f"{show(bare[-1])}: unexpected argument; usage: {use}")
    if bare:
        values[keys[0]] = bare[0]
    return values


def show(word: str) -> str:
    """Return a user's *word* in quotes, shortened, without control characters."""
    return repr(word if len(word) <= SHOWN else f"{word[:SHOWN]}...")


def refuse_name(name: str, what: str, use: str) -> None:
    """Raise `Refusal` for a *name* that is missing or malformed. A valid name is safe in paths and in a shell."""
    if not name:
        raise Refusal(f"{what} needs a name; usage: {use}")
    if not NAME.fullmatch(name):
        raise Refusal(
            f"{show(name)} is not a valid name for {what}: lower-case letters and digits, first a letter, with single"
            f" dashes between; usage: {use}"
        )
    if len(name) > LONGEST_NAME:
        raise Refusal(f"{show(name)} is too long for a name: {len(name)} characters, of at most {LONGEST_NAME}")


def is_yes(value: str, key: str) -> bool:
    """Return whether *value* means yes, as in FORCE=1.

    Raises:
        Refusal: It means neither yes nor no.

    """
    if value.lower() in {"", "0", "no", "false", "off"}:
        return False
    if value.lower() in {"1", "yes", "true", "on"}:
        return True
    raise Refusal(f"{key}={show(value)} is neither yes nor no; example: {key}=1")


SIGNING = re.compile("sign|gpg|public key|Load key|failed to write commit object", re.IGNORECASE)


def _command(words: Sequence[str]) -> str:
    """Return the git command in *words*, after the global options."""
    rest = iter(words)
    for word in rest:
        if word in {"-c", "-C"}:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def git(
    *words: str,
    root: Path = ROOT,
    stdin: str = "",
    accept: Sequence[int] = (0,),
    hold: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> str:
    """Run git in the repository at *root*, regardless of git's environment variables, and return its stdout.

    Args:
        words: The command and its arguments.
        root: The folder to run it in.
        stdin: Its input.
        accept: The exit codes that do not count as failures.
        hold: Descriptors that it keeps open while it runs.
        env: Additional environment variables.

    Raises:
        Refusal: git is missing, or fails; with git's reason.

    """
    inherited = {name: value for name, value in os.environ.items() if name not in GITS_POINTERS}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=root,
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(env or {})},
            input=os.fsencode(stdin),
            capture_output=True,
            pass_fds=hold,
            check=False,
        )
    except FileNotFoundError:
        raise Refusal("git is not installed; install it (on Debian: apt install git)") from None
    if done.returncode not in accept:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        reason = mask(next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1]))
        command = _command(words)
        if command.startswith("commit") and SIGNING.search("\n".join(lines)):
            raise Refusal(
                f"git cannot sign the commit ({reason}); fix the key in user.signingKey, or run"
                " `git config commit.gpgSign false` to turn signing off in this repository"
            )
        raise Refusal(f"git {command} failed ({reason}); fix that, and run this again")
    return os.fsdecode(done.stdout)


def copy_settings(keys: tuple[str, ...], target: Path) -> None:
    """Copy the settings of this clone that begin with one of *keys* to the repository whose git folder is *target*."""
    settings = [pair.split("\n", 1) for pair in git("config", "--local", "--list", "-z").split("\0") if "\n" in pair]
    for key, value in settings:
        if key.startswith(keys):
            git("config", "--file", str(target / "config"), key, value)


def refuse_uncommitted() -> None:
    """Raise `Refusal` if the project has uncommitted changes, or files that git does not track."""
    changed = git("status", "--porcelain", "--untracked-files=normal", "--", ".").splitlines()
    if changed and all(line.startswith(" M") for line in changed) and not changed_files():
        return  # only line endings differ
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refusal(f"there are uncommitted changes ({changed[0][3:]}{more}); commit or remove them first")


def changed_files(*commit: str) -> set[str]:
    """Return the tracked files that differ from the index, or from a commit, in more than their line endings.

    git would refresh the index for this, so it uses a copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        own = ROOT / git("rev-parse", "--git-path", "index").rstrip("\n")
        if own.is_file():
            shutil.copy2(own, index)  # with its time, by which git knows what it must compare by content
        words = ("diff", "--no-ext-diff", "--no-renames", "--relative", "--name-only", "-z", *commit, "--", ".")
        told = git("-c", "diff.autoRefreshIndex=true", *words, env={"GIT_INDEX_FILE": str(index)})
    return {path for path in told.split("\0") if path}


def refuse_nobody(what: str) -> None:
    """Raise `Refusal` if git does not know the author of a commit; *what* names the commit."""
    try:
        git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
        git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    except Refusal:
        raise Refusal(
            f"git does not know who you are, for {what}; run `git config --global user.name 'Your Name'` and"
            " `git config --global user.email you@example.com`"
        ) from None


def in_git(*options: str, root: Path = ROOT) -> list[str]:
    """Return the paths that `git ls-files` lists with these *options*."""
    return [path for path in git("ls-files", "-z", *options, root=root).split("\0") if path]


def project_files(root: Path = ROOT) -> list[str]:
    """Return the files of the project at *root*: all that git tracks or would track.

    Without a repository, for example in a downloaded archive, or if git refuses it because the folder belongs to
    another user, or ignores the whole folder, these are all files that no .gitignore in it matches.
    """
    found: list[str] = []
    try:
        found = in_git("--cached", "--others", "--exclude-standard", root=root)
    except Refusal as refusal:
        if not NO_REPOSITORY.search(str(refusal)):
            raise
    if not found:
        with tempfile.TemporaryDirectory() as folder:
            git("init", "--quiet", "--bare", "--template=", folder, root=Path(folder))
            where = [f"--git-dir={folder}", f"--work-tree={root}"]
            told = git(*where, "ls-files", "-z", "--others", "--exclude-standard", root=root)
        found = [path for path in told.split("\0") if path and path.split("/")[0] not in {".git", ".kernel", ".venv"}]
    return list(dict.fromkeys(found))


NO_REPOSITORY = re.compile("not a git repository|dubious ownership")


def commit_of_head(root: Path = ROOT) -> str:
    """Return the commit that is checked out; empty if there is none, or git accepts no repository here."""
    try:
        return git("rev-parse", "--quiet", "--verify", "HEAD", root=root, accept=(0, 1)).strip()
    except Refusal as refusal:
        if not NO_REPOSITORY.search(str(refusal)):
            raise
        return ""


def unix(content: bytes) -> bytes:
    """Return the *content* of a text with the line endings of Unix; return other content unchanged."""
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


def bring_venv_up_to_date() -> None:
    """Bring .venv up to date with scripts/just. If that fails, it says so, and the next recipe tries again."""
    subprocess.run([str(ROOT / "scripts" / "just"), "--version"], stdout=subprocess.DEVNULL, check=False)
