"""Check for awaits in clean-up: what ruff's ASYNC set lacks, and flake8-async has, at a tenth of a second a file.

In a project of one's own, those files of the kernel are left out that are as they were shipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from kernel_files import SHIPPED, as_shipped, digest
from recipe import ROOT

# What the rules are about; a file that has none of it need not be read, and most have not.
SUBJECT = re.compile(rb"\b(async|await|yield|BaseException|Cancelled|CancelledError)\b|\bexcept\s*:")
RULES = "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC120"


def files() -> Iterator[str]:
    """Yield the files to look at."""
    known = as_shipped()[1] if (ROOT / SHIPPED).exists() else {}
    for folder in ("kernel", "app", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if file.name.startswith("."):  # an editor's lock, say, which is a link to nowhere
                continue
            content = file.read_bytes()
            if SUBJECT.search(content) and known.get(path) != digest(content):
                yield path


if __name__ == "__main__":
    program = str(Path(sys.executable).with_name("flake8-async"))
    paths = [*files()]
    command = [program, "--anyio", f"--enable={RULES}", *paths]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode if paths else 0)
