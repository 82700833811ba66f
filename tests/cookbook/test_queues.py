"""The pages on queues and messages, with a real Redis and a real NATS server."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import nats
import pytest
from arq import Worker, create_pool
from arq.connections import RedisSettings

from kernel import Serving, program, service, tcp
from kernel.testing import State, running
from tests.cookbook.pages import ENOUGH, Page, needs, until
from tests.ports import free_port

pytestmark = pytest.mark.anyio


class Job:
    """What a job does: it waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = 0, anyio.Event(), 0

    async def __call__(self, *_: Any) -> str:
        """Do it."""
        self.begun += 1
        await self.may_end.wait()
        self.ended += 1
        return "hello, world"

    def as_function(self) -> Any:
        """Return what arq takes: a coroutine function, whose name is that of its jobs."""

        async def greet(*words: Any) -> str:
            return await self(*words)

        greet.__qualname__ = "greet"
        return greet


def a_greeting() -> Any:
    """A service that hands over a greeting, and knows whether it was still there."""

    @service
    async def greeting(serving: Serving[str]) -> None:
        async with serving("hello"):
            await anyio.sleep_forever()

    return greeting


# arq closes its pool by a name that redis-py has deprecated.
arq_closes = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


# -- arq -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[str]:
    """The address of a Redis of the test's own."""
    port = free_port()
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    async with program(*command, ready=tcp(port)):
        yield f"redis://127.0.0.1:{port}"


async def enqueue(url: str, name: str, *words: str) -> None:
    """Put a job into the queue."""
    pool = await create_pool(RedisSettings.from_dsn(url))
    await pool.enqueue_job(name, *words)
    await pool.aclose()


@needs("redis-server")
@arq_closes
async def test_arq(page: Callable[..., Page], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs get what the service was given; one that was begun ends before what it uses."""
    caplog.set_level(logging.INFO)
    read, greeting = page("arq", URL=""), a_greeting()
    async with redis(tmp_path) as url:
        await enqueue(url, "greet", "world")
        async with running(greeting, read.jobs, environ={"JOBS_URL": url}):
            await until(lambda: "hello, world" in caplog.messages)
        job = Job()
        read.JOBS[:] = [job.as_function()]
        await enqueue(url, "greet", "again")
        async with running(greeting, read.jobs, environ={"JOBS_URL": url}) as run, anyio.create_task_group() as tasks:
            await until(lambda: job.begun == 1)
            run.stop()
            await until(lambda: run.states(read.jobs)[-1] is State.STOPPING)
            assert run.states(greeting)[-1] is State.READY
            tasks.start_soon(enqueue, url, "greet", "too late")
            job.may_end.set()
        assert (job.begun, job.ended) == (1, 1)


@needs("redis-server")
@arq_closes
async def test_arq_naive(page: Callable[..., Page], tmp_path: Path) -> None:
    """Its job is still there when the service is not."""
    async with redis(tmp_path) as url:
        naive = page("arq", URL=url).naive
        job = Job()
        made = []

        class Noted(Worker):
            def __init__(self, *words: Any, **options: Any) -> None:
                super().__init__(*words, **options)
                made.append(self)

        naive.fn.__globals__.update(greet=job.as_function(), Worker=Noted)
        await enqueue(url, "greet", "world")
        before = signal.getsignal(signal.SIGTERM)
        async with running(naive):
            await until(lambda: job.begun == 1)
            assert signal.getsignal(signal.SIGTERM) is not before
        job.may_end.set()
        await until(lambda: job.ended == 1)
        await made[0].close()


# -- FastStream ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def nats_server() -> AsyncIterator[str]:
    """The address of a NATS server of the test's own."""
    port = free_port()
    async with nats_on(port):
        yield f"nats://127.0.0.1:{port}"


def nats_on(port: int) -> Any:
    """A NATS server that listens on *port*."""
    nats_server = Path(sys.executable).with_name("nats-server")
    return program(nats_server, "--addr", "127.0.0.1", "--port", str(port), ready=tcp(port), stderr=logging.DEBUG)


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A client of it."""
    connection = await nats.connect(url)
    yield connection
    await connection.close()


async def test_faststream(page: Callable[..., Page], caplog: pytest.LogCaptureFixture) -> None:
    """Messages are answered; one that is in flight is, too, while what it uses is still there."""
    caplog.set_level(logging.INFO)
    read, greeting = page("faststream", URL=""), a_greeting()
    async with nats_server() as url, client(url) as connection:
        async with running(greeting, read.greeter, environ={"GREETER_URL": url}):
            answer = await connection.request("greet", b"world", timeout=ENOUGH)
            assert answer.data == b"hello, world"
        job = read.names["reply"] = Job()
        answers = []

        async def ask() -> None:
            answers.append(await connection.request("greet", b"world", timeout=ENOUGH))

        environ = {"GREETER_URL": url}
        async with anyio.create_task_group() as tasks, running(greeting, read.greeter, environ=environ) as run:
            tasks.start_soon(ask)
            await until(lambda: job.begun == 1)
            run.stop()
            await until(lambda: run.states(read.greeter)[-1] is State.STOPPING)
            assert run.states(greeting)[-1] is State.READY
            job.may_end.set()
        assert [one.data for one in answers] == [b"hello, world"]
    assert {record.name for record in caplog.records if "Received" in record.message} == {"cookbook_faststream"}


async def test_faststream_waits_for_nats(page: Callable[..., Page]) -> None:
    """While there is no server it is not ready, and tries again."""
    greeter, port = page("faststream", URL="").greeter, free_port()
    tried = anyio.Event()

    async def hang_up(client: anyio.abc.SocketStream) -> None:
        async with client:
            tried.set()

    async def later() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hang_up)
            await tried.wait()
            tasks.cancel_scope.cancel()
        async with nats_on(port):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        async with running(a_greeting(), greeter, environ={"GREETER_URL": f"nats://127.0.0.1:{port}"}):
            assert tried.is_set()
        tasks.cancel_scope.cancel()


async def test_faststream_naive(page: Callable[..., Page]) -> None:
    """It is ready although nothing is subscribed, and its message is still there when the service is not."""
    async with nats_server() as url, client(url) as connection:
        read = page("faststream", URL=url)
        job = read.names["reply"] = Job()
        async with running(read.naive) as run:
            assert run.states(read.naive)[-1] is State.READY
            with pytest.raises(nats.errors.NoRespondersError):
                await connection.request("greet", b"world", timeout=ENOUGH)
            with anyio.fail_after(ENOUGH):
                while not job.begun:
                    await connection.publish("greet", b"world")
                    await anyio.sleep(0.05)
        assert not job.ended
        job.may_end.set()
        await until(lambda: job.ended > 0)
