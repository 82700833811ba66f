"""What the fake services of these tests are made of."""

from __future__ import annotations

import linecache
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.lifecycle.events import Transition
from tests.harness import Lab, crash_after, hang, resource

ONCE = Retry(times=1, delay=1, jitter=0)


def stood(where: str) -> str:
    """The source of the line that an error names."""
    found = re.match(r"(.+):(\d+) in ", where)
    assert found, where
    return linecache.getline(found[1], int(found[2])).strip()


async def bystander(serving: Serving[None]) -> None:
    """Something else that runs, so that the end of one service is not the end of all."""
    async with serving():
        await anyio.sleep_forever()


AnyService = Service[..., Any]


def sleeper(name: str, *depends: str, opening: float = 0.0, closing: float = 0.0, **options: Any) -> AnyService:
    """A service that takes time to start and to stop, and hands over its name."""

    async def sleep(serving: Serving[str]) -> None:
        await anyio.sleep(opening)
        async with serving(name):
            await anyio.sleep_forever()
        await anyio.sleep(closing)

    return named(name, service(depends=depends, **options)(sleep))


def crashing_at(name: str, seconds: float) -> AnyService:
    """A service that serves, crashes once so many seconds after its start, and is back 10 s later."""

    async def crash(serving: Serving[None]) -> None:
        nonlocal seconds
        async with serving():
            after, seconds = seconds, math.inf
            await crash_after(after, ValueError())

    return named(name, service(retries=Retry(times=1, delay=10, jitter=0))(crash))


def stubborn(name: str, *depends: str, seconds: float = 100.0, **options: Any) -> AnyService:
    """A service that ignores every cancellation for so long once it works."""

    async def resist(serving: Serving[str]) -> None:
        async with serving(name):
            await hang(seconds)

    return named(name, service(depends=depends, **options)(resist))


def named(name: str, one: AnyService) -> AnyService:
    """The service under another name."""
    return attrs.evolve(one, name=name)


@attrs.frozen
class Config:
    """The config of some service."""

    port: int = 0


async def nothing() -> None:
    await anyio.sleep(1)


async def fail() -> None:
    raise ValueError("boom")


async def crash_later(serving: Serving[str]) -> None:
    await crash_after(2, ValueError("boom"))


def provider(lab: Lab, name: str = "db", *, failing: Callable[[], bool] = bool, **options: Any) -> AnyService:
    """A service that gives a value, and crashes 5 s after it is ready as long as *failing*."""

    async def give(serving: Serving[str]) -> None:
        async with resource(lab, name, closing=1), serving(f"{name} of {lab.now}"):
            if failing():
                await crash_after(5, ValueError("boom"))
            await anyio.sleep_forever()

    return named(name, service(**{"retries": ONCE, **options})(give))


def declared(name: str, fn: Callable[..., Coroutine[Any, Any, Any]], **options: Any) -> AnyService:
    """*fn* as a service of that name."""
    return attrs.evolve(service(**options)(fn), name=name)


async def serve(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()


ALWAYS = Retry(times=None, delay=1, factor=1, jitter=0)


virtual = pytest.mark.anyio


@attrs.frozen
class Part:
    """What one service does. Times are in seconds; what is a tuple is for one attempt after the other.

    Args:
        opening: How long it takes to serve.
        crashes: When its work crashes, from ready on.
        leaves: When it leaves its block unasked, from ready on.
        drains: How long it drains when asked to stop; None where its work is cancelled.
        closing: How long its clean-up takes.
        hangs: How long that ignores every cancellation.
        fails: In how many attempts clean-up fails in the end.
        retries: How often it may crash.
        limit: Its stop_timeout.
        allowed: Whether it may fail.

    """

    opening: float = 0.0
    crashes: tuple[float, ...] = ()
    leaves: tuple[float, ...] = ()
    drains: float | None = None
    closing: float = 0.0
    hangs: float = 0.0
    fails: int = 0
    retries: int | Retry = ALWAYS
    limit: float = 30.0
    allowed: bool = False

    async def play(self, serving: Serving[str], attempt: int) -> None:
        """Be that service."""
        await anyio.sleep(self.opening)
        try:
            async with serving("value", drain=self.drains is not None) as work:
                if attempt < len(self.crashes):
                    await crash_after(self.crashes[attempt], ValueError("boom"))
                if attempt < len(self.leaves):
                    await anyio.sleep(self.leaves[attempt])
                elif self.drains is None:
                    await anyio.sleep_forever()
                else:
                    await work.stop_requested()
                    await anyio.sleep(self.drains)
        finally:
            await hang(self.hangs)
            await anyio.sleep(self.closing)
            if attempt < self.fails:
                raise OSError("clean-up")


def chain(**parts: Part) -> list[AnyService]:
    """`db`, whose value `cache` holds, whose value `api` holds; or less of them."""
    attempts = dict.fromkeys(parts, -1)

    async def play(name: str, serving: Serving[str]) -> None:
        attempts[name] += 1
        await parts[name].play(serving, attempts[name])

    async def db(serving: Serving[str]) -> None:
        await play("db", serving)

    async def cache(db: str, serving: Serving[str]) -> None:
        await play("cache", serving)

    async def api(cache: str, serving: Serving[str]) -> None:
        await play("api", serving)

    depends = {"db": [], "cache": ["db"], "api": ["cache"]}
    functions = (fn for fn in (db, cache, api) if fn.__name__ in parts)
    return [
        service(
            depends=depends[fn.__name__],
            retries=parts[fn.__name__].retries,
            stop_timeout=parts[fn.__name__].limit,
            allowed_failure=parts[fn.__name__].allowed,
        )(fn)
        for fn in functions
    ]


def story(lab: Lab, name: str) -> str:
    """Each state of a service with its time; "starting" is left out where it is ready at once."""
    moves = [(when, event) for when, event in lab.log if isinstance(event, Transition) and event.service == name]
    text = " ".join(f"{event.state.value}@{when:g}" for when, event in moves)
    return re.sub(r"starting@(\S+) (?=ready@\1 )", "", text)
