"""What no linter knows of a project: its name, its lock, and what is committed."""

from __future__ import annotations

import functools
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO
from tests.scripts.small import PROJECT, Small

sys.path.append(str(REPO / "scripts" / "kernel"))

import bootstrap
import check_project
import lock
from lock import header, read_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A project without problems."""
    project = Small(tmp_path / "my-app")
    file = project.write("scripts/requirements.lock", header(read_project(project.root)) + "steady==1.0\n")
    monkeypatch.setattr(check_project, "ROOT", project.root)
    monkeypatch.setattr(check_project, "LOCK", file)
    monkeypatch.setattr(check_project, "read_project", functools.partial(read_project, project.root))
    return project


def test_nothing_is_wrong(project: Small) -> None:
    """Whether it is in a repository or not."""
    assert [*check_project.problems()] == []
    project.write("uv.lock", "")
    subprocess.run(["git", "init", "-q", "--template="], cwd=project.root, check=True)
    assert [*check_project.problems()] == []


@pytest.mark.parametrize(
    "scripts", ["", 'other = "x:y"', 'my-app = "x:y", other = "x:y"'], ids=["none", "other", "two"]
)
def test_the_programs_name(project: Small, scripts: str) -> None:
    """It is the project's, and the only one."""
    project.write("pyproject.toml", PROJECT.replace('my-app = "app.__main__:main"', scripts))
    (problem,) = check_project.problems()
    assert problem.startswith("pyproject.toml: [project.scripts] contains [")
    assert problem.endswith("; it must be only my-app, the project's name.")


def test_the_lock(project: Small) -> None:
    """It is made of the dependencies as they are, and names no host."""
    project.write("pyproject.toml", PROJECT.replace("steady>=1", "steady>=2"))
    file = project.root / "scripts" / "requirements.lock"
    file.write_text(f"{file.read_text()}x @ https://example.com/x.whl\n")
    assert [*check_project.problems()] == [
        "scripts/requirements.lock: the dependencies in pyproject.toml have changed since; run `just lock`.",
        "scripts/requirements.lock: names a host (x @ https://example.com/x.whl); run `just lock`.",
    ]


def test_a_lock_of_uvs_is_not_committed(project: Small, capfd: pytest.CaptureFixture[str]) -> None:
    """It names hosts."""
    project.write("uv.lock", "")
    for words in ["init", "-q", "--template="], ["add", "uv.lock"]:
        subprocess.run(["git", *words], cwd=project.root, check=True)
    assert [*check_project.problems()] == [
        "uv.lock: is tracked, and names registry hosts; run `git rm --cached uv.lock`."
    ]
    assert capfd.readouterr().out == ""


def test_the_check(project: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each problem, and exit code 2."""
    monkeypatch.setattr(bootstrap, "ROOT", project.root)
    monkeypatch.setattr(bootstrap, "LOCK", project.root / "scripts" / "requirements.lock")
    monkeypatch.setattr(lock, "read_project", functools.partial(read_project, project.root))
    for code in (0, 2):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPO / "scripts" / "kernel" / "check_project.py"), run_name="__main__")
        told = capsys.readouterr()
        assert (ended.value.code, told.out, told.err.count("\n")) == (code, "", int(code > 0))
        project.write("scripts/requirements.lock", "")
