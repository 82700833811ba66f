"""The framework's scripts, imported into the tests as those of a small project: its folder is the root for all of them.

A call is much faster than a recipe in a clone, since it starts nothing but git.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.scripts.projects import REPO

LEFT_OUT = shutil.ignore_patterns("dotenv", "*.just", "*.lock")


class Imported:
    """A small project.

    Args:
        root: Its folder, which has the scripts of the framework and nothing else.

    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "scripts" / "kernel"
        self._modules: dict[str, Any] = {}
        shutil.copytree(REPO / "scripts" / "kernel", self._folder, ignore=LEFT_OUT)
        self._scripts = {*self._folder.iterdir()}

    def load(self, name: str) -> Any:
        """Import a script; what it imports is this project's as well, and the same for all that are loaded."""
        names = {path.stem for path in self._folder.glob("*.py")}
        others = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
        sys.modules.update(self._modules)
        before = [*sys.path]
        sys.path.insert(0, str(self._folder))
        try:
            return importlib.import_module(name)
        finally:
            sys.path[:] = before
            self._modules = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
            sys.modules.update(others)

    def git(self, *words: str, root: Path | None = None) -> str:
        """Run git in it, which must succeed, and return its output."""
        done = subprocess.run(["git", *words], cwd=root or self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def init(self) -> str:
        """Make a repository of it, in which git ignores the scripts, and return its first commit."""
        self.git("init", "-q", "-b", "main")
        (self.root / ".git" / "info" / "exclude").write_text("/scripts/kernel/\n/.kernel/\n")
        return self.commit("Begin")

    def commit(self, message: str = "Work") -> str:
        """Commit all that there is, and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file in it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    @contextlib.contextmanager
    def around(self, *, ignored: bool = False) -> Iterator[Path]:
        """Put it into a larger repository, which is at its parent, for the block; yield the parent."""
        top = self.root.parent
        self.git("init", "-q", "-b", "trunk", root=top)
        try:
            (top / ".git" / "info" / "exclude").write_text(f"/{self.root.name}/\n" if ignored else ".kernel/\n")
            yield top
        finally:
            shutil.rmtree(top / ".git")

    def clear(self) -> None:
        """Remove everything but the scripts, and let them forget what was there."""
        if "change" in self._modules:
            self._modules["change"].home.cache_clear()
        kept = {self._folder.parent, self._folder, self._folder / "__pycache__", *self._scripts}
        for folder in (self.root, self._folder.parent, self._folder):
            for path in {*folder.iterdir()} - kept:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


@attrs.frozen
class Commit:
    """A commit to make.

    Args:
        files: The content of the files that it changes; None removes one. What begins with #! is executable.
        after: The places of its parents among the commits, from 0.
        ref: What points to it then.

    """

    files: Mapping[str, str | None]
    after: Sequence[int] = ()
    ref: str = "refs/heads/main"


def make_commits(folder: Path, *commits: Commit, refs: Mapping[str, int] | None = None) -> list[str]:
    """Make commits in the repository at *folder*, which is created if there is none, and return their ids.

    Args:
        folder: The folder.
        commits: What to make.
        refs: What else points to which of them, from 0.

    """
    folder.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    stream = b""
    for number, commit in enumerate(commits):
        ref = commit.ref if commit.after or not number else f"refs/begun/{number}"  # a branch would go on
        begin = f"commit {ref}\nmark :{number + 1}\ncommitter Eve <eve@example.com> {1700000000 + number} +0000\n"
        stream += f"{begin}data 8\nCommit {number}\n".encode()
        for place, parent in enumerate(commit.after):
            stream += f"{'merge' if place else 'from'} :{parent + 1}\n".encode()
        for path, text in commit.files.items():
            content = (text or "").encode()
            mode = 755 if content.startswith(b"#!") else 644
            stream += f"D {path}\n".encode() if text is None else f"M {mode} inline {path}\n".encode()
            stream += b"" if text is None else b"data %d\n%s\n" % (len(content), content)
        if ref != commit.ref:
            stream += f"reset {commit.ref}\nfrom :{number + 1}\n\n".encode()
    for ref, number in (refs or {}).items():
        stream += f"reset {ref}\nfrom :{number + 1}\n\n".encode()
    marks = folder / ".git" / "marks"
    words = ["git", "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(words, cwd=folder, input=stream, check=True)
    ids = dict(line.split() for line in marks.read_text().splitlines())
    return [ids[f":{number + 1}"] for number in range(len(commits))]
