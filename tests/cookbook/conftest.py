"""What the tests of several pages use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cookbook.pages import Page
from tests.cookbook.postgres import postgres, postgres_folder

__all__ = ["anyio_backend", "page", "postgres", "postgres_folder"]


@pytest.fixture
def page() -> Iterator[Callable[..., Page]]:
    """Reads pages."""
    before = set(sys.modules)
    yield Page
    for name in set(sys.modules) - before:
        if name.startswith("cookbook_"):
            del sys.modules[name]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Real time, on asyncio unless the test says otherwise."""
    wanted = request.node.get_closest_marker("backend")
    return wanted.args[0] if wanted else "asyncio"
