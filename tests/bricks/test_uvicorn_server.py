"""What is different from uvicorn itself, without sockets, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import uvicorn

from kernel.bricks import uvicorn_server as module
from kernel.bricks.clients import Complaints, Limits
from kernel.testing import backend_options

pytestmark = pytest.mark.anyio

LIMITS = Limits(10, 30.0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The only one that uvicorn knows, in virtual time."""
    return "asyncio", backend_options("asyncio")


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Do nothing, as an app."""


class Drain:
    """What the service says of its time."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.said: list[str] = []
        self.sockets: list[Any] = []
        self.stop = anyio.Event()
        self.work = SimpleNamespace(stop_requested=self.stop.wait)

    async def settle(self) -> None:
        self.said.append("settled")


class Server(module._Server):
    """A server without sockets; those that it would have say when they are closed."""

    def __init__(self, drain: Any) -> None:
        super().__init__(uvicorn.Config(nothing, log_config=None), drain, LIMITS, Complaints())
        self.servers = [SimpleNamespace(close=lambda: drain.said.append("closed"))]  # type: ignore[list-item]
        self.looks: list[float] = []
        self._clients.look = lambda: self.looks.append(anyio.current_time())  # type: ignore[method-assign]


# -- prepare -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "then"), [(logging.NOTSET, logging.WARNING), (logging.DEBUG, logging.DEBUG)])
def test_uvicorn_says_less_unless_it_was_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, level: int, then: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hints are for those who start it by hand; what is counted is not said a second time."""
    log = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(log, "filters", [])
    before = log.level
    try:
        log.setLevel(level)
        for _ in range(2):
            module.prepare(nothing, {}, LIMITS)
        assert log.level == then
        assert log.filters == [module._unsaid]
        log.warning("Invalid HTTP request received.")
        log.warning("something else")
        assert caplog.messages == ["something else"]
    finally:
        log.setLevel(before)


def test_options_come_before_ours() -> None:
    """And one that does not exist is an error."""
    with pytest.raises(TypeError, match="no_such"):
        module.prepare(nothing, {"no_such": 1}, LIMITS)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations of servers that do nothing, and what they did."""
    made: list[Any] = []

    class Nothing:
        def __init__(self, config: uvicorn.Config, *_: Any) -> None:
            made.append(config)

        async def serve(self, sockets: list[Any]) -> None:
            made.append(sockets)

        async def abandon(self) -> None:
            made.append("abandoned")

    monkeypatch.setattr(module, "_Server", Nothing)
    return made


async def test_how_it_is_configured(prepared: list[Any]) -> None:
    """Logs, lifespan and loop are ours; what the service says is kept."""
    drain: Any = Drain()
    drain.sockets = ("socket",)
    await module.prepare(nothing, {"root_path": "/x", "access_log": True}, LIMITS)(drain)
    config, sockets, abandoned = prepared
    assert (config.log_config, config.lifespan, config.loop, config.interface) == (None, "off", "none", "asgi3")
    assert (config.access_log, config.root_path) == (True, "/x")
    assert (sockets, abandoned) == (["socket"], "abandoned")


async def test_a_request_that_is_cancelled_is_no_error_once_all_is_over(prepared: list[Any]) -> None:
    """Before, it is: somebody else has cancelled it."""

    async def cancelled(_scope: Any, _receive: Any, _send: Any) -> None:
        raise asyncio.CancelledError

    drain: Any = Drain()
    serve = module.prepare(cancelled, {}, LIMITS)
    drain.sockets = []

    async def cancel_later() -> None:
        with pytest.raises(asyncio.CancelledError):
            await prepared[0].app({"type": "http"}, nothing, nothing)

    async def serving(server: Any, sockets: Any) -> None:
        await cancel_later()

    type_of: Any = module._Server
    type_of.serve = serving
    await serve(drain)
    await prepared[0].app({"type": "http"}, nothing, nothing)


# -- the life of a server ----------------------------------------------------------------------------------------


async def test_it_serves_until_a_stop_is_requested() -> None:
    """Once a second it looks after its clients; the stop is noticed at once."""
    drain: Any = Drain()
    server = Server(drain)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.main_loop)
        await anyio.sleep(2.5)
        drain.stop.set()
    assert anyio.current_time() - began == pytest.approx(2.5)
    assert [look - began for look in server.looks] == pytest.approx([1, 2, 2.5])


async def test_uvicorns_own_limit_of_requests_ends_it_too() -> None:
    """As its option says."""
    drain: Any = Drain()
    server = Server(drain)
    server.config.limit_max_requests = 5
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.main_loop)
        await anyio.sleep(1.5)
        server.server_state.total_requests = 5
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(0.5)


async def test_a_stop_with_nothing_in_flight() -> None:
    """What waits is accepted, and only then nothing more is."""
    drain: Any = Drain()
    began = anyio.current_time()
    await Server(drain).shutdown()
    assert drain.said == ["settled", "closed"]
    assert anyio.current_time() == began


async def test_connections_are_asked_to_end_until_none_is_left() -> None:
    """Again and again: some are not ready for it at first."""
    drain: Any = Drain()
    server = Server(drain)
    connections: Any = server.server_state.connections
    connections.update({"one", "another"})

    def part() -> None:
        drain.said.append("parts")
        if drain.said.count("parts") > 1:
            connections.pop()

    server._clients.part = part  # type: ignore[method-assign]
    began = anyio.current_time()
    await server.shutdown()
    assert drain.said == ["settled", "closed", "parts", "parts", "parts"]
    assert anyio.current_time() - began == pytest.approx(3 * module.STEP)


@pytest.mark.parametrize(("takes", "took", "said"), [(0.3, 0.3, 0), (5.0, 1.0, 1)])
async def test_a_stop_with_a_request_in_flight(
    takes: float, took: float, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the time to drain; what takes longer is told."""
    drain: Any = Drain(1.0)
    server = Server(drain)
    tasks = server.server_state.tasks
    task = asyncio.create_task(asyncio.sleep(takes))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    began = anyio.current_time()
    await server.shutdown()
    assert anyio.current_time() - began == pytest.approx(took, abs=0.01)
    assert len(caplog.messages) == said
    task.cancel()


async def test_who_is_abandoned() -> None:
    """Connections are closed; an app has 0.05 s to notice, is then cancelled, and has as long again to bear that."""
    drain: Any = Drain()
    server = Server(drain)
    ended: list[tuple[str, float]] = []
    began = anyio.current_time()

    async def app(name: str, seconds: float, deaf: float = 0.0) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(deaf)
            raise
        finally:
            ended.append((name, round(anyio.current_time() - began, 3)))

    apps = [asyncio.create_task(app(*args)) for args in (("quick", 0.02), ("slow", 9.0), ("deaf", 9.0, 0.2))]
    for task in apps:
        server.server_state.tasks.add(task)
        task.add_done_callback(server.server_state.tasks.discard)
    connection: Any = SimpleNamespace(abort=lambda: drain.said.append("aborted"))
    server.server_state.connections = {Connection(connection)}  # type: ignore[arg-type]
    server._clients.complaints.add("things")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.abandon()
    assert drain.said == ["closed", "aborted"]
    assert not server._clients.complaints._counts
    assert anyio.current_time() - began == pytest.approx(0.1)
    assert ended == [("quick", 0.02), ("slow", 0.05)]
    await asyncio.wait(apps)
    assert ended[2] == ("deaf", 0.25)


async def test_with_nobody_there_it_is_over_at_once() -> None:
    """There is nothing to wait for."""
    began = anyio.current_time()
    drain: Any = Drain()
    await Server(drain).abandon()
    assert anyio.current_time() == began


class Connection:
    """A connection that can only be aborted."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
