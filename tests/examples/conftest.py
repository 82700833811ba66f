"""The examples run against real files, threads and sockets: on both backends, and in real time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from kernel.testing import BACKENDS
from services._pool import Pool, open_pool
from services.example_database import connect
from tests.ports import free_port


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend of an async test; unlike in the tests of the kernel, with its own clock."""
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is to be."""
    return tmp_path / "app.db"


@pytest.fixture
async def pool(path: Path) -> AsyncIterator[Pool]:
    """A pool on an empty file."""
    async with open_pool(partial(connect, path), 2) as pool:
        yield pool


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()
