"""Runs services in virtual time and remembers what happened: each event with its time, and marks that services leave.

In virtual time a sleep costs nothing: whenever nobody has anything to do, the clock jumps to the next timer. trio has
that as `MockClock`; `VirtualLoop` is its twin for asyncio. Both jump past real work in threads, sockets and processes,
so tests of those use real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import anyio
import attrs
from trio.testing import MockClock

from kernel.declare.service import Service
from kernel.lifecycle.events import (
    MOVES,
    AllReady,
    Ending,
    Event,
    Forced,
    Notice,
    Observer,
    State,
    StopBegan,
    Transition,
)
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit
from kernel.testing import VirtualLoop, backend_options

FOR_EVER = 10_000_000.0  # virtual seconds


def block_the_loop(seconds: float) -> None:
    """Do what `time.sleep` in a service would do to the virtual clock."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        assert isinstance(loop, VirtualLoop)
        loop.advance(seconds)


@attrs.define(eq=False)
class Lab:
    """One run of some services, from time 0 on: first say what is to happen when, then `run`.

    Every run also checks that each move was legal, that it began where the one before had ended, and that no task is
    left behind.
    """

    log: list[tuple[float, Event]] = attrs.field(factory=list)
    marks: list[tuple[float, str]] = attrs.field(factory=list)
    orchestrator: Orchestrator = attrs.field(init=False)
    report: Report = attrs.field(init=False)
    _began: float = attrs.field(default=0.0)
    _plans: list[tuple[float, Callable[[], object]]] = attrs.field(factory=list)

    # -- what is to happen ---------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], object]) -> Lab:
        """Call *what* *when* seconds after the start."""
        self._plans.append((when, what))
        return self

    def stop_at(self, when: float, reason: str = "asked") -> Lab:
        """Ask for a stop *when* seconds after the start."""
        return self.at(when, lambda: self.orchestrator.request_stop(reason))

    def force_at(self, when: float) -> Lab:
        """Cut everything *when* seconds after the start."""
        return self.at(when, self._force)

    def _force(self) -> None:
        self.orchestrator.force()  # which exists once it runs

    async def run(
        self,
        *services: Service[..., Any] | Unit,
        shutdown_timeout: float = 10.0,
        drain_delay: float = 0.0,
        observers: Sequence[Observer] = (),
        resting: Callable[[], bool] = bool,
        signal: Callable[[], tuple[str, float]] = lambda: ("", math.inf),
    ) -> Lab:
        """Run *services* until the end."""
        self.orchestrator = Orchestrator(
            [one if isinstance(one, Unit) else Unit(one) for one in services],
            shutdown_timeout=shutdown_timeout,
            drain_delay=drain_delay,
            observers=(self._observe, *observers),
            resting=resting,
            signal=signal,
        )
        self._began = anyio.current_time()
        before = {task.id for task in anyio.get_running_tasks()}
        with anyio.fail_after(FOR_EVER):  # what waits for nothing would hang, as there is no time to jump to
            async with anyio.create_task_group() as tasks:
                for when, what in self._plans:
                    tasks.start_soon(self._later, when, what)
                self.report = await self.orchestrator.run()
                tasks.cancel_scope.cancel()
        left = [task.name for task in anyio.get_running_tasks() if task.id not in before]
        assert not left, f"tasks left behind: {left}"
        self._check_moves()
        return self

    async def _later(self, when: float, what: Callable[[], object]) -> None:
        await anyio.sleep(when)
        what()

    def _check_moves(self) -> None:
        now = dict.fromkeys(self.orchestrator.supervisors, State.WAITING)
        for event in self.events:
            if isinstance(event, Transition):
                assert event.previous is now[event.service], f"{event} does not begin where it was"
                assert event.state in MOVES[event.previous], f"{event} is not a legal move"
                now[event.service] = event.state
        assert all(not MOVES[state] for state in now.values()), f"not ended: {now}"

    # -- what happened -------------------------------------------------------------------------------------------

    def _observe(self, event: Event) -> None:
        self.log.append((self.now, event))

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return round(anyio.current_time() - self._began, 9)

    def mark(self, text: str) -> None:
        """Remember that something happened in a service, and when."""
        self.marks.append((self.now, text))

    @property
    def marked(self) -> list[str]:
        """The marks without their times."""
        return [text for _, text in self.marks]

    def marked_at(self, text: str) -> float:
        """When *text* was marked first."""
        return next(when for when, mark in self.marks if mark == text)

    @property
    def events(self) -> list[Event]:
        """All events, in order."""
        return [event for _, event in self.log]

    def moves(self, service: str) -> list[Transition]:
        """All moves of *service*, in order."""
        return [event for event in self.events if isinstance(event, Transition) and event.service == service]

    def path(self, service: str) -> str:
        """All states of *service*, in order, as words."""
        return " ".join(["waiting", *(move.state.value for move in self.moves(service))])

    def when(self, service: str, state: str, nth: int = 1) -> float:
        """The time at which *service* came into *state* for the *nth* time."""
        times = [
            time
            for time, event in self.log
            if isinstance(event, Transition) and event.service == service and event.state.value == state
        ]
        return times[nth - 1]

    def order(self, state: str) -> list[str]:
        """The services in the order in which they came into *state*."""
        return [event.service for event in self.events if isinstance(event, Transition) and event.state.value == state]

    @property
    def notices(self) -> list[str]:
        """All notices, as "service: message"."""
        return [f"{event.service}: {event.message}" for event in self.events if isinstance(event, Notice)]

    @property
    def all_ready(self) -> list[AllReady]:
        """The events that say that all are ready; there is at most one."""
        return [event for event in self.events if isinstance(event, AllReady)]

    @property
    def stop_began(self) -> StopBegan:
        """The one event that says that the stop has begun."""
        (event,) = (event for event in self.events if isinstance(event, StopBegan))
        return event

    @property
    def stopped_at(self) -> float:
        """The time at which the stop was asked for."""
        return next(time for time, event in self.log if isinstance(event, StopBegan))

    @property
    def forced(self) -> list[Forced]:
        """The events that say that all was cut."""
        return [event for event in self.events if isinstance(event, Forced)]

    def ending(self, service: str) -> Ending:
        """How *service* ended."""
        return next(ending for ending in self.report.endings if ending.service == service)

    def error(self, service: str) -> BaseException:
        """What *service* failed with."""
        error = self.ending(service).error
        assert error is not None, f"{service} did not fail"
        return error

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return self.report.exit_code


# -- building blocks of fake services --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def resource(lab: Lab, name: str, *, opening: float = 0.0, closing: float = 0.0) -> AsyncIterator[str]:
    """A resource that takes time to open and to close, and that marks when it is open, closing, and calmly closed."""
    await anyio.sleep(opening)
    lab.mark(f"{name} open")
    try:
        yield name
    finally:
        lab.mark(f"{name} closing")
        await anyio.sleep(closing)
        lab.mark(f"{name} closed")


async def hang(seconds: float) -> None:
    """Ignore every cancellation for so long, as a thread or a shield does."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(seconds)


async def crash_after(seconds: float, error: BaseException) -> None:
    """Raise *error* after so many seconds."""
    await anyio.sleep(seconds)
    raise error


@contextlib.contextmanager
def marking(lab: Lab, name: str) -> Iterator[None]:
    """Mark the begin and the end of a piece of work."""
    lab.mark(f"{name} begins")
    try:
        yield
    finally:
        lab.mark(f"{name} ends")


def run_virtually(backend: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """Run *main* on *backend* in a fresh loop in virtual time."""
    return anyio.run(main, backend=backend, backend_options=backend_options(backend))
