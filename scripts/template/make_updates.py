"""Writes docs/updates.md: an update with a conflict, as the real recipes print it.

    .venv/bin/python scripts/template/make_updates.py

The page's own text is updates.md.in, beside this. Each line `$ command` in a block is run, one after the other, in a
project of its own, made from an upstream of its own; what it says is put below it. Measured times, which differ from
run to run, are replaced.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # as a script, it has its own folder there
    sys.path.insert(0, str(ROOT))

from tests.scripts.upstream import Upstream, edit  # noqa: E402  (found only now)

PAGE = ROOT / "docs" / "updates.md"
SOURCE = Path(__file__).with_name("updates.md.in")
COMMAND = re.compile(r"(?m)^\$ (.*)\n")


def play(folder: Path) -> str:
    """The page, as all commands in it say it now."""
    upstream = Upstream(folder / "machine")
    project = upstream.project(folder / "my-app")
    upstream.edit("kernel/lifecycle/clock.py", ("\n\n", "\n\n# A clock that is more precise\n"))
    upstream.release("0.2.0", "The clock is more precise.")
    upstream.edit("app/__main__.py", ('"""', '"""The app. '))
    upstream.git("mv", "kernel/moves.txt", "kernel/moved.txt")
    upstream.release("0.3.0", "The command says what it is.")
    edit(project.root / "app" / "__main__.py", ('"""', '"""Our app. '))
    edit(project.root / "kernel" / "moves.txt", ("line 20 of", "line 20, ours, of"))
    project.commit()

    def run(found: re.Match[str]) -> str:
        done = project.machine.call("sh", "-c", f"{found[1]} 2>&1", cwd=project.root)
        return f"{found.group()}{scrub(done.out)}"

    return COMMAND.sub(run, SOURCE.read_text())


def scrub(text: str) -> str:
    """What is said, without what differs from run to run."""
    text = re.sub(r"(?m)^scripts/just: .*\n", "", text)
    return re.sub(r"after \d+\.\d s", "after # s", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        PAGE.write_text(play(Path(made)))
