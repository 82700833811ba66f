"""All services together: who may start, who is asked to stop and when, and how it all ended.

Start and stop are dataflow. Each move of a service is put into a queue, and its consequences for the others are
drawn one after the other: counters of unmet dependencies and of live dependents go up and down, and one that
reaches zero starts or stops its service. So nothing waits for a level, no task waits for another, and the whole
takes time linear in services plus edges.
"""

from __future__ import annotations

import contextvars
import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from anyio import Event as AsyncEvent
from anyio import create_task_group, get_cancelled_exc_class

from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import (
    BROKEN,
    ENDED,
    HALTED,
    LAUNCHED,
    LIVE,
    AllReady,
    Forced,
    Notice,
    Observer,
    State,
    StopBegan,
)
from kernel.lifecycle.graph import depths
from kernel.lifecycle.group_signal import Signalled
from kernel.lifecycle.host import Want
from kernel.lifecycle.node import Node, build, targets_of
from kernel.lifecycle.observers import Observers
from kernel.lifecycle.progress import Progress
from kernel.lifecycle.recovery import Recovery
from kernel.lifecycle.report import Report
from kernel.lifecycle.shutdown import Shutdown
from kernel.lifecycle.tasks import Run, open_tasks
from kernel.lifecycle.units import Unit
from kernel.stacks import owner_of


class Orchestrator:
    """Runs *units* until all have ended.

    Args:
        units: The services to run. Each dependency of each is among them, or is skipped.
        shutdown_timeout: Seconds for the whole shutdown, counted from when the stop is asked for.
        drain_delay: Seconds between a requested stop and its begin, in which nothing is ready any more.
        observers: Are told each event.
        resting: Tells whether deadlines rest, because somebody is debugging.
        result: Gives the exit code where nothing goes wrong; takes the reason of the stop.
        signal: Gives the first signal that asked to stop, and the seconds since; the loop may not have been told yet.

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
        result: Callable[[str], int] = lambda _: 0,
        signal: Callable[[], tuple[str, float]] = lambda: ("", math.inf),
    ) -> None:
        self.clock = Clock(resting)
        self.cancellation: type[BaseException] = BaseException
        self.stopping = False
        self._units = {unit.service.name: unit for unit in units}
        self._drain_delay = drain_delay
        self._result = result
        self.signalled = Signalled(signal, functools.partial(self._begin_stop, delay=drain_delay))
        self.observers = Observers(observers, self.interrupt)
        self._queue: deque[tuple[Node, State, State]] = deque()
        self._settling = False
        self._nodes: dict[str, Node] = {}
        self._live = 0
        self._unready = 0
        self._withheld = 0  # blocks of `work.unready`
        self._unended = 0
        self.all_ready = False
        self._recovery = Recovery()
        self._first: Node | None = None  # the first to break, or the first that was not allowed to
        self.reason = ""  # of the stop
        self._began = 0.0
        self._shutdown = Shutdown(shutdown_timeout)
        self._progress = Progress(self)
        depths(targets_of(self._units))  # refuses cycles

    # -- from outside --------------------------------------------------------------------------------------------

    @property
    def supervisors(self) -> Mapping[str, Node]:
        """Every service by name; empty before `run`."""
        return self._nodes

    @property
    def live(self) -> int:
        """How many attempts are running."""
        return self._live

    @property
    def ready(self) -> bool:
        """Whether all is ready, done, or failed (allowed); none says `unready`; no stop was asked for."""
        return bool(self._nodes) and not self._unready and not self._withheld and not self.stopping

    def running(self, frame: FrameType | None) -> str:
        """Return the name of the service whose code *frame* of the loop's thread runs; empty where it is none's."""
        functions = {name: node.spec.fn for name, node in self._nodes.items()}
        return owner_of(frame, functions)

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
        self._nodes = build(self._units.values(), self)
        self._unended = sum(not node.internal for node in self._nodes.values())
        self._unready = sum(not node.internal or node.awaited for node in self._nodes.values())
        self._progress.start(self._began)
        report: Report | None = None
        async with create_task_group() as own, open_tasks() as self._tasks:
            if self._nodes:
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
        assert report is not None
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
        running = [node for node in self._nodes.values() if node.state in LIVE]
        if not running:
            return
        self._shutdown.force(self.clock.now())
        self.observers.emit(Forced(tuple(node.name for node in running)))
        self._stop_services()
        for node in running:
            node.force()
        self.settle()

    # -- the supervisors' host -----------------------------------------------------------------------------------

    def moved(self, node: Node, previous: State, seconds: float, reason: str) -> None:
        """Report the move, and queue its consequences."""
        self.observers.emit(node.transition(previous, seconds, reason))
        self._queue.append((node, previous, node.state))

    def withdraw(self, provider: Node) -> None:
        """Ask all who hold the value of *provider*, directly or not, to stop; the outermost first."""
        touched: list[Node] = []
        todo = [provider]
        while todo:
            lost = todo.pop()
            for consumer, _ in lost.dependents:
                if consumer.state in LAUNCHED and consumer.wanted is Want.RUN and lost in consumer.holds:
                    consumer.wanted, consumer.cause = Want.RESTART, provider.name
                    self._publish(consumer)
                    touched.append(consumer)
                    todo.append(consumer)
        for consumer in touched:
            self._proceed(consumer)

    def limits(self, node: Node, requested_at: float) -> tuple[float, float]:
        """When it is cancelled and abandoned: by its own stop_timeout, and early enough for each level below it."""
        return self._shutdown.limits(node.spec.stop_timeout, node.depth, requested_at)

    def retry(self, node: Node) -> None:
        """Start it again, if all that it depends on is still there."""
        if node.unmet:
            node.wait(f"for {', '.join(target.name for target in node.waits_for)}")
        else:
            self._launch(node)
        self.settle()

    def explain(self) -> None:
        """Tell the observers what the start still waits for."""
        self._progress.tell()

    def interrupt(self) -> None:
        """Take a KeyboardInterrupt raised in a service for the signal that it is."""
        self.request_stop("KeyboardInterrupt")

    def withhold(self, node: Node, change: int) -> None:  # noqa: ARG002  (who it is, its own list tells)
        """Count one reason more, or less, why the app is unready although all serve."""
        self._withheld += change

    def notice(self, node: Node, message: str, error: BaseException | None = None, *, calm: bool = False) -> None:
        """Tell the observers."""
        self.observers.emit(Notice(node.name, message, error, calm))

    # -- start ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for node in list(self._nodes.values()):
            if not node.links:
                self._launch(node)
        self.settle()

    def _launch(self, node: Node) -> None:
        values: dict[str, Any] = {}
        holds: list[Node] = []
        for target, edge in node.links:
            target.live_dependents += 1
            if edge.parameter and target.state is State.READY:
                target.live_consumers += 1
                holds.append(target)
                values[edge.parameter] = target.value
            elif target.state in BROKEN:
                was = "was " if target.state is State.ABANDONED else ""
                self.notice(node, f"starting even though {target.name} {was}{target.state.value}")
        node.holds = tuple(holds)
        self._live += 1
        node.launch(self._spawn, values)

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
            while self._queue or self.observers:
                if not self._queue:
                    self.observers.tell_next()
                    continue
                node, previous, state = self._queue.popleft()
                if previous is State.READY:
                    node.last_met = None  # what made it ready is no cause of what follows
                if previous in LIVE and state not in LIVE:
                    self._release(node)
                if state is State.STARTING and node.attempt == 1:
                    self._meet(node, kind="started")
                if state in BROKEN:
                    self._broke(node)
                self._publish(node)
                if state in ENDED:
                    self._ended(node)
                elif state is State.WAITING:
                    self._wait_or_lose(node)
        finally:
            self._settling = False

    def _release(self, node: Node) -> None:
        """Its attempt is over: those it depended on may go on stopping."""
        self._live -= 1
        holds, node.holds = node.holds, ()
        for target, _ in node.links:
            target.live_dependents -= 1
            if target in holds:
                target.live_consumers -= 1
                if not target.live_consumers:
                    target.consumers_left()
            self._proceed(target)
        if self.stopping and not self._live:
            self._finished.set()

    def _proceed(self, node: Node) -> None:
        """Ask *node* to stop if that is wanted, and nobody needs it any more."""
        if node.wanted is Want.RUN or node.state not in LIVE:
            return
        if not (node.live_dependents if node.wanted is Want.STOP else node.live_consumers):
            node.request_stop()

    def _publish(self, node: Node) -> None:
        """Let its dependents know when it has become ready, or has ceased to be."""
        is_open = (node.state is State.READY and node.wanted is not Want.RESTART) or node.state in ENDED
        if is_open == node.open:
            return
        node.open = is_open
        if not node.internal or node.awaited:
            self._unready += -1 if is_open else 1
            if not is_open and self.all_ready:
                self._recovery.leaves(node.name, self.clock.now())
        if is_open:
            if not node.attempt:
                self._meet(node, kind="started")  # it never was and never will be launched
            self._meet(node, kind="ready")
            self._check_all_ready(node)
        else:
            for dependent, edge in node.dependents:
                if edge.kind == "ready":
                    dependent.unmet += 1

    def _meet(self, node: Node, *, kind: str) -> None:
        for dependent, edge in node.dependents:
            if edge.kind == kind:
                dependent.unmet -= 1
                dependent.meet(node, launched=kind == "started")
                if not dependent.unmet and dependent.state is State.WAITING:
                    self._wait_or_lose(dependent)

    def _wait_or_lose(self, node: Node) -> None:
        """Launch *node* if it can start; end it if a value that it needs will never come."""
        if self.stopping:
            if node.state is State.WAITING:
                node.end_unstarted("")
            return
        for target, edge in node.links:
            if target.lost_to(edge):
                node.lose(target)
                return
        if not node.unmet:
            self._launch(node)

    def _broke(self, node: Node) -> None:
        """It failed or was abandoned: the end of the app, unless it may."""
        fatal = not node.spec.allowed_failure
        if self._first is None or (fatal and self._first.spec.allowed_failure):
            self._first = node
        if fatal and not self.stopping:
            self._begin_stop(f"{node.name} {node.state.value}", failure=True)
        elif fatal and not self._shutdown.stops_services:
            self._stop_services()  # a failure waits for no drain delay

    def _ended(self, node: Node) -> None:
        """It will never come back: those who need its value fail, and the last node to end ends the app."""
        if not self.stopping:
            for dependent, edge in node.dependents:
                if dependent.state in HALTED and node.lost_to(edge):
                    dependent.lose(node)
        if node.internal:
            return
        self._unended -= 1
        if node.once:
            self._begin_stop("the command has ended")
        elif not self._unended:
            self._begin_stop("every service has ended")

    def _check_all_ready(self, last: Node) -> None:
        if self._unready or self.stopping:
            return
        if self.all_ready:
            self._recovery.complete(self.clock.now(), self.observers.emit)
            return
        self.all_ready = True
        self.observers.emit(AllReady(self.clock.now() - self._began, last.chain))

    # -- stop ----------------------------------------------------------------------------------------------------

    def _begin_stop(self, reason: str, *, failure: bool = False, delay: float = 0.0, ago: float = 0.0) -> None:
        if self.stopping:
            return
        self.stopping = True
        self.reason = reason
        self._shutdown.request(self.clock.now() - ago)
        self.observers.emit(StopBegan(reason, self._shutdown.timeout, failure))
        self._progress.stop(self._shutdown.requested_at)
        for node in self._nodes.values():
            if node.state in HALTED:
                node.end_unstarted("" if node.attempt else "never started")
        if delay:
            self.clock.at(self._shutdown.requested_at + delay, self._delay_is_over, deadline=False)
        else:
            self._stop_services()

    def _delay_is_over(self) -> None:
        self._stop_services()
        self.settle()

    def _stop_services(self) -> None:
        """Ask everything that runs to stop, each when those that depend on it have ended."""
        if not self._shutdown.stops_services:
            alive = {name: node for name, node in self._nodes.items() if node.state in LIVE}  # in their order
            graph = targets_of(self._units)
            below = depths({name: [target for target in graph[name] if target in alive] for name in alive})
            self._shutdown.share_out(self.clock.now(), below.values())
            for name, node in alive.items():
                node.depth = below[name]
                node.wanted = Want.STOP
        for node in list(self._nodes.values()):
            if node.state in LIVE:
                node.rearm()
                self._proceed(node)
        if not self._live:
            self._finished.set()

    def _report(self) -> Report:
        now = self.clock.now()
        deadline = math.inf if self.clock.rests() else self._shutdown.deadline
        return Report(
            self.reason,
            tuple(node.ending(deadline) for node in self._nodes.values()),
            self._first.name if self._first else None,
            now - self._began,
            now - self._shutdown.requested_at if self.stopping else 0.0,
            self._shutdown.forced,
            now > deadline,
            self._result(self.reason),
        )
