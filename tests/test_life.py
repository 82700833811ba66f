"""The life of a service in combinations: every error from every place, and values with consumers on several levels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from kernel.config.service_config import read_config
from kernel.declare.retry import Retry
from kernel.declare.service import Service, service, started
from kernel.declare.serving import Serving
from kernel.declare.signature import Edge, Needs
from kernel.errors import ConfigError, StrayCancellation, ValueLost
from kernel.lifecycle.events import AllReady, Event, Notice, State, StopBegan, Transition
from kernel.lifecycle.units import Unit
from kernel.observe.lifecycle_log import LogObserver, log_endings, log_verdict
from kernel.observe.logs import JsonFormatter, TextFormatter
from kernel.run.runner import around, command_unit
from tests.harness import Lab, crash_after, marking, resource

pytestmark = pytest.mark.anyio

AnyService: TypeAlias = Service[..., Any]
Body: TypeAlias = Callable[[Serving[None], BaseException], Coroutine[Any, Any, None]]


def named(name: str, fn: Callable[..., Coroutine[Any, Any, Any]], **options: Any) -> AnyService:
    """*fn* as a service of that name."""
    return attrs.evolve(service(**options)(fn), name=name)


# -- every error from every place ------------------------------------------------------------------------------------


class Unprintable(Exception):
    """Raises where somebody wants to read it."""

    def __str__(self) -> str:
        raise RuntimeError("no words for it")


@dataclasses.dataclass(frozen=True)
class Unchangeable(Exception):
    """Takes neither a note nor a cause, as every frozen dataclass."""

    code: int = 5


def _while_handling() -> BaseException:
    error = ValueError("the second")
    error.__context__ = OSError("the first")
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: ValueError("boom"),
    "while handling": _while_handling,
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
    if error is None:
        return set()
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    found = {id(error)} | inside(error.__cause__) | inside(error.__context__)
    return found.union(*(inside(member) for member in members))


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
        return [*others, Unit(named("odd", serves, depends=["pool"]))]
    return [*others, Unit(named("odd", plain, depends=["pool"], oneshot=place == "one-shot"))]


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

    units = odd_units(place, error, [Unit(named("pool", pool)), Unit(named("user", user, depends=["pool"]))])
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

    await lab.stop_at(50).run(named("odd", odd, retries=9), named("calm", _serve))
    assert lab.stopped_at == 1
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert isinstance(lab.error("odd"), OSError)
    assert lab.exit_code == 1


async def test_a_crash_is_not_lost_beside_an_interrupt(lab: Lab) -> None:
    """Of a group with both, the one is a signal, and the other a failure while the app was stopping."""
    crash = ValueError("boom")

    async def odd() -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), crash])

    await lab.stop_at(50).run(named("odd", odd, retries=9), named("calm", _serve))
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

    one = named("odd", odd if with_serving else plain, retries=9)
    await lab.run(one, named("calm", _serve), drain_delay=3)
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

    units = [named("db", db, allowed_failure=True), named("consumer", consumer, depends=["db"], allowed_failure=True)]
    await lab.stop_at(5).run(*units, named("calm", _serve))
    assert isinstance(lab.error("consumer"), ValueLost)
    assert lab.error("consumer").__cause__ is error
    assert str(lab.error("consumer")).startswith("consumer needs the value of db, which failed")
    assert lab.exit_code == 0


async def _serve(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()


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

    await lab.stop_at(5).run(named("api", api), observers=[odd])
    assert lab.marks == [(0, "api open"), (5, "api closing"), (6, "api closed")]
    (notice,) = (event for event in lab.events if isinstance(event, Notice))
    assert notice.error is error
    assert lab.exit_code == 0


async def test_an_interrupt_from_an_observer(lab: Lab) -> None:
    """It is a signal there too."""

    def odd(event: Event) -> None:
        if isinstance(event, AllReady):
            raise KeyboardInterrupt

    await lab.stop_at(50).run(named("api", _serve), observers=[odd])
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


# -- values and their consumers, four levels deep ----------------------------------------------------------------------

DEPTH = 5
LEVELS = [f"s{level}" for level in range(DEPTH)]


@attrs.define(eq=False)
class Chain:
    """A provider, and above it consumers of consumers; each hands over its name and the number of its attempt.

    Args:
        lab: Keeps the marks.
        steady: The attempt of the provider from which on it does not crash any more.
        lasts: Seconds for which it serves before that.
        opening: Seconds that each takes to open.
        closing: Seconds that each takes to close.
        options: Of the provider.
        of_consumers: Options of the consumers.

    """

    lab: Lab
    steady: int = 2
    lasts: float = 5.0
    opening: float = 0.0
    closing: float = 0.0
    options: dict[str, Any] = attrs.field(factory=dict)
    of_consumers: dict[str, Any] = attrs.field(factory=dict)
    attempts: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(LEVELS, 0))

    def services(self) -> list[AnyService]:
        """All of them, the provider first."""
        return [self._level(level) for level in range(DEPTH)]

    def _level(self, level: int) -> AnyService:
        name, below = LEVELS[level], LEVELS[level - 1] if level else ""
        scope: dict[str, Any] = {"Serving": Serving, "live": self._live}
        # The name of a parameter is the contract.
        parameter = f"{below}: str, " if below else ""
        code = f"async def {name}({parameter}serving: Serving[str]): await live('{name}', {below or None}, serving)"
        exec(code, scope)  # noqa: S102
        options = {"depends": [below], **self.of_consumers} if below else self.options
        declared: AnyService = service(**options)(scope[name])
        return declared

    async def _live(self, name: str, below: str | None, serving: Serving[str]) -> None:
        attempt = self.attempts[name] = self.attempts[name] + 1
        with marking(self.lab, f"{name}.{attempt} on {below}"):
            await anyio.sleep(self.opening)
            try:
                async with serving(f"{name}.{attempt}"):
                    self.lab.mark(f"{name}.{attempt} serves")
                    if name == LEVELS[0] and attempt < self.steady:
                        await crash_after(self.lasts, ValueError("boom"))
                    await anyio.sleep_forever()
            finally:
                self.lab.mark(f"{name}.{attempt} closes")
                await anyio.sleep(self.closing)

    def check(self) -> None:
        """Whoever holds a value begins after its provider serves, and has ended before that closes."""
        marked = self.lab.marked
        for mark in marked:
            consumer, on, provider = mark.removesuffix(" begins").partition(" on ")
            if mark.endswith(" begins") and on and provider != "None":
                steps = [f"{provider} serves", mark, f"{consumer} on {provider} ends", f"{provider} closes"]
                places = [marked.index(step) for step in steps]
                assert places == sorted(places), steps


async def test_consumers_of_consumers_restart_in_order(lab: Lab) -> None:
    """The outermost ends first and starts last, each with the new value, and none uses up a retry."""
    chain = Chain(lab, closing=1, opening=1, options={"retries": 1})
    await lab.stop_at(40).run(*chain.services())
    chain.check()
    restart = [mark for when, mark in lab.marks if 5 < when < 40]
    down = [f"{name}.1 on {below} ends" for name, below in _pairs(1)][::-1]
    up = [f"{name}.2 on {below} begins" for name, below in _pairs(2)]
    assert [mark for mark in restart if mark.endswith(("ends", "begins"))] == down + up
    assert chain.attempts == dict.fromkeys(LEVELS, 2)
    assert lab.order("stopped") == LEVELS[::-1]
    assert lab.exit_code == 0


def _pairs(attempt: int) -> list[tuple[str, str | None]]:
    below = [None, *(f"{name}.{attempt}" for name in LEVELS)]
    return list(zip(LEVELS, below, strict=False))


@pytest.mark.parametrize("lasts", [0, 0.5, 1, 2.5, 3])
@pytest.mark.parametrize("delay", [0, 0.25, 4])
async def test_a_provider_that_flaps_faster_than_its_consumers_follow(lab: Lab, lasts: float, delay: float) -> None:
    """Nobody is left with an old value, nobody fails, and once the provider is steady all are ready again."""
    flaps = Retry(times=9, delay=delay, factor=1, jitter=0)
    chain = Chain(lab, steady=9, lasts=lasts, opening=1, closing=1.5, options={"retries": flaps})
    await lab.stop_at(500).run(*chain.services())
    chain.check()
    assert chain.attempts["s0"] == 9
    assert all(lab.path(name).endswith("starting ready stopping stopped") for name in LEVELS)
    last = [
        max(when for when, mark in lab.marks if mark.startswith(f"{name}.") and "serves" in mark) for name in LEVELS
    ]
    assert last == [last[0] + level for level in range(DEPTH)]
    assert lab.exit_code == 0


async def test_restarts_leave_the_retries_of_a_consumer_whole(lab: Lab) -> None:
    """What it was restarted for does not count when it crashes itself."""
    provider = Chain(lab, steady=4, options={"retries": Retry(times=9, delay=1, jitter=0)}).services()[0]

    async def consumer(s0: str, serving: Serving[None]) -> None:
        lab.mark(f"holds {s0}")
        async with serving():
            if lab.marked.count("holds s0.4") == 1:
                raise ValueError("its own")
            await anyio.sleep_forever()

    may_once = Retry(times=1, delay=1, jitter=0)
    await lab.stop_at(50).run(provider, named("consumer", consumer, depends=["s0"], retries=may_once))
    assert [mark for mark in lab.marked if "holds" in mark] == [f"holds s0.{attempt}" for attempt in (1, 2, 3, 4, 4)]
    assert lab.ending("consumer").state is State.STOPPED
    assert lab.exit_code == 0


async def test_a_consumer_with_a_default_goes_on_without_the_value(lab: Lab) -> None:
    """It ends first as any consumer, and is started again with its default once the value is gone for good."""
    provider = Chain(lab, closing=1, options={"allowed_failure": True}).services()[0]

    async def consumer(serving: Serving[None], s0: str = "nothing") -> None:
        with marking(lab, f"consumer of {s0}"):
            async with serving():
                await anyio.sleep_forever()

    await lab.stop_at(50).run(provider, named("consumer", consumer, depends=["s0"]))
    assert [mark for mark in lab.marks if "consumer" in mark[1] or "closes" in mark[1]] == [
        (0, "consumer of s0.1 begins"),
        (5, "consumer of s0.1 ends"),
        (5, "s0.1 closes"),
        (6, "consumer of nothing begins"),
        (50, "consumer of nothing ends"),
    ]
    assert lab.exit_code == 0


async def test_a_default_is_kept_while_others_are_waited_for(lab: Lab) -> None:
    """A value that is gone ends nobody who can do without it: neither who waits for another, nor who backs off."""
    provider = Chain(lab, options={"allowed_failure": True}).services()[0]

    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(20)
        await _serve(serving)

    async def waits(s0: str = "nothing") -> None:
        lab.mark(f"waits: {s0}")

    async def backs_off(s0: str = "nothing") -> None:
        lab.mark(f"backs off: {s0}")
        await crash_after(1, ValueError("boom"))

    later = Retry(times=1, delay=20, jitter=0)
    await lab.stop_at(50).run(
        provider,
        named("slow", slow),
        named("waits", waits, depends=["s0", "slow"]),
        named("backs-off", backs_off, depends=["s0"], retries=later, allowed_failure=True),
    )
    told = [mark for mark in lab.marks if mark[1].endswith(("nothing", ": s0.1"))]
    assert told == [(0, "backs off: s0.1"), (20, "waits: nothing"), (21, "backs off: nothing")]
    assert lab.exit_code == 0


@pytest.mark.parametrize("allowed", [True, False], ids=["with permission", "fatally"])
async def test_a_provider_that_is_gone_takes_all_above_it(lab: Lab, allowed: bool) -> None:
    """Its consumers end first at each level; with permission they then fail, each for the loss below it."""
    may = {"allowed_failure": True}
    chain = Chain(lab, closing=1, options=may if allowed else {}, of_consumers={**may, "retries": 9})
    await lab.stop_at(50).run(*chain.services(), named("calm", _serve))
    chain.check()
    assert chain.attempts == dict.fromkeys(LEVELS, 1)
    assert lab.stopped_at == (50 if allowed else 5 + DEPTH)
    for name in LEVELS[1:]:
        assert lab.ending(name).state is (State.FAILED if allowed else State.STOPPED)
        assert isinstance(lab.ending(name).error, ValueLost if allowed else type(None))
    assert lab.exit_code == (0 if allowed else 1)


# -- failures in mid-start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"retries": Retry(times=1, delay=1, jitter=0)}], ids=["at once", "in the end"])
async def test_a_fatal_failure_acts_at_once_whatever_the_others_do(lab: Lab, options: dict[str, Any]) -> None:
    """Those that wait, back off, start, or run are stopped in that moment; dependents of any kind never start."""

    async def doomed(serving: Serving[str]) -> None:
        await crash_after(1, ValueError("boom"))

    async def never() -> None:
        lab.mark("never")

    async def consumer(doomed: str = "default") -> None:
        lab.mark("never")

    async def failing() -> None:
        raise ValueError

    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep_forever()

    await lab.run(
        named("doomed", doomed, **options),
        named("order", never, depends=["doomed"]),
        named("consumer", consumer, depends=["doomed"]),
        named("above", never, depends=["consumer"]),
        named("launch", never, depends=[started("order")]),
        named("after-slow", never, depends=["slow"]),
        named("slow", slow),
        named("backing-off", failing, retries=Retry(times=None, delay=30)),
        named("running", _serve),
    )
    failed = 3 if options else 1
    assert lab.stopped_at == lab.when("doomed", "failed") == failed
    assert lab.marks == []
    for name in ("order", "consumer", "above", "launch", "after-slow"):
        assert lab.path(name) == "waiting stopped"
        assert lab.when(name, "stopped") == failed
    assert lab.when("backing-off", "stopped") == lab.when("running", "stopped") == failed
    assert lab.when("slow", "stopped") == failed + 1
    assert lab.exit_code == 1


async def test_what_backs_off_or_waits_is_not_done(lab: Lab) -> None:
    """The app does not end while any service will still run, though none runs at the moment."""

    async def flaky() -> None:
        lab.mark("runs")
        if len(lab.marks) == 1:
            raise ValueError("boom")

    async def last() -> None:
        await anyio.sleep(1)

    flaky_one = named("flaky", flaky, retries=Retry(times=1, delay=20, jitter=0), oneshot=True)
    await lab.run(flaky_one, named("last", last, depends=["flaky"]))
    assert lab.marks == [(0, "runs"), (20, "runs")]
    assert lab.stopped_at == 21
    assert lab.exit_code == 0
