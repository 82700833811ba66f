"""The `async with serving(value)` block of a service: its work, in a scope of its own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import CancelScope, Event, create_task_group, current_effective_deadline, get_cancelled_exc_class
from anyio.abc import TaskGroup


class Owner(Protocol):
    """What a block needs from the service's supervisor."""

    asked: bool
    live_consumers: int
    config: object

    @property
    def time_left(self) -> float:
        """Seconds until the service is cancelled, once a stop was requested; 0 where nobody counts them."""

    def enter(self, block: Block) -> None:
        """Take *block* as the attempt's work."""

    def serves(self) -> None:
        """The block was entered."""

    def work_ended(self, exc: BaseException | None) -> None:
        """The block is being left, with *exc*."""

    def closing(self) -> None:
        """Nobody holds the value any more."""

    def crashed(self, error: BaseException) -> None:
        """The work raised *error*."""

    def stray(self, caught: BaseException) -> BaseException:
        """What the cancellation *caught* is, when nobody had cancelled the service."""


class Block:
    """One ``async with serving(value)``: the work of an attempt, in a task group of its own."""

    __slots__ = ("_consumers_left", "_cut", "_drain", "_group", "_hold", "_owner", "_stop", "cancelled", "value")

    def __init__(self, owner: Owner, value: object, drain: bool) -> None:  # noqa: FBT001
        self._owner = owner
        self.value = value
        self.cancelled = False  # by `stop`: what is cancelled later on may be a consequence
        self._drain = drain
        self._group: TaskGroup = create_task_group()
        self._stop: Event | None = None
        self._cut = False
        self._hold: CancelScope | None = None
        self._consumers_left: Event | None = None

    async def __aenter__(self) -> Self:
        self._owner.enter(self)
        await self._group.__aenter__()
        self._owner.serves()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        owner, raised = self._owner, exc
        if isinstance(exc, get_cancelled_exc_class()) and current_effective_deadline() != -math.inf:
            # No scope around us was cancelled. Once ours is, the group would take this for its own cancellation.
            raised = owner.stray(exc)
        owner.work_ended(raised)
        if owner.live_consumers and not self._cut:
            # The shield keeps a cancellation from the resources' own task group out; `cut` reaches this scope.
            self._consumers_left = Event()
            with CancelScope(shield=True) as self._hold:
                await self._consumers_left.wait()  # as long as they take: each has a limit of its own
        owner.closing()
        self._group.cancel_scope.cancel()
        error: BaseException
        try:
            # A task group's own exit waits under its own scope, as `async with` would.
            swallowed = await self._group.__aexit__(type(raised) if raised else None, raised, traceback)  # noqa: ASYNC102
            if exc is None or not swallowed or self.cancelled:
                return bool(swallowed)
            error = owner.stray(exc)  # from a background task; that has cancelled the group
        except BaseExceptionGroup as group:
            # A crash should read as what it is, not as a group of one.
            error = group.exceptions[0] if len(group.exceptions) == 1 else group
        owner.crashed(error)
        if error is exc:
            return False
        context = error.__context__
        try:
            raise error
        finally:
            with contextlib.suppress(Exception):  # one that is frozen keeps what it got
                error.__context__ = context  # not the cancellation by which the block learnt of it

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a background task that is cancelled with the work."""
        self._group.start_soon(func, *args, name=name)

    @property
    def config(self) -> object:
        """The service's config; None where it has none."""
        return self._owner.config

    def time_left(self) -> float:
        """Seconds until the service is cancelled as a whole, once a stop is requested; 0 where nobody counts them."""
        return self._owner.time_left

    async def stop_requested(self) -> None:
        """Wait until the service is asked to stop."""
        if self._stop is None:
            self._stop = Event()
            if self._owner.asked:
                self._stop.set()
        await self._stop.wait()

    def stop(self) -> None:
        """End the work: tell it where it drains, else cancel it."""
        if not self._drain:
            self.cancelled = True
            self._group.cancel_scope.cancel()
        elif self._stop is not None:
            self._stop.set()

    def release(self) -> None:
        """Go on closing: nobody holds the value any more."""
        if self._consumers_left is not None:
            self._consumers_left.set()

    def cut(self) -> None:
        """Go on closing, whoever still holds the value."""
        self._cut = True
        if self._hold is not None:
            self._hold.cancel()
