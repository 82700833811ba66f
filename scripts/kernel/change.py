"""Complete a change of several files that staging.py has prepared, even if the process was killed half-way.

New files are first written to `.kernel/change`. Then the journal, a list of moves, is written in one step. From then on
the change only goes forward: each move is one rename or one unlink, and does nothing if it was made already. So a kill
leaves one of two states: no journal, and the folder is deleted; or a journal, and the remaining moves are made.
scripts/just runs this file first if the folder exists. It needs only the standard library.

If somebody changes a file between the kill and the recovery, their version is set aside and reported, not overwritten.

A file of git itself, such as `.git/HEAD`, is replaced while holding git's lock for it, wherever git keeps it: the
project may be a second worktree, or a folder of a larger repository. If an update was killed, the journal of an older
version is completed by the newer one. So moves keep their meaning forever, and this file needs no other file, which
may not be in place yet.

A journal may also come from somebody else, in an archive or a commit, so it is not trusted. A path must lead into the
project, through folders and not links. Of git's files, only those that an update changes are allowed; if they are
outside of the project, the journal's seal must be in git's folder, where no archive or commit can put it. A `.kernel`
folder that git tracks is not used at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GITS_PATIENCE = 50  # tenths of a second to wait until git releases its lock
ENDING_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


# In a hook, git sets these to tell child processes which repository and which index to use.
GITS_POINTERS = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES", "GIT_QUARANTINE_PATH"),
}


class Conflict(Exception):
    """A file cannot be put in its place, since something else is in the way. Nothing was changed."""


def inside(root: Path, path: str) -> Path:
    """Return the absolute path of *path* in the project at *root*.

    Raises:
        Conflict: It is not a plain relative path, or passes through something other than a folder of the project.

    """
    parts = path.split("/")
    if not all(parts) or {".", ".."}.intersection(parts) or "\0" in path:
        raise Conflict(f"{path!a} is not a path within the project")
    here = root
    for part in parts[:-1]:
        here /= part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            raise Conflict(f"{path} cannot be written, since {here.relative_to(root)} is not a folder")
    return here / parts[-1]


def place(root: Path, path: str) -> Path:
    """Return where *path* is: in the project at *root*, or in git's own folder, which may be elsewhere.

    Raises:
        Conflict: It is in neither, or is a file of git that no change may touch.

    """
    if not path.lower().startswith(".git/"):
        return inside(root, path)
    if not GITS.fullmatch(path):
        raise Conflict(f"{path!a} belongs to git, and no recipe changes it")
    own, common = git_folders(root)
    inner = path.removeprefix(".git/")
    return inside(own if inner in {"HEAD", "index"} else common, inner)


def is_gits(path: str) -> bool:
    """Return whether *path* is a file of git's own."""
    return path.startswith(".git/")


GITS = re.compile(r"\.git/(HEAD|index|packed-refs|(logs/)?refs/heads/[^\0]+)")
SEAL = "kernel-change"  # a file in git's folder that proves that a journal is ours


def git_folders(root: Path) -> tuple[Path, Path]:
    """Return git's folders: the one for this worktree, and the one shared by all worktrees.

    Raises:
        Conflict: The project at *root* is not in a repository.

    """
    for folder in (root, *root.parents):
        found = folder / ".git"
        if found.is_dir():
            return found, found
        if found.is_file():
            own = folder / found.read_text().removeprefix("gitdir:").strip()
            shared = own / "commondir"
            return own, own / shared.read_text().strip() if shared.is_file() else own
    raise Conflict(f"{root} is not in a git repository")


def write(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def seal(journal: bytes) -> bytes:
    """Return what tells this journal from a stranger's."""
    return hashlib.sha256(journal).hexdigest().encode()


def take_turn(root: Path) -> int:
    """Wait until no other process changes the project. The returned descriptor is the lock."""
    turn = os.open(home(root) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another recipe is changing files; waiting for it")
        fcntl.flock(turn, fcntl.LOCK_EX)
    except OSError:
        pass  # the file system has no locks, so concurrent recipes are not detected
    return turn


def recover(root: Path) -> None:
    """Complete or undo a change that was killed, and report that. The caller must hold the lock."""
    for left in [*home(root).glob("new-*"), *home(root).glob("old-*")]:
        shutil.rmtree(left, ignore_errors=True)  # preparation or remains of a change; nothing needs it any more
    folder = home(root) / "change"
    if not folder.is_dir():
        return
    if folder.is_symlink():
        raise Conflict(f"{folder} is a link, which no recipe creates; delete it")
    what = ascii((folder / "what").read_text(errors="replace"))[1:-1]
    if (folder / "journal").exists():
        with no_signals():
            done = finish(root, folder)
        say(f"`{what}` had been interrupted, and was completed now: {done}")
    else:
        throw_away(folder)
        say(f"`{what}` had been interrupted before it changed anything, and was undone.")


def fingerprint(path: Path) -> str | None:
    """Return a hash of kind, mode and content of a file; None if it does not exist."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    if not path.is_file():
        return None
    kind = "program" if os.access(path, os.X_OK) else "file"
    return f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def say(text: str) -> None:
    """Print to stderr, since stdout belongs to the recipe."""
    print(f"scripts/just: {text}", file=sys.stderr)


@functools.cache
def home(root: Path) -> Path:
    """Return the framework's own folder, which git ignores and only its owner can access.

    Raises:
        Conflict: It is not a folder, or it is part of a commit, so that nobody knows who made its contents.

    """
    home = root / ".kernel"
    with contextlib.suppress(FileExistsError):
        home.mkdir(0o700)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Conflict(f"{home} is not a folder, but the framework needs a folder with that name")
    if tracked := _tracked(root):
        raise Conflict(
            f"git tracks {tracked}, so the author of that commit could make recipes do anything; look at what it"
            " contains, remove it by `git rm -r --cached .kernel`, and delete .kernel"
        )
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        home.chmod(0o700)
    ignore = home / ".gitignore"
    if not ignore.exists() and not ignore.is_symlink():
        ignore.write_text("*\n")
    return home


def _tracked(root: Path) -> str:
    """Return a path in `.kernel` that git tracks; empty if there is none, or no git."""
    env = {name: value for name, value in os.environ.items() if name not in GITS_POINTERS}
    command = ["git", "ls-files", "-z", "--", ".kernel"]
    try:
        told = subprocess.run(command, cwd=root, env=env, capture_output=True, check=False).stdout
    except OSError:
        return ""
    return os.fsdecode(told).partition("\0")[0]


def _read(root: Path, folder: Path) -> tuple[list[tuple[str, str, Any]], str]:
    """Return the moves of a journal, and the result to report when they are made.

    Raises:
        Conflict: No recipe has written it.

    """
    content = (folder / "journal").read_bytes()
    try:
        journal = json.loads(content)
        moves, done = [(str(kind), str(path), was) for kind, path, was in journal["moves"]], str(journal["done"])
    except (ValueError, TypeError, LookupError):
        raise Conflict(f"{folder.relative_to(root)}/journal is damaged; delete that folder") from None
    for move in moves:
        _refuse_strange(root, folder, *move)
    if any(is_gits(path) for _, path, _ in moves) and not (root / ".git").is_dir():
        sealed = git_folders(root)[0] / SEAL
        if not sealed.is_file() or sealed.read_bytes() != seal(content):
            raise Conflict(f"{folder.relative_to(root)}/journal was not written by this project; delete that folder")
    return moves, done


def _refuse_strange(root: Path, folder: Path, kind: str, path: str, was: Any) -> None:
    """Raise `Conflict` for a move that no recipe makes, or that would now lead out of the project."""
    where = folder.relative_to(root).as_posix()
    if kind not in {"put", "remove", "folder", "away"} or not isinstance(was, str | None):
        raise Conflict(f"{where}/journal contains {kind!a}, which no recipe writes")
    files = [path]
    if kind == "put":
        files.append(f"{where}/files/{path}")
    elif kind == "folder":
        new, _, keep = (was or "").partition(":")
        files += [keep, f"{where}/{new}"]
    elif kind == "away":
        files.append(was or "")
    for file in files:
        place(root, file)


def finish(root: Path, folder: Path) -> str:
    """Make the remaining moves, end the change, and return its result."""
    moves, done = _read(root, folder)
    for kind, path, was in moves:
        _refuse_strange(root, folder, kind, path, was)  # checked again, since an earlier move may have created a link
        if kind == "put":
            _put(root, folder / "files" / path, path, was)
        elif kind == "remove":
            _remove(root, path, was)
        elif kind == "away":
            _replace_folder(None, root / path, root / was)
        else:
            new, _, keep = was.partition(":")
            _replace_folder(folder / new, root / path, root / keep)
    throw_away(folder)
    with contextlib.suppress(Conflict):
        (git_folders(root)[0] / SEAL).unlink(missing_ok=True)
    return done


def _put(root: Path, staged: Path, path: str, was: str | None) -> None:
    target, gits = place(root, path), is_gits(path)
    lock = target.with_name(f"{target.name}.lock")
    if not os.path.lexists(staged):  # done already
        if gits and _is_same(lock, target):
            lock.unlink()
        return
    if gits:
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_gits_lock(lock, staged)
    _set_aside_unless(root, path, {was, fingerprint(staged)})
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(target)
    if gits:
        lock.unlink()


def _take_gits_lock(lock: Path, staged: Path) -> None:
    """Create git's *lock* as a hard link to the *staged* file, so that a recovery recognizes it as ours.

    Raises:
        OSError: git does not release it.

    """
    for _ in range(GITS_PATIENCE):
        with contextlib.suppress(FileExistsError):
            os.link(staged, lock)
        if _is_same(lock, staged):
            return
        time.sleep(0.1)
    raise OSError(f"git is running in this project, or was killed: {lock} exists")


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return one.samefile(other)
    return False


def _remove(root: Path, path: str, was: str | None) -> None:
    _set_aside_unless(root, path, {was})
    place(root, path).unlink(missing_ok=True)
    if is_gits(path):
        return  # an empty folder is significant there
    for folder in Path(path).parents[:-2]:  # top-level folders stay, since tools are configured with them
        if (root / folder).is_dir():
            if {entry.name for entry in (root / folder).iterdir()} - {"__pycache__"}:
                break
            shutil.rmtree(root / folder)  # it contains bytecode of removed files


def _replace_folder(new: Path | None, target: Path, keep: Path) -> None:
    if new is not None and not new.exists():
        return  # done already
    if os.path.lexists(target):
        keep.parent.mkdir(parents=True, exist_ok=True)
        target.rename(_free(keep))
    if new is not None:
        new.rename(target)


def _set_aside_unless(root: Path, path: str, known: Collection[str | None]) -> None:
    """Set a file aside that somebody else changed after the change was prepared."""
    target = place(root, path)
    if fingerprint(target) in {None, *known}:
        return
    aside = _free(inside(root, f".kernel/set-aside/{path}"))
    aside.parent.mkdir(parents=True, exist_ok=True)
    target.rename(aside)
    say(f"{path} was changed in the meantime; your version is now {aside.relative_to(root)}")


def _free(path: Path) -> Path:
    """Return *path*, or a similar path that does not exist."""
    return path.with_name(f"{path.name}.{time.time_ns()}") if os.path.lexists(path) else path


def throw_away(folder: Path) -> None:
    """End a change in one step. If killed, the next recipe deletes the rest of its folder."""
    old = folder.with_name(f"old-{time.time_ns()}")
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def no_signals() -> Iterator[None]:
    """Delay the signals that would end the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if __name__ == "__main__":
    try:
        take_turn(ROOT)
        recover(ROOT)
    except (OSError, Conflict) as error:
        say(f"an interrupted change cannot be completed: {error}; fix that, or delete .kernel/change to discard it.")
        sys.exit(2)
