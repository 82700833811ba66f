"""`serve_asgi`, with real servers, sockets and clients, in real time."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import httpx
import pytest
import sniffio
import websockets
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from kernel import Serving, serve_asgi, service
from kernel.bricks import asgi
from kernel.errors import CannotListen, LifespanFailed, ServerMissing
from kernel.testing import RunFailed, State, running
from tests.certificates import openssl

pytestmark = pytest.mark.anyio

SERVERS = [("asyncio", "uvicorn"), ("asyncio", "hypercorn"), ("trio", "hypercorn")]
ENOUGH = 20.0  # seconds within which all that is waited for comes, also on a loaded machine


@pytest.fixture(params=SERVERS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend, and a server that runs on it."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend(pair: tuple[str, str]) -> str:
    """The backend, in real time: sockets know no other."""
    return pair[0]


@pytest.fixture
def server(pair: tuple[str, str]) -> str:
    """The server."""
    return pair[1]


@pytest.fixture
def port(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """Tells the port that the log names."""
    caplog.set_level(logging.INFO)

    def told() -> int:
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", caplog.text)
        assert found is not None, caplog.text
        return int(found[1])

    return told


def declare(app: Any, server: str, **options: Any) -> Any:
    """A service named `api` that serves *app* on a free port."""

    @service(stop_timeout=ENOUGH)
    async def api(serving: Serving[None]) -> None:
        await serve_asgi(app, port=0, serving=serving, server=server, **options)  # type: ignore[arg-type]

    return api


async def until(happened: Callable[[], bool]) -> None:
    """Wait until *happened*; the servers tell nobody."""
    with anyio.fail_after(ENOUGH):
        while not happened():  # noqa: ASYNC110
            await anyio.sleep(0.01)


class Gate:
    """Counts the requests that came in, and lets them go when it is told to."""

    def __init__(self) -> None:
        self.entered = 0
        self.open = anyio.Event()

    async def wait_for(self, number: int) -> None:
        """Wait until so many have come in."""
        await until(lambda: self.entered >= number)

    async def answer(self, _: Any) -> PlainTextResponse:
        self.entered += 1
        await self.open.wait()
        return PlainTextResponse("done")


async def ask(port: int, path: str = "/") -> bytes:
    """Send one request by a connection of its own, and read all that comes back."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = b""
        try:
            while True:
                got += await stream.receive()
                if got.endswith(b"done"):
                    return got
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return got


async def test_a_request_is_answered_and_the_address_is_told(server: str, port: Callable[[], int]) -> None:
    """The service is ready when it listens, and the log says where."""

    async def hello(_: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async with running(declare(Starlette(routes=[Route("/", hello)]), server)), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port()}/")).text == "hello"


@pytest.mark.minutes
async def test_a_thousand_requests_in_flight_over_a_stop(server: str, port: Callable[[], int]) -> None:
    """None of them is lost, not even those that no one has accepted yet."""
    gate = Gate()
    app = Starlette(routes=[Route("/", gate.answer)])
    answers: list[bytes] = []

    async def client() -> None:
        answers.append(await ask(port()))

    async with anyio.create_task_group() as clients:  # noqa: SIM117  (they outlive the run)
        async with running(declare(app, server), shutdown_timeout=ENOUGH) as run:
            for _ in range(500):
                clients.start_soon(client)
            await gate.wait_for(500)
            for _ in range(500):
                clients.start_soon(client)
            await gate.wait_for(501)
            run.stop()
            await gate.wait_for(1000)
            gate.open.set()
    assert len(answers) == 1000
    assert sum(one.endswith(b"done") for one in answers) == 1000
    assert run.states("api")[-1] is State.STOPPED


async def test_websockets_end_with_the_stop(server: str, port: Callable[[], int]) -> None:
    """They are told to come back (1012), and the app sees a client that is gone."""
    ended = anyio.Event()

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        try:
            async for text in socket.iter_text():
                await socket.send_text(text)
        finally:
            ended.set()

    app = Starlette(routes=[WebSocketRoute("/", echo)])
    async with running(declare(app, server), shutdown_timeout=ENOUGH) as run:
        code = await anyio.to_thread.run_sync(talk, port(), run.stop, anyio.from_thread.run_sync)
        with anyio.fail_after(ENOUGH):
            await ended.wait()
    assert code == 1012
    assert run.states("api")[-1] is State.STOPPED


def talk(port: int, stop: Callable[[], None], in_loop: Callable[..., Any]) -> int | None:
    """Say something, have the app stopped, and give the code by which the server closes."""
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        client.send("hello")
        assert client.recv() == "hello"
        in_loop(stop)
        with pytest.raises(websockets.ConnectionClosed):
            client.recv(timeout=ENOUGH)
        return client.close_code


async def test_an_endless_stream_ends_with_its_time_to_drain(
    server: str, port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """The app sees a client that is gone, the log says it once, and the service is stopped and has not failed."""
    ended, begun = anyio.Event(), anyio.Event()

    async def forever() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                begun.set()
                await anyio.sleep(0.01)
        finally:
            ended.set()

    async def stream(_: Any) -> StreamingResponse:
        return StreamingResponse(forever())

    app = Starlette(routes=[Route("/", stream)])
    got: list[bytes] = []

    async def client() -> None:
        got.append(await ask(port()))

    async with anyio.create_task_group() as clients:  # noqa: SIM117  (they outlive the run)
        async with running(declare(app, server, drain_timeout=0.3), shutdown_timeout=ENOUGH) as run:
            clients.start_soon(client)
            with anyio.fail_after(ENOUGH):
                await begun.wait()
    assert ended.is_set()
    assert b"tick" in got[0]
    assert caplog.text.count("requests were still in flight when the time to drain was over") == 1
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
    assert run.states("api")[-1] is State.STOPPED


async def test_what_is_in_flight_may_take_as_long_as_the_service_has(server: str, port: Callable[[], int]) -> None:
    """Without a drain_timeout the deadline of the shutdown is the limit, and the service still ends by itself."""
    gate = Gate()
    app = Starlette(routes=[Route("/", gate.answer)])
    async with anyio.create_task_group() as clients:
        async with running(declare(app, server), shutdown_timeout=1.0) as run:
            clients.start_soon(ask, port())
            await gate.wait_for(1)
        clients.cancel_scope.cancel()
    assert run.states("api")[-1] is State.STOPPED
    assert run.report.exit_code == 0


async def test_the_state_of_a_lifespan(server: str, port: Callable[[], int]) -> None:
    """FastAPI's lifespan state is there in each request, and its end comes after the last of them."""
    said: list[str] = []

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        said.append("up")
        yield {"pool": ["a connection"]}
        said.append("down")

    app = FastAPI(lifespan=life)

    @app.get("/")
    async def read(request: Request) -> Any:
        said.append("asked")
        return request.state.pool

    async with running(declare(app, server)), httpx.AsyncClient() as client:
        assert said == ["up"]
        assert (await client.get(f"http://127.0.0.1:{port()}/")).json() == ["a connection"]
    assert said == ["up", "asked", "down"]


async def test_a_lifespan_that_fails(server: str) -> None:
    """What it raises is the service's failure, as it is; the service was never ready."""

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    failing = declare(Starlette(lifespan=life), server)
    with pytest.raises(RunFailed) as caught:
        async with running(failing):
            pass
    assert type(caught.value.__cause__) is ConnectionError
    assert State.READY not in caught.value.run.states("api")


async def test_a_background_task_of_a_lifespan_that_crashes(server: str) -> None:
    """It is the crash of the service, which a server alone would not notice before its end."""

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crash)
            yield
            tasks.cancel_scope.cancel()

    async def crash() -> None:
        await anyio.sleep(0.05)
        raise RuntimeError("the consumer is gone")

    with pytest.raises(RunFailed) as caught:
        async with running(declare(Starlette(lifespan=life), server)):
            await anyio.sleep(ENOUGH)
    assert "the consumer is gone" in str(caught.value)


async def test_an_app_that_says_that_it_failed(server: str) -> None:
    """One that raises nothing fails with its message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(RunFailed) as caught:
        async with running(declare(app, server)):
            pass
    assert isinstance(caught.value.__cause__, LifespanFailed)
    assert "no disk" in str(caught.value)


async def test_an_app_without_lifespan(server: str, port: Callable[[], int]) -> None:
    """One that knows no such message, and raises, goes without."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(scope["type"])
        await PlainTextResponse("hello")(scope, receive, send)

    async with running(declare(app, server)), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port()}/")).text == "hello"


async def test_a_crash_in_a_request_is_one_answer(
    server: str, port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback, under the service's name, and the next request is answered."""
    crashes = [RuntimeError("first")]

    async def once(_: Any) -> PlainTextResponse:
        if crashes:
            raise crashes.pop()
        return PlainTextResponse("second")

    async with running(declare(Starlette(routes=[Route("/", once)]), server)), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port()}/")).status_code == 500
        assert (await client.get(f"http://127.0.0.1:{port()}/")).text == "second"
    assert any(record.exc_info and "first" in str(record.exc_info[1]) for record in caplog.records)


async def test_garbage_on_a_connection_is_its_own_end(server: str, port: Callable[[], int]) -> None:
    """Nonsense, a reset, and a client that says nothing: others are served."""

    async def hello(_: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async with running(declare(Starlette(routes=[Route("/", hello)]), server)), httpx.AsyncClient() as client:
        silent = socket.create_connection(("127.0.0.1", port()))
        for garbage in (
            b"\x16\x03\x01\x02\x00",
            b"GET\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
            b"\xff" * 70000,
        ):
            one = socket.create_connection(("127.0.0.1", port()))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await anyio.to_thread.run_sync(one.sendall, garbage)
            one.close()
        assert (await client.get(f"http://127.0.0.1:{port()}/")).text == "hello"
    silent.close()


@attrs.frozen
class Where:
    """Where to listen."""

    bind: str = "127.0.0.1"
    http_port: int = 0
    workers: int = 4


async def test_a_busy_port_names_its_variable(server: str) -> None:
    """One error: the address, the reason, and what to set; the field may have any name."""

    @service
    async def api(config: Where, serving: Serving[None]) -> None:
        await serve_asgi(Starlette(), config.bind, config.http_port, serving=serving, server=server)  # type: ignore[arg-type]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        with pytest.raises(RunFailed) as caught:
            async with running(api, environ={"API_HTTP_PORT": str(busy)}):
                pass
    assert isinstance(caught.value.__cause__, CannotListen)
    assert str(caught.value.__cause__) == (
        f"cannot listen on 127.0.0.1:{busy}: address already in use; free it, or set API_BIND or API_HTTP_PORT"
    )


@attrs.frozen
class Other:
    """Fields that may hold an address, and some that only look like it."""

    bind: str = "::1"
    http_port: int = 80
    admin_port: int = 90
    also: int = 7
    again: int = 7
    only: int = 5
    yes: bool = True
    share: float = 2.0
    found: int = attrs.field(default=81, init=False)


@pytest.mark.parametrize(
    ("config", "address", "told"),
    [
        (None, ("::1", 80), ""),
        (SimpleNamespace(bind="::1", http_port=80), ("::1", 80), ""),
        (Other(), ("::1", 80), "API_BIND or API_HTTP_PORT"),
        (Other(), ("::1", 6), "API_BIND"),
        (Other(), ("0.0.0.0", 90), "API_ADMIN_PORT"),  # noqa: S104
        (Other(admin_port=80), ("0.0.0.0", 80), "API_HTTP_PORT"),  # noqa: S104
        (Other(also=80, http_port=6), ("", 80), "API_ALSO"),
        (Other(), ("", 7), ""),
        (Other(), ("", 5), "API_ONLY"),
        (Other(), ("", 1), ""),
        (Other(), ("", 2), ""),
        (Other(), ("", 81), ""),
    ],
)
def test_what_to_do_about_an_address(config: object, address: tuple[str, int], told: str) -> None:
    """To set the variables of the fields that hold it; of several, the one that is named for it."""
    what = f"set {told}" if told else "listen on another port"
    assert asgi._hint("api", config, *address) == f"free it, or {what}"


@pytest.mark.parametrize(("host", "port"), [("no-such-host.invalid", 0), ("203.0.113.1", 0), ("127.0.0.1", 70000)])
async def test_an_address_that_cannot_be(host: str, port: int, server: str) -> None:
    """A name that is none, an address of somebody else, a number that is no port."""
    with pytest.raises(RunFailed) as caught:
        async with running(declare_at(host, port, server)):
            pass
    assert isinstance(caught.value.__cause__, CannotListen)
    assert f"{host}:{port}" in str(caught.value)


def declare_at(host: str, port: int, server: str) -> Any:
    """A service that serves there."""

    @service
    async def api(serving: Serving[None]) -> None:
        await serve_asgi(Starlette(), host, port, serving=serving, server=server)  # type: ignore[arg-type]

    return api


@pytest.mark.parametrize("host", ["localhost", "::", "::1"])
async def test_all_addresses_of_a_name(host: str, server: str, caplog: pytest.LogCaptureFixture) -> None:
    """A name is all its addresses, and `::` is IPv4 too."""
    caplog.set_level(logging.INFO)
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")

    async with running(declare_at(host, 0, server)), httpx.AsyncClient() as client:
        found = re.search(r":(\d+)(?: and|$)", caplog.messages[0])
        assert found is not None, caplog.messages
        where = "[::1]" if host == "::1" else "127.0.0.1"
        assert (await client.get(f"http://{where}:{found[1]}/")).status_code == 404


async def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install, and on trio that uvicorn is out of the question."""
    loop = sniffio.current_async_library()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RunFailed) as caught:
        async with running(declare(Starlette(), None)):  # type: ignore[arg-type]
            pass
    assert isinstance(caught.value.__cause__, ServerMissing)
    assert ("uvicorn" in str(caught.value)) is (loop == "asyncio")
    if loop == "trio":
        with pytest.raises(RunFailed, match="uvicorn does not run on trio"):
            async with running(declare(Starlette(), "uvicorn")):
                pass


async def test_the_service_is_drained_and_hands_over_its_value() -> None:
    """The work that it is given ends with its requests, not before."""
    given: list[Any] = []

    def serving(*args: Any, **options: Any) -> Any:
        given.append((args, options))
        raise LookupError

    wanted: Any = serving
    with pytest.raises(LookupError):
        await serve_asgi(Starlette(), serving=wanted, value="the value")
    assert given == [(("the value",), {"drain": True})]


async def test_options_reach_the_server(server: str, port: Callable[[], int]) -> None:
    """What is said to the server is the server's to obey; what it does not know is refused."""
    with pytest.raises(RunFailed, match="no_such_option"):
        async with running(declare(Starlette(), server, no_such_option=1)):
            pass
    option = {"root_path": "/behind"}

    async def tell(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.scope["root_path"])

    async with running(declare(Starlette(routes=[Route("/x", tell)]), server, **option)), httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port()}/x")
        assert "/behind" in answer.text or answer.status_code == 404


async def test_tls(server: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """By the options of the server; the log has the right scheme."""
    caplog.set_level(logging.INFO)
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost")
    openssl("req", "-x509", *kind, "-keyout", key, "-out", own)
    names = ("ssl_certfile", "ssl_keyfile") if server == "uvicorn" else ("certfile", "keyfile")
    options = dict(zip(names, map(str, (own, key)), strict=True))

    async with running(declare(Starlette(), server, **options)), httpx.AsyncClient(verify=False) as client:  # noqa: S501
        found = re.search(r"listening on (https://127\.0\.0\.1:\d+)", caplog.text)
        assert found is not None, caplog.text
        assert (await client.get(found[1])).status_code == 404


async def test_it_is_restarted_on_the_same_port(server: str) -> None:
    """After a crash of its lifespan it listens again where it did."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    crashed: list[bool] = []

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if not crashed:
                tasks.start_soon(crash)
            yield
            tasks.cancel_scope.cancel()

    async def crash() -> None:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 404
        crashed.append(True)
        raise RuntimeError("once")

    @service(retries=1)
    async def api(serving: Serving[None]) -> None:
        await serve_asgi(Starlette(lifespan=life), port=port, serving=serving, server=server)  # type: ignore[arg-type]

    async with running(api) as run, httpx.AsyncClient() as client:
        await until(lambda: run.states("api").count(State.READY) == 2)
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 404
