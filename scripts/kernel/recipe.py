"""Shared by the scripts behind the recipes: parsing arguments, refusing, and running git.

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
SHOWN = 40  # characters of a bad word that an error repeats
LONGEST_NAME = 63  # characters, as in a DNS label; the names of files and variables are made from it
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Refusal(Exception):
    """The request is refused, and nothing was changed. The message says why, and what to do."""


def run(recipe: str, use: str, act: Callable[[dict[str, str]], object], *keys: str) -> NoReturn:
    """Call *act* with the words that the recipe was called with, and ends the process: with 2 for a `Refusal`.

    Args:
        recipe: Its name.
        use: How it is called, for who calls it wrongly.
        act: Does it. Takes the values by key, an empty one for each that is not given.
        keys: The words it takes. A value without a key is that of the first; where that ends with `...`, there may be
            several, which it takes with spaces between.

    """
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that what was begun is undone at once
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
    """Return whether the arguments ask for help."""
    return not {"--help", "-h"}.isdisjoint(words)


def tell_use(recipe: str, use: str) -> None:
    """Print what a *recipe* does, as its Justfile says, and how it is called."""
    words = [str(ROOT / ".venv" / "bin" / "just"), "--dump", "--dump-format=json"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, check=False).stdout
    known = json.loads(told).get("recipes", {}) if told else {}
    doc = (known.get(recipe) or {}).get("doc")
    print(f"{doc}\n\nUsage: {use}" if doc else f"Usage: {use}")


def parse(words: Sequence[str], use: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the values by key. An empty value counts as unset; of two, the later one counts.

    Raises:
        Refusal: There is a word that the recipe does not take, or a second one without a key.

    """
    several = bool(keys) and keys[0].endswith("...")
    keys = [key.removesuffix("...") for key in keys]
    values = dict.fromkeys(keys, "")
    bare: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch("[A-Z][A-Z_]*", key):
            if key not in values:
                raise Refusal(f"it takes no {key}; as in: {use}")
            values[key] = value or values[key]
        elif not word:
            raise Refusal(f"a word is empty; as in: {use}")
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
    """Raise `Refusal` for a *name* that is missing or malformed. One that is fine is safe in a path and in a shell."""
    if not name:
        raise Refusal(f"{what} needs a name; as in: {use}")
    if not NAME.fullmatch(name):
        raise Refusal(
            f"{show(name)} is no name for {what}: lower-case letters and digits, the first a letter, with single"
            f" dashes between; as in: {use}"
        )
    if len(name) > LONGEST_NAME:
        raise Refusal(f"{show(name)} is too long for a name: {len(name)} characters, of at most {LONGEST_NAME}")


def is_yes(value: str, key: str) -> bool:
    """Return whether *value* says yes, as in FORCE=1.

    Raises:
        Refusal: It says neither yes nor no.

    """
    if value.lower() in {"", "0", "no", "false", "off"}:
        return False
    if value.lower() in {"1", "yes", "true", "on"}:
        return True
    raise Refusal(f"{key}={show(value)} says neither yes nor no; as in: {key}=1")


SIGNING = re.compile("sign|gpg|public key|Load key|failed to write commit object", re.IGNORECASE)


def _command(words: Sequence[str]) -> str:
    """Return the git command in *words*, after the options for git itself."""
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
    """Return git's stdout, in the repository at *root* and no other, whatever the environment sets for git.

    Args:
        words: The command.
        root: The folder to run it in.
        stdin: What it reads.
        accept: The exit codes that are no failure.
        hold: Descriptors that it holds open while it runs.
        env: Variables that it is given besides.

    Raises:
        Refusal: git is missing, or fails; with its own reason.

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
                f"git cannot sign the commit ({reason}); fix the key that user.signingKey names, or let"
                " `git config commit.gpgSign false` do without in this repository"
            )
        raise Refusal(f"git {command} failed ({reason}); fix that, and run this again")
    return os.fsdecode(done.stdout)


def copy_settings(keys: tuple[str, ...], target: Path) -> None:
    """Give the repository whose own folder is *target* the settings of this clone that begin with one of *keys*."""
    settings = [pair.split("\n", 1) for pair in git("config", "--local", "--list", "-z").split("\0") if "\n" in pair]
    for key, value in settings:
        if key.startswith(keys):
            git("config", "--file", str(target / "config"), key, value)


def refuse_uncommitted() -> None:
    """Raise `Refusal` where the project has changes that are not committed, or files that git does not know."""
    changed = git("status", "--porcelain", "--untracked-files=normal", "--", ".").splitlines()
    if changed and all(line.startswith(" M") for line in changed) and not changed_files():
        return  # the line ends are others, which is no change
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refusal(f"there are changes that are not committed ({changed[0][3:]}{more}); commit or remove them first")


def changed_files(*commit: str) -> set[str]:
    """Return the tracked files that differ from the index, or from a commit, in more than their line ends.

    The index, which git would refresh for that, stays as it is: a copy is asked.
    """
    with tempfile.NamedTemporaryFile() as index:
        own = ROOT / git("rev-parse", "--git-path", "index").rstrip("\n")
        if own.is_file():
            shutil.copyfile(own, index.name)
        words = ("diff", "--no-ext-diff", "--no-renames", "--relative", "--name-only", "-z", *commit, "--", ".")
        told = git("-c", "diff.autoRefreshIndex=true", *words, env={"GIT_INDEX_FILE": index.name})
    return {path for path in told.split("\0") if path}


def refuse_nobody(what: str) -> None:
    """Raise `Refusal` where git does not know who makes a commit; *what* says which."""
    try:
        git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
        git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    except Refusal:
        raise Refusal(
            f"git does not know who you are, for {what}; say `git config --global user.name 'Your Name'` and"
            " `git config --global user.email you@example.com`"
        ) from None


def in_git(*options: str, root: Path = ROOT) -> list[str]:
    """Return the paths that `git ls-files` lists with these *options*."""
    return [path for path in git("ls-files", "-z", *options, root=root).split("\0") if path]


def project_files(root: Path = ROOT) -> list[str]:
    """Return the files of the project at *root*: what git tracks or would track.

    Where git knows nothing of it, as of an archive that was downloaded, or refuses it because the folder is somebody
    else's: all that no .gitignore names.
    """
    try:
        found = in_git("--cached", "--others", "--exclude-standard", root=root)
    except Refusal as refusal:
        if not NO_REPOSITORY.search(str(refusal)):
            raise
        with tempfile.TemporaryDirectory() as folder:
            git("init", "--quiet", "--bare", "--template=", folder, root=Path(folder))
            where = [f"--git-dir={folder}", f"--work-tree={root}"]
            told = git(*where, "ls-files", "-z", "--others", "--exclude-standard", root=root)
        found = [path for path in told.split("\0") if path and path.split("/")[0] not in {".git", ".kernel", ".venv"}]
    return list(dict.fromkeys(found))


NO_REPOSITORY = re.compile("not a git repository|dubious ownership")


def commit_of_head(root: Path = ROOT) -> str:
    """Return the commit that is checked out; empty if there is none, or no repository that git accepts."""
    try:
        return git("rev-parse", "--quiet", "--verify", "HEAD", root=root, accept=(0, 1)).strip()
    except Refusal as refusal:
        if not NO_REPOSITORY.search(str(refusal)):
            raise
        return ""


def unix(content: bytes) -> bytes:
    """Return the *content* of a text with the line ends of Unix, or other content unchanged."""
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


def bring_venv_up_to_date() -> None:
    """Bring .venv up to date by scripts/just. If that fails, it says so, and the next recipe tries again."""
    subprocess.run([str(ROOT / "scripts" / "just"), "--version"], stdout=subprocess.DEVNULL, check=False)
