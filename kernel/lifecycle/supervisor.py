"""One service: its state, its attempts, and the scopes by which it is stopped.

The one rule of stopping: cancel a service's *work*, never its *resources*. Cancellation is level-triggered: inside
a cancelled scope ``async with pool`` cannot await in its ``__aexit__``, and the pool's own tasks die with it. So two
scopes are kept apart:

    attempt                           a scope around it all, cancelled only to cut; the last resort
    └─ async with pool:               resources: they close uncancelled, within stop_timeout
       └─ async with serving(pool):   work: a task group, cancelled when a stop is requested

A `Supervisor` is a state machine. All of it but `_run` and the block is synchronous, so that each step is atomic;
while a service waits or backs off it has no task at all. Who may start and who is asked to stop is the
orchestrator's to say.
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


@attrs.define(eq=False)
class Supervisor(Alarmed):
    """Runs one service, attempt after attempt.

    Args:
        spec: The service.
        host: The orchestrator.
        config: The value of its config parameter, or None.
        internal: Whether it belongs to the kernel or the app, and counts for nothing but itself.
        once: Whether it is never started again when a value it holds is lost, as a command.
        awaited, wrap, doing: As in `Unit`.

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
    uptime: float = attrs.field(default=0.0, init=False)  # seconds ready, all attempts together
    reason: str = attrs.field(default="", init=False)  # of the last move
    wanted: Want = attrs.field(default=Want.RUN, init=False)
    requested: bool = attrs.field(default=False, init=False)
    withheld: tuple[str, ...] = attrs.field(default=(), init=False)  # why it is unready although it serves
    holds: tuple[Supervisor, ...] = attrs.field(default=(), init=False)  # the providers whose values it holds
    live_consumers: int = attrs.field(default=0, init=False)  # those that hold its value

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
    def value(self) -> object:
        """What it hands over; only while it is ready."""
        return self._block.value if self._block else None

    @property
    def time_left(self) -> float:
        """Seconds until it is cut, once it was asked to stop; 0 where nobody counts them."""
        return self._alarm.when - self._now() if self.requested and self._alarm is not None else 0.0

    def stands_at(self) -> str:
        """The line where its running attempt waits."""
        return stands_at(self._coroutine)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def launch(self, spawn: Callable[[Run, str], None], values: dict[str, Any]) -> None:
        """Start an attempt, with the *values* of its dependencies by parameter."""
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
        """Run the service's function. Whatever it raises ends here."""
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
            except BaseException as caught:  # noqa: ASYNC103, BLE001  (the task ends here, and its end is the answer)
                error = self._understand(caught)
        self._finish(error, returned)
        del error  # its traceback holds this frame: each crash would wait for the garbage collector
        self.host.settle()

    def _serving(self, attempt: int) -> Callable[..., Block]:
        def serving(value: object = None, *, drain: bool = False) -> Block:
            if attempt != self.attempt:
                raise ServedTwice(self.name)
            return Block(self, value if self.wrap is None else self.wrap(value), drain)

        return serving

    def enter(self, block: Block) -> None:
        """Take *block* as the attempt's work."""
        if self._block is not None:
            raise ServedTwice(self.name)
        self._block = block

    def serves(self) -> None:
        """The block was entered: the service is ready, unless it was asked to stop while starting."""
        if self.state is State.STARTING:
            self._disarm()
            self._becomes_ready()
            return
        assert self._block is not None
        self._block.stop()
        if self.requested and self.state is State.STOPPING:  # one that was given up may still come this far
            self._arm(self._overran)

    def tell_unready(self, change: int, message: str) -> None:
        """Take note that there is one reason more (1) or less (-1) why it is unready although it serves."""
        self.host.withhold(self, change)
        if self.state is State.READY:
            self.host.notice(self, message, calm=change < 0)

    def work_ended(self, exc: BaseException | None) -> None:
        """The block is being left: by itself, by a crash, or because it was asked to."""
        if exc is not None and interrupts(exc):
            self.host.interrupt()  # at once, and not when the consumers have left
        if self.state is State.READY:
            # A cancellation that nobody here asked for comes from a crash: of a background task, or of a resource's.
            self._leaves_ready("its work ended" if exc is None else "crashed")
            self.host.withdraw(self)
            self.host.settle()

    def closing(self) -> None:
        """The consumers have left: from here on the clean-up is on the clock."""
        if not self.requested and self.state is State.STOPPING:
            self._requested_at = self._now()
            self._arm(self._overran)

    def crashed(self, error: BaseException) -> None:
        """The work raised *error*; what clean-up raises after it comes second."""
        if interrupts(error):
            self.host.interrupt()
        self._crash = without_interrupt(error)

    def _understand(self, caught: BaseException) -> BaseException | None:
        """What *caught* says of the service; None where it was only our own cancellation."""
        if self._cancelled and type(caught) is self.host.cancellation:
            return None  # as mostly; what follows takes 2 µs, a tenth of a whole stop
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
        """Ask the running attempt to stop, now that nobody needs it any more."""
        if self.requested:
            return
        self.requested = True
        if self._next is not None and self.state is State.STOPPING:
            self.rearm()  # its clean-up is on the clock already, and that goes on
            return
        self._requested_at = self._now()
        if self.state is State.STARTING:
            self._move(State.STOPPING, "requested while starting")
        elif self.state is State.READY:
            self._leaves_ready("requested" if self.wanted is Want.STOP else "a dependency it uses is stopping")
        if self._block is not None:
            self._block.stop()
            self._arm(self._overran)
        elif self.needs.serving and not self.awaited:  # those hold nothing yet
            self._arm(self._grace_is_over)
        else:
            self._cancel()
            self._arm(self._overran)

    def consumers_left(self) -> None:
        """Nobody holds the value any more."""
        if self._block is not None:
            self._block.release()

    def rearm(self) -> None:
        """Take the limits anew, since a shutdown has begun or was forced."""
        if self._next is not None and self.state is State.STOPPING:
            self._arm(self._next)

    def force(self) -> None:
        """Cut the running attempt now."""
        if not self.requested:
            self.request_stop()
        if self._next != self._give_up:
            self._overran(forced=True)

    def end_unstarted(self, reason: str) -> None:
        """End a service that has no attempt running, because the app stops."""
        self._disarm()
        self._end(State.STOPPED, None, reason)

    def lose(self, provider: Supervisor) -> None:
        """End a service that has no attempt running, because a value that it needs is gone for good."""
        self._disarm()
        self.error = ValueLost(self.name, provider.name, lost(provider.state, provider.error))
        self.error.__cause__ = provider.error
        if self.internal:  # it was there for that value, and has nothing left to do
            self._end(State.STOPPED, None, str(self.error))
        else:
            self._move(State.FAILED, str(self.error))

    def _grace_is_over(self) -> None:
        self._cancel()
        self._arm(self._give_up)

    def _overran(self, *, forced: bool = False) -> None:
        took, limit = self._now() - self._requested_at, self.spec.stop_timeout
        self._cancel()
        self._arm(self._give_up)  # before all that is only told: it does not depend on that
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
        """Call *step* at the time that the limits give it."""
        cut_at, give_up_at = self.host.limits(self, self._requested_at)
        if step == self._give_up:
            when = give_up_at
        elif step == self._grace_is_over:
            when = min(self._requested_at + GRACE, cut_at)
        else:
            when = cut_at
        self._set_alarm(when, step)

    # -- what comes after ----------------------------------------------------------------------------------------

    def _finish(self, error: BaseException | None, returned: bool) -> None:  # noqa: FBT001
        """The attempt has ended: decide what becomes of the service."""
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
        """The error that came first: a start that took too long, the crash of the work, then what clean-up raised."""
        first = self._timeout if isinstance(self._timeout, StartTimeout) else self._crash
        if first is None:
            return error if error is not None or returned else self._timeout
        if error is None:
            # A function that returned after its block had crashed has dealt with the crash.
            return first if first is self._timeout or not returned else None
        if same(first, error):
            return error  # the crash itself, maybe in a group by now
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
        """Note on *error* where it came from; an earlier note of ours goes, since one error may come again."""
        if self.state is State.STARTING or isinstance(self._timeout, StartTimeout):
            phase = "starting"
        else:
            phase = "stopping" if self.requested else "serving" if self._block is not None else "running"
        hint_at_backend(error, self.host.cancellation.__module__.partition(".")[0])
        add_note(error, f"{ORIGIN}{self.name}, {phase}, attempt {self.attempt}", instead_of=ORIGIN)

    def _starts_over(self) -> None:
        if self.once:
            going = (
                provider
                for provider in self.holds
                if provider.state is not State.READY or provider.wanted is not Want.RUN
            )
            lost = next(going, self.holds[0])
            error = ValueLost(self.name, lost.name, "crashed or ended while it was in use")
            self._end(State.FAILED, error, str(error))
        else:
            self._move(State.WAITING, "until the value that it needs is back")

    def _retry(self) -> None:
        self._disarm()
        self.host.retry(self)

    def wait(self, reason: str) -> None:
        """Go from backoff to waiting, since a dependency is not ready."""
        self._move(State.WAITING, reason)

    def _end(self, state: State, error: BaseException | None, reason: str) -> None:
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
        """The one place where the state changes."""
        previous, now = self.state, self._now()
        assert new in MOVES[previous], f"{self.name}: {previous.value} -> {new.value} is no legal move"
        seconds, self.since = now - self.since, now
        self.state, self.reason = new, reason
        if new not in LIVE:
            self._block = None  # and with it the value
        self.host.moved(self, previous, seconds, reason)
