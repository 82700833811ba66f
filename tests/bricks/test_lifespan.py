"""The lifespan of an ASGI app, without a server, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kernel.bricks.lifespan import lifespan
from kernel.errors import LifespanFailed

pytestmark = pytest.mark.anyio

Receive = Callable[[], Any]
Send = Callable[[Any], Any]


async def unused(*_: Any) -> Any:
    raise AssertionError


async def test_an_app_that_keeps_to_the_protocol() -> None:
    """It is told of the start and of the end, around the block; each request has a copy of its state."""
    said: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            said.append(scope["state"])
            scope["state"]["own"] = True
            return
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        said.append((await receive())["type"])
        await anyio.sleep(1)
        scope["state"]["pool"] = "pool"
        await send({"type": "lifespan.startup.complete"})
        said.append((await receive())["type"])
        await anyio.sleep(1)
        await send({"type": "lifespan.shutdown.complete"})
        said.append("end")

    began = anyio.current_time()
    async with lifespan(app) as serve:
        assert anyio.current_time() - began == pytest.approx(1)
        assert said == ["lifespan.startup"]
        for _ in range(2):
            await serve({"type": "http"}, unused, unused)
        await anyio.sleep(1)
        assert said == ["lifespan.startup", {"pool": "pool", "own": True}, {"pool": "pool", "own": True}]
        assert said[1] is not said[2]
        said.clear()
    assert said == ["lifespan.shutdown", "end"]
    assert anyio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize("how", ["raises", "returns", "returns after a message"])
async def test_an_app_that_does_not_know_it(how: str) -> None:
    """It runs without; there is nothing to wait for."""

    async def app(scope: Any, receive: Receive, _: Send) -> None:
        if scope["type"] == "http":
            return
        if how == "raises":
            raise LookupError(scope["type"])
        if how == "returns after a message":
            await receive()

    async with lifespan(app) as serve:
        scope: Any = {"type": "http"}
        await serve(scope, unused, unused)
        assert scope["state"] == {}


@pytest.mark.parametrize(
    ("message", "told"),
    [({"message": "no disk"}, "startup: no disk"), ({}, "startup: "), ({"message": None}, "startup: ")],
)
@pytest.mark.parametrize("then", ["returns", "raises"])
async def test_a_startup_that_fails(message: dict[str, Any], told: str, then: str) -> None:
    """The block does not run; an error of the app's own says more than its message."""

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})
        if then == "raises":
            raise LookupError("no disk")

    with pytest.raises(LifespanFailed if then == "returns" else LookupError) as caught:
        async with lifespan(app):
            raise AssertionError
    if then == "returns":
        assert told in str(caught.value)


async def test_a_shutdown_that_fails() -> None:
    """It is the service's failure."""

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "not flushed"})

    done: list[str] = []
    with pytest.raises(LifespanFailed, match="shutdown: not flushed"):
        async with lifespan(app):
            done.append("block")
    assert done == ["block"]


async def test_an_error_while_the_block_runs() -> None:
    """The block is cancelled, and the error comes alone."""

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep(1)
        raise LookupError

    with pytest.raises(LookupError), anyio.fail_after(2):
        async with lifespan(app):
            await anyio.sleep_forever()


async def test_an_error_of_the_block() -> None:
    """The lifespan ends in order before it comes out."""
    said: list[str] = []

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        said.append((await receive())["type"])
        await anyio.sleep(1)
        said.append("end")

    with pytest.raises(LookupError):
        async with lifespan(app):
            raise LookupError
    assert said == ["lifespan.shutdown", "end"]


async def test_there_is_no_third_message() -> None:
    """Whoever waits for one waits until he does not want to any more; the second comes at the end, not before."""
    said: list[Any] = []

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        for _ in range(3):
            with anyio.move_on_after(5):
                said.append((await receive())["type"])

    began = anyio.current_time()
    async with lifespan(app):
        pass
    assert said == ["lifespan.shutdown"]
    assert anyio.current_time() - began == pytest.approx(10)


async def test_messages_of_other_kinds() -> None:
    """They change nothing."""

    async def app(_: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.progress"})
        await anyio.sleep(1)
        await send({"type": "lifespan.startup.complete"})
        await receive()

    began = anyio.current_time()
    async with lifespan(app):
        assert anyio.current_time() - began == pytest.approx(1)
