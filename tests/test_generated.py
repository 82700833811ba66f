"""Generated apps on both backends, judged by an oracle that shares nothing with the kernel but its table of moves.

The fake services leave marks in the same log in which the kernel's events are recorded. From that log alone the oracle
tells whether the contract was kept. `GENERATED_EXAMPLES=5000` runs more of them than usual, at random.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from kernel.lifecycle import MOVES, Event, Forced, State, StopBegan, Transition
from kernel.orchestrator import Orchestrator, Unit
from kernel.policy import Retry
from kernel.report import Report
from kernel.spec import Service, Serving, service, started
from kernel.testing import BACKENDS
from tests.harness import hang, run_virtually

EXAMPLES = int(os.environ.get("GENERATED_EXAMPLES", "0"))
A_MOMENT = 1e-6  # what rounding may add to a time
RUNNING = {State.STARTING, State.READY, State.STOPPING}
ENDED = {state for state, moves in MOVES.items() if not moves}


# -- what is generated -----------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class Fake:
    """One service and all that is wrong with it. Times are in seconds."""

    name: str
    style: str = "serving"  # or plain, or oneshot
    values: tuple[str, ...] = ()  # dependencies whose value it takes
    optional: tuple[str, ...] = ()  # the same, with a default
    orders: tuple[str, ...] = ()
    launches: tuple[str, ...] = ()  # dependencies that it wants launched only
    allowed: bool = False
    retries: int = 0
    delay: float = 0.0
    start_timeout: float | None = None
    stop_timeout: float = 30.0
    opening: float = 0.0
    fault: str = "none"
    after: float = 0.0  # how long it works before the fault
    attempts: int = 1  # how many attempts have the fault
    closing: float = 0.0
    hangs: float = 0.0  # behind a shield, while it closes
    drains: float | None = None
    bad_clean_up: bool = False

    def __repr__(self) -> str:
        told = [field.name for field in attrs.fields(Fake) if getattr(self, field.name) != field.default]
        return f"Fake({', '.join(f'{name}={getattr(self, name)!r}' for name in told)})"

    @property
    def waits_for(self) -> tuple[str, ...]:
        """All that must be ready before it starts."""
        return (*self.values, *self.optional, *self.orders)

    @property
    def above(self) -> tuple[str, ...]:
        """All that it depends on."""
        return (*self.waits_for, *self.launches)


@attrs.frozen
class App:
    """Services, and when they are stopped."""

    fakes: tuple[Fake, ...]
    stop: float
    force: float | None = None
    timeout: float = 10.0
    drain_delay: float = 0.0


TIMES = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
FAULTS = [
    "none",
    "none",
    "none",
    "none",
    "none",
    "return",
    "early",
    "crash",
    "background",
    "resource",
    "never serves",
    "hang",
]


@st.composite
def fakes(draw: st.DrawFn, name: str, before: list[Fake]) -> Fake:
    """A service that depends on some of those *before* it."""
    edges: dict[str, list[str]] = {"values": [], "optional": [], "orders": [], "launches": []}
    size = min(draw(st.sampled_from([0, 1, 1, 2, 2, 3])), len(before))
    for one in draw(st.lists(st.sampled_from(before), min_size=size, max_size=size, unique=True)) if size else []:
        kinds = ["values", "values", "values", "optional"] if one.style == "serving" else []
        edges[draw(st.sampled_from([*kinds, "orders", "launches"]))].append(one.name)
    return Fake(
        name=name,
        style=draw(st.sampled_from(["serving", "serving", "serving", "plain", "oneshot"])),
        **{kind: tuple(names) for kind, names in edges.items()},
        allowed=draw(st.booleans()),
        retries=draw(st.integers(0, 3)),
        delay=draw(TIMES),
        start_timeout=draw(st.sampled_from([None, None, 1.0, 3.0])),
        stop_timeout=draw(st.sampled_from([30.0, 30.0, 1.0, 2.0])),
        opening=draw(st.just(0.0) | TIMES),
        fault=draw(st.sampled_from(FAULTS)),
        after=draw(TIMES),
        attempts=draw(st.sampled_from([1, 1, 2, 9])),
        closing=draw(TIMES | st.just(0.1)),
        hangs=draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, 15.0])),
        drains=draw(st.none() | st.sampled_from([None, 0.0, 1.0, 5.0])),
        bad_clean_up=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def apps(draw: st.DrawFn) -> App:
    """An app of up to twelve services."""
    every: list[Fake] = []
    for i in range(draw(st.sampled_from([1, 2, 3, 4, 6, 9, 12]))):
        every.append(draw(fakes(f"s{i}", every)))
    stop = draw(st.floats(0, 12) | TIMES)
    return App(
        tuple(draw(st.permutations(every))),
        stop=stop,
        force=draw(st.none() | st.none() | st.sampled_from([0.0, 0.5, 2.0])),
        timeout=draw(st.sampled_from([10.0, 10.0, 3.0, 1.0])),
        drain_delay=draw(st.sampled_from([0.0, 0.0, 0.0, 0.5])),
    )


# -- how it is run ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Mark:
    """What a fake service says of itself."""

    service: str
    attempt: int
    what: str
    holds: tuple[tuple[str, int], ...] = ()  # givers and their attempts


class Fault(Exception):
    """What a fake service crashes with."""


@attrs.define(eq=False)
class Stage:
    """Runs one app and keeps the log."""

    app: App
    log: list[tuple[float, Event | Mark]] = attrs.field(factory=list)
    calls: dict[str, int] = attrs.field(factory=dict)
    report: Report | None = None
    ended: float = math.nan

    async def run(self) -> None:
        before = len(anyio.get_running_tasks())
        orchestrator = Orchestrator(
            [Unit(self.declare(fake)) for fake in self.app.fakes],
            shutdown_timeout=self.app.timeout,
            drain_delay=self.app.drain_delay,
            observers=[lambda event: self.log.append((anyio.current_time(), event))],
        )

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
            await orchestrator.run(at_end)
            tasks.cancel_scope.cancel()
        assert len(anyio.get_running_tasks()) == before, "tasks are left behind"

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
            retries=Retry(fake.retries, delay=fake.delay, jitter=0, reset_after=None),
            allowed_failure=fake.allowed,
            oneshot=fake.style == "oneshot",
            start_timeout=fake.start_timeout,
            stop_timeout=fake.stop_timeout,
        )(scope[fake.name])
        return declared

    async def play(self, fake: Fake, serving: Serving[object] | None = None, **given: Any) -> None:
        attempt = self.calls[fake.name] = self.calls.get(fake.name, 0) + 1
        fault = fake.fault if attempt <= fake.attempts else "none"
        holds = tuple(value for value in given.values() if value is not None)

        def mark(what: str) -> None:
            self.log.append((anyio.current_time(), Mark(fake.name, attempt, what, holds)))

        mark("begins")
        try:
            await anyio.sleep(fake.opening)
            if fault == "early":
                raise Fault(fake.name)
            if fault == "never serves":
                return
            async with self.resource(fake, fault):
                if serving is None:
                    await self.work(fake, fault)
                    return
                try:
                    async with serving((fake.name, attempt), drain=fake.drains is not None) as work:
                        mark("serves")
                        how = "cancelled"
                        try:
                            if fault == "background":
                                work.start_soon(self.crash, fake)
                            if fake.drains is not None and fault == "none":
                                await work.stop_requested()
                                await anyio.sleep(fake.drains)
                            await self.work(fake, fault)
                            how = "returned"
                        except Fault:
                            how = "crashed"
                            raise
                        finally:
                            mark(how)
                finally:
                    mark("releases")
                    await anyio.sleep(fake.closing)
                    await hang(fake.hangs)
                    if fake.bad_clean_up and attempt <= fake.attempts:
                        raise Fault(f"clean-up of {fake.name}")
        finally:
            mark("ends")

    async def work(self, fake: Fake, fault: str) -> None:
        if fault == "return" or fake.style == "oneshot":
            await anyio.sleep(fake.after)
        elif fault == "crash":
            await self.crash(fake)
        elif fault == "hang":
            await hang(fake.after * 5)
        elif fake.drains is None or fault != "none" or fake.style == "plain":
            await anyio.sleep_forever()

    async def crash(self, fake: Fake) -> None:
        await anyio.sleep(fake.after)
        raise Fault(fake.name)

    @asynccontextmanager
    async def resource(self, fake: Fake, fault: str) -> AsyncIterator[None]:
        if fault == "resource":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.crash, fake)
                yield
                tasks.cancel_scope.cancel()
        else:
            yield


# -- how it is judged ------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Oracle:
    """Reads the log from its begin to its end, and complains."""

    stage: Stage
    now: float = 0.0
    state: dict[str, State] = attrs.field(factory=dict)
    was_started: set[str] = attrs.field(factory=set)
    running: dict[str, Mark] = attrs.field(factory=dict)  # the marks with which functions that run now began
    ended_by_itself: set[str] = attrs.field(factory=set)  # whose work was not cancelled
    backoffs: dict[str, int] = attrs.field(factory=dict)
    must_stop: dict[str, float] = attrs.field(factory=dict)  # holders whose value is going, and since when
    stop_began: float | None = None
    forced: float | None = None

    def judge(self) -> None:
        self.state = {fake.name: State.WAITING for fake in self.fakes.values()}
        for now, entry in self.stage.log:
            self.now = now
            self.check_that_holders_were_asked()
            if isinstance(entry, Mark):
                self.mark(entry)
            elif isinstance(entry, Transition):
                self.move(entry)
            elif isinstance(entry, StopBegan):
                self.stop(entry)
            elif isinstance(entry, Forced):
                self.forced = self.now
        self.end()

    @property
    def fakes(self) -> dict[str, Fake]:
        return {fake.name: fake for fake in self.stage.app.fakes}

    def dependents(self, name: str) -> Iterator[Fake]:
        return (fake for fake in self.fakes.values() if name in fake.above)

    def satisfied(self, fake: Fake) -> bool:
        """Whether nothing keeps *fake* from starting."""
        return all(self.available(name) or self.state[name] in ENDED for name in fake.waits_for) and all(
            name in self.was_started or self.state[name] in ENDED for name in fake.launches
        )

    def available(self, name: str) -> bool:
        """Whether *name* is ready, and holds no value that is going, which would soon stop it too."""
        holds = self.running[name].holds if name in self.running else ()
        return self.state[name] is State.READY and all(self.available(giver) for giver, _ in holds)

    def move(self, event: Transition) -> None:
        fake = self.fakes[event.service]
        assert event.previous is self.state[fake.name], f"{event} does not begin where it was"
        assert event.state in MOVES[event.previous], f"{event} is no legal move"
        if event.state is State.STARTING:
            assert self.stop_began is None, f"{fake.name} was launched after the stop began"
            assert self.satisfied(fake), f"{fake.name} started before its dependencies were there: {self.state}"
            for name in fake.values:
                assert self.available(name), f"{fake.name} started without the value of {name}"
            assert fake.name not in self.running, f"{fake.name} runs twice"
            self.was_started.add(fake.name)
            self.ended_by_itself.discard(fake.name)
        if event.state is State.BACKOFF:
            self.backoffs[fake.name] = self.backoffs.get(fake.name, 0) + 1
            assert self.backoffs[fake.name] <= fake.retries, f"{fake.name} was retried too often"
        if event.state is State.STOPPING:
            self.must_stop.pop(fake.name, None)
            self.stops(fake, event.previous)
        if event.state in ENDED | {State.BACKOFF, State.WAITING}:
            self.must_stop.pop(fake.name, None)
        self.state[fake.name] = event.state
        if event.state in {State.FAILED, State.ABANDONED} and not fake.allowed:
            assert self.stop_began is not None or self.stops_soon(), f"{fake.name} failed, and the app went on"

    def stops_soon(self) -> bool:
        """Whether the stop begins at this very time."""
        return any(isinstance(entry, StopBegan) and when == self.now for when, entry in self.stage.log)

    def stops(self, fake: Fake, previous: State) -> None:
        """It leaves ready, or is stopped while starting."""
        if previous is State.READY and self.stop_began is None:
            for name in self.outermost_holders(fake.name):
                if self.state[name] in {State.STARTING, State.READY}:
                    self.must_stop[name] = self.now
            if fake.style == "serving" and fake.fault == "none":
                going = [giver for giver, _ in self.running[fake.name].holds if not self.available(giver)]
                assert going, f"{fake.name} was stopped for nothing"
        elif previous is State.READY and self.was_asked(fake):
            alive = [one.name for one in self.dependents(fake.name) if self.state[one.name] in RUNNING]
            assert not alive, f"{fake.name} was asked to stop while {alive} still ran"

    def was_asked(self, fake: Fake) -> bool:
        """Whether it can only be the kernel that ended its work, in the course of the stop."""
        assert self.stop_began is not None
        by_itself = fake.name in self.ended_by_itself or fake.fault in {"resource", "background"}
        if self.forced is not None or by_itself or fake.style != "serving":
            return False
        # Until the delay is over, a holder whose value goes is still stopped as it always is.
        delay = self.now <= self.stop_began + self.stage.app.drain_delay
        return not delay or all(self.state[giver] is State.READY for giver, _ in self.running[fake.name].holds)

    def holders(self, giver: str) -> list[Mark]:
        """Those that run now with the value that *giver* gave in its present attempt."""
        attempt = self.stage_attempt(giver)
        return [one for one in self.running.values() if (giver, attempt) in one.holds]

    def outermost_holders(self, giver: str) -> set[str]:
        """Those that hold the value of *giver*, directly or not, and whose own value nobody holds."""
        names = [one.service for one in self.holders(giver)]
        return {outer for name in names for outer in self.outermost_holders(name) or {name}}

    def stage_attempt(self, name: str) -> int:
        return self.running[name].attempt if name in self.running else 0

    def check_that_holders_were_asked(self) -> None:
        late = {name: when for name, when in self.must_stop.items() if self.now > when}
        assert not late, f"holders whose value was going went on: {late}"

    def mark(self, entry: Mark) -> None:
        name = entry.service
        if entry.what == "begins":
            assert self.state[name] in {State.STARTING, State.READY}, f"{name} began to work in {self.state[name]}"
            self.running[name] = entry
            for giver, attempt in entry.holds:
                assert self.stage_attempt(giver) == attempt, f"{name} holds an old value of {giver}"
        elif entry.what in {"returned", "crashed"}:
            self.ended_by_itself.add(name)
        elif entry.what == "releases":
            for holder in self.running.values():
                if (name, entry.attempt) in holder.holds and self.forced is None:
                    assert self.state[holder.service] is State.ABANDONED, (
                        f"the resources of {name} close while {holder.service} runs with its value"
                    )
        elif entry.what == "ends":
            del self.running[name]

    def stop(self, event: StopBegan) -> None:
        assert self.stop_began is None, "the stop began twice"
        self.stop_began = self.now
        for fake in self.fakes.values():
            if self.state[fake.name] is State.WAITING and self.satisfied(fake):
                assert self.just_satisfied(fake), f"{fake.name} could have started, and did not: {self.state}"

    def just_satisfied(self, fake: Fake) -> bool:
        """Whether what it waited for came at this very time, or the value that it needs will never come."""
        gone = any(self.state[name] in ENDED for name in fake.values)
        return gone or any(
            isinstance(entry, Transition) and entry.service in fake.above and when == self.now
            for when, entry in self.stage.log
        )

    def end(self) -> None:
        app, report = self.stage.app, self.stage.report
        assert report is not None
        assert self.stop_began is not None
        assert not self.running, f"still running: {self.running}"
        assert all(state in ENDED for state in self.state.values()), f"not ended: {self.state}"
        limit = self.stop_began + app.timeout
        if self.forced is not None:
            limit = min(limit, self.forced + 1)
        assert self.stage.ended <= limit + A_MOMENT, f"the shutdown took until {self.stage.ended}, not {limit}"
        assert report.exit_code == self.exit_code(), f"exit code {report.exit_code}: {self.state}"
        for ending in report.endings:
            assert ending.state is self.state[ending.service]
            assert (ending.error is not None) is (ending.state in {State.FAILED, State.ABANDONED})
        blameless = {fake.name for fake in app.fakes if self.blameless(fake)}
        bad = {name for name in blameless if self.state[name] in {State.FAILED, State.ABANDONED}}
        assert not bad or self.forced is not None, f"nothing was wrong with {bad}"

    def exit_code(self) -> int:
        """The exit code by the table in the contract."""
        if self.forced is not None:
            return 130
        if State.ABANDONED in self.state.values():
            return 3
        if any(state is State.FAILED and not self.fakes[name].allowed for name, state in self.state.items()):
            return 1
        return int(all(state is State.FAILED for state in self.state.values()))

    def closes_in_time(self, fake: Fake) -> bool:
        """Whether its clean-up is shorter than what is left for it, whoever else overruns."""
        app = self.stage.app
        least = min(1.0, (app.timeout - app.drain_delay) / (2 * len(app.fakes)))
        return fake.closing < (least / 2 if not fake.opening else A_MOMENT)

    def blameless(self, fake: Fake) -> bool:
        """Whether nothing can go wrong with *fake*: it is quick, has no fault, and gets the values that it needs."""
        return (
            fake.fault in {"none", "return"}
            and not (fake.start_timeout and fake.opening + fake.after >= fake.start_timeout)
            and not fake.bad_clean_up
            and not fake.hangs
            and self.closes_in_time(fake)
            and fake.drains is None
            and not fake.values
            and not (fake.opening and fake.stop_timeout <= 1)  # asked while starting, it serves as it is cut
        )


@settings(
    max_examples=EXAMPLES or 400,
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(apps())
@pytest.mark.parametrize("backend", BACKENDS)
def test_generated(backend: str, app: App) -> None:
    """Whatever the services, their faults and the moment of the stop, the contract is kept."""
    stage = Stage(app)
    run_virtually(backend, stage.run)
    note("\n".join(f"{when:6.3f}  {entry}" for when, entry in stage.log))
    Oracle(stage).judge()
