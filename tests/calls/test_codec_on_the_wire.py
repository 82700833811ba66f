"""What travels arrives as it was, checked and over a real server alike; all else is refused with the same words."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from types import new_class
from typing import Any, Protocol

import anyio
import anyio.from_thread
import attrs
import pytest
from hypothesis import given, settings
from nats import connect

from kernel import BadRequest, CallError, Serving, interface, service
from kernel.calls.codec import Shapes, read
from kernel.calls.interface import interface_of
from kernel.calls.proxy import checked
from kernel.calls.shape import Misfit
from tests.calls.conftest import App, apps
from tests.calls.test_codec import NAMES, POOL, TRAVELS, json_values

PREFIX = f"wire-{os.getpid()}"
MODES = ("checked", "remote")


def methods() -> dict[str, Any]:
    """Two methods for each type: one takes a value and gives it back, one gives what it is told to give."""
    found: dict[str, Any] = {}
    for index, (tp, _) in enumerate(TRAVELS):

        async def echo(self: Any, value: Any) -> Any: ...
        async def give(self: Any) -> Any: ...

        echo.__annotations__ = {"value": tp, "return": tp}
        give.__annotations__ = {"return": tp}
        found |= {f"echo_{index}": echo, f"give_{index}": give}
    return found


Echo: Any = interface(timeout=30)(new_class("Echo", (Protocol,), {}, lambda namespace: namespace.update(methods())))


class Here:
    """Gives back what it gets, and notes it."""

    def __init__(self) -> None:
        self.got: Any = None
        self.gives: Any = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("echo_", "give_")):
            raise AttributeError(name)

        async def echo(value: Any) -> Any:
            self.got = value
            return value

        async def give() -> Any:
            return self.gives

        return echo if name.startswith("echo_") else give


@attrs.frozen
class Wire:
    """Both ways to the same object, and bare messages to it, from outside the event loop."""

    here: Here
    proxies: dict[str, Any]
    call: Callable[..., Any]
    ask: Callable[[str, bytes], Awaitable[Any]]

    def outcome(self, mode: str, name: str, *args: Any) -> Any:
        """Return the result, or the error's class and words."""
        try:
            return self.call(getattr(self.proxies[mode], name), *args)
        except CallError as error:
            return type(error), str(error).partition(": ")[2]


@pytest.fixture(scope="module")
def wire(_shared: Any) -> Iterator[Wire]:
    """One server and one connection each for all examples."""
    here = Here()

    @service
    async def echo(serving: Serving[Echo]) -> None:
        async with serving(here):
            await anyio.sleep_forever()

    @service(depends=["echo"])
    async def web(echo: Echo, serving: Serving[Any]) -> None:
        async with serving(echo):
            await anyio.sleep_forever()

    found = interface_of(Echo)
    assert found is not None
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:

        async def make(*services: Any) -> App:
            return App(services, _shared.url, PREFIX)

        caller, provider = portal.call(make, web), portal.call(make, echo)
        raw = portal.call(connect, _shared.url)

        async def ask(subject: str, payload: bytes) -> Any:
            return await raw.request(subject, payload, timeout=30)

        with portal.wrap_async_context_manager(apps(caller, provider)):
            proxies = {"checked": checked(found, "echo", here), "remote": caller.value("web")}
            yield Wire(here, proxies, portal.call, ask)
        portal.call(raw.close)


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_what_arrives_equals_what_was_sent(index: int, wire: Wire) -> None:
    """At the service and back at its caller, as an equal value of the same class."""

    @settings(max_examples=15, deadline=None)
    @given(TRAVELS[index][1])
    def check(value: Any) -> None:
        for mode in MODES:
            back = wire.outcome(mode, f"echo_{index}", value)
            assert (wire.here.got, back) == (value, value), mode
            assert type(wire.here.got) is type(back) is type(value), mode

    check()


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_everything_else_is_refused_with_the_same_words(index: int, wire: Wire) -> None:
    """Arguments before they leave, results before they return; nothing becomes something else."""
    refused = 0
    for value in POOL:
        wire.here.gives = value
        for name, args in ((f"echo_{index}", (value,)), (f"give_{index}", ())):
            wire.here.got = None
            ends = [wire.outcome(mode, name, *args) for mode in MODES]
            assert ends[0] == ends[1], (name, value)
            assert type(ends[0]) is type(ends[1]), (name, value)
            if type(ends[0]) is tuple and ends[0][:1] and isinstance(ends[0][0], type):
                refused += 1
                assert wire.here.got is None
            else:
                assert ends[0] == value
    assert refused


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_a_message_that_no_caller_of_ours_would_send(index: int, wire: Wire) -> None:
    """The service refuses it with the words that the decoder has for it, or takes it as a value of its type."""
    shape = Shapes().of(TRAVELS[index][0])

    @settings(max_examples=15, deadline=None)
    @given(json_values)
    def check(data: Any) -> None:
        payload = json.dumps({"value": data}).encode()
        wire.here.got = None
        answer = wire.call(wire.ask, f"{PREFIX}.echo.echo_{index}", payload)
        try:
            wanted = read(shape.decode, json.dumps(data).encode())
        except Misfit as misfit:
            told = str(BadRequest("echo", "echo", str(misfit.within(".value")))).partition(": ")[2]
            assert answer.headers["Nats-Service-Error-Code"] == "400"
            assert answer.headers["Nats-Service-Error"] == " ".join(told.split())
            assert wire.here.got is None
        else:
            assert answer.headers["rpc-status"] == "ok"
            assert repr(wire.here.got) == repr(wanted)

    check()
