"""Projects of a few files, in which one script of the framework runs: they are made in a moment, without git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.scripts.projects import REPO, Done

PROJECT = """\
[project]
name = "my-app"
version = "1.2"
requires-python = ">=3.11"
dependencies = ["steady>=1"]
scripts = {my-app = "app.__main__:main"}

[dependency-groups]
dev = ["steady>=1", "tool"]
docs = []
"""


class Small:
    """A project with the framework's scripts, which are Python files, and what a test adds.

    Args:
        root: Its folder.

    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts" / "kernel").mkdir(parents=True)
        for path in (REPO / "scripts" / "kernel").glob("*.py"):
            shutil.copy(path, root / "scripts" / "kernel")
        self.write("pyproject.toml", PROJECT)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file in it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def run(self, script: str, *words: str, **env: str) -> Done:
        """Run a script of the framework's."""
        command = [sys.executable, f"scripts/kernel/{script}.py", *words]
        done = subprocess.run(
            command, cwd=self.root, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)
