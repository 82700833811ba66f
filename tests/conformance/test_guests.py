"""Libraries that want the process's signals for themselves: both hear, and the app stops in order."""

from __future__ import annotations

import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conformance.program import PATIENCE, App, Process

DB = """
@service
async def db(serving: Serving[int]) -> None:
    async with serving(1):
        await anyio.sleep_forever()
    await anyio.sleep(0.05)
    log.info("pool closed")
"""

SERVER = '''
import asyncio, socket

async def app(scope, receive, send):
    """Answer after a while."""
    if scope["type"] != "http":
        return
    log.info("in flight")
    await asyncio.sleep(1.2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})

def listen() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    log.info("port %d", sock.getsockname()[1])
    return sock
'''

UVICORN = (
    SERVER
    + """
import uvicorn

@service(depends=["db"])
async def web(db: int, serving: Serving[None]) -> None:
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    async with serving(drain=True):
        await server.serve(sockets=[listen()])
    log.info("web closed")
"""
)

HYPERCORN = (
    SERVER
    + """
from hypercorn.asyncio import serve
from hypercorn.config import Config

@service(depends=["db"])
async def web(db: int, serving: Serving[None]) -> None:
    config = Config()
    config.bind = [f"fd://{listen().detach()}"]
    config.accesslog = config.errorlog = None
    async with serving(drain=True):
        await serve(app, config)
    log.info("web closed")
"""
)


def port_of(run: Process) -> int:
    """The port that the service tells."""
    run.wait_for(r"port \d+")
    return int(run.output.partition('"port ')[2].partition('"')[0])


@pytest.mark.parametrize("source", [UVICORN, HYPERCORN], ids=["uvicorn", "hypercorn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_with_a_request_in_flight(app: App, source: str, number: signal.Signals) -> None:
    """One signal, which the server handles too and may raise again: the request is answered, then the pool closes."""
    app.service("db", DB)
    app.service("web", source)
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="10s")
    run.wait_for("all ready")
    port = port_of(run)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.get, f"http://127.0.0.1:{port}/", timeout=PATIENCE)
        run.wait_for("in flight")
        run.send(number)
        assert answer.result().text == "answered"
    result = run.result()
    assert result.code == 0
    assert result.in_order("web closed", "pool closed")
    assert result.messages[-1] == f"exit 0: stopped by {number.name}"


def test_a_worker_of_arq(app: App) -> None:
    """It takes the loop's signal handlers for itself, and its jobs are cancelled; the kernel hears all the same."""
    app.service("db", DB)
    app.service(
        "jobs",
        """
        import arq
        from arq.connections import RedisSettings

        class Redis(arq.ArqRedis):
            '''Waits for jobs that never come: no server is needed to hear a signal.'''

        @service(depends=["db"])
        async def jobs(db: int, serving: Serving[None]) -> None:
            worker = arq.Worker(functions=[tick], redis_pool=Redis(), handle_signals=True)
            worker.main = anyio.sleep_forever
            async with serving():
                log.info("works")
                await worker.async_run()
            log.info("jobs closed")

        async def tick(ctx: Any) -> None: ...
        """,
    )
    result = app.run().stop(after="works")
    assert result.code == 0
    assert result.in_order("jobs closed", "pool closed")


GUESTS = {
    "open_signal_receiver": """
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            log.info("listens")
            async for number in signals:
                log.info("the library heard %d", number)
        """,
    "the loop's handler": """
        import asyncio
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: log.info("the library heard 15"))
        log.info("listens")
        await anyio.sleep_forever()
        """,
    "signal.signal": """
        signal.signal(signal.SIGTERM, lambda number, _: log.info("the library heard %d", number))
        log.info("listens")
        await anyio.sleep_forever()
        """,
    "the wake-up descriptor": """
        import socket
        here, there = socket.socketpair()
        there.setblocking(False)
        signal.set_wakeup_fd(there.fileno())
        log.info("listens")
        while not (number := await anyio.to_thread.run_sync(here.recv, 1, abandon_on_cancel=True)):
            pass
        log.info("the library heard %d", number[0])
        """,
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("guest", GUESTS)
def test_both_hear(app: App, guest: str, backend: str) -> None:
    """Whatever way a library has to hear of signals, it hears, and the kernel stops in order."""
    if backend == "trio" and guest == "the loop's handler":
        pytest.skip("trio has no such handlers")
    app.service("db", DB)
    app.service("guest", service(GUESTS[guest]))
    result = app.run(KERNEL_BACKEND=backend).stop(after="listens")
    assert result.code == 0
    assert result.said("the library heard 15")
    assert result.said("pool closed")
    assert result.messages[-1] == "exit 0: stopped by SIGTERM"


def service(work: str) -> str:
    """A service that does *work* until it is stopped, and then has something to close."""
    body = textwrap.indent(textwrap.dedent(work).strip(), " " * 4)
    return f"""
@service(depends=["db"])
async def guest(db: int, serving: Serving[None]) -> None:
    async with serving(drain=True) as work:
        work.start_soon(listens)
        await work.stop_requested()
        await anyio.sleep(0.3)
    log.info("guest closed")

async def listens() -> None:
{body}
"""


LEAVES = {
    "the loop's handler, removed": """
        import asyncio
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print)
        loop.remove_signal_handler(signal.SIGTERM)
        """,
    "the default disposition": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "no descriptor": "signal.set_wakeup_fd(-1)",
    "a handler, restored": """
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGTERM, before)
        """,
    "a handler that exits": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))",
    "a handler that raises": "signal.signal(signal.SIGTERM, lambda *_: 1 / 0)",
    "a receiver that is left": """
        with anyio.open_signal_receiver(signal.SIGTERM):
            pass
        """,
}


@pytest.mark.many
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("what", LEAVES)
def test_nobody_takes_a_signal_away(app: App, what: str, backend: str) -> None:
    """However a library leaves the process's signals, the next one stops the app in order."""
    if backend == "trio" and "loop" in what:
        pytest.skip("trio has no such handlers")
    app.service("db", DB)
    app.service("guest", service(f'{textwrap.dedent(LEAVES[what]).strip()}\nlog.info("left")'))
    result = app.run(KERNEL_BACKEND=backend).stop(after="left")
    assert result.code == 0, result.stderr
    assert result.in_order("guest closed", "pool closed")
    assert result.messages[-1] == "exit 0: stopped by SIGTERM"


AGAIN = {
    "raise_signal": "signal.raise_signal(signal.SIGTERM)",
    "os.kill": "os.kill(os.getpid(), signal.SIGTERM)",
    "another": "os.kill(os.getpid(), signal.SIGINT)",
    "its group": "os.killpg(os.getpgrp(), signal.SIGTERM)",
    "the default, then again": """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        """,
}


@pytest.mark.many
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", AGAIN)
def test_a_signal_that_is_raised_again(app: App, how: str, backend: str) -> None:
    """It is not a second one, however late it comes."""
    app.service("db", DB)
    again = textwrap.indent(textwrap.dedent(AGAIN[how]).strip(), " " * 4)
    app.service(
        "guest",
        f"""
@service(depends=["db"])
async def guest(db: int, serving: Serving[None]) -> None:
    async with serving(drain=True) as work:
        await work.stop_requested()
        await anyio.sleep(0.7)
    {again.strip()}
    await anyio.sleep(0.1)
    log.info("guest closed")
""",
    )
    run = app.open(("run",), {"KERNEL_BACKEND": backend, "RUNNER_SHUTDOWNTIMEOUT": "9s"}, start_new_session=True)
    result = run.stop()
    assert result.code == 0
    assert result.in_order("guest closed", "pool closed")
    assert not result.said("already")


TOGETHER = [
    (signal.SIGTERM, signal.SIGHUP),
    (signal.SIGHUP, signal.SIGTERM),
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
]


@pytest.mark.parametrize("numbers", TOGETHER, ids=lambda pair: "+".join(one.name for one in pair))
def test_two_that_come_together(app: App, numbers: tuple[signal.Signals, ...]) -> None:
    """With SendSIGHUP, systemd sends two, and so may a terminal and a parent: they are one."""
    app.service("db", DB.replace("0.05", "0.3"))
    run = app.run()
    run.wait_for("all ready")
    for number in numbers:
        run.send(number)
    result = run.result()
    assert result.code == 0
    assert result.said("pool closed")
