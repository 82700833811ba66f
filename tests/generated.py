"""Generated apps: services with every fault that we could think of, and how they are run in virtual time.

Each fake service leaves marks in the same log in which the kernel's events are recorded; `tests.oracle` judges the log.
What is random is drawn before the run, so that an example is a value: it shrinks, it can be printed, and it can be run
again. Acts come from outside and aim at whoever runs at that moment.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import attrs
from hypothesis import strategies as st

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service, started
from kernel.declare.serving import Serving
from kernel.lifecycle.events import Event, Observer
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit
from tests.harness import hang

# -- what is generated -----------------------------------------------------------------------------------------------


class Compact:
    """Is shown as the expression that makes it, without what is as usual."""

    def __repr__(self) -> str:
        fields: Any = attrs.fields(type(self))  # type: ignore[arg-type]
        told = [field.name for field in fields if getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in told)})"

    def _repr_pretty_(self, printer: Any, _: object) -> None:
        """Tell hypothesis, which knows the protocol of IPython."""
        printer.text(repr(self))


@attrs.frozen(repr=False)
class Fake(Compact):
    """One service and all that is wrong with it. Times are in seconds."""

    name: str
    style: str = "serving"  # or plain, or oneshot
    values: tuple[str, ...] = ()  # dependencies whose value it takes
    optional: tuple[str, ...] = ()  # the same, with a default
    orders: tuple[str, ...] = ()
    launches: tuple[str, ...] = ()  # dependencies that it wants launched only
    allowed: bool = False
    retries: int | None = 0
    delay: float = 0.0
    factor: float = 1.0
    max_delay: float = 30.0
    reset_after: float | None = None
    start_timeout: float | None = None
    stop_timeout: float = 30.0
    opening: float = 0.0
    fault: str = "none"
    after: float = 0.0  # how long it works before the fault
    raises: str = "fault"  # or group, or exit: what it crashes with
    attempts: int = 1  # how many attempts have the fault
    closing: float = 0.0
    hangs: float = 0.0  # behind a shield, while it closes
    drains: float | None = None
    bad_clean_up: bool = False

    @property
    def waits_for(self) -> tuple[str, ...]:
        """All that must be ready before it starts."""
        return (*self.values, *self.optional, *self.orders)

    @property
    def above(self) -> tuple[str, ...]:
        """All that it depends on."""
        return (*self.waits_for, *self.launches)


@attrs.frozen(repr=False)
class Act(Compact):
    """Something that happens from outside, `gap` seconds after the act before it."""

    gap: float
    what: str  # crash, background, resource, or return
    whom: int = 0  # the how-manieth of those that work right then


@attrs.frozen(repr=False)
class App(Compact):
    """Services, what happens to them, and when they are stopped."""

    fakes: tuple[Fake, ...]
    stop: float
    force: float | None = None  # seconds after the stop
    timeout: float = 10.0
    drain_delay: float = 0.0
    acts: tuple[Act, ...] = ()


# Made once: hypothesis looks at each strategy before its first use.
SIZES = st.sampled_from([1, 2, 2, 3, 3, 4, 4, 6, 6, 9, 12, 20, 30])
PLACES = st.integers(0, 29)
EDGES = st.sampled_from([0, 1, 1, 2, 2, 3])
KINDS = st.sampled_from(["orders", "launches"])
KINDS_OF_A_PROVIDER = st.sampled_from(["values", "values", "values", "optional", "orders", "launches"])
STYLES = st.sampled_from(["serving", "serving", "serving", "plain", "oneshot"])
FAULTS = st.sampled_from(
    [*["none"] * 5, "return", "early", "crash", "background", "resource", "never serves", "hang", "slow"]
)
YES = st.booleans()
TIMES = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
OPENINGS = st.sampled_from([0.0] * 8 + [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
CLOSINGS = st.sampled_from([0.0, 0.1, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
DRAINS = st.sampled_from([None, None, None, None, 0.0, 1.0, 5.0])
STOP_TIMEOUTS = st.sampled_from([30.0, 30.0, 1.0, 2.0])
START_TIMEOUTS = st.sampled_from([None, None, 1.0, 3.0])
RETRIES = st.sampled_from([None, None, None, 0, 1, 2, 3])
FACTORS = st.sampled_from([1.0, 2.0])
MAX_DELAYS = st.sampled_from([30.0, 3.0])
RESETS = st.sampled_from([None, 0.5, 2.0])
RAISES = st.sampled_from(["fault", "fault", "group", "exit"])
FAULTY_ATTEMPTS = st.sampled_from([1, 1, 2, 9])
HANGS = st.sampled_from([0.0, 0.0, 1.0, 15.0])
BAD_CLEAN_UPS = st.sampled_from([False, False, True])
ACTS = st.lists(
    st.builds(Act, gap=TIMES, what=st.sampled_from(["crash", "background", "resource", "return"]), whom=PLACES),
    max_size=4,
)
STOPS = st.floats(0, 12) | TIMES
FORCES = st.sampled_from([None, None, None, None, 0.0, 0.5, 2.5, 9.5])
TIMEOUTS = st.sampled_from([10.0, 10.0, 3.0, 1.0])
DRAIN_DELAYS = st.sampled_from([0.0, 0.0, 0.5])
ORDERS = st.randoms(use_true_random=False)


def draw_fake(draw: st.DrawFn, name: str, before: list[Fake]) -> Fake:
    """A service that depends on some of those *before* it."""
    edges: dict[str, list[str]] = {"values": [], "optional": [], "orders": [], "launches": []}
    near = before[-3:] if draw(YES) else before  # near ones alone make long chains
    wanted = draw(EDGES) if near else 0
    for place in {draw(PLACES) % len(near) for _ in range(wanted)}:
        one = near[place]
        edges[draw(KINDS_OF_A_PROVIDER if one.style == "serving" else KINDS)].append(one.name)
    common: dict[str, Any] = {
        "name": name,
        "style": draw(STYLES),
        **{kind: tuple(names) for kind, names in edges.items()},
        "allowed": draw(YES),
        "stop_timeout": draw(STOP_TIMEOUTS),
        "opening": draw(OPENINGS),
        "closing": draw(CLOSINGS),
        "drains": draw(DRAINS),
        "retries": draw(RETRIES),
        "delay": draw(TIMES),
    }
    if common["retries"] is None:
        common["delay"] = common["delay"] or 0.25  # no delay would be tried again for ever at one time
    if draw(YES):
        return Fake(**common)
    return Fake(
        **common,
        factor=draw(FACTORS),
        max_delay=draw(MAX_DELAYS),
        reset_after=draw(RESETS),
        start_timeout=draw(START_TIMEOUTS),
        fault=draw(FAULTS),
        after=draw(TIMES),
        raises=draw(RAISES),
        attempts=draw(FAULTY_ATTEMPTS),
        hangs=draw(HANGS),
        bad_clean_up=draw(BAD_CLEAN_UPS),
    )


@st.composite
def apps(draw: st.DrawFn) -> App:
    """An app of up to thirty services."""
    every: list[Fake] = []
    for i in range(draw(SIZES)):
        every.append(draw_fake(draw, f"s{i}", every))
    draw(ORDERS).shuffle(every)
    return App(
        tuple(every),
        stop=draw(STOPS),
        force=draw(FORCES),
        timeout=draw(TIMEOUTS),
        drain_delay=draw(DRAIN_DELAYS),
        acts=tuple(draw(ACTS)),
    )


# -- how a find is made smaller --------------------------------------------------------------------------------------


def reduced(app: App, breaks: Callable[[App], bool]) -> App:
    """The smallest app like *app* that still *breaks* something.

    Hypothesis shrinks the choices from which an app was drawn, and is soon lost with thirty services; the app is a
    value, from which parts can be left out.
    """
    while True:
        for one in smaller(app):
            if breaks(one):
                app = one
                break
        else:
            return app


def smaller(app: App) -> Iterator[App]:
    """Apps with one thing less, the greatest things first."""
    for gone in app.fakes:
        rest = [without(fake, gone.name) for fake in app.fakes if fake is not gone]
        if rest:
            yield attrs.evolve(app, fakes=tuple(rest))
    for i in range(len(app.acts)):
        yield attrs.evolve(app, acts=app.acts[:i] + app.acts[i + 1 :])
    for i, fake in enumerate(app.fakes):
        for plain in plainer(fake):
            yield attrs.evolve(app, fakes=(*app.fakes[:i], plain, *app.fakes[i + 1 :]))
    yield from plainer(app)
    if app.stop != round(app.stop):
        yield attrs.evolve(app, stop=float(round(app.stop)))
    if app.stop:
        yield attrs.evolve(app, stop=0.0)


def without(fake: Fake, name: str) -> Fake:
    """*fake*, which no longer depends on *name*."""
    kinds = ("values", "optional", "orders", "launches")
    edges: dict[str, Any] = {kind: tuple(one for one in getattr(fake, kind) if one != name) for kind in kinds}
    return attrs.evolve(fake, **edges)


def plainer(one: Any) -> Iterator[Any]:
    """*one* with one of its fields as usual."""
    for field in attrs.fields(type(one)):
        if field.default is not attrs.NOTHING and getattr(one, field.name) != field.default:
            yield attrs.evolve(one, **{field.name: field.default})


# -- how it is run ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Mark:
    """What a fake service says of itself."""

    service: str
    attempt: int
    what: str
    holds: tuple[tuple[str, int], ...] = ()  # providers and their attempts


class Fault(Exception):
    """What a fake service crashes with."""


CRASHES: dict[str, Callable[[str], BaseException]] = {
    "fault": Fault,
    "group": lambda text: ExceptionGroup(text, [Fault(text), ValueError(text)]),
    "exit": SystemExit,
}


@attrs.define(eq=False)
class Part:
    """One run of a fake service's function, as the acts see it."""

    fake: Fake
    attempt: int
    mark: Callable[[str], None]
    fault: str
    poked: dict[str, anyio.Event] = attrs.field(factory=dict)

    async def poke(self, what: str) -> None:
        """Wait until an act wants *what* of it."""
        await self.poked.setdefault(what, anyio.Event()).wait()

    async def crash(self, what: str, seconds: float) -> None:
        """Crash *seconds* later, or when an act wants it."""
        with anyio.move_on_after(seconds):
            await self.poke(what)
        raise self.error()

    def error(self) -> BaseException:
        """What it crashes with, which tells the attempt."""
        return CRASHES[self.fake.raises](f"{self.fake.name} {self.attempt}")


@attrs.define(eq=False)
class Stage:
    """Runs one app and keeps the log."""

    app: App
    log: list[tuple[float, Event | Mark]] = attrs.field(factory=list)
    calls: dict[str, int] = attrs.field(factory=dict)
    parts: dict[str, Part] = attrs.field(factory=dict)  # those that work right now
    report: Report | None = None
    ended: float = math.nan
    observers: tuple[Observer, ...] = ()  # besides the log
    begins: Callable[[Orchestrator], object] = lambda _: None

    async def run(self) -> None:
        before = len(anyio.get_running_tasks())
        orchestrator = Orchestrator(
            [Unit(self.declare(fake)) for fake in self.app.fakes],
            shutdown_timeout=self.app.timeout,
            drain_delay=self.app.drain_delay,
            observers=[lambda event: self.log.append((anyio.current_time(), event)), *self.observers],
        )
        self.begins(orchestrator)

        def at_end(report: Report) -> None:
            self.report, self.ended = report, anyio.current_time()

        async def signals() -> None:
            await anyio.sleep(self.app.stop)
            orchestrator.request_stop("signal")
            if self.app.force is not None:
                await anyio.sleep(self.app.force)
                orchestrator.force()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(signals)
            tasks.start_soon(self.act)
            await orchestrator.run(at_end)
            tasks.cancel_scope.cancel()
        assert len(anyio.get_running_tasks()) == before, "tasks are left behind"

    async def act(self) -> None:
        for act in self.app.acts:
            await anyio.sleep(act.gap)
            if self.parts:
                part = list(self.parts.values())[act.whom % len(self.parts)]
                part.mark("poked")
                part.poked.setdefault(act.what, anyio.Event()).set()

    def declare(self, fake: Fake) -> Service[..., Any]:
        """The service of *fake*."""
        names = [*(f"{name}: object" for name in fake.values), *(f"{name}: object = None" for name in fake.optional)]
        if fake.style == "serving":
            names.append("serving: Serving")
        filled = ", ".join(f"{name.split(':')[0]}={name.split(':')[0]}" for name in names)
        scope: dict[str, Any] = {"Serving": Serving, "play": self.play, "fake": fake}
        head = f"*, {', '.join(names)}" if names else ""
        code = f"async def {fake.name}({head}): await play(fake, {filled})"
        exec(code, scope)  # noqa: S102  (the names of parameters are the contract)
        declared: Service[..., Any] = service(
            depends=[*fake.waits_for, *(started(name) for name in fake.launches)],
            retries=Retry(
                fake.retries,
                delay=fake.delay,
                factor=fake.factor,
                max_delay=fake.max_delay,
                jitter=0,
                reset_after=fake.reset_after,
            ),
            allowed_failure=fake.allowed,
            oneshot=fake.style == "oneshot",
            start_timeout=fake.start_timeout,
            stop_timeout=fake.stop_timeout,
        )(scope[fake.name])
        return declared

    async def play(self, fake: Fake, serving: Serving[object] | None = None, **given: Any) -> None:
        attempt = self.calls[fake.name] = self.calls.get(fake.name, 0) + 1
        holds = tuple(value for value in given.values() if value is not None)

        def mark(what: str) -> None:
            self.log.append((anyio.current_time(), Mark(fake.name, attempt, what, holds)))

        part = Part(fake, attempt, mark, fake.fault if attempt <= fake.attempts else "none")
        mark("begins")
        try:
            await anyio.sleep(fake.opening + (4 if part.fault == "slow" else 0))
            if part.fault == "early":
                raise part.error()
            if part.fault == "never serves":
                return
            async with self.resource(part):
                if serving is None:
                    await self.working(part)
                else:
                    await self.serve(part, serving)
        finally:
            mark("ends")

    async def serve(self, part: Part, serving: Serving[object]) -> None:
        fake = part.fake
        try:
            async with serving((fake.name, part.attempt), drain=fake.drains is not None) as work:
                part.mark("serves")
                how = "cancelled"
                try:
                    if self.app.acts or part.fault == "background":
                        seconds = fake.after if part.fault == "background" else math.inf
                        work.start_soon(part.crash, "background", seconds)
                    if fake.drains is not None and part.fault == "none":
                        await work.stop_requested()
                        await anyio.sleep(fake.drains)
                    else:
                        await self.working(part)
                    how = "returned"
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException:
                    how = "crashed"
                    raise
                finally:
                    part.mark(how)
        finally:
            part.mark("releases")
            await anyio.sleep(fake.closing)
            await hang(fake.hangs)
            if fake.bad_clean_up and part.attempt <= fake.attempts:
                raise Fault(f"{fake.name} {part.attempt} in clean-up")

    async def working(self, part: Part) -> None:
        fake = part.fake
        self.parts[fake.name] = part
        try:
            if part.fault == "crash":
                await part.crash("crash", fake.after)
            elif part.fault == "hang":
                await hang(fake.after * 5)
            elif part.fault == "return" or fake.style == "oneshot":
                with anyio.move_on_after(fake.after):
                    await part.crash("crash", math.inf)
            elif self.app.acts:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(part.crash, "crash", math.inf)
                    await part.poke("return")
                    tasks.cancel_scope.cancel()
            else:
                await anyio.sleep_forever()
        finally:
            del self.parts[fake.name]

    def resource(self, part: Part) -> AbstractAsyncContextManager[None]:
        """A resource with a task of its own, which may crash."""
        return self.breakable(part) if part.fault == "resource" or self.app.acts else nullcontext()

    @asynccontextmanager
    async def breakable(self, part: Part) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(part.crash, "resource", part.fake.after if part.fault == "resource" else math.inf)
            yield
            tasks.cancel_scope.cancel()
