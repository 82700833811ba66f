"""What a call costs: within a process, compared with a plain await; over NATS, with a raw request and reply.

python -m contestants.calls local thin 100000
python -m contestants.calls remote kernel 64 32 5000     64 in flight, 32 bytes, 5,000 calls
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from statistics import median
from typing import Any, Protocol

import anyio
import attrs
from nats import connect as connect_raw

from kernel import Serving, interface, service
from kernel.calls.interface import interface_of
from kernel.calls.proxy import checked, thin
from kernel.calls.wiring import connect
from kernel.config.nats import read_nats
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.plan.registry import Registry
from kernel.testing.calls import server

Call = Callable[[], Awaitable[object]]


@attrs.frozen
class User:
    """A small record."""

    id: int
    name: str


@interface(timeout=30)
class Echo(Protocol):
    """The interface."""

    async def get(self, number: int) -> User: ...
    async def echo(self, text: str) -> str: ...


class Here:
    """Its implementation."""

    async def get(self, number: int) -> User:
        return User(number, "name")

    async def echo(self, text: str) -> str:
        return text


@service(concurrency=1000)
async def echo(serving: Serving[Echo]) -> None:
    async with serving(Here()):
        await anyio.sleep_forever()


async def local(kind: str, times: int) -> dict[str, float]:
    """Measure the microseconds of a call, the best of five series."""
    here, found = Here(), interface_of(Echo)
    assert found is not None
    made: dict[str, Any] = {"plain": here, "thin": thin(found, "echo", here), "checked": checked(found, "echo", here)}
    get = made[kind].get
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            await get(1)
        best = min(best, (time.perf_counter() - began) / times)
    return {"µs": best * 1e6}


async def remote(kind: str, in_flight: int, size: int, times: int) -> dict[str, float]:
    """Measure calls per second, and the median of their durations, with a provider in a separate process."""
    async with server() as url:
        command = [sys.executable, "-m", "contestants.calls", "serve", url]
        provider = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
        try:
            assert provider.stdout is not None
            await asyncio.to_thread(provider.stdout.readline)
            async with _raw(url, size) if kind == "raw" else _kernel(url, size) as call:
                await _series(call, in_flight, times // 5)
                return await _series(call, in_flight, times)
        finally:
            provider.kill()
            provider.wait()


async def _series(call: Call, in_flight: int, times: int) -> dict[str, float]:
    taken: list[float] = []
    numbers = iter(range(times))

    async def worker() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - began)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(asyncio.create_task(worker()) for _ in range(in_flight)))
    spent = time.perf_counter() - began
    return {
        "calls/s": times / spent,
        "p50 µs": median(taken) * 1e6,
        "caller's CPU µs": (time.process_time() - used) / times * 1e6,
    }


@contextlib.asynccontextmanager
async def _raw(url: str, size: int) -> AsyncGenerator[Call]:
    client, payload = await connect_raw(url), b"x" * size
    yield lambda: client.request("raw", payload, timeout=30)
    await client.close()


@contextlib.asynccontextmanager
async def _kernel(url: str, size: int) -> AsyncGenerator[Call]:
    @service(depends=["echo"])
    async def caller(echo: Echo, serving: Serving[None]) -> None:
        text = "x" * size
        made.append(lambda: echo.echo(text))
        async with serving():
            ready.set()
            await anyio.sleep_forever()

    made: list[Call] = []
    ready = anyio.Event()
    orchestrator = _app(url, caller)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(orchestrator.run)
        await ready.wait()
        yield made[0]
        orchestrator.request_stop("measured")


def _app(url: str, service: Any) -> Orchestrator:
    nats, _ = read_nats({"NATS_URL": url})
    registry = Registry({service.name: service}, remote=True)
    return Orchestrator(connect(registry.units({}), app="bench", version="0.0.0", nats=nats).units)


async def serve(url: str) -> None:
    """Run the provider of both contestants."""
    client = await connect_raw(url)

    async def answer(msg: Any) -> None:
        await msg.respond(msg.data)

    await client.subscribe("raw", "q", cb=answer)
    await client.flush()
    print("up", flush=True)
    await _app(url, echo).run()


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "serve":
        asyncio.run(serve(words[0]))
    elif what == "local":
        print(json.dumps(asyncio.run(local(words[0], int(words[1])))))
    else:
        print(json.dumps(asyncio.run(remote(words[0], *map(int, words[1:])))))
