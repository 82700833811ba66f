"""Change several files as a whole, even if the process is killed half-way.

    with Change("just own NAME=shop") as change:
        change.put("pyproject.toml", text)
        change.remove("services/example_api.py")
        change.make("shop is yours.")

change.py makes the moves, and says how. It stands alone, since it also finishes what another process was killed in.
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
    """One change; a project has at most one change in progress.

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
            throw_away(self.folder)
        os.close(self.turn)

    def put(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Put a file at *path*.

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
        """Remove the file at *path*, and the folders above it that become empty."""
        self._moves.append(("remove", path, self._was(path)))

    def replace_folder(self, path: str, new: Path, keep: str) -> None:
        """Replace the folder at *path* by *new*, which is in `folder`; keep the old one at *keep*."""
        self._moves.append(("folder", path, f"{new.relative_to(self.folder)}:{keep}"))

    def take_away(self, path: str, keep: str) -> None:
        """Move the folder at *path* to *keep*."""
        self._moves.append(("away", path, keep))

    def make(self, done: str) -> None:
        """Make the change. A signal waits until it is made.

        Args:
            done: What is then true, for people: it is told where somebody else has to finish it.

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
            raise Conflict(f"{path} cannot be written, since there is a folder of that name")
