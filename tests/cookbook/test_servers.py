"""The pages on servers other than HTTP by ASGI, and on times of the day."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import anyio
import grpc
import httpx
import pytest

from kernel import Serving, service
from kernel.testing import RunFailed, State, backend_options, running
from tests.conformance.program import App
from tests.cookbook.pages import ENOUGH, PAGES, Page, code_of, until
from tests.ports import free_port

BACKENDS = [("asyncio", backend_options("asyncio")), ("trio", backend_options("trio"))]
"""In virtual time."""


# -- aiohttp ---------------------------------------------------------------------------------------------------------


def prices(value: Any) -> Any:
    """A service that hands over prices."""

    @service
    async def prices(serving: Serving[Any]) -> None:
        async with serving(value):
            await anyio.sleep_forever()

    return prices


@pytest.mark.anyio
async def test_aiohttp(page: Callable[..., Page]) -> None:
    """It answers; a request in flight is answered while what it uses is still there; then nobody listens."""
    read, port = page("aiohttp", PORT=0), free_port()
    environ, url = {"API_PORT": str(port)}, f"http://127.0.0.1:{port}/prices/tea"
    begun, may_end = anyio.Event(), anyio.Event()
    given = prices({"tea": 3})

    async def slow(request: Any) -> Any:
        begun.set()
        await may_end.wait()
        assert run.states(given)[-1] is State.READY
        return await read.price(request)

    async def ask() -> None:
        answers.append((await client.get(f"{url}/slowly", timeout=ENOUGH)).json())

    answers: list[Any] = []
    made = read.make_app

    def make_app(given: Any) -> Any:
        app = made(given)
        app.router.add_get("/prices/{name}/slowly", slow)
        return app

    read.names["make_app"] = make_app
    async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
        async with running(given, read.api, environ=environ) as run:
            assert (await client.get(url)).json() == {"price": 3}
            tasks.start_soon(ask)
            await begun.wait()
            run.stop()
            await until(lambda: run.states(read.api)[-1] is State.STOPPING)
            may_end.set()
        with anyio.fail_after(ENOUGH):
            while not answers:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    assert answers == [{"price": 3}]


@pytest.mark.anyio
async def test_aiohttp_naive(page: Callable[..., Page]) -> None:
    """It answers when it has ended, and its next attempt fails by that."""
    port = free_port()
    read = page("aiohttp", PORT=port)
    made: list[Any] = []
    runner = read.web.AppRunner

    def noted(*words: Any) -> Any:
        made.append(runner(*words))
        return made[-1]

    web = types.SimpleNamespace(**{**vars(read.web), "AppRunner": noted})
    read.naive.fn.__globals__["web"] = web
    async with httpx.AsyncClient() as client:
        async with running(read.naive):
            with anyio.fail_after(ENOUGH):
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        await client.get(f"http://127.0.0.1:{port}/prices/tea")
                        break
        assert (await client.get(f"http://127.0.0.1:{port}/prices/tea")).json() == {"price": 3}
        with pytest.raises(RunFailed, match="address already in use"):
            async with running(read.naive):
                await anyio.sleep(ENOUGH)
    for one in made:
        await one.cleanup()


# -- gRPC ------------------------------------------------------------------------------------------------------------

SHELF = """
class Shelf:
    async def price(self, name: str) -> int:
        if name == "slow":
            await anyio.Path("begun").touch()
            while not await anyio.Path("go").exists():
                await anyio.sleep(0.01)
        return {"tea": 3, "slow": 7}[name]

@service
async def shelf(serving: Serving[Shelf]) -> None:
    async with serving(Shelf()):
        await anyio.sleep_forever()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[App]:
    """An app with prices by gRPC."""
    app = App(tmp_path / "tree")
    app.service("shelf", SHELF)
    app.write("services/prices.py", code_of("grpc")["services/prices.py"])
    proto = re.search(r"^```proto\n// (\S+)\n(.*?)^```", (PAGES / "grpc.md").read_text(), re.MULTILINE | re.DOTALL)
    command = re.search(r"^\.venv/bin/python (-m grpc_tools.*)$", (PAGES / "grpc.md").read_text(), re.MULTILINE)
    assert proto
    assert command
    app.write(proto[1], proto[2])
    subprocess.run([sys.executable, *command[1].split()], cwd=app.root, check=True)
    yield app
    app.close()


@contextlib.contextmanager
def caller(port: int) -> Iterator[Any]:
    """Calls `Get`, by messages as they are on the wire."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary("/prices.Prices/Get", request_serializer=bytes, response_deserializer=bytes)


def item(name: str) -> bytes:
    """The message `Item`."""
    return bytes((10, len(name))) + name.encode()


def until_there(path: Path) -> None:
    """Wait for a file."""
    end = time.monotonic() + ENOUGH
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_grpc(shop: App) -> None:
    """It answers; a call in flight is answered when a stop was requested; a port that is taken is an error."""
    port = free_port()
    env = {"PRICES_ADDRESS": f"127.0.0.1:{port}", "RUNNER_SHUTDOWNTIMEOUT": "10s"}
    run = shop.run(**env)
    run.wait_for("all ready")
    with caller(port) as get:
        assert get(item("tea"), timeout=ENOUGH) == bytes((8, 3))
        with pytest.raises(grpc.RpcError, match="UNKNOWN"):
            get(item("coffee"), timeout=ENOUGH)
        second = shop.run(**env).result()
        assert second.code == 1
        assert second.said(f"prices.*bind.*{port}")
        slow = get.future(item("slow"), timeout=ENOUGH)
        until_there(shop.root / "begun")
        run.send(signal.SIGTERM)
        run.wait_for('"stopping"')
        (shop.root / "go").touch()
        assert slow.result() == bytes((8, 7))
    assert run.result().code == 0


def test_grpc_naive(shop: App) -> None:
    """Its calls in flight are lost, and two can have one port."""
    port = free_port()
    naive = code_of("grpc")["naive"].replace("ADDRESS", f'"127.0.0.1:{port}"')
    shop.write("services/naive.py", naive)
    runs = [shop.run("naive", "--with-dependencies", RUNNER_SHUTDOWNTIMEOUT="10s") for _ in range(2)]
    for run in runs:
        run.wait_for("all ready")
    with caller(port) as get:
        slow = get.future(item("slow"), timeout=ENOUGH, wait_for_ready=True)  # it is ready before it listens
        until_there(shop.root / "begun")
        results = [run.stop() for run in runs]
        (shop.root / "go").touch()
        with pytest.raises(grpc.RpcError):
            slow.result()
    assert not any(result.said("address already in use") for result in results)


# -- times of the day ------------------------------------------------------------------------------------------------

EVENING = datetime(2026, 3, 28, 19, tzinfo=UTC).timestamp()
"""Eight in the evening in Berlin, where the clock is put forward in this night."""


def with_clock(read: Page, seconds: float = 20) -> list[str]:
    """Let the page's clock go with the virtual one, and its report take *seconds*; return when reports are made."""
    begun, made = anyio.current_time(), []

    def now() -> float:
        return EVENING + anyio.current_time() - begun

    class Now(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Now:
            return cls.fromtimestamp(now(), tz)

    async def report(_: datetime) -> None:
        made.append(datetime.fromtimestamp(now(), UTC).strftime("%d %H:%M:%S"))
        await anyio.sleep(seconds)
        made.append("done")

    read.names.update(datetime=Now, time=types.SimpleNamespace(time=now), report=report)
    return made


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_cron(page: Callable[..., Page], anyio_backend: Any) -> None:
    """At half past four of Berlin, whatever its clock does; a report that was begun is finished, and no other."""
    read = page("cron")
    made = with_clock(read)
    async with running(read.reports, environ={"REPORTS_AT": "30 4 * * *"}, shutdown_timeout=60) as run:
        await anyio.sleep(7.5 * 3600 + 24 * 3600 + 10)
        assert made == ["29 02:30:00", "done", "30 02:30:00"]
        before = anyio.current_time()
        run.stop()
        await run.wait_for(read.reports, State.STOPPED)
        assert 9 <= anyio.current_time() - before <= 11
    assert made[-1] == "done"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_cron_skips_what_it_has_overslept(page: Callable[..., Page], anyio_backend: Any) -> None:
    """Each minute, while a report takes one: every second moment."""
    read = page("cron")
    made = with_clock(read, 60)
    async with running(read.reports, environ={"REPORTS_AT": "* * * * *"}):
        await anyio.sleep(270)
    assert [one for one in made if one != "done"] == ["28 19:01:00", "28 19:03:00"]


@pytest.mark.anyio
async def test_cron_with_a_wrong_expression(page: Callable[..., Page]) -> None:
    """It is refused before anything starts, with the variable."""
    with pytest.raises(Exception, match="REPORTS_AT"):
        async with running(page("cron").reports, environ={"REPORTS_AT": "61 4 * * *"}):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_cron_naive(page: Callable[..., Page], anyio_backend: Any) -> None:
    """It is an hour late in that night, and a stop cancels its report."""
    read = page("cron")
    made = with_clock(read)
    async with running(read.naive):
        await anyio.sleep(8.5 * 3600 + 10)
    assert made == ["29 03:30:00"]
