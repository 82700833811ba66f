"""The examples under the kernel: who starts when, who closes when, and what holds meanwhile."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from kernel.lifecycle.units import Unit
from services import example_database as database_module
from services import example_flaky as flaky_module
from services.example_api import ApiConfig, example_api
from services.example_catalog import example_catalog
from services.example_database import DatabaseConfig, example_database
from services.example_flaky import example_flaky
from services.example_migrator import example_migrator
from tests.examples.fakes import until
from tests.harness import Lab

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What uvicorn, which serves the API, runs on."""
    return "asyncio"


@asynccontextmanager
async def all_ready(lab: Lab, path: Path, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running services; the end of the block asks them to stop, and waits."""
    units = (
        Unit(example_api, ApiConfig(port=port)),
        Unit(example_catalog),
        Unit(example_migrator),
        Unit(example_flaky),
        Unit(example_database, DatabaseConfig(path)),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(lab.run, *units))
        await until(lambda: bool(lab.all_ready))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
        lab.orchestrator.request_stop("the test is over")


@pytest.fixture(autouse=True)
def _short_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure of the flaky service is enough to see who waits for it."""
    monkeypatch.setattr(flaky_module, "troubles", iter(["connection refused"]))


async def test_start_and_stop_follow_the_dependencies(
    lab: Lab, path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The API starts when both of its dependencies are ready, and has ended before the database begins to close."""
    caplog.set_level(logging.INFO)
    async with all_ready(lab, path, port) as client:
        assert (await client.post("/items", json={"name": "tea"})).status_code == 201
    assert lab.order("starting") == [
        "example-flaky",
        "example-database",
        "example-catalog",
        "example-migrator",
        "example-flaky",
        "example-api",
    ]
    assert lab.when("example-api", "stopped") <= lab.when("example-database", "stopping")
    assert lab.exit_code == 0
    assert caplog.messages[-1] == "closed 5 connections"
    assert [file.name for file in path.parent.iterdir()] == ["app.db"]


async def test_a_request_in_flight_keeps_the_database_open(lab: Lab, path: Path, port: int) -> None:
    """What the API drains still finds its pool."""
    answers: list[int] = []
    sent, rest = anyio.Event(), anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": "la'
        sent.set()
        await rest.wait()
        yield b'te"}'

    async def post() -> None:
        async with httpx.AsyncClient() as client:
            answers.append((await client.post(f"http://127.0.0.1:{port}/items", content=body())).status_code)

    async with all_ready(lab, path, port) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(post)
        await sent.wait()
        for _ in range(3):  # a server that answers these has read the first part of the other
            assert (await client.get("/items")).status_code == 200
        lab.orchestrator.request_stop("the test says so")
        await until(lambda: lab.path("example-api").endswith("ready stopping"))
        assert lab.path("example-database").endswith("ready")
        rest.set()
    assert answers == [201]
    assert items(path) == ["late"]
    assert lab.exit_code == 0


async def test_a_crash_of_the_database_restarts_the_api(
    lab: Lab, path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API is stopped before the pool closes, and serves again with the new one."""
    troubles = iter(["disk full"])
    crash = anyio.Event()

    async def optimize(_: object) -> None:
        await crash.wait()
        for trouble in troubles:
            raise OSError(trouble)
        await anyio.sleep_forever()

    monkeypatch.setattr(database_module, "optimize", optimize)
    async with all_ready(lab, path, port) as client:
        await client.post("/items", json={"name": "before"})
        crash.set()
        await until(lambda: lab.path("example-api").count("ready") == 2)
        await client.post("/items", json={"name": "after"})
    assert items(path) == ["before", "after"]
    assert "ready stopping backoff starting ready" in lab.path("example-database")
    assert "ready stopping waiting starting ready" in lab.path("example-api")
    assert lab.when("example-api", "waiting") <= lab.when("example-database", "backoff")
    assert lab.exit_code == 0


def items(path: Path) -> list[str]:
    """The names in the file."""
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT name FROM items ORDER BY id")]
    finally:
        connection.close()
