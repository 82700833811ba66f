"""All services together: who may start, who is asked to stop and when, and how it all ended.

Start and stop are dataflow. Each move of a service is put into a queue, and its consequences for the others are
drawn one after the other: counters of unmet dependencies and of live dependents go up and down, and one that
reaches zero starts or stops its service. So nothing waits for a level, no task waits for another, and the whole
takes time linear in services plus edges.
"""

from __future__ import annotations

import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from anyio import Event as AsyncEvent
from anyio import create_task_group, get_cancelled_exc_class

from kernel.declare.signature import Edge
from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import (
    BROKEN,
    ENDED,
    LIVE,
    AllReady,
    Event,
    Forced,
    Notice,
    Observer,
    State,
    StillWaiting,
    StopBegan,
    Transition,
    hears_all,
)
from kernel.lifecycle.explain import starting_tree, stopping_tree
from kernel.lifecycle.graph import depths
from kernel.lifecycle.report import Ending, Report
from kernel.lifecycle.supervisor import GRACE, Supervisor, Want
from kernel.lifecycle.tasks import Run, open_tasks
from kernel.lifecycle.units import Unit

LONG_START = 5.0  # seconds after which a start that is not over is explained
LONG_STOP = 2.0  # the same of a stop
HALTED = frozenset({State.WAITING, State.BACKOFF})


def level_share(budget: float, levels: Iterable[int]) -> float:
    """The seconds of the last part of a *budget* that each level keeps for itself.

    Args:
        budget: Seconds for the whole shutdown.
        levels: For each live service the number of levels below it.

    """
    return min(1.0, budget / (2 * (max(levels, default=0) + 1)))


def cut_at(deadline: float, share: float, levels: int) -> float:
    """When a service with so many *levels* below it is cut at the latest; half a *share* later it is given up."""
    return deadline - (levels + 0.5) * share


class Orchestrator:
    """Runs *units* until all have ended.

    Args:
        units: The services to run. Each dependency of each is among them, or is skipped.
        shutdown_timeout: Seconds for the whole shutdown, counted from when the stop is asked for.
        drain_delay: Seconds between a requested stop and its begin, in which nothing is ready any more.
        observers: Are told each event.
        resting: Tells whether deadlines rest, because somebody is debugging.

    Raises:
        CycleError: Services wait for each other.

    """

    def __init__(
        self,
        units: Iterable[Unit],
        *,
        shutdown_timeout: float = 10.0,
        drain_delay: float = 0.0,
        observers: Sequence[Observer] = (),
        resting: Callable[[], bool] = bool,
    ) -> None:
        self.clock = Clock(resting)
        self.cancellation: type[BaseException] = BaseException
        self.stopping = False
        self._units = {unit.service.name: unit for unit in units}
        self._shutdown_timeout = shutdown_timeout
        self._drain_delay = drain_delay
        self._observers = list(observers)
        self._hears = [getattr(one, "hears", hears_all) for one in observers]
        self._queue: deque[tuple[Supervisor, State, State]] = deque()
        self._events: deque[Event] = deque()
        self._settling = False
        self._everything: dict[str, Supervisor] = {}
        self._live = 0
        self._unready = 0
        self._unended = 0
        self._all_ready = False
        self._first: Supervisor | None = None
        self.reason = ""  # of the stop
        self._stopping_services = False
        self._forced = False
        self._asked_at = self._began = 0.0
        self._deadline = math.inf
        self._slice = 0.0
        depths(self._graph())  # refuses cycles

    # -- from outside --------------------------------------------------------------------------------------------

    @property
    def supervisors(self) -> Mapping[str, Supervisor]:
        """Every service by name; empty before `run`."""
        return self._everything

    @property
    def live(self) -> int:
        """How many attempts are running."""
        return self._live

    @property
    def ready(self) -> bool:
        """Whether every service is ready, done, or failed with permission, and no stop was asked for."""
        return bool(self._everything) and not self._unready and not self.stopping

    def running(self, frame: FrameType | None) -> str:
        """The name of the service whose code *frame* of the loop's thread runs; empty where it is none's.

        Told by the function's own frame, or else by the file that only one service is written in.
        """
        functions = {
            one.spec.fn.__code__: name for name, one in self._everything.items() if hasattr(one.spec.fn, "__code__")
        }
        files: dict[str, set[str]] = {}
        for code, name in functions.items():
            files.setdefault(code.co_filename, set()).add(name)
        while frame is not None:
            if frame.f_code in functions:
                return functions[frame.f_code]
            names = files.get(frame.f_code.co_filename, set())
            if len(names) == 1:
                return next(iter(names))
            frame = frame.f_back
        return ""

    async def run(self, at_end: Callable[[Report], None] | None = None) -> Report:
        """Run all services until each has ended or was abandoned.

        Args:
            at_end: Is called with the report before the task group is left, which an abandoned service may keep
                open for ever: the place to leave the process from.

        Cancellation cuts every service at once, without any order; to stop, call `request_stop`.

        """
        self.clock.start()
        self.cancellation = get_cancelled_exc_class()
        self._began = self.clock.now()
        self._context = contextvars.copy_context()
        self._finished = AsyncEvent()
        self._build()
        self.clock.at(self._began + LONG_START, self._explain_start)
        async with create_task_group() as own, open_tasks() as self._tasks:
            if self._everything:
                own.start_soon(self.clock.run, name="kernel clock")
                try:
                    self._start()
                    await self._finished.wait()
                except BaseException:
                    self.force()
                    raise
            report = self._report()
            if at_end is not None:
                at_end(report)
            own.cancel_scope.cancel()  # the clock, where one that was abandoned keeps us
        return report

    def request_stop(self, reason: str, *, ago: float = 0.0) -> None:
        """Stop everything in order, as a signal does; does nothing when that is under way.

        Args:
            reason: Why, in words that complete "stopping: ...".
            ago: Seconds since it was asked for, where the loop was not free to be told: the deadline counts from then.

        """
        self._begin_stop(reason, delay=self._drain_delay, ago=ago)
        self.settle()

    def force(self) -> None:
        """Cut everything that still runs, now, as a second signal does. What ignores it is abandoned after 1 s."""
        self._begin_stop("forced")
        running = [one for one in self._everything.values() if one.state in LIVE]
        if not running:
            return
        self._forced = True
        self._deadline = min(self._deadline, self.clock.now() + GRACE)
        self._emit(Forced(tuple(one.name for one in running)))
        self._stop_services()
        for one in running:
            one.force()
        self.settle()

    # -- the supervisors' host -----------------------------------------------------------------------------------

    def moved(self, supervisor: Supervisor, previous: State, seconds: float, reason: str) -> None:
        """Report the move, and queue its consequences."""
        if self._heard(supervisor.state):
            self._emit(
                Transition(
                    supervisor.name,
                    previous,
                    supervisor.state,
                    supervisor.attempt,
                    seconds,
                    reason,
                    supervisor.error,
                    supervisor.spec.allowed_failure,
                    supervisor.internal,
                )
            )
        self._queue.append((supervisor, previous, supervisor.state))

    def withdraw(self, provider: Supervisor) -> None:
        """Ask all who hold the value of *provider*, directly or not, to stop; the outermost first."""
        touched: list[Supervisor] = []
        todo = [provider]
        while todo:
            lost = todo.pop()
            for consumer, _ in lost.dependents:
                if (
                    consumer.state in {State.STARTING, State.READY}
                    and consumer.wanted is Want.RUN
                    and lost in consumer.holds
                ):
                    consumer.wanted = Want.RESTART
                    self._publish(consumer)
                    touched.append(consumer)
                    todo.append(consumer)
        for consumer in touched:
            self._proceed(consumer)

    def limits(self, supervisor: Supervisor, asked_at: float) -> tuple[float, float]:
        """When it is cut and given up: by its own stop_timeout, and early enough for each level below it."""
        own = asked_at + supervisor.spec.stop_timeout
        if not self._stopping_services:
            return own, own + GRACE
        if self._forced:
            return min(own, self._deadline), self._deadline
        levels = supervisor.depth
        return (
            min(own, cut_at(self._deadline, self._slice, levels)),
            self._deadline - levels * self._slice,
        )

    def retry(self, supervisor: Supervisor) -> None:
        """Start it again, if all that it depends on is still there."""
        if supervisor.unmet:
            supervisor.wait()
        else:
            self._launch(supervisor)
        self.settle()

    def interrupt(self) -> None:
        """Take a KeyboardInterrupt raised in a service for the signal that it is."""
        self.request_stop("KeyboardInterrupt")

    def notice(self, supervisor: Supervisor, message: str, error: BaseException | None = None) -> None:
        """Tell the observers."""
        self._emit(Notice(supervisor.name, message, error))

    # -- start ---------------------------------------------------------------------------------------------------

    def _graph(self) -> dict[str, list[str]]:
        return {
            name: [edge.target for edge in unit.service.needs.edges if edge.target in self._units] + list(unit.after)
            for name, unit in self._units.items()
        }

    def _build(self) -> None:
        everything = self._everything
        for name, unit in self._units.items():
            everything[name] = Supervisor(
                unit.service, self, unit.config, unit.internal, unit.command, unit.awaited, unit.wrap, unit.doing
            )
        for name, unit in self._units.items():
            one = everything[name]
            for edge in unit.service.needs.edges:
                if edge.target in everything:
                    self._link(one, edge)
            for target in unit.after:
                self._link(one, Edge(target))
        self._unended = sum(not one.internal for one in everything.values())
        self._unready = sum(not one.internal or one.awaited for one in everything.values())

    def _link(self, one: Supervisor, edge: Edge) -> None:
        target = self._everything[edge.target]
        one.links.append((target, edge))
        target.dependents.append((one, edge))
        one.unmet += 1

    def _start(self) -> None:
        for one in list(self._everything.values()):
            if not one.links:
                self._launch(one)
        self.settle()

    def _launch(self, one: Supervisor) -> None:
        values: dict[str, Any] = {}
        holds: list[Supervisor] = []
        for target, edge in one.links:
            target.live_dependents += 1
            if edge.parameter and target.state is State.READY:
                target.live_consumers += 1
                holds.append(target)
                values[edge.parameter] = target.value
            elif target.state in BROKEN:
                was = "was " if target.state is State.ABANDONED else ""
                self.notice(one, f"starting even though {target.name} {was}{target.state.value}")
        one.holds = tuple(holds)
        self._live += 1
        one.launch(self._spawn, values)

    def _spawn(self, run: Run, name: str) -> None:
        # In the context of the app, not of the service whose move led here: its context variables are its own.
        self._tasks.spawn(run, name, self._context)

    # -- consequences --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Draw the consequences of all moves; those of one are complete before the next is looked at."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._queue or self._events:
                if not self._queue:
                    self._tell(self._events.popleft())
                    continue
                one, previous, state = self._queue.popleft()
                if previous in LIVE and state not in LIVE:
                    self._release(one)
                if state is State.STARTING and one.attempt == 1:
                    self._meet(one, kind="started")
                if state in BROKEN:
                    self._broke(one)
                self._publish(one)
                if state in ENDED:
                    self._ended(one)
                elif state is State.WAITING:
                    self._wait_or_lose(one)
        finally:
            self._settling = False

    def _release(self, one: Supervisor) -> None:
        """Its attempt is over: those it depended on may go on stopping."""
        self._live -= 1
        holds, one.holds = one.holds, ()
        for target, _ in one.links:
            target.live_dependents -= 1
            if target in holds:
                target.live_consumers -= 1
                if not target.live_consumers:
                    target.consumers_left()
            self._proceed(target)
        if self.stopping and not self._live:
            self._finished.set()

    def _proceed(self, one: Supervisor) -> None:
        """Ask *one* to stop if that is wanted, and nobody needs it any more."""
        if one.wanted is Want.RUN or one.state not in LIVE:
            return
        if not (one.live_dependents if one.wanted is Want.STOP else one.live_consumers):
            one.ask()

    def _publish(self, one: Supervisor) -> None:
        """Let its dependents know when it has become ready, or has ceased to be."""
        is_open = (one.state is State.READY and one.wanted is not Want.RESTART) or one.state in ENDED
        if is_open == one.open:
            return
        one.open = is_open
        if not one.internal or one.awaited:
            self._unready += -1 if is_open else 1
        if is_open:
            if not one.attempt:
                self._meet(one, kind="started")  # it never was and never will be launched
            self._meet(one, kind="ready")
            self._check_all_ready(one)
        else:
            for dependent, edge in one.dependents:
                if edge.kind == "ready":
                    dependent.unmet += 1

    def _meet(self, one: Supervisor, *, kind: str) -> None:
        for dependent, edge in one.dependents:
            if edge.kind == kind:
                dependent.unmet -= 1
                dependent.last_met = one
                if not dependent.unmet and dependent.state is State.WAITING:
                    self._wait_or_lose(dependent)

    def _wait_or_lose(self, one: Supervisor) -> None:
        """Launch *one* if it can start; end it if a value that it needs will never come."""
        if self.stopping:
            if one.state is State.WAITING:
                one.never_mind("")
            return
        for target, edge in one.links:
            if edge.parameter and not edge.optional and target.state in ENDED:
                one.lose(target)
                return
        if not one.unmet:
            self._launch(one)

    def _broke(self, one: Supervisor) -> None:
        """It failed or was abandoned: the end of the app, unless it may."""
        fatal = not one.spec.allowed_failure
        if self._first is None or (fatal and self._first.spec.allowed_failure):
            self._first = one
        if fatal and not self.stopping:
            self._begin_stop(f"{one.name} {one.state.value}", failure=True)
        elif fatal and not self._stopping_services:
            self._stop_services()  # a failure waits for no drain delay

    def _ended(self, one: Supervisor) -> None:
        """It will never come back: those who need its value fail, and the last one to end ends the app."""
        if not self.stopping:
            for dependent, edge in one.dependents:
                if edge.parameter and not edge.optional and dependent.state in HALTED:
                    dependent.lose(one)
        if one.internal:
            return
        self._unended -= 1
        if one.once:
            self._begin_stop("the command has ended")
        elif not self._unended:
            self._begin_stop("every service has ended")

    def _check_all_ready(self, last: Supervisor) -> None:
        if self._unready or self._all_ready or self.stopping:
            return
        self._all_ready = True
        chain = [last]
        while chain[-1].last_met is not None and not chain[-1].last_met.internal:
            chain.append(chain[-1].last_met)
        self._emit(AllReady(self.clock.now() - self._began, tuple(one.name for one in reversed(chain))))

    # -- what still waits ----------------------------------------------------------------------------------------

    def explain(self) -> None:
        """Tell the observers what the start still waits for."""
        if not self.stopping:
            now = self.clock.now()
            lines = starting_tree(self._everything.values(), now)
            self._emit(StillWaiting(stopping=False, seconds=now - self._began, lines=lines))

    def _explain_start(self) -> None:
        """At first after `LONG_START`, then each time that it has taken twice as long."""
        if not self._all_ready and not self.stopping:
            self.explain()
            self.settle()
            now = self.clock.now()
            self.clock.at(now + (now - self._began), self._explain_start)

    def _explain_stop(self) -> None:
        now = self.clock.now()
        lines = stopping_tree(self._everything.values(), now)
        self._emit(StillWaiting(stopping=True, seconds=now - self._asked_at, lines=lines))
        self.settle()
        self.clock.at(now + (now - self._asked_at), self._explain_stop)

    # -- stop ----------------------------------------------------------------------------------------------------

    def _begin_stop(self, reason: str, *, failure: bool = False, delay: float = 0.0, ago: float = 0.0) -> None:
        if self.stopping:
            return
        self.stopping = True
        self.reason = reason
        self._asked_at = self.clock.now() - ago
        self._deadline = self._asked_at + self._shutdown_timeout
        self._emit(StopBegan(reason, self._shutdown_timeout, failure))
        self.clock.at(self._asked_at + LONG_STOP, self._explain_stop)
        for one in self._everything.values():
            if one.state in HALTED:
                one.never_mind("" if one.attempt else "never started")
        if delay:
            self.clock.at(self._asked_at + delay, self._delay_is_over, deadline=False)
        else:
            self._stop_services()

    def _delay_is_over(self) -> None:
        self._stop_services()
        self.settle()

    def _stop_services(self) -> None:
        """Ask everything that runs to stop, each when those that depend on it have ended."""
        if not self._stopping_services:
            self._stopping_services = True
            alive = {name: one for name, one in self._everything.items() if one.state in LIVE}  # in their order
            graph = self._graph()
            below = depths({name: [target for target in graph[name] if target in alive] for name in alive})
            self._slice = level_share(max(self._deadline - self.clock.now(), 0.0), below.values())
            for name, one in alive.items():
                one.depth = below[name]
                one.wanted = Want.STOP
        for one in list(self._everything.values()):
            if one.state in LIVE:
                one.rearm()
                self._proceed(one)
        if not self._live:
            self._finished.set()

    def _report(self) -> Report:
        now = self.clock.now()
        deadline = math.inf if self.clock.resting() else self._deadline
        endings = [
            Ending(
                one.name,
                one.state,
                one.attempt,
                one.uptime,
                one.reason,
                one.error,
                one.spec.allowed_failure,
                one.internal,
                one.since > deadline,
            )
            for one in self._everything.values()
        ]
        return Report(
            self.reason,
            tuple(endings),
            self._first.name if self._first else None,
            now - self._began,
            now - self._asked_at if self.stopping else 0.0,
            self._forced,
            now > deadline,
        )

    def _heard(self, state: State) -> bool:
        """Whether any observer wants to hear of a move into *state*."""
        for hears in self._hears:  # noqa: SIM110  (`any` takes twice as long)
            if hears(state):
                return True
        return False

    def _emit(self, event: Event) -> None:
        """Have the observers told at the end of this step: one of them may ask for a stop, which needs all settled."""
        if self._observers:
            self._events.append(event)

    def _tell(self, event: Event) -> None:
        """Tell every observer; one that fails is reported to the others and not asked again."""
        for observer in list(self._observers):
            try:
                observer(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  (an observer must never take a service down)
                if isinstance(error, KeyboardInterrupt):
                    self.interrupt()
                self._observers.remove(observer)
                self._emit(Notice("", f"observer {observer!r} failed and was disabled", error))
