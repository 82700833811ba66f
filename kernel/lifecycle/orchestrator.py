"""All services together: when each starts, when each is requested to stop, and how the run ended.

Start and stop are dataflow. Each state change is queued, and its effects on other services are applied one after
the other: they change the counters of unmet dependencies and of live dependents, and a counter that reaches zero
starts or stops its service. No service waits for a whole level, no task waits for another, and the total time is
linear in the number of services and edges.
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
        units: The services to run. Dependencies that are not among them are ignored.
        shutdown_timeout: Seconds for the whole shutdown, counted from the request to stop.
        drain_delay: Seconds between the request to stop and the stop itself, while the app is unready.
        observers: Called with each event.
        resting: Returns whether deadlines are suspended because a debugger is attached.
        result: Returns the exit code of a run without failures, given the reason of the stop.
        signal: Returns the first signal and the seconds since, even before the loop has handled it.

    Raises:
        CycleError: There is a dependency cycle.

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
        self._withheld = 0  # the number of open `work.unready` blocks
        self._unended = 0
        self.all_ready = False
        self._recovery = Recovery()
        self._first: Node | None = None  # the first to fail; failures that are not allowed come first
        self.reason = ""  # why the app stops
        self._began = 0.0
        self._shutdown = Shutdown(shutdown_timeout)
        self._progress = Progress(self)
        depths(targets_of(self._units))  # raises CycleError

    # -- from outside --------------------------------------------------------------------------------------------

    @property
    def supervisors(self) -> Mapping[str, Node]:
        """Every service by name; empty before `run`."""
        return self._nodes

    @property
    def live(self) -> int:
        """The number of running attempts."""
        return self._live

    @property
    def ready(self) -> bool:
        """Whether every service is ready, done, or failed (allowed), none is `unready`, and no stop was requested."""
        return bool(self._nodes) and not self._unready and not self._withheld and not self.stopping

    def running(self, frame: FrameType | None) -> str:
        """Return the service whose code runs in *frame* of the loop's thread; an empty string if there is none."""
        functions = {name: node.spec.fn for name, node in self._nodes.items()}
        return owner_of(frame, functions)

    async def run(self, at_end: Callable[[Report], None] | None = None) -> Report:
        """Run all services until each has ended or was abandoned.

        Args:
            at_end: Called with the report before the task group is left. An abandoned service may keep the group open
                forever, so exit the process here.

        Cancelling this call cancels every service at once, in no particular order; `request_stop` stops them in order.

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
            own.cancel_scope.cancel()  # the clock; an abandoned service may keep this block open
        assert report is not None
        return report

    def request_stop(self, reason: str, *, ago: float = 0.0) -> None:
        """Stop all services in order, as a signal does. Do nothing if a stop is already under way.

        Args:
            reason: Why; completes "stopping: ...".
            ago: Seconds since the request, if the loop was blocked: the deadline counts from the request.

        """
        self._begin_stop(reason, delay=self._drain_delay, ago=ago)
        self.settle()

    def force(self) -> None:
        """Cancel everything that still runs, as a second signal does; what ignores that is abandoned after 1 s."""
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
        """Report a move, and queue its consequences."""
        self.observers.emit(node.transition(previous, seconds, reason))
        self._queue.append((node, previous, node.state))

    def withdraw(self, provider: Node) -> None:
        """Stop the direct and indirect consumers of *provider*, beginning with those that no other service uses."""
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
        """Return when it is cancelled and when it is abandoned, which leaves time for the levels below it."""
        return self._shutdown.limits(node.spec.stop_timeout, node.depth, requested_at)

    def retry(self, node: Node) -> None:
        """Start *node* again, or make it wait if a dependency is not ready."""
        if node.unmet:
            node.wait(f"for {', '.join(target.name for target in node.waits_for)}")
        else:
            self._launch(node)
        self.settle()

    def explain(self) -> None:
        """Report what the start still waits for."""
        self._progress.tell()

    def interrupt(self) -> None:
        """Stop the app: a service raised KeyboardInterrupt, which counts as a signal."""
        self.request_stop("KeyboardInterrupt")

    def withhold(self, node: Node, change: int) -> None:  # noqa: ARG002  (the node has its own list)
        """Add *change* (1 or -1) to the number of reasons why the app is unready although all services serve."""
        self._withheld += change

    def notice(self, node: Node, message: str, error: BaseException | None = None, *, calm: bool = False) -> None:
        """Send the observers a notice."""
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
        # In the app's context, not in that of the service whose move led here, so that context variables do not leak.
        self._tasks.spawn(run, name, self._context)

    # -- consequences --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Apply the consequences of all queued moves, one move at a time."""
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
                    node.last_met = None  # whatever made it ready does not cause what follows
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
        """Let the dependencies of *node* stop: its attempt has ended."""
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
        """Request that *node* stops, if it should stop and no service needs it any more."""
        if node.wanted is Want.RUN or node.state not in LIVE:
            return
        if not (node.live_dependents if node.wanted is Want.STOP else node.live_consumers):
            node.request_stop()

    def _publish(self, node: Node) -> None:
        """Update the dependents of *node* if it has become ready, or is no longer ready."""
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
                self._meet(node, kind="started")  # it will never be launched
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
        """Launch *node* if it can start; end it if a value that it needs will never be available."""
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
        """Stop the app, since *node* failed or was abandoned, unless its failure is allowed."""
        fatal = not node.spec.allowed_failure
        if self._first is None or (fatal and self._first.spec.allowed_failure):
            self._first = node
        if fatal and not self.stopping:
            self._begin_stop(f"{node.name} {node.state.value}", failure=True)
        elif fatal and not self._shutdown.stops_services:
            self._stop_services()  # a failure ends the drain delay

    def _ended(self, node: Node) -> None:
        """Fail the consumers of *node*, which has ended for good; stop the app if it was the last to end."""
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
        """Request that all running services stop, each once its dependents have ended."""
        if not self._shutdown.stops_services:
            alive = {name: node for name, node in self._nodes.items() if node.state in LIVE}  # in start order
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
