"""The real program, in a tree of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts import Artifact
from tests.conformance.program import App, NewApp


@pytest.fixture
def new_app(tmp_path: Path, artifact: Artifact | None) -> Iterator[NewApp]:
    """Makes trees, for a test that compares several."""
    numbers = itertools.count()
    made: list[App] = []

    def make() -> App:
        made.append(App(tmp_path / f"tree{next(numbers)}", artifact))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(new_app: NewApp) -> App:
    """One tree, or the artifact of one."""
    return new_app()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[App]:
    """One tree, whatever else is tested."""
    app = App(tmp_path / "tree")
    yield app
    app.close()
