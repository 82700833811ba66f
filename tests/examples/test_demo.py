"""The demo as a user runs it: the eight examples in one real process."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.program import OURS, REPO, Process, Result
from tests.receiver import receiving


class Demo:
    """Starts the repository's program with variables of its own."""

    def __init__(self, path: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._env = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}
        self._env |= {"LOG_FORMAT": "json", "EXAMPLE_DATABASE_PATH": str(path), "EXAMPLE_API_PORT": str(port)}
        self._processes: list[Process] = []

    def start(self, *words: str, **env: str) -> Process:
        """Start `python -m app` with *words*."""
        process = Process([sys.executable, "-m", "app", *words], REPO, {**self._env, **env})
        self._processes.append(process)
        return process

    def call(self, *words: str) -> Result:
        """Run a command of the migrator to its end."""
        return self.start("example-migrator", *words).result()

    def close(self) -> None:
        """End what is left."""
        for process in self._processes:
            process.kill()


@pytest.fixture
def demo(path: Path, port: int) -> Iterator[Demo]:
    """The demo on a file and a port of the test's own."""
    demo = Demo(path, port)
    yield demo
    demo.close()


def items(path: Path) -> list[str]:
    """The names in the file, which stands alone after a calm end."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT name FROM items ORDER BY id")]
    finally:
        connection.close()


def test_the_demo_ends_by_itself(demo: Demo, path: Path) -> None:
    """It serves for about 15 seconds, until the crasher has spent its retries; the last line says why it ended."""
    run = demo.start("run", ENV="dev")
    run.wait_for("all ready")
    assert httpx.post(f"{demo.url}/items", json={"name": "tea"}).status_code == 201
    run.wait_for("this example crashes on purpose; retry 3 of 3")
    assert [item["name"] for item in httpx.get(f"{demo.url}/items").json()] == ["tea"]
    result = run.result()
    assert result.code == 1
    assert result.seconds > 14
    assert result.own_seconds < 18
    assert "example-crasher failed after 4 attempts" in result.messages[-1]
    assert "this example crashes on purpose" in result.messages[-1]
    assert result.in_order("example-api: stopped", "example-database: closed 5 connections")
    assert {name: result.ending(name) for name in sorted(SERVICES)} == SERVICES
    assert result.said("example-flaky: ConnectionError: still warming up; retry 2 of 3")
    assert items(path) == ["tea"]
    status = demo.call("status")
    assert (status.code, status.stdout.splitlines()[-1]) == (0, "0 pending")


SERVICES = {
    "example-api": "stopped",
    "example-catalog": "stopped",
    "example-crasher": "failed",
    "example-database": "stopped",
    "example-flaky": "stopped",
    "example-migrator": "done",
    "example-optional": "failed",
    "hello-world": "stopped",
}


def test_on_trio_the_api_says_that_it_needs_asyncio(demo: Demo) -> None:
    """One clear error, and not a traceback of some library."""
    result = demo.start("run", KERNEL_BACKEND="trio").result()
    assert result.code == 1
    assert "uvicorn does not run on trio; set KERNEL_BACKEND=asyncio" in result.messages[-1]


def test_a_signal_stops_it_in_order(demo: Demo, path: Path) -> None:
    """The API ends before the database closes, at once, and with exit code 0."""
    run = demo.start("run")
    run.wait_for("all ready")
    assert httpx.post(f"{demo.url}/items", json={"name": "tea"}).status_code == 201
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0, result.stderr
    assert result.own_seconds < 2
    assert result.in_order("example-api: stopped", "example-database: closed 5", "example-database: stopped")
    assert items(path) == ["tea"]


CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # trace and span of whoever sends the request


def test_a_request_is_one_trace(demo: Demo) -> None:
    """From the caller's span through the API to the catalog; a request without a caller begins a trace of its own."""
    names = ("example-api POST /items", "example-api example-catalog/add", "example-catalog example-catalog/add")
    with receiving() as collector:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces", "ADMIN_ADDR": "off"}
        run = demo.start("run", SERVICES_ENABLED="!example-crasher", **env)
        run.wait_for("all ready")
        headers = {"traceparent": "00-{}-{}-01".format(*CALLER)}
        with httpx.Client(base_url=demo.url) as client:  # one connection for all of them
            for name in ("tea", "milk"):
                assert client.post("/items", json={"name": name}, headers=headers).status_code == 201
            assert client.get("/items").status_code == 200
        run.send(signal.SIGTERM)
        assert run.result().code == 0
    requests, calls, served = (collector.named(name) for name in names)
    parents: list[tuple[bytes, bytes]] = [(bytes.fromhex(CALLER[0]), bytes.fromhex(CALLER[1]))] * 2
    for spans in (requests, calls, served):
        assert [span.parent for span in spans] == parents
        parents = [span.ids for span in spans]
    other = collector.one("example-api GET /items")
    assert other.parent is None
    assert other.ids[0] != parents[0][0]
    assert {span.resource["service.namespace"] for span in (*requests, *served, other)} == {"app"}
    assert not [span for span in collector.spans if span.label.endswith((" receive", " send"))]


def test_migrations_by_hand(demo: Demo, path: Path) -> None:
    """The commands start the database they need and nothing else, and print to stdout."""
    assert demo.call("up", "--steps", "1").stdout == "applied 1, create items\n"
    assert demo.call("up").stdout == "applied 2, index items by name\n"
    assert demo.call("down").stdout == "undid 2, index items by name\n"
    status = demo.call("status")
    assert [line.split()[0] for line in status.stdout.splitlines()] == ["1", "2", "1"]
    assert not status.said("example-api|hello-world")
    refused = demo.call("up", "--steps", "0")
    assert (refused.code, refused.stdout) == (1, "")
    assert "steps is 0; it must be at least 1" in refused.stderr
    assert items(path) == []


def test_wrong_values_are_reported_before_anything_starts(demo: Demo, path: Path) -> None:
    """All of them in one go, each with its variable; exit code 2, and no file is made."""
    result = demo.start("run", EXAMPLE_DATABASE_POOL_SIZE="0", EXAMPLE_API_PORT="http").result()
    assert result.code == 2
    for variable in ("EXAMPLE_DATABASE_POOL_SIZE", "EXAMPLE_API_PORT"):
        assert variable in result.stderr
    assert not path.exists()
