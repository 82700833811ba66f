"""An upstream of four versions, made of this template, and a project that comes from the first of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.scripts.projects import KERNEL_TESTS, Machine, Project

LEFT_OUT = (*KERNEL_TESTS, "scripts/template/contestants/", "docs/f")
"""Files that are many, and the template's own: an update never looks at them."""

USERS = {
    "services/mine.py": '"""Mine."""\n',
    "kernel/mine.py": '"""Mine too, wherever it lies."""\n',
    "scripts/greet.py": 'print("hello from me")\n',
    "notes/a b\n\N{SNOWMAN}.txt": "an awkward name\n",
}
TESTS = '\n# The tests of this project are quick\ntest *args:\n    @echo "2 passed"; {}\n'

PYPROJECT = (
    ('select = ["ALL"]', 'select = ["E", "F"]  # mine: fewer'),
    ("[tool.pytest]", "[tool.mine]\nkept = [1, 2]  # mine\n\n[tool.pytest]"),
)
"""What the user has changed in pyproject.toml, before and after."""


class Upstream:
    """The upstream repository; `release` makes a version of it.

    Args:
        folder: Where to make it, and the machine that has it.

    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.machine = Machine(folder, without=LEFT_OUT)
        self.root = self.machine.upstream
        self.write("kernel/logo.bin", b"\0\1logo 1")
        self.write("kernel/letters.txt", "".join(f"{letter}\n" for letter in "abcdefghijklmnopqrstuvwxyz"))
        self.write("kernel/moves.txt", "".join(f"line {number} of what moves\n" for number in range(30)))
        self.write("kernel/goes.txt", "".join(f"line {number} of what goes\n" for number in range(9)))
        (self.root / "kernel" / "pointer").symlink_to("logo.bin")
        self.edit("CHANGELOG.md", ("## Unreleased\n", "## Unreleased\n\n## 0.1.0\n"))
        self.git("add", "-A")
        self.git("commit", "-qm", "More files")
        self.git("tag", "-f", "v0.1.0")

    def git(self, *words: str) -> str:
        """What git says in it."""
        done = self.machine.call("git", *words, cwd=self.root)
        assert done.code == 0, done.err
        return done.out

    def write(self, path: str, content: str | bytes) -> None:
        """Writes a file in it."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    def edit(self, path: str, *pairs: tuple[str, str]) -> None:
        """Replaces words in a file of it."""
        edit(self.root / path, *pairs)

    def release(self, version: str, news: str) -> None:
        """Tags all that has been done as a version."""
        text = (self.root / "CHANGELOG.md").read_text()
        text = text.replace("## Unreleased\n", f"## Unreleased\n\n## {version}\n\n- {news}\n", 1)
        self.write("CHANGELOG.md", text)
        self.write(
            "pyproject.toml",
            re.sub(r'(?m)^version = ".*"', f'version = "{version}"', self.read("pyproject.toml"), count=1),
        )
        self.git("add", "-A")
        self.git("commit", "-qm", f"Version {version}")
        self.git("tag", f"v{version}")

    def read(self, path: str, tag: str = "") -> str:
        """A file of it, or of one of its versions."""
        return self.git("show", f"{tag}:{path}") if tag else (self.root / path).read_text()

    def release_all(self) -> None:
        """Versions 0.2.0, 0.3.0 and 0.4.0."""
        self.edit("kernel/letters.txt", ("b\n", "b, as 0.2.0 has it\n"))
        self.write("kernel/added.txt", "new in 0.2.0\n")
        self.edit("pyproject.toml", ("line-length = 120", "line-length = 118"))
        self.release("0.2.0", "A better b.")
        self.git("mv", "kernel/moves.txt", "kernel/moved.txt")
        self.edit("kernel/moved.txt", ("line 3 of", "line 3, moved, of"))
        self.git("rm", "-q", "kernel/goes.txt")
        self.write("scripts/kernel/tool", "#!/bin/sh\n")
        (self.root / "scripts" / "kernel" / "tool").chmod(0o755)
        self.edit("pyproject.toml", ('    "COM812",', '    "COM819",   # new in 0.3.0\n    "COM812",'))
        self.release("0.3.0", "What moved has moved.")
        self.edit("kernel/letters.txt", ("z\n", "z, as 0.4.0 has it\n"))
        self.write("kernel/logo.bin", b"\0\1logo 4")
        (self.root / "kernel" / "pointer").unlink()
        (self.root / "kernel" / "pointer").symlink_to("letters.txt")
        self.write("scripts/kernel/wanted.py", "WANTED = 4\n")
        self.release("0.4.0", "A better z.")

    def project(self, folder: Path) -> Project:
        """A project of a user's own, made from what upstream is now."""
        project = self.machine.clone(folder)
        assert project.just("own", "NAME=my-app").code == 0
        for path, text in USERS.items():
            project.write(path, text)
        project.write("Justfile", (project.root / "Justfile").read_text() + TESTS.format("exit 0"))
        edit(project.root / "pyproject.toml", *PYPROJECT)
        project.commit()
        return project


def edit(file: Path, *pairs: tuple[str, str]) -> None:
    """Replaces words in a file, each of which must be there."""
    text = file.read_text()
    for old, new in pairs:
        assert old in text, (file, old)
        text = text.replace(old, new, 1)
    file.write_text(text)


def link(source: str, target: str) -> None:
    """A copy for those who never write into a file, but put another in its place: as git and the scripts do."""
    os.link(source, target, follow_symlinks=False)


def copy(project: Project, folder: Path, how: Callable[[str, str], object] = shutil.copy2) -> Project:
    """The same project, elsewhere."""
    shutil.copytree(project.root, folder, symlinks=True, copy_function=how)
    return Project(project.machine, folder)
