"""Inject faults in tests: let a service crash, hang, delay or be cancelled at a given step of a given phase."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, TypeAlias

import anyio
import attrs
from anyio.lowlevel import checkpoint

from kernel.declare.service import Service
from kernel.errors import DeclarationError

AnyService: TypeAlias = Service[..., Any]

run_is_over: ContextVar[anyio.Event] = ContextVar("run_is_over")
"""Set when a test has the report of its run. Endless hangs then end, so that the test can end."""

Phase: TypeAlias = Literal["start", "work", "clean-up"]


class InjectedFault(Exception):
    """The error that a `faulty` service raises."""


@attrs.frozen
class Hang:
    """After the step, ignore all cancellation for `seconds`; if infinite, until `running` abandons the service."""

    seconds: float = math.inf


@attrs.frozen
class Slow:
    """Delay the step by `seconds`. A cancellation ends the delay, unless a cancellation ended the step itself."""

    seconds: float


@attrs.frozen
class CancelledWithin:
    """End the step with a cancellation that the kernel did not request."""


Fault: TypeAlias = BaseException | type[BaseException] | Hang | Slow | CancelledWithin


def faulty(
    service: AnyService, fault: Fault, at: Phase = "start", step: int = 1, *, times: int | None = None
) -> AnyService:
    """Return a copy of *service*, with the same name, that fails at its *step*-th suspension in the phase *at*.

    A suspension is a point at which the service's own task yields to others. Suspensions in its background tasks and
    inside ``serving`` do not count. On asyncio, do not inject a crash into the exit of a task group.

    Args:
        service: The service; it is not changed.
        fault: An exception such as `InjectedFault`, which ends the step, or a `Hang`, `Slow` or `CancelledWithin`.
        at: "start" is before ``serving`` is entered, "work" inside, and "clean-up" after it. A service without a
            `Serving` parameter has only "work".
        step: The number of the suspension, from 1.
        times: The number of attempts that have the fault, beginning with the first; None for all.

    Raises:
        DeclarationError: The service has no such phase, or its signature is wrong.
        ValueError: *step* is less than 1.

    """
    name = service.needs.serving
    if step < 1:
        raise ValueError(f"step is {step}; the first suspension is step 1")
    if name is None and at != "work":
        raise DeclarationError(
            f"{service.name} has no {at}: it takes no `Serving`", where=service.where, hint='write at="work"'
        )
    attempts = 0

    @functools.wraps(service.fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal attempts
        attempts += 1
        call = inspect.signature(service.fn).bind(*args, **kwargs)
        plan = _Plan(at, step if times is None or attempts <= times else 0, "start" if name else "work")
        error: BaseException | None = None
        if isinstance(fault, CancelledWithin):
            error = await _a_cancellation()
        elif not isinstance(fault, Hang | Slow):
            error = fault() if isinstance(fault, type) else fault
        if name is not None:
            call.arguments[name] = functools.partial(_PhasedBlock, plan, call.arguments[name])
        return await _Driven(service.fn(*call.args, **call.kwargs), plan, error, functools.partial(_linger, fault))

    copy = attrs.evolve(service, fn=run)
    copy.dressed(service.fn)
    copy.commands.update(service.commands)
    return copy


@attrs.define
class _Plan:
    at: Phase
    left: int  # suspensions until the fault
    phase: Phase | None  # None inside `serving` itself

    def is_due(self) -> bool:
        if self.phase != self.at:
            return False
        self.left -= 1
        return self.left == 0


class _PhasedBlock:
    def __init__(self, plan: _Plan, serving: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._plan = plan
        self._block = serving(*args, **kwargs)

    async def __aenter__(self) -> Any:
        self._plan.phase = None
        work = await self._block.__aenter__()
        self._plan.phase = "work"
        return work

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        self._plan.phase = None
        try:
            return await self._block.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102
        finally:
            self._plan.phase = "clean-up"


class _Driven(Generator[Any, Any, Any]):
    """Awaits a coroutine step by step. With `cr_await`, the kernel can find the line where the service is."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        plan: _Plan,
        error: BaseException | None,
        linger: Callable[[bool], Coroutine[Any, Any, None]],
    ) -> None:
        self.cr_await = coroutine
        self._steps = self._drive(coroutine, plan, error, linger)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)

    def _drive(
        self,
        coroutine: Coroutine[Any, Any, Any],
        plan: _Plan,
        error: BaseException | None,
        linger: Callable[[bool], Coroutine[Any, Any, None]],
    ) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(coroutine.send, None)
        while True:
            try:
                trap = resume()
            except StopIteration as end:
                return end.value
            due, told = plan.is_due(), False
            if due and error is not None:
                aborted, told = _abort(trap, error)
                if aborted:
                    resume = functools.partial(coroutine.throw, error)
                    continue
            try:
                sent = yield trap
                ended_by = getattr(sent, "error", None)  # trio sends an outcome, asyncio throws
                resume = functools.partial(coroutine.send, sent)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as thrown:  # noqa: ASYNC103, BLE001  (passed on to the coroutine)
                ended_by = thrown
                resume = functools.partial(coroutine.throw, thrown)
            if due and error is None:
                # The step's result is kept. A cancellation that arrives meanwhile is delivered again at the next step.
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    yield from linger(isinstance(ended_by, anyio.get_cancelled_exc_class())).__await__()
            elif due and error is not None and not told:
                resume = functools.partial(coroutine.throw, error)


def _abort(trap: Any, error: BaseException) -> tuple[bool, bool]:
    """Undo what a coroutine is about to wait for. Return whether that worked, and whether *error* was delivered.

    asyncio's futures need no undoing. trio's waits have an abort function, which may refuse.
    """
    undo = getattr(trap, "abort_func", None)
    if undo is None:
        return True, False
    told = False

    def raise_cancel() -> None:
        nonlocal told
        told = True
        raise error

    return undo(raise_cancel).name == "SUCCEEDED", told


async def _linger(fault: Fault, cancelled: bool) -> None:  # noqa: FBT001
    if isinstance(fault, Slow):
        with anyio.CancelScope(shield=cancelled):
            await anyio.sleep(fault.seconds)
    else:
        assert isinstance(fault, Hang)
        with anyio.move_on_after(fault.seconds, shield=True):
            over = run_is_over.get(None)
            await (over.wait() if over is not None else anyio.sleep_forever())


async def _a_cancellation() -> BaseException:
    """Return a cancellation exception of the current backend."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as error:  # noqa: ASYNC103  (only to get hold of it)
            return error  # noqa: ASYNC104
    raise AssertionError("a checkpoint in a cancelled scope did not raise")  # pragma: no cover
