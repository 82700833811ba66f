"""The `async with serving(value)` block of a service: its work, in a separate cancel scope."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_effective_deadline,
    sleep_forever,
)
from anyio.abc import TaskGroup

from kernel.lifecycle.crash import stray
from kernel.lifecycle.tasks import spawn_apart
from kernel.lifecycle.ticks import Ticks
from kernel.lifecycle.unready import Withheld, unready


class Owner(Withheld, Protocol):
    """What a block needs from the service's supervisor."""

    name: str
    requested: bool
    live_consumers: int
    config: object

    @property
    def cancellation(self) -> type[BaseException]:
        """The exception that the running loop cancels with."""
        ...

    @property
    def time_left(self) -> float:
        """Seconds until the service is cancelled after a stop was requested; 0 if there is no limit."""
        ...

    def enter(self, block: Block) -> None:
        """Record *block* as the attempt's work."""

    def serves(self) -> None:
        """Record that the block was entered, so the service is ready."""

    def work_ended(self, exc: BaseException | None) -> None:
        """Record that the block is being left, with *exc* or None."""

    def closing(self) -> None:
        """Record that no consumer uses the value any more."""

    def crashed(self, error: BaseException) -> None:
        """Record that the work raised *error*."""


class Background:
    """The background tasks of a block, in a task group that is created when the first one starts.

    Most services never start a background task, and a task group costs more than the rest of a block.

    Args:
        ended: Called when the task group has ended, because of a crash or a cancellation.

    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self.errors: list[BaseException] = []
        self._ended = ended
        self._group: TaskGroup | None = None
        self._early: list[tuple[Context, Callable[[TaskGroup], object]]] = []
        self._scope = CancelScope()
        self._over = Event()
        self._task = spawn_apart(self._run, "background tasks")

    @property
    def over(self) -> bool:
        """Whether the task group has ended, so that no more tasks can be started."""
        return self._over.is_set()

    def start_soon(self, start: Callable[[TaskGroup], object]) -> None:
        """Call *start* with the task group in the current context, as soon as the group exists."""
        if self._group is not None:
            start(self._group)
        else:
            self._early.append((copy_context(), start))

    def cancel(self) -> None:
        """Cancel all background tasks."""
        self._scope.cancel()

    async def end(self) -> None:
        """Cancel all background tasks, and wait until they have ended. There is no time limit."""
        self.cancel()
        with CancelScope(shield=True):
            await self._over.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                async with create_task_group() as self._group:
                    while self._early:
                        context, start = self._early.pop(0)
                        context.run(start, self._group)
                    await sleep_forever()
        except BaseExceptionGroup as group:
            self.errors.extend(group.exceptions)
        except BaseException as error:  # noqa: ASYNC103, BLE001  (the task ends here; the block raises the error)
            self.errors.append(error)
        finally:
            self._over.set()
            self._ended()


class Block:
    """One ``async with serving(value)``: the work of an attempt, in its own cancel scope."""

    __slots__ = (
        "_background",
        "_consumers_left",
        "_drain",
        "_errors",
        "_hold",
        "_owner",
        "_scope",
        "_stop",
        "_waits_for_nobody",
        "cancelled",
        "value",
    )

    def __init__(self, owner: Owner, value: object, drain: bool) -> None:  # noqa: FBT001
        self._owner = owner
        self.value = value
        self.cancelled = False  # set by `stop`; later cancellations may follow from it
        self._drain = drain
        self._scope = CancelScope()
        self._background: Background | None = None
        self._errors: list[BaseException] = []
        self._stop: Event | None = None
        self._waits_for_nobody = False
        self._hold: CancelScope | None = None
        self._consumers_left: Event | None = None

    async def __aenter__(self) -> Self:
        self._owner.enter(self)
        self._scope.__enter__()
        self._owner.serves()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        owner, raised = self._owner, exc
        cancellation = owner.cancellation
        usual = self.cancelled and owner.requested and type(exc) is cancellation
        if usual and self._background is None and not owner.live_consumers:
            return bool(self._scope.__exit__(exc_type, exc, traceback))  # the code below takes 5 µs, a sixth of a stop
        if isinstance(exc, cancellation) and current_effective_deadline() != -math.inf:
            # No scope around us was cancelled. Once we cancel ours, it would swallow this as its own cancellation.
            raised = stray(owner.name, exc)
        owner.work_ended(raised)
        if owner.live_consumers and not self._waits_for_nobody:
            # The shield blocks cancellation by a resource's task group; `cancel` can still cancel this scope.
            self._consumers_left = Event()
            with CancelScope(shield=True) as self._hold:
                await self._consumers_left.wait()  # no time limit here: each consumer has one
        owner.closing()
        self._scope.cancel()
        if self._background is not None:
            await self._background.end()  # noqa: ASYNC102  (shielded, as a task group's exit is)
            self._errors += self._background.errors
        if raised is not None and not isinstance(raised, cancellation):
            self._errors.insert(0, raised)
        error: BaseException
        if self._errors:
            error = self._errors[0]
            if len(self._errors) > 1:  # a single error needs no group
                error = BaseExceptionGroup("several tasks of the service crashed", self._errors)
            self._scope.__exit__(None, None, None)  # with a group as its argument, trio's scope would raise a new group
        else:
            swallowed = self._scope.__exit__(exc_type, exc, traceback)
            if exc is None or not swallowed or self.cancelled:
                return bool(swallowed)
            error = stray(owner.name, exc)  # from a background task, which cancelled our scope
        owner.crashed(error)
        if error is exc:
            return False
        context = error.__context__
        try:
            raise error
        finally:
            with contextlib.suppress(Exception):  # a frozen error cannot be changed
                error.__context__ = context  # replaces the cancellation that ended the block

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a background task, which is cancelled together with the work."""
        if self._background is None or self._background.over:
            if self._background is not None:
                self._errors += self._background.errors
            self._background = Background(self._scope.cancel)
            if self.cancelled:
                self._background.cancel()
        self._background.start_soon(lambda group: group.start_soon(func, *args, name=name))

    @property
    def config(self) -> object:
        """The service's config; None if it has none."""
        return self._owner.config

    def time_left(self) -> float:
        """Return the seconds until the whole service is cancelled after a stop was requested; 0 for no limit."""
        return self._owner.time_left

    async def stop_requested(self) -> None:
        """Wait until a stop is requested."""
        if self._stop is None:
            self._stop = Event()
            if self._owner.requested:
                self._stop.set()
        await self._stop.wait()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._owner.requested

    def every(self, seconds: float, *, jitter: float = 0.0) -> Ticks:
        """Tick every *seconds* until a stop is requested; see `Work.every`."""
        return Ticks(seconds, jitter, lambda: self._owner.requested, self.stop_requested)

    def unready(self, reason: str) -> AbstractContextManager[None]:
        """Mark the service as unready during a block; see `Work.unready`."""
        return unready(self._owner, reason)

    def stop(self) -> None:
        """End the work: set the stop event if the service drains, otherwise cancel the work."""
        if not self._drain:
            self.cancelled = True
            self._scope.cancel()
            if self._background is not None:
                self._background.cancel()
        elif self._stop is not None:
            self._stop.set()

    def release(self) -> None:
        """Let the block close, since no consumer uses the value any more."""
        if self._consumers_left is not None:
            self._consumers_left.set()

    def cancel(self) -> None:
        """Cancel the background tasks, and close without waiting for consumers: the whole attempt was cancelled."""
        self._waits_for_nobody = True
        if self._background is not None:
            self._background.cancel()
        if self._hold is not None:
            self._hold.cancel()
