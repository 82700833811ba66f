"""Write docs/updates.md: an update with a conflict, as the real recipes print it.

    .venv/bin/python scripts/template/make_updates.py

The text of the page is in updates.md.in, in this folder. The lines `$ command` in its blocks are run in order, in a new
project created from a new upstream, and their output is inserted. Measured times are replaced.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a script has its own folder on the path
    sys.path.insert(0, str(ROOT))

from tests.scripts.upstream import Upstream, edit  # noqa: E402  (found by the line above)

PAGE = ROOT / "docs" / "updates.md"
SOURCE = Path(__file__).with_name("updates.md.in")
COMMAND = re.compile(r"(?m)^\$ (.*)\n")


def play(folder: Path) -> str:
    """Run all commands of the page; return the page with their output."""
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
    """Return *text* without anything that differs between runs."""
    text = re.sub(r"(?m)^scripts/just: .*\n", "", text)
    return re.sub(r"after \d+\.\d s", "after # s", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        PAGE.write_text(play(Path(made)))
