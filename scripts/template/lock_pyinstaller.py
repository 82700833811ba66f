"""`just lock-pyinstaller`: lock the packages that freeze Python for `just build-binary`, with hashes.

The lock is part of the framework, and reaches projects by updates. Versions must be at least 7 days old, or AGE=n.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))

from lock import pins, read_age, read_project, resolve
from recipe import ROOT, run
from staging import Change

WANTED = "pyinstaller>=6.16,<7"
LOCK = "scripts/kernel/pyinstaller.lock"
HEAD = "# Made by `just lock-pyinstaller` from"


def lock(words: Mapping[str, str]) -> None:
    """Resolve for every platform and Python that the project supports, with the newest versions."""
    python = read_project()["project"]["requires-python"]
    with tempfile.TemporaryDirectory() as folder:
        asked = f"[project]\nname = 'x'\nversion = '0'\nrequires-python = '{python}'\ndependencies = ['{WANTED}']\n"
        Path(folder, "pyproject.toml").write_text(f"{asked}[dependency-groups]\n")
        made = resolve(Path(folder), "", ["--upgrade", "--no-annotate"], read_age(words["AGE"]))
    with Change("just lock-pyinstaller") as change:
        text = f"{HEAD} {WANTED}.\n{made.partition(chr(10))[2]}"
        change.put(LOCK, text.encode())
        change.make(f"{LOCK} was recreated.")
    print(len(pins((ROOT / LOCK).read_text())), "packages in", LOCK)


if __name__ == "__main__":
    run("lock-pyinstaller", "just lock-pyinstaller AGE=7", lock, "AGE")
