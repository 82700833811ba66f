"""Every error from every place: contained, told, and never lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from kernel.config.service_config import read_config
from kernel.declare.serving import Serving
from kernel.declare.signature import Edge, Needs
from kernel.errors import ConfigError, StrayCancellation, ValueLost
from kernel.lifecycle.events import AllReady, Event, Notice, State, StopBegan, Transition
from kernel.lifecycle.units import Unit
from kernel.observe.lifecycle_log import LogObserver, log_endings, log_verdict
from kernel.observe.logs import JsonFormatter, TextFormatter
from kernel.run.runner import around, command_unit
from tests.harness import Lab, crash_after, resource
from tests.lifecycle.parts import declared, serve
from tests.odd_errors import Unchangeable, Unprintable

pytestmark = pytest.mark.anyio


Body: TypeAlias = Callable[[Serving[None], BaseException], Coroutine[Any, Any, None]]


def _while_handling() -> BaseException:
    error = ValueError("the second")
    error.__context__ = OSError("the first")
    return error


def _caused_by_itself() -> BaseException:
    error = ValueError("the first and the last")
    error.__cause__ = error
    return error


def _in_a_ring() -> BaseException:
    errors = [ValueError("one"), OSError("two"), TypeError("three")]
    for error, before in zip(errors, [*errors[1:], errors[0]], strict=True):
        error.__cause__ = error.__context__ = before
    return errors[0]


ERRORS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: ValueError("boom"),
    "while handling": _while_handling,
    "caused by itself": _caused_by_itself,
    "in a ring": _in_a_ring,
    "group": lambda: ExceptionGroup("two", [ValueError("boom"), TypeError("bang")]),
    "exit in a nested group": lambda: BaseExceptionGroup(
        "outer", [ExceptionGroup("inner", [ValueError("boom")]), BaseExceptionGroup("inner", [SystemExit(0)])]
    ),
    "exit": lambda: SystemExit(0),
    "generator exit": GeneratorExit,
    "unprintable": Unprintable,
    "unprintable in a group": lambda: ExceptionGroup("one", [Unprintable()]),
    "unchangeable": Unchangeable,
}


INTERRUPTS: dict[str, Callable[[], BaseException]] = {
    "interrupt": KeyboardInterrupt,
    "interrupt in a group": lambda: BaseExceptionGroup("one", [KeyboardInterrupt()]),
}


STRAY = "stray cancellation"


async def make(kind: str) -> BaseException:
    """An error of this *kind*."""
    if kind != STRAY:
        return {**ERRORS, **INTERRUPTS}[kind]()
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as error:
            kept: BaseException = error
            raise
    return kept


def inside(error: BaseException | None) -> set[int]:
    """The identities of *error* and of all that it groups, was caused by, or came after."""
    found: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in found:
            found.add(id(one))
            todo += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return found


def leaves(error: BaseException) -> set[int]:
    """The identities of what *error* groups: backends copy groups."""
    if isinstance(error, BaseExceptionGroup):
        return set[int]().union(*(leaves(member) for member in error.exceptions))
    return {id(error)}


async def _before_serving(serving: Serving[None], error: BaseException) -> None:
    await crash_after(1, error)


async def _child_before_serving(serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _block(serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await crash_after(1, error)


async def _child_in_block(serving: Serving[None], error: BaseException) -> None:
    async with serving(), anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _background(serving: Serving[None], error: BaseException) -> None:
    async with serving() as work:
        work.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _child_around_block(serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        async with serving():
            await anyio.sleep_forever()


async def _clean_up(serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await anyio.sleep_forever()
    raise error


async def _clean_up_of_a_crash(serving: Serving[None], error: BaseException) -> None:
    try:
        async with serving():
            await crash_after(1, TypeError("the crash"))
    finally:
        raise error


BODIES: dict[str, Body] = {
    one.__name__.strip("_").replace("_", " "): one
    for one in (
        _before_serving,
        _child_before_serving,
        _block,
        _child_in_block,
        _background,
        _child_around_block,
        _clean_up,
        _clean_up_of_a_crash,
    )
}


def odd_units(place: str, error: BaseException, others: list[Unit]) -> list[Unit]:
    """*others*, and one that raises *error* at this *place*; its name begins with "odd" or ends with it."""

    async def serves(serving: Serving[None]) -> None:
        await BODIES[place](serving, error)

    async def plain() -> None:
        await crash_after(1, error)

    async def command(pool: str) -> None:
        await crash_after(1, error)

    async def odd() -> AsyncGenerator[None, None]:
        if place == "lifespan before its yield":
            await crash_after(1, error)
        yield
        raise error

    if place.startswith("lifespan"):
        return around(others, [odd], "app/init.py")
    if place == "command":
        return [*others, command_unit("odd", Needs(edges=(Edge("pool", parameter="pool"),)), command)]
    if place in BODIES:
        return [*others, Unit(declared("odd", serves, depends=["pool"]))]
    return [*others, Unit(declared("odd", plain, depends=["pool"], oneshot=place == "one-shot"))]


PLACES = [*BODIES, "plain", "one-shot", "command", "lifespan before its yield", "lifespan after its yield"]


def cells() -> list[tuple[str, str]]:
    """Every kind of error at every place."""
    found = []
    for kind in (*ERRORS, STRAY, *INTERRUPTS):
        for place in PLACES:
            # A task group takes a stray cancellation of its child for the end of that child, and a crash comes first.
            if kind == STRAY and ("child" in place or "after" in place or "clean up" in place):
                continue
            found.append((kind, place))
    return found


@pytest.mark.parametrize(("kind", "place"), cells())
async def test_any_error_from_any_place(lab: Lab, caplog: pytest.LogCaptureFixture, kind: str, place: str) -> None:
    """It is contained: the report and the log name its service, the code tells the truth, the others close calmly."""
    caplog.set_level(logging.INFO, "kernel")
    error = await make(kind)

    async def pool(serving: Serving[str]) -> None:
        async with resource(lab, "pool", closing=1), serving("pool"):
            await anyio.sleep_forever()

    async def user(pool: str, serving: Serving[None]) -> None:
        async with resource(lab, "user", closing=1), serving():
            await anyio.sleep_forever()

    units = odd_units(place, error, [Unit(declared("pool", pool)), Unit(declared("user", user, depends=["pool"]))])
    if place in {"clean up", "lifespan after its yield"}:
        lab.stop_at(5)
    await lab.run(*units, observers=[LogObserver()])
    log_endings(lab.report)
    log_verdict(lab.report)

    (ending,) = (one for one in lab.report.endings if "odd" in one.service)
    opened = (
        [] if place == "lifespan before its yield" else ["user closing", "user closed", "pool closing", "pool closed"]
    )
    assert lab.marked[2:] == opened
    assert lab.ending("pool").state is lab.ending("user").state is State.STOPPED
    assert not [event.error for event in lab.events if isinstance(event, Notice) and "observer" in event.message]
    for record in caplog.records:
        assert JsonFormatter(source=False).format(record)
        assert TextFormatter(9, colour=False, source=False).format(record)
    last = caplog.records[-1].getMessage()
    if kind in INTERRUPTS and place != "clean up of a crash":
        assert (lab.exit_code, ending.state, ending.error) == (0, State.STOPPED, None)
        assert lab.report.reason == (
            "asked" if place in {"clean up", "lifespan after its yield"} else "KeyboardInterrupt"
        )
        assert last.startswith("exit 0: ")
    elif kind == "exit" and place == "command":  # a command may well say how it ends
        assert (lab.exit_code, ending.state, ending.error) == (0, State.DONE, None)
    else:
        assert (lab.exit_code, ending.state, lab.report.first) == (1, State.FAILED, ending.service)
        if kind == STRAY:
            assert isinstance(ending.error, StrayCancellation)
        elif place != "clean up of a crash":
            assert leaves(error) & inside(ending.error)
        assert last.startswith(f"exit 1: {ending.service} failed")
        if "unchangeable" not in kind:
            assert f"in service {ending.service}, " in getattr(ending.error, "__notes__", [""])[-1]


@pytest.mark.parametrize("place", ["block", "background"])
async def test_an_interrupt_is_not_lost_in_what_clean_up_raises(lab: Lab, place: str) -> None:
    """The signal counts, and so does the failure: the app stops, and nothing is tried again."""

    async def odd(serving: Serving[None]) -> None:
        try:
            await BODIES[place](serving, KeyboardInterrupt())
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(50).run(declared("odd", odd, retries=9), declared("calm", serve))
    assert lab.stopped_at == 1
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert isinstance(lab.error("odd"), OSError)
    assert lab.exit_code == 1


async def test_a_crash_is_not_lost_beside_an_interrupt(lab: Lab) -> None:
    """Of a group with both, the one is a signal, and the other a failure while the app was stopping."""
    crash = ValueError("boom")

    async def odd() -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), crash])

    await lab.stop_at(50).run(declared("odd", odd, retries=9), declared("calm", serve))
    assert lab.stopped_at == 0
    assert id(crash) in inside(lab.error("odd"))
    assert lab.exit_code == 1


@pytest.mark.parametrize("with_serving", [True, False])
async def test_an_interrupt_waits_for_the_drain_delay_as_a_signal_does(lab: Lab, with_serving: bool) -> None:
    """Whom it hit is stopped at once and is not tried again; the others run on until the delay is over."""

    async def odd(serving: Serving[None]) -> None:
        async with serving():
            await crash_after(1, KeyboardInterrupt())

    async def plain() -> None:
        await crash_after(1, KeyboardInterrupt())

    one = declared("odd", odd if with_serving else plain, retries=9)
    await lab.run(one, declared("calm", serve), drain_delay=3)
    assert (lab.stopped_at, lab.when("odd", "stopped"), lab.when("calm", "stopped")) == (1, 1, 4)
    assert lab.ending("odd").attempts == 1
    assert lab.exit_code == 0


@pytest.mark.parametrize("kind", ["unprintable", "unchangeable"])
async def test_consumers_of_what_failed_with_an_odd_error(lab: Lab, kind: str) -> None:
    """They fail with that reason, whatever it is."""
    error = await make(kind)

    async def db(serving: Serving[str]) -> None:
        async with serving("pool"):
            await crash_after(1, error)

    async def consumer(db: str) -> None:
        await anyio.sleep_forever()

    units = [
        declared("db", db, allowed_failure=True),
        declared("consumer", consumer, depends=["db"], allowed_failure=True),
    ]
    await lab.stop_at(5).run(*units, declared("calm", serve))
    assert isinstance(lab.error("consumer"), ValueLost)
    assert lab.error("consumer").__cause__ is error
    assert str(lab.error("consumer")).startswith("consumer needs the value of db, which failed")
    assert lab.exit_code == 0


OBSERVED: dict[str, Callable[[Event], bool]] = {
    "the first launch": lambda event: isinstance(event, Transition),
    "all ready": lambda event: isinstance(event, AllReady),
    "the stop": lambda event: isinstance(event, StopBegan),
    "an end": lambda event: isinstance(event, Transition) and event.state is State.STOPPED,
}


@pytest.mark.parametrize("moment", OBSERVED)
@pytest.mark.parametrize("kind", [*ERRORS, STRAY])
async def test_any_error_from_an_observer(lab: Lab, kind: str, moment: str) -> None:
    """It is told to the others, and takes no service down."""
    error = await make(kind)

    def odd(event: Event) -> None:
        if OBSERVED[moment](event):
            raise error

    async def api(serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=1), serving():
            await anyio.sleep_forever()

    await lab.stop_at(5).run(declared("api", api), observers=[odd])
    assert lab.marks == [(0, "api open"), (5, "api closing"), (6, "api closed")]
    (notice,) = (event for event in lab.events if isinstance(event, Notice))
    assert notice.error is error
    assert lab.exit_code == 0


async def test_an_interrupt_from_an_observer(lab: Lab) -> None:
    """It is a signal there too."""

    def odd(event: Event) -> None:
        if isinstance(event, AllReady):
            raise KeyboardInterrupt

    await lab.stop_at(50).run(declared("api", serve), observers=[odd])
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert lab.exit_code == 0


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("part", ["converter", "validator"])
def test_any_error_from_a_config(kind: str, part: str) -> None:
    """It is a bad value like any other, which names its variable."""

    def fail(*_: object) -> int:
        error = ERRORS[kind]()
        raise error

    odd: dict[str, Any] = {part: fail}
    fields = {"port": attrs.field(type=int, default=1, **odd)}
    cls: type = attrs.make_class("Config", fields)
    config, (error,) = read_config("odd", cls, {"ODD_PORT": "1"})
    assert config is None
    assert isinstance(error, ConfigError)
    assert "ODD_PORT" in str(error)
