"""Clones of this template, and projects made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.imported import Imported
from tests.scripts.projects import Machine, Project
from tests.shared import made_once


@pytest.fixture(scope="session")
def cloned_once(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone, to be copied."""
    folder = made_once(tmp_path_factory, "cloned", lambda folder: machine.clone(folder / "clone"))
    return Project(machine, folder / "clone")


@pytest.fixture
def project(cloned_once: Project, tmp_path: Path) -> Project:
    """A fresh clone."""
    return _copy(cloned_once, tmp_path / """it's "my" $project""")


@pytest.fixture(scope="session")
def owned_once(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone that `just own NAME=my-app` has made a project of; for tests that read it."""

    def own(folder: Path) -> None:
        done = machine.clone(folder / "my-app").just("own", "NAME=my-app")
        assert done.code == 0, done.err

    return Project(machine, made_once(tmp_path_factory, "owned", own) / "my-app")


@pytest.fixture
def owned(owned_once: Project, tmp_path: Path) -> Project:
    """The same, to do with as one likes."""
    return _copy(owned_once, tmp_path / "my-app")


@pytest.fixture(scope="session")
def imported_once(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """A small project whose scripts are imported, for all tests in turn."""
    return Imported(tmp_path_factory.mktemp("imported") / "it's my project")


@pytest.fixture
def imported(imported_once: Imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imported]:
    """The same, with nothing but the scripts; git knows the user, and no other setting."""
    (tmp_path / "gitconfig").write_text("[user]\nname = Ann Other\nemail = ann@example.com\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    yield imported_once
    imported_once.clear()


def _copy(project: Project, root: Path) -> Project:
    """A copy of the project, whose .venv is told that it belongs there: that spares making it anew."""
    shutil.copytree(project.root, root, symlinks=True)
    stamp = root / ".venv" / ".stamp"
    stamp.write_text(stamp.read_text().replace(str(project.root), str(root)))
    copy = Project(project.machine, root)
    assert copy.just("--version").code == 0
    return copy
