"""Finish a change to several files that staging.py has prepared, even if the process was killed half-way.

What is new is written aside, in `.kernel/change`. Then comes the journal, in one step: the list of moves. From there on
there is only forward. Each move is one rename or one unlink, and does nothing where it was made already. So what a kill
leaves behind is one of two: no journal, and the folder is thrown away; or a journal, and the moves that are left are
made. scripts/just runs this file when it finds the folder, before anything else. It needs the standard library alone.

What somebody changed between the kill and that is not overwritten: it is set aside, and named.

A file of git's own, as `.git/HEAD`, is replaced under git's lock of it, wherever git keeps it: the project may be a
second worktree, or a folder of a bigger repository. A journal that an older version of this file has written is
finished by the newer one, where an update was killed: so its moves keep their meaning for ever, and this file needs no
other one, which may not be in its place yet.

A journal may also come from somebody else, in an archive or in a commit. So it is read as a stranger's: a path leads
nowhere but into the project, through folders and no links, and of git's own files only to those that an update moves;
where these are outside of the project, git's own folder holds the journal's seal, which no stranger can put there. A
`.kernel` that git tracks is not used at all.
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
GITS_PATIENCE = 50  # tenths of a second to wait for git to let go of its lock
ENDING_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


# Within a hook, git tells its children by these which repository and which index they are to use.
GITS_POINTERS = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES", "GIT_QUARANTINE_PATH"),
}


class Conflict(Exception):
    """A file cannot be put where it belongs, since something else is in the way; nothing was changed."""


def inside(root: Path, path: str) -> Path:
    """Return the absolute path of *path* in the project at *root*.

    Raises:
        Conflict: It is no plain relative path, or leads through something that is no folder of the project's own.

    """
    parts = path.split("/")
    if not all(parts) or {".", ".."}.intersection(parts) or "\0" in path:
        raise Conflict(f"{path!a} is no path within the project")
    here = root
    for part in parts[:-1]:
        here /= part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            raise Conflict(f"{path} cannot be written, since {here.relative_to(root)} is no folder")
    return here / parts[-1]


def place(root: Path, path: str) -> Path:
    """Return where *path* is: in the project at *root*, or in git's own folder, which may be elsewhere.

    Raises:
        Conflict: It is in neither, or a file of git's that no change touches.

    """
    if not path.lower().startswith(".git/"):
        return inside(root, path)
    if not GITS.fullmatch(path):
        raise Conflict(f"{path!a} is git's, and no recipe touches it")
    own, common = git_folders(root)
    inner = path.removeprefix(".git/")
    return inside(own if inner in {"HEAD", "index"} else common, inner)


def is_gits(path: str) -> bool:
    """Return whether *path* is a file of git's own."""
    return path.startswith(".git/")


GITS = re.compile(r"\.git/(HEAD|index|packed-refs|(logs/)?refs/heads/[^\0]+)")
SEAL = "kernel-change"  # the file in git's folder that tells a journal of ours from a stranger's


def git_folders(root: Path) -> tuple[Path, Path]:
    """Return git's folders: that of this worktree, and that which all worktrees share.

    Raises:
        Conflict: The project at *root* is in no repository.

    """
    for folder in (root, *root.parents):
        found = folder / ".git"
        if found.is_dir():
            return found, found
        if found.is_file():
            own = folder / found.read_text().removeprefix("gitdir:").strip()
            shared = own / "commondir"
            return own, own / shared.read_text().strip() if shared.is_file() else own
    raise Conflict(f"{root} is in no repository of git's")


def write(path: Path, content: bytes) -> None:
    """Write a file, and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def seal(journal: bytes) -> bytes:
    """Return what tells this journal from a stranger's."""
    return hashlib.sha256(journal).hexdigest().encode()


def take_turn(root: Path) -> int:
    """Wait until nobody else changes the project; the descriptor that is returned is the turn."""
    turn = os.open(home(root) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another recipe is changing files; waiting for it")
        fcntl.flock(turn, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system that cannot lock: then two at a time are not told apart
    return turn


def recover(root: Path) -> None:
    """Finish the change that somebody was killed in, or undo it, and say so. The caller has the turn."""
    for left in [*home(root).glob("new-*"), *home(root).glob("old-*")]:
        shutil.rmtree(left, ignore_errors=True)  # a beginning, or an end, of which nothing depends any more
    folder = home(root) / "change"
    if not folder.is_dir():
        return
    if folder.is_symlink():
        raise Conflict(f"{folder} is a link, which no recipe makes; delete it")
    what = ascii((folder / "what").read_text(errors="replace"))[1:-1]
    if (folder / "journal").exists():
        with no_signals():
            done = finish(root, folder)
        say(f"`{what}` had been interrupted, and is finished now: {done}")
    else:
        throw_away(folder)
        say(f"`{what}` had been interrupted before it changed anything; what it had begun is undone.")


def fingerprint(path: Path) -> str | None:
    """Return kind, mode and content of a file; None if there is none."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    if not path.is_file():
        return None
    kind = "program" if os.access(path, os.X_OK) else "file"
    return f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def say(text: str) -> None:
    """Tell the user; stdout belongs to the recipe."""
    print(f"scripts/just: {text}", file=sys.stderr)


@functools.cache
def home(root: Path) -> Path:
    """The framework's own folder, which git does not see, and which is its owner's alone.

    Raises:
        Conflict: It is something else, or a part of a commit: then nobody knows who made what is in it.

    """
    home = root / ".kernel"
    with contextlib.suppress(FileExistsError):
        home.mkdir(0o700)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Conflict(f"{home} is no folder, but the framework's folder of that name would be there")
    if tracked := _tracked(root):
        raise Conflict(
            f"git tracks {tracked}, and whoever made that commit could let the recipes do anything; look at what it"
            " is, and take it out by `git rm -r --cached .kernel`, then delete .kernel"
        )
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        home.chmod(0o700)
    ignore = home / ".gitignore"
    if not ignore.exists() and not ignore.is_symlink():
        ignore.write_text("*\n")
    return home


def _tracked(root: Path) -> str:
    """A path in `.kernel` that git tracks; empty where there is none, or no git."""
    env = {name: value for name, value in os.environ.items() if name not in GITS_POINTERS}
    command = ["git", "ls-files", "-z", "--", ".kernel"]
    try:
        told = subprocess.run(command, cwd=root, env=env, capture_output=True, check=False).stdout
    except OSError:
        return ""
    return os.fsdecode(told).partition("\0")[0]


def _read(root: Path, folder: Path) -> tuple[list[tuple[str, str, Any]], str]:
    """The moves of a journal, and what is true when they are made.

    Raises:
        Conflict: It is none that a recipe has written.

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
            raise Conflict(f"{folder.relative_to(root)}/journal is not from here; delete that folder")
    return moves, done


def _refuse_strange(root: Path, folder: Path, kind: str, path: str, was: Any) -> None:
    """Raises `Conflict` for a move that no recipe makes, or that would lead out of the project as it is now."""
    where = folder.relative_to(root).as_posix()
    files: list[str] = []
    if kind == "folder":
        new, _, keep = str(was).partition(":")
        files += [path, keep, f"{where}/{new}"]
    elif kind == "away":
        files += [path, str(was)]
    elif kind == "put":
        files.append(f"{where}/files/{path}")
    elif kind != "remove":
        raise Conflict(f"{where}/journal says {kind!a}, which no recipe does")
    for file in files:
        inside(root, file)
    if kind in {"put", "remove"}:
        place(root, path)


def finish(root: Path, folder: Path) -> str:
    """Make the moves that are left, end the change, and return what is true now."""
    moves, done = _read(root, folder)
    for kind, path, was in moves:
        _refuse_strange(root, folder, kind, path, was)  # again: the move before may have made a link
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
    """Make git's *lock* as a second name of the *staged* file: so who comes after a kill knows it for ours.

    Raises:
        OSError: git does not let go of it.

    """
    for _ in range(GITS_PATIENCE):
        with contextlib.suppress(FileExistsError):
            os.link(staged, lock)
        if _is_same(lock, staged):
            return
        time.sleep(0.1)
    raise OSError(f"git is at work in this project, or was killed in it: there is {lock}")


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return one.samefile(other)
    return False


def _remove(root: Path, path: str, was: str | None) -> None:
    _set_aside_unless(root, path, {was})
    place(root, path).unlink(missing_ok=True)
    if is_gits(path):
        return  # there an empty folder has its meaning
    for folder in Path(path).parents[:-2]:  # those at the top stay: tools are told of them
        if (root / folder).is_dir():
            if {entry.name for entry in (root / folder).iterdir()} - {"__pycache__"}:
                break
            shutil.rmtree(root / folder)  # what is in it was compiled from what is gone


def _replace_folder(new: Path | None, target: Path, keep: Path) -> None:
    if new is not None and not new.exists():
        return  # done already
    if os.path.lexists(target):
        keep.parent.mkdir(parents=True, exist_ok=True)
        target.rename(_free(keep))
    if new is not None:
        new.rename(target)


def _set_aside_unless(root: Path, path: str, known: Collection[str | None]) -> None:
    """Keep a file that was changed by somebody else, after the change was prepared."""
    target = place(root, path)
    if fingerprint(target) in {None, *known}:
        return
    aside = _free(inside(root, f".kernel/set-aside/{path}"))
    aside.parent.mkdir(parents=True, exist_ok=True)
    target.rename(aside)
    say(f"{path} was changed in the meantime; your version of it is {aside.relative_to(root)}")


def _free(path: Path) -> Path:
    """Return the path, or a similar one that is free."""
    return path.with_name(f"{path.name}.{time.time_ns()}") if os.path.lexists(path) else path


def throw_away(folder: Path) -> None:
    """End a change in one step; what is left of its folder after a kill is thrown away by the next."""
    old = folder.with_name(f"old-{time.time_ns()}")
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def no_signals() -> Iterator[None]:
    """Hold back the signals that would end the process."""
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
        say(f"what had been interrupted cannot be finished: {error}; fix that, or delete .kernel/change to forget it.")
        sys.exit(2)
