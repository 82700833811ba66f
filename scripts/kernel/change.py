"""A change to several files that is made as a whole, also where the process is killed in its midst.

    with Change("just own NAME=shop") as change:
        change.put("pyproject.toml", text)
        change.remove("services/example_api.py")
        change.make("shop is yours.")

What is new is written aside, in `.kernel/change`. Then comes the journal, in one step: the list of moves. From there on
there is only forward. Each move is one rename or one unlink, and does nothing where it was made already. So what a kill
leaves behind is one of two: no journal, and the folder is thrown away; or a journal, and the moves that are left are
made. scripts/just runs this file when it finds the folder, before anything else. It needs the standard library alone.

What somebody changed between the kill and that is not overwritten: it is set aside, and named.

A file of git's own, as `.git/HEAD`, is replaced under git's lock of it. A journal that an older version of this file
has written is finished by the newer one, where an update was killed: so its moves keep their meaning for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
GITS_PATIENCE = 50  # tenths of a second to wait for git to let go of its lock
ENDING_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Conflict(Exception):
    """A file cannot be put where it belongs, since something else is in the way; nothing was changed."""


class Change:
    """One change; at most one at a time is under way in a project.

    Args:
        what: The command that makes it, for people.
        root: The project.

    Attributes:
        expected: What `fingerprint` says of files as they were when the change was thought out, by path. What is not in
            here is taken as it is when it is put or removed.
        folder: Where everything is prepared; on the project's own file system.
        turn: The descriptor that says that somebody is at work. A child that holds it too may outlive this process.

    """

    def __init__(self, what: str, root: Path = ROOT) -> None:
        self.what = what
        self.root = root
        self.folder = home(root) / "change"
        self.expected: dict[str, str | None] = {}
        self.turn = -1
        self._moves: list[tuple[str, str, str | None]] = []

    def __enter__(self) -> Self:
        self.turn = take_turn(self.root)
        recover(self.root)
        begun = Path(tempfile.mkdtemp(prefix="new-", dir=home(self.root)))
        (begun / "what").write_text(self.what)
        (begun / "files").mkdir()
        begun.rename(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.is_dir() and not (self.folder / "journal").exists():
            _throw_away(self.folder)
        os.close(self.turn)

    def put(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """A file is to stand at *path*.

        Args:
            path: Within the project, with forward slashes.
            content: What is in it; or a file or link that is moved from there, with the mode that it has.
            mode: For what is given as bytes.

        Raises:
            Conflict: There is a folder at *path*, or no folder where one would have to be.

        """
        self._refuse_conflict(path)
        staged = self.folder / "files" / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.move(content, staged)
        else:
            staged.write_bytes(content)
            staged.chmod(mode)
        if not staged.is_symlink():
            with staged.open("rb") as file:
                os.fsync(file.fileno())
        self._moves.append(("put", path, self._was(path)))

    def remove(self, path: str) -> None:
        """The file at *path* is to go, and the folders above it that are empty then."""
        self._moves.append(("remove", path, self._was(path)))

    def replace_folder(self, path: str, new: Path, keep: str) -> None:
        """The folder at *path* is to be *new*, which lies within `folder`; what is there is kept at *keep*."""
        self._moves.append(("folder", path, f"{new.relative_to(self.folder)}:{keep}"))

    def make(self, done: str) -> None:
        """Makes the change. A signal waits until it is made.

        Args:
            done: What is then true, for people: it is told where somebody else has to finish it.

        """
        journal = self.folder / "journal"
        written = self.folder / "journal.new"
        with written.open("w") as file:
            json.dump({"what": self.what, "done": done, "moves": self._moves}, file)
            file.flush()
            os.fsync(file.fileno())
        with _no_signals():
            written.rename(journal)
            _finish(self.root, self.folder)

    def _was(self, path: str) -> str | None:
        return self.expected[path] if path in self.expected else fingerprint(self.root / path)

    def _refuse_conflict(self, path: str) -> None:
        target = self.root / path
        for parent in target.relative_to(self.root).parents:
            if (self.root / parent).is_symlink() or (
                (self.root / parent).exists() and not (self.root / parent).is_dir()
            ):
                raise Conflict(f"{path} cannot be written, since {parent} is no folder")
        if target.is_dir() and not target.is_symlink():
            raise Conflict(f"{path} cannot be written, since there is a folder of that name")


def take_turn(root: Path) -> int:
    """Waits until nobody else changes the project; the descriptor that is returned is the turn."""
    turn = os.open(home(root) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another recipe is changing files; waiting for it")
        fcntl.flock(turn, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system that cannot lock: then two at a time are not told apart
    return turn


def recover(root: Path) -> None:
    """Finishes the change that somebody was killed in, or undoes it, and says so. The caller has the turn."""
    for left in [*home(root).glob("new-*"), *home(root).glob("old-*")]:
        shutil.rmtree(left, ignore_errors=True)  # a beginning, or an end, of which nothing depends any more
    folder = home(root) / "change"
    if not folder.is_dir():
        return
    what = (folder / "what").read_text()
    if (folder / "journal").exists():
        with _no_signals():
            done = _finish(root, folder)
        say(f"`{what}` had been interrupted, and is finished now: {done}")
    else:
        _throw_away(folder)
        say(f"`{what}` had been interrupted before it changed anything; what it had begun is undone.")


def fingerprint(path: Path) -> str | None:
    """Kind, mode and content of a file; None where there is none."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    if not path.is_file():
        return None
    kind = "program" if os.access(path, os.X_OK) else "file"
    return f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def say(text: str) -> None:
    """Tells the user; stdout belongs to the recipe."""
    print(f"scripts/just: {text}", file=sys.stderr)


def home(root: Path) -> Path:
    """The framework's own folder, which git does not see."""
    home = root / ".kernel"
    if not (home / ".gitignore").exists():
        home.mkdir(exist_ok=True)
        (home / ".gitignore").write_text("*\n")
    return home


def _finish(root: Path, folder: Path) -> str:
    """Makes the moves that are left, ends the change, and returns what is true now."""
    journal = json.loads((folder / "journal").read_text())
    for kind, path, was in journal["moves"]:
        target = root / path
        if kind == "put":
            _put(root, folder / "files" / path, target, was)
        elif kind == "remove":
            _remove(root, target, was)
        else:
            new, _, keep = was.partition(":")
            _replace_folder(folder / new, target, root / keep)
    _throw_away(folder)
    return str(journal["done"])


def _put(root: Path, staged: Path, target: Path, was: str | None) -> None:
    lock = target.with_name(f"{target.name}.lock")
    is_gits = target.is_relative_to(root / ".git")
    if not os.path.lexists(staged):  # done already
        if is_gits and _is_same(lock, target):
            lock.unlink()
        return
    if is_gits:
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_gits_lock(lock, staged)
    _set_aside_unless(root, target, {was, fingerprint(staged)})
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(target)
    if is_gits:
        lock.unlink()


def _take_gits_lock(lock: Path, staged: Path) -> None:
    """Makes git's *lock* as a second name of the *staged* file: so who comes after a kill knows it for ours.

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


def _remove(root: Path, target: Path, was: str | None) -> None:
    _set_aside_unless(root, target, {was})
    target.unlink(missing_ok=True)
    if target.is_relative_to(root / ".git"):
        return  # there an empty folder has its meaning
    for folder in target.relative_to(root).parents[:-2]:  # those at the top stay: tools are told of them
        if (root / folder).is_dir():
            if {entry.name for entry in (root / folder).iterdir()} - {"__pycache__"}:
                break
            shutil.rmtree(root / folder)  # what is in it was compiled from what is gone


def _replace_folder(new: Path, target: Path, keep: Path) -> None:
    if not new.exists():
        return  # done already
    if target.exists():
        keep.parent.mkdir(parents=True, exist_ok=True)
        target.rename(_free(keep))
    new.rename(target)


def _set_aside_unless(root: Path, target: Path, known: Collection[str | None]) -> None:
    """Keeps a file that was changed by somebody else, after the change was prepared."""
    if fingerprint(target) in {None, *known}:
        return
    aside = _free(home(root) / "set-aside" / target.relative_to(root))
    aside.parent.mkdir(parents=True, exist_ok=True)
    target.rename(aside)
    say(f"{target.relative_to(root)} was changed in the meantime; your version of it is {aside.relative_to(root)}")


def _free(path: Path) -> Path:
    """The path, or one like it that is not taken."""
    return path.with_name(f"{path.name}.{time.time_ns()}") if os.path.lexists(path) else path


def _throw_away(folder: Path) -> None:
    """Ends a change in one step; what is left of its folder after a kill is thrown away by the next."""
    old = folder.with_name(f"old-{time.time_ns()}")
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _no_signals() -> Iterator[None]:
    """Holds back the signals that would end the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if __name__ == "__main__":
    try:
        take_turn(ROOT)
        recover(ROOT)
    except OSError as error:
        say(f"what had been interrupted cannot be finished: {error}; mend that, and run this again.")
        sys.exit(2)
