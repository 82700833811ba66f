"""One service: its state, its attempts, and the scopes that stop it.

The rule for stopping: cancel a service's *work*, never its *resources*. Cancellation is level-triggered: inside a
cancelled scope ``async with pool`` cannot await in its ``__aexit__``, and the pool's own tasks are cancelled too. So
there are two scopes:

    attempt                           a scope around everything, cancelled only as the last resort
    └─ async with pool:               resources: they close uncancelled, within stop_timeout
       └─ async with serving(pool):   work: a task group, cancelled when a stop is requested

A `Supervisor` is a state machine. Everything except `_run` and the block is synchronous, which makes each step
atomic. A service in waiting or backoff has no task. The orchestrator decides which services start and stop.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class

from kernel.context import current_service
from kernel.declare.service import Service
from kernel.declare.signature import Needs
from kernel.errors import (
    ORIGIN,
    NeverServed,
    ServedTwice,
    ServiceError,
    StartTimeout,
    StopTimeout,
    Uncancellable,
    ValueLost,
    add_note,
    hint_at_backend,
)
from kernel.lifecycle.alarmed import Alarmed
from kernel.lifecycle.block import Block
from kernel.lifecycle.crash import interrupts, noting, same, stray, uncancelled, without_interrupt
from kernel.lifecycle.events import LIVE, MOVES, State
from kernel.lifecycle.explain import lost, spent
from kernel.lifecycle.group_signal import is_doing_of_signal
from kernel.lifecycle.host import Host, Want
from kernel.lifecycle.shutdown import GRACE
from kernel.lifecycle.tasks import Run
from kernel.process.contain import contained
from kernel.stacks import stands_at


@attrs.define(eq=False, repr=False)
class Supervisor(Alarmed):
    """Runs the attempts of one service.

    Args:
        spec: The service.
        host: The orchestrator.
        config: The value of its config parameter, or None.
        internal: Whether it belongs to the kernel or the app's lifespan rather than to `services/`.
        once: Whether it is a command, which is not restarted when it loses a provider.
        awaited, wrap, doing: See `Unit`.

    """

    spec: Service[..., Any]
    host: Host[Any]
    config: object = None
    internal: bool = False
    once: bool = False
    awaited: bool = False
    wrap: Callable[[Any], Any] | None = None
    doing: Callable[[], str] | None = None

    name: str = attrs.field(init=False)
    needs: Needs = attrs.field(init=False)
    state: State = attrs.field(default=State.WAITING, init=False)
    since: float = attrs.field(init=False)
    attempt: int = attrs.field(default=0, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)
    uptime: float = attrs.field(default=0.0, init=False)  # seconds in which it was ready, over all attempts
    reason: str = attrs.field(default="", init=False)  # why it made its last move
    wanted: Want = attrs.field(default=Want.RUN, init=False)
    requested: bool = attrs.field(default=False, init=False)
    withheld: tuple[str, ...] = attrs.field(default=(), init=False)  # why it is marked unready although it is serving
    holds: tuple[Supervisor, ...] = attrs.field(default=(), init=False)  # the providers whose values it uses
    live_consumers: int = attrs.field(default=0, init=False)  # running attempts that use its value

    _now: Callable[[], float] = attrs.field(init=False)
    _failures: int = attrs.field(default=0, init=False)
    _block: Block | None = attrs.field(default=None, init=False)
    _scope: CancelScope | None = attrs.field(default=None, init=False)
    _coroutine: Coroutine[Any, Any, Any] | None = attrs.field(default=None, init=False)
    _cancelled: bool = attrs.field(default=False, init=False)  # the whole attempt
    _crash: BaseException | None = attrs.field(default=None, init=False)
    _timeout: ServiceError | None = attrs.field(default=None, init=False)
    _requested_at: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.spec.name
        self.needs = self.spec.needs
        self.clock = self.host.clock
        self._now = self.clock.now
        self.since = self._now()

    @property
    def cancellation(self) -> type[BaseException]:
        """The exception that the running loop cancels with."""
        return self.host.cancellation

    @property
    def value(self) -> object:
        """The value it provides; None unless it is ready."""
        return self._block.value if self._block else None

    @property
    def time_left(self) -> float:
        """Seconds until it is cancelled after a stop was requested; 0 if there is no limit."""
        return self._alarm.when - self._now() if self.requested and self._alarm is not None else 0.0

    def stands_at(self) -> str:
        """Return the line of code where its running attempt is."""
        return stands_at(self._coroutine)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def launch(self, spawn: Callable[[Run, str], None], values: dict[str, Any]) -> None:
        """Start an attempt, with the *values* of its providers by parameter name."""
        self.attempt += 1
        self.wanted, self.requested = Want.RUN, False
        self._crash = self._timeout = self.error = None
        self._cancelled = False
        if self.needs.config:
            values[self.needs.config[0]] = self.config
        if self.needs.serving:
            values[self.needs.serving] = self._serving(self.attempt)
        self._scope = CancelScope()
        spawn(functools.partial(self._run, values), self.name)
        self._move(State.STARTING)
        if (self.needs.serving or self.spec.oneshot) and self.spec.start_timeout is not None:
            self._set_alarm(self._now() + self.spec.start_timeout, self._start_timed_out)

    async def _run(self, values: dict[str, Any]) -> None:
        """Run the service's function, and handle whatever it raises."""
        error: BaseException | None = None
        returned = False
        assert self._scope is not None
        with self._scope:
            try:
                if not self.requested:
                    current_service.set(self.name)
                    if not (self.needs.serving or self.spec.oneshot):
                        self._becomes_ready()
                    self._coroutine = self.spec.fn(**values)
                    await self._coroutine
                    returned = True
            except BaseException as caught:  # noqa: ASYNC103, BLE001  (the task ends here)
                error = self._understand(caught)
        self._finish(error, returned)
        del error  # its traceback refers to this frame, a cycle that only the garbage collector could free
        self.host.settle()

    def _serving(self, attempt: int) -> Callable[..., Block]:
        def serving(value: object = None, *, drain: bool = False) -> Block:
            if attempt != self.attempt:
                raise ServedTwice(self.name)
            return Block(self, value if self.wrap is None else self.wrap(value), drain)

        return serving

    def enter(self, block: Block) -> None:
        """Record *block* as the attempt's work."""
        if self._block is not None:
            raise ServedTwice(self.name)
        self._block = block

    def serves(self) -> None:
        """Become ready: the block was entered. Stop the block if a stop was requested during the start."""
        if self.state is State.STARTING:
            self._disarm()
            self._becomes_ready()
            return
        assert self._block is not None
        self._block.stop()
        if self.requested and self.state is State.STOPPING:  # not if it had been abandoned before it got here
            self._arm(self._overran)

    def tell_unready(self, change: int, message: str) -> None:
        """Record that a reason to be unready while serving was added (1) or removed (-1)."""
        self.host.withhold(self, change)
        if self.state is State.READY:
            self.host.notice(self, message, calm=change < 0)

    def work_ended(self, exc: BaseException | None) -> None:
        """Stop being ready: the block is being left because it ended, crashed, or was requested to stop."""
        if exc is not None and interrupts(exc):
            self.host.interrupt()  # without waiting for the consumers to stop
        if self.state is State.READY:
            # A cancellation that the kernel did not request comes from a crash of a background task or of a resource.
            self._leaves_ready("its work ended" if exc is None else "crashed")
            self.host.withdraw(self)
            self.host.settle()

    def closing(self) -> None:
        """Start the time limit of clean-up: the consumers have stopped."""
        if not self.requested and self.state is State.STOPPING:
            self._requested_at = self._now()
            self._arm(self._overran)

    def crashed(self, error: BaseException) -> None:
        """Record that the work raised *error*, which takes precedence over what clean-up raises later."""
        if interrupts(error):
            self.host.interrupt()
        self._crash = without_interrupt(error)

    def _understand(self, caught: BaseException) -> BaseException | None:
        """Return the failure behind *caught*; None if it is only our own cancellation."""
        if self._cancelled and type(caught) is self.host.cancellation:
            return None  # the usual case: skips the code below, which takes 2 µs, a tenth of a stop
        if interrupts(caught):
            self.host.interrupt()
            self.wanted, self.requested = Want.STOP, True
        error = without_interrupt(caught)
        rest = uncancelled(error, get_cancelled_exc_class())
        if rest is not None or error is None:
            return rest
        expected = self._cancelled or (self._block is not None and self._block.cancelled)
        return None if expected or current_effective_deadline() == -math.inf else stray(self.name, error)

    # -- stopping ------------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Request that the running attempt stops, since no service needs it any more."""
        if self.requested:
            return
        self.requested = True
        if self._next is not None and self.state is State.STOPPING:
            self.rearm()  # the time limit of clean-up is already running
            return
        self._requested_at = self._now()
        if self.state is State.STARTING:
            self._move(State.STOPPING, "requested while starting")
        elif self.state is State.READY:
            self._leaves_ready("requested" if self.wanted is Want.STOP else "a dependency it uses is stopping")
        if self._block is not None:
            self._block.stop()
            self._arm(self._overran)
        elif self.needs.serving and not self.awaited:  # it has not opened any resources that need time to close
            self._arm(self._grace_is_over)
        else:
            self._cancel()
            self._arm(self._overran)

    def consumers_left(self) -> None:
        """Let the block close: no consumer uses the value any more."""
        if self._block is not None:
            self._block.release()

    def rearm(self) -> None:
        """Recompute the time limits, since a shutdown has begun or was forced."""
        if self._next is not None and self.state is State.STOPPING:
            self._arm(self._next)

    def force(self) -> None:
        """Cancel the running attempt now."""
        if not self.requested:
            self.request_stop()
        if self._next != self._give_up:
            self._overran(forced=True)

    def end_unstarted(self, reason: str) -> None:
        """End a service that has no running attempt, since the app is stopping."""
        self._end(State.STOPPED, None, reason)

    def lose(self, provider: Supervisor) -> None:
        """End a service that has no running attempt, since *provider* has ended for good."""
        self._disarm()
        self.error = ValueLost(self.name, provider.name, lost(provider.state, provider.error))
        self.error.__cause__ = provider.error
        if self.internal:  # it existed only for that provider
            self._end(State.STOPPED, None, str(self.error))
        else:
            self._move(State.FAILED, str(self.error))

    def _grace_is_over(self) -> None:
        self._cancel()
        self._arm(self._give_up)

    def _overran(self, *, forced: bool = False) -> None:
        took, limit = self._now() - self._requested_at, self.spec.stop_timeout
        self._cancel()
        self._arm(self._give_up)  # comes first, so that the limit holds even if the report below fails
        earlier, self._timeout = self._timeout, StopTimeout(self.name, took, self.stands_at(), forced, limit)
        self._timeout.__cause__ = earlier

    def _give_up(self) -> None:
        self._disarm()
        self.error = Uncancellable(self.name, self.stands_at())
        self.error.__cause__ = self._crash or self._timeout
        self._move(State.ABANDONED, str(self.error))
        self.host.settle()

    def _start_timed_out(self) -> None:
        assert self.spec.start_timeout is not None
        self.error = self._timeout = StartTimeout(self.name, self.spec.start_timeout, self.stands_at())
        with contained("the explanation of a long start"):
            self.host.explain()
        self._requested_at = self._now()
        self._move(State.STOPPING, f"it was not ready after {self.spec.start_timeout:g} s")
        self._cancel()
        self._arm(self._give_up)
        self.host.settle()

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
        if self._block is not None:
            self._block.cancel()

    def _arm(self, step: Callable[[], None]) -> None:
        """Schedule *step* for the time given by the limits."""
        cancel_at, abandon_at = self.host.limits(self, self._requested_at)
        if step == self._give_up:
            when = abandon_at
        elif step == self._grace_is_over:
            when = min(self._requested_at + GRACE, cancel_at)
        else:
            when = cancel_at
        self._set_alarm(when, step)

    # -- what comes after ----------------------------------------------------------------------------------------

    def _finish(self, error: BaseException | None, returned: bool) -> None:  # noqa: FBT001
        """Decide what the service does next, since its attempt has ended."""
        self._disarm()
        self._scope = self._coroutine = None
        if self.state is State.ABANDONED:
            self.host.notice(self, "ended after it had been abandoned", error)
            return
        if self.state is State.READY:
            self._leaves_ready("returned" if error is None else "crashed")
        raised, error = error, self._first_error(error, returned)
        if error is None and returned and self.wanted is Want.RUN and self.needs.serving and self._block is None:
            error = NeverServed(self.name)
        if isinstance(self._timeout, StopTimeout) and (self.requested or error is None or self._crash is None):
            self._timeout.__cause__ = raised or self._crash or self._timeout.__cause__
            self._end(State.FAILED, self._timeout, str(self._timeout))
        elif error is not None:
            self._failed(error)
        elif not self.requested or (returned and self.spec.oneshot):
            self._end(State.DONE, None, "" if self.spec.oneshot else "returned by itself")
        else:
            if self.state is State.STARTING:
                self._move(State.STOPPING)
            if self.wanted is Want.STOP:
                self._end(State.STOPPED, None, "")
            else:
                self._starts_over()

    def _first_error(self, error: BaseException | None, returned: bool) -> BaseException | None:  # noqa: FBT001
        """Return the error that takes precedence: a start timeout, then a crash of the work, then clean-up."""
        first = self._timeout if isinstance(self._timeout, StartTimeout) else self._crash
        if first is None:
            return error if error is not None or returned else self._timeout
        if error is None:
            # A function that returned after its block had crashed has handled the crash.
            return first if first is self._timeout or not returned else None
        if same(first, error):
            return error  # the crash itself, possibly inside a group
        self.host.notice(self, "clean-up failed after the crash", error)
        return noting(first, error)

    def _failed(self, error: BaseException) -> None:
        at_work = self._crash is not None or not self.needs.serving
        if is_doing_of_signal(self, error, requested=self.requested, at_work=at_work):
            if self.state is State.STARTING:
                self._move(State.STOPPING)
            self._end(State.STOPPED, None, "")
            return
        if self.host.stopping:
            self._end(State.FAILED, error, "while the app was stopping")
            return
        retry = self.spec.retry
        self._failures += 1
        delay = retry.delay_after(self._failures)
        if delay is None or not retry.covers(error):
            self._end(State.FAILED, error, spent(self.attempt, None if delay is None else error))
            return
        self._note(error)
        self.error = error
        of = "" if retry.times is None else f" of {retry.times}"
        self._set_alarm(self._now() + delay, self._retry, deadline=False)
        self._move(State.BACKOFF, f"retry {self._failures}{of} in {delay:.3g} s")

    def _note(self, error: BaseException) -> None:
        """Add a note to *error* that says where it came from; replace our earlier note if the error is raised again."""
        if self.state is State.STARTING or isinstance(self._timeout, StartTimeout):
            phase = "starting"
        else:
            phase = "stopping" if self.requested else "serving" if self._block is not None else "running"
        hint_at_backend(error, self.host.cancellation.__module__.partition(".")[0])
        add_note(error, f"{ORIGIN}{self.name}, {phase}, attempt {self.attempt}", instead_of=ORIGIN)

    def _starts_over(self) -> None:
        if self.once:
            going = (held for held in self.holds if held.state is not State.READY or held.wanted is not Want.RUN)
            lost = next(going, self.holds[0])
            error = ValueLost(self.name, lost.name, "crashed or ended while it was in use")
            self._end(State.FAILED, error, str(error))
        else:
            self._move(State.WAITING, "until the value it needs is available again")

    def _retry(self) -> None:
        self._disarm()
        self.host.retry(self)

    def wait(self, reason: str) -> None:
        """Move from backoff to waiting, since a dependency is not ready."""
        self._move(State.WAITING, reason)

    def _end(self, state: State, error: BaseException | None, reason: str) -> None:
        self._disarm()  # again, if the end of this service is what began the stop of the app
        if error is not None:
            self._note(error)
        self.error = error
        self._move(state, reason)

    def _becomes_ready(self) -> None:
        self._move(State.READY)
        self.host.settle()

    def _leaves_ready(self, reason: str) -> None:
        seconds, reset_after = self._now() - self.since, self.spec.retry.reset_after
        self.uptime += seconds
        if reset_after is not None and seconds >= reset_after:
            self._failures = 0
        self._move(State.STOPPING, reason)

    def _move(self, new: State, reason: str = "") -> None:
        """Change the state. No other method does."""
        previous, now = self.state, self._now()
        assert new in MOVES[previous], f"{self.name}: {previous.value} -> {new.value} is not a legal move"
        seconds, self.since = now - self.since, now
        self.state, self.reason = new, reason
        if new not in LIVE:
            self._block = None  # which also holds the value
        self.host.moved(self, previous, seconds, reason)
