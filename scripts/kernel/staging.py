"""Change several files atomically, even if the process is killed half-way.

    with Change("just own NAME=shop") as change:
        change.put("pyproject.toml", text)
        change.remove("services/example_api.py")
        change.make("shop is yours.")

change.py makes the moves, and explains how. It needs no other file, since it also completes changes that were killed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from change import (
    ROOT,
    SEAL,
    Conflict,
    fingerprint,
    finish,
    git_folders,
    home,
    is_gits,
    no_signals,
    place,
    recover,
    seal,
    take_turn,
    throw_away,
    write,
)


class Change:
    """One change. A project has at most one change in progress.

    Args:
        what: The command that makes the change, as shown to people.
        root: The project.

    Attributes:
        expected: The `fingerprint` of files by path, as they were when the change was planned. For a file that is not
            in here, the state in which it is put or removed is expected.
        folder: Where everything is prepared, on the project's file system.
        turn: The descriptor of the lock. A child that inherits it may outlive this process.

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
            throw_away(self.folder)
        os.close(self.turn)

    def put(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Put a file at *path*.

        Args:
            path: Within the project, with forward slashes.
            content: The content; or the path of a file or link to move there, which keeps its mode.
            mode: The mode, if *content* is bytes.

        Raises:
            Conflict: There is a folder at *path*, or a parent of *path* is not a folder.

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
        """Remove the file at *path*, and parent folders that become empty."""
        self._moves.append(("remove", path, self._was(path)))

    def replace_folder(self, path: str, new: Path, keep: str) -> None:
        """Replace the folder at *path* with *new*, which is in `folder`; move the old one to *keep*."""
        self._moves.append(("folder", path, f"{new.relative_to(self.folder)}:{keep}"))

    def take_away(self, path: str, keep: str) -> None:
        """Move the folder at *path* to *keep*."""
        self._moves.append(("away", path, keep))

    def make(self, done: str) -> None:
        """Make the change. Signals are delayed until it is complete.

        Args:
            done: The result, as shown to people; reported if another process has to complete the change.

        """
        journal = self.folder / "journal"
        written = self.folder / "journal.new"
        content = json.dumps({"what": self.what, "done": done, "moves": self._moves}).encode()
        write(written, content)
        if any(is_gits(path) for _, path, _ in self._moves) and not (self.root / ".git").is_dir():
            write(git_folders(self.root)[0] / SEAL, seal(content))
        with no_signals():
            written.rename(journal)
            finish(self.root, self.folder)

    def _was(self, path: str) -> str | None:
        return self.expected[path] if path in self.expected else fingerprint(place(self.root, path))

    def _refuse_conflict(self, path: str) -> None:
        target = place(self.root, path)
        if target.is_dir() and not target.is_symlink():
            raise Conflict(f"{path} cannot be written, since there is a folder with that name")
