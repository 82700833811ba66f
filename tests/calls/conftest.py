"""A real NATS server, and apps that run beside each other in one process, each with a connection of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kernel.calls.wiring import Wiring, connect
from kernel.config.nats import read_nats
from kernel.declare.service import Service
from kernel.lifecycle.events import AllReady, Event
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.plan.registry import Registry
from tests.ports import free_port

PATIENCE = 30.0  # seconds


class Server:
    """A nats-server on a port that it keeps when it is started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port, self.folder, self.options = free_port(), folder, options
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        log = self.folder / f"log-{time.monotonic_ns()}"
        program = Path(sys.executable).with_name("nats-server")
        command = [str(program), "-a", "127.0.0.1", "-p", str(self.port), "-l", str(log), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while not (log.exists() and "Server is ready" in log.read_text()):
            assert time.monotonic() < until, "nats-server did not start"
            assert self.process.poll() is None, log.read_text() if log.exists() else "nats-server ended"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)  # it takes effect a little later

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture
def nats(_shared: Server) -> str:
    """The URL of a server that all tests share."""
    return _shared.url


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of the test's own, with these options."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(Server(tmp_path, *options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def anyio_backend() -> str:
    """A real server answers in real time, and its library runs on asyncio."""
    return "asyncio"


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"{request.node.name.translate(str.maketrans('[] .*>/', '_______'))}-{os.getpid()}".replace("=", "_")


class App:
    """One app among several in this process."""

    def __init__(self, services: tuple[Service[..., Any], ...], url: str, prefix: str, **options: Any) -> None:
        by_name = {service.name: service for service in services}
        registry = Registry(by_name, known=(), remote=True)
        settings, errors = read_nats({"NATS_URL": url, "NATS_PREFIX": prefix, **options.pop("environ", {})})
        assert not errors, errors
        timeout = options.pop("shutdown_timeout", 10.0)
        self.wiring: Wiring = connect(registry.units({}), app="app", version="1.2.3", nats=settings, **options)
        self.events: list[Event] = []
        self.ready = anyio.Event()
        self.report: Report | None = None
        self.orchestrator = Orchestrator(self.wiring.units, shutdown_timeout=timeout, observers=[self._observe])

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, AllReady):
            self.ready.set()

    async def run(self) -> None:
        self.report = await self.orchestrator.run()
        self.ready.set()

    def stop(self) -> None:
        self.orchestrator.request_stop("requested by the test")

    def value(self, service: str) -> Any:
        """What the consumers of *service* get here."""
        return self.orchestrator.supervisors[service].value


@contextlib.asynccontextmanager
async def apps(*made: App, wait: bool = True) -> AsyncIterator[None]:
    """Run *made* for as long as the block lasts, which begins when all of them are ready."""
    async with anyio.create_task_group() as tasks:
        for app in made:
            tasks.start_soon(app.run)
        try:
            if wait:
                with anyio.fail_after(PATIENCE):
                    for app in made:
                        await app.ready.wait()
            yield
        finally:
            for app in made:
                app.stop()


async def until(test: Callable[[], bool]) -> None:
    """Wait until *test* holds, of something that tells nobody when it does."""
    with anyio.fail_after(PATIENCE):
        while not test():  # noqa: ASYNC110
            await anyio.sleep(0.005)
