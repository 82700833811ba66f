"""Which files are checked for awaits in clean-up."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO
from tests.scripts.small import Small

sys.path.append(str(REPO / "scripts" / "kernel"))

import check_clean_up
import kernel_files
import recipe

WAITS = "async def unsafe() -> None:\n    await anyio.sleep(1)\n"


@pytest.fixture
def project(tmp_path: Path) -> Small:
    """Files with and without what the rules look for."""
    project = Small(tmp_path / "my-app")
    for path in ("kernel/deep/changed.py", "kernel/shipped.py", "services/mine.py", "elsewhere/mine.py"):
        project.write(path, WAITS)
    project.write("kernel/plain.py", "x = 1\n")
    (project.root / "services" / ".#mine.py").symlink_to("nowhere")
    return project


def test_which_files_are_checked(project: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with such words; of the framework's files only those that are not as they were shipped."""
    monkeypatch.setattr(check_clean_up, "ROOT", project.root)
    monkeypatch.setattr(kernel_files, "ROOT", project.root)
    assert [*check_clean_up.files()] == ["kernel/deep/changed.py", "kernel/shipped.py", "services/mine.py"]
    shipped = {"kernel/shipped.py": WAITS, "kernel/deep/changed.py": "", "kernel/plain.py": "x = 2\n"}
    lines = [f"{kernel_files.digest(text.encode())}  {path}\n" for path, text in shipped.items()]
    project.write("scripts/kernel/shipped.txt", "".join(lines))
    assert [*check_clean_up.files()] == ["kernel/deep/changed.py", "services/mine.py"]


def test_the_check(project: Small, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Its exit code is that of flake8-async; where nothing has such words, nothing is run."""
    monkeypatch.setattr(recipe, "ROOT", project.root)
    monkeypatch.setattr(kernel_files, "ROOT", project.root)
    project.write("bin/flake8-async", '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n', 0o755)
    monkeypatch.setattr(sys, "executable", str(project.root / "bin" / "python"))
    script = str(REPO / "scripts" / "kernel" / "check_clean_up.py")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 3
    option, rules, *paths = capfd.readouterr().out.splitlines()
    assert (option, rules) == ("--anyio", "--enable=ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC120")
    assert paths == ["kernel/deep/changed.py", "kernel/shipped.py", "services/mine.py"]
    for path in paths:
        (project.root / path).unlink()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert (ended.value.code, capfd.readouterr().out) == (0, "")
