"""The pages of docs/cookbook: their code, as it stands there, with real servers; and the naive versions, which fail."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import time
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest

from kernel import Retry, Serving, program, service, tcp
from kernel.errors import ServerMissing
from kernel.testing import RunFailed, State, backend_options, running
from tests.conformance.program import App
from tests.cookbook.pages import ENOUGH, PAGES, Page, code_of, needs, until
from tests.ports import free_port


def test_the_list_is_whole() -> None:
    """README.md names every page, and no other."""
    named = set(re.findall(r"\(([\w-]+\.md)\)", (PAGES / "README.md").read_text()))
    assert named == {path.name for path in PAGES.glob("*.md")} - {"README.md"}


# -- HTTP ------------------------------------------------------------------------------------------------------------


def prices() -> Any:
    """A service that hands over prices."""

    @service
    async def prices(serving: Serving[dict[str, int]]) -> None:
        async with serving({"tea": 3}):
            await anyio.sleep_forever()

    return prices


@pytest.mark.anyio
async def test_fastapi(page: Callable[..., Page]) -> None:
    """It answers with what another service has handed over, and by its lifespan's state."""
    port = free_port()
    api = page("fastapi", PORT=0).api
    async with running(prices(), api, environ={"API_PORT": str(port)}), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/prices/tea")).json() == {"price": 3}


@pytest.mark.anyio
async def test_fastapi_naive(page: Callable[..., Page]) -> None:
    """It is ready although it can never listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        naive = page("fastapi", PORT=taken.getsockname()[1]).naive
        with pytest.raises(RunFailed) as caught:
            async with running(naive):
                await anyio.sleep(ENOUGH)
    assert State.READY in caught.value.run.states(naive)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_starlette_on_trio(page: Callable[..., Page], anyio_backend: str) -> None:
    """It answers on trio; uvicorn would not, and says so."""
    port = free_port()
    read = page("starlette-on-trio", PORT=port)
    async with running(read.api), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/?name=you")).text == "hello, you"
    with pytest.raises(RunFailed, match="uvicorn does not run on trio") as caught:
        async with running(read.naive):
            pass
    assert isinstance(caught.value.__cause__, ServerMissing)


@pytest.mark.anyio
async def test_httpx(page: Callable[..., Page]) -> None:
    """Five requests by one connection; the naive version takes five."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        read = page("httpx", URL=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with running(read.http_client, read.poller) as run:
            assert run.states(read.poller)[-1] is State.DONE
        assert connections == 1
        async with running(read.naive):
            pass
        assert connections == 6


# -- Redis -----------------------------------------------------------------------------------------------------------


async def client_of(port: int) -> Any:
    """A client of the Redis at *port*."""
    from redis.asyncio import Redis

    return Redis.from_url(f"redis://127.0.0.1:{port}/0", decode_responses=True)


def local_redis(port: int, folder: Path) -> Any:
    """A Redis of the test's own."""
    return program("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), ready=tcp(port))


@needs("redis-server")
@pytest.mark.anyio
async def test_redis(page: Callable[..., Page], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs are done; one that fails is kept aside; one whose worker has crashed is there for its successor."""
    caplog.set_level(logging.INFO)
    port = free_port()
    read = page("redis")
    environ = {"REDIS_POOL_URL": f"redis://127.0.0.1:{port}/0"}
    async with local_redis(port, tmp_path), await client_of(port) as client:
        await client.rpush("jobs", "first", "second")
        async with running(read.redis_pool, read.worker, environ=environ):
            await until(lambda: "job second" in caplog.messages)
        assert caplog.messages[-2:].count("job second") <= 1
        assert await client.lrange("busy", 0, -1) == []
        await client.rpush("jobs", "poison", "third")
        async with running(read.redis_pool, read.worker, environ=environ):
            await until(lambda: "job third" in caplog.messages)
        assert await client.lrange("failed", 0, -1) == ["poison"]
        assert "job poison has failed" in caplog.messages
        handle, read.names["handle"] = read.handle, _away
        await client.rpush("jobs", "fourth", "fifth")
        with pytest.raises(RunFailed, match="no route"):
            async with running(read.redis_pool, _once(read.worker), environ=environ):
                await anyio.sleep(ENOUGH)
        left = await client.lrange("busy", 0, -1) + await client.lrange("jobs", 0, -1)
        assert sorted(left) == ["fifth", "fourth"]
        read.names["handle"] = handle
        async with running(read.redis_pool, read.worker, environ=environ):
            await until(lambda: "job fifth" in caplog.messages)
        assert caplog.messages.index("job fourth") < caplog.messages.index("job fifth")
        assert await client.keys("*") == ["failed"]


@needs("redis-server")
@pytest.mark.anyio
async def test_redis_naive(page: Callable[..., Page], tmp_path: Path) -> None:
    """The job of a worker that crashed is gone."""
    port = free_port()
    read = page("redis")
    environ = {"REDIS_POOL_URL": f"redis://127.0.0.1:{port}/0"}
    async with local_redis(port, tmp_path), await client_of(port) as client:
        await client.rpush("jobs", "poison")
        with pytest.raises(RunFailed, match="poison"):
            async with running(read.redis_pool, read.naive, environ=environ):
                await anyio.sleep(ENOUGH)
        assert await client.keys("*") == []


async def _away(_: str) -> None:
    """Fail as a job does whose database is away."""
    raise OSError("no route")


def _once(worker: Any) -> Any:
    """The service without its retries."""
    return attrs.evolve(worker, retry=Retry())


@needs("redis-server")
@pytest.mark.anyio
async def test_redis_away_is_waited_for(page: Callable[..., Page], tmp_path: Path) -> None:
    """The pool backs off until Redis is there, and the worker starts then."""
    port = free_port()
    read = page("redis")
    environ = {"REDIS_POOL_URL": f"redis://127.0.0.1:{port}/0"}

    async def later() -> None:
        await anyio.sleep(0.5)
        async with local_redis(port, tmp_path):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        async with running(read.redis_pool, read.worker, environ=environ) as run:
            assert State.BACKOFF in run.states(read.redis_pool)
        tasks.cancel_scope.cancel()


@needs("redis-server")
@pytest.mark.anyio
async def test_redis_on_a_laptop(page: Callable[..., Page], tmp_path: Path) -> None:
    """It runs beside the app, and ends with it."""
    port = free_port()
    local = page("redis-on-a-laptop", PORT=port).local_redis
    environ = {"LOCAL_REDIS_PORT": str(port), "LOCAL_REDIS_FOLDER": str(tmp_path / "redis")}
    async with running(local, environ=environ) as run:
        assert run.value(local) == f"redis://127.0.0.1:{port}/0"
        async with await client_of(port) as client:
            assert await client.ping()
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", port)


@needs("redis-server")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.anyio
async def test_redis_on_a_laptop_naive(page: Callable[..., Page], tmp_path: Path, monkeypatch: Any) -> None:
    """Redis goes on when the service has ended, and keeps the port."""
    monkeypatch.chdir(tmp_path)
    port = free_port()
    naive = page("redis-on-a-laptop", PORT=port).naive
    async with running(naive):
        with anyio.fail_after(ENOUGH):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await anyio.sleep(0.02)
    async with await client_of(port) as client:
        pid = (await client.info("server"))["process_id"]
    os.kill(pid, signal.SIGKILL)
    gc.collect()  # what asyncio leaves of it complains here, and in no other test


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", backend_options("asyncio")), ("trio", backend_options("trio"))])
async def test_periodic(page: Callable[..., Page], caplog: pytest.LogCaptureFixture, anyio_backend: Any) -> None:
    """An hour has 60 rounds, however long each takes; the naive version has 57 of them."""
    caplog.set_level(logging.INFO)
    rounds = 0

    async def clean(_: int) -> None:
        nonlocal rounds
        rounds += 1
        await anyio.sleep(3)

    read = page("periodic")
    read.names["clean"] = clean
    async with running(read.cleaner):
        await anyio.sleep(3599)
    assert rounds == 60
    rounds = 0
    async with running(read.naive):
        await anyio.sleep(3599)
    assert rounds == 58  # the 58th has just begun


async def beats(seconds: float) -> float:
    """The longest that the loop did not answer, in so much time."""
    worst, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic()
        await anyio.sleep(0.005)
        worst = max(worst, time.monotonic() - before)
    return worst


@pytest.mark.anyio
async def test_blocking_naive(page: Callable[..., Page]) -> None:
    """While it sleeps nothing else runs."""
    naive = page("blocking").naive
    async with running(naive) as run:
        assert await beats(0.5) >= 0.25
        run.stop()


def test_blocking(tmp_path: Path) -> None:
    """In the real program, whose modules a process can import: the loop is never blocked, and the stop is in time."""
    app = App(tmp_path / "tree")
    try:
        app.write("services/reports.py", '"""Reports."""\n' + code_of("blocking")["services/reports.py"])
        result = app.run(RUNNER_SHUTDOWNTIMEOUT="10s").stop()
    finally:
        app.close()
    assert result.code == 0
    assert not result.said("blocking the event loop")


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics(tmp_path: Path) -> None:
    """They are beside the kernel's own."""
    app, port = App(tmp_path / "tree"), free_port()
    try:
        app.write("services/shop.py", '"""A shop."""\n' + code_of("metrics")["services/shop.py"])
        run = app.run(ADMIN_ADDR=f"127.0.0.1:{port}")
        run.wait_for("all ready")
        text, end = "", time.monotonic() + ENOUGH
        while "shop_order_duration" not in text and time.monotonic() < end:  # recorded after it is ready
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ENOUGH) as answer:
                text = answer.read().decode()
        assert run.stop().code == 0
    finally:
        app.close()
    assert re.search(r'^shop_orders_total\{.*kind="tea".*\} 1', text, re.MULTILINE)
    assert "shop_order_duration_seconds_bucket" in text
    assert "kernel_service" in text


@pytest.mark.anyio
async def test_metrics_naive(page: Callable[..., Page]) -> None:
    """Its second attempt fails by the first."""
    pytest.importorskip("prometheus_client")
    naive = page("metrics", PORT=free_port()).naive
    crashing = attrs.evolve(naive, retry=Retry(times=1, delay=0))
    real, asleep = anyio.sleep_forever, []

    async def crash() -> None:
        asleep.append(1)
        raise ConnectionError("away")

    crashing.fn.__globals__["anyio"] = types.SimpleNamespace(sleep_forever=crash)
    with pytest.raises(RunFailed) as caught:
        async with running(crashing):
            await real()
    assert asleep == [1]
    assert type(caught.value.__cause__) in {ValueError, OSError}
