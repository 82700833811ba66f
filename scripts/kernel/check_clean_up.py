"""Checks for awaits in clean-up: what ruff's ASYNC set lacks, and flake8-async has, at a tenth of a second a file.

In a project of one's own, those files of the kernel are left out that are as they were shipped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from kernel_files import SHIPPED, as_shipped, digest
from recipe import ROOT

RULES = "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC120"


def files() -> Iterator[str]:
    """The files to look at."""
    known = as_shipped()[1] if (ROOT / SHIPPED).exists() else {}
    for folder in ("kernel", "app", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if file.name.startswith("."):  # an editor's lock, say, which is a link to nowhere
                continue
            if known.get(path) != digest(file.read_bytes()):
                yield path


if __name__ == "__main__":
    program = str(Path(sys.executable).with_name("flake8-async"))
    sys.exit(subprocess.run([program, "--anyio", f"--enable={RULES}", *files()], cwd=ROOT, check=False).returncode)
