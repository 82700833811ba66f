"""What the pages show passes the checks of a project that pastes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cookbook.pages import PAGES, code_of

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
CLEAN_UP = "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC120"  # as in `just check`


def said(folder: Path, *command: str) -> str:
    """What a check says; nothing if it is content."""
    done = subprocess.run(
        [str(PROGRAMS / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_pages_pass_just_check(tmp_path: Path) -> None:
    """Lint, format, and awaits in clean-up; types are checked where the packages are."""
    files: list[str] = []
    for page in sorted(PAGES.glob("*.md")):
        for path, code in code_of(page.stem).items():
            if path != "naive":
                first, _, rest = path.partition("/")
                file = tmp_path / first / page.stem.replace("-", "_") / rest
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code)
                files.append(str(file.relative_to(tmp_path)))
    assert len(files) > 20
    for ours in ("kernel/__init__.py", "services/_prices_pb2.py", "services/_prices_pb2_grpc.py"):
        (tmp_path / ours).parent.mkdir(exist_ok=True)
        (tmp_path / ours).touch()  # else it would be taken for a library's
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    lint = ("ruff", "check", "--no-cache", "--output-format=concise", "--ignore=F821")  # addresses are the reader's
    assert said(tmp_path, *lint, *files) == ""
    assert said(tmp_path, "ruff", "format", "--check", "--no-cache", *files) == ""
    assert said(tmp_path, "flake8-async", "--anyio", f"--enable={CLEAN_UP}", *files) == ""
