"""Decide how a call ends when the called service raised something."""

from __future__ import annotations

import math
import sys

from anyio import current_effective_deadline, get_cancelled_exc_class

from kernel.errors import BadRequest, CallError, CallFailed, DeadlineExceeded, text_of

LATE = 0.05  # seconds before the deadline from which a DeadlineExceeded of an inner call means that it has passed


def cancelled() -> bool:
    """Return whether the caller was cancelled: the call then ended for that reason, not by an error of its own."""
    if current_effective_deadline() == -math.inf:
        return True
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001  (what `current_task` asks, without raising)
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def failure_of(
    error: BaseException, service: str, method: str, declared: tuple[type[BaseException], ...]
) -> CallError | None:
    """Return what the caller gets for *error*; None if it gets the error itself, or is cancelled.

    Args:
        error: The exception from the service's method.
        service: The service.
        method: The method.
        declared: The errors that reach the caller as themselves.

    """
    if type(error) in declared:
        return None
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return None  # a signal, and the end of a call that nobody awaits any more
    if isinstance(error, get_cancelled_exc_class()):
        if cancelled():
            return None
        return CallFailed(service, method, "it was cancelled from within", type(error).__name__, trace_id())
    if isinstance(error, TypeError) and error.__traceback__ is not None and error.__traceback__.tb_next is None:
        return BadRequest(service, method, text_of(error))  # it was raised by the call itself, before any of it ran
    return CallFailed(service, method, text_of(error), type(error).__name__, trace_id())


def overdue(error: BaseException, deadline: float, now: float) -> bool:
    """Return whether *error* means that this call's deadline passed, which inner calls share."""
    return isinstance(error, DeadlineExceeded) and now >= deadline - LATE


def trace_id() -> str:
    """Return the id of the current trace, in hexadecimal digits; empty if nothing is traced."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else ""
