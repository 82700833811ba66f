"""How a call ends when the called service raised something: its own error, a failure, or a cancellation."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
from opentelemetry import trace

from kernel import BadRequest, CallFailed, DeadlineExceeded
from kernel.calls.failures import cancelled, failure_of, overdue, trace_id
from kernel.testing import BACKENDS, backend_options

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """It is the same on both, here in virtual time."""
    return request.param, backend_options(request.param)


class Declared(Exception):
    pass


class More(Declared):
    pass


async def takes(x: int) -> int:
    """Has one parameter."""
    return await takes()  # type: ignore[call-arg]


def caught(function: Any, *args: Any) -> BaseException:
    """Return what *function* raises as the kernel gets it: with the traceback from the call on."""
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def raises(error: BaseException) -> None:
    raise error


def ending(error: BaseException) -> tuple[type, str, str] | None:
    """Return the error that the caller gets: its class, message and kind; None for *error* itself."""
    found = failure_of(error, "users", "get", (Declared,))
    return None if found is None else (type(found), found.message, getattr(found, "type", ""))


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (Declared("a"), None),
        (More("a"), (CallFailed, "a", "More")),
        (KeyboardInterrupt(), None),
        (GeneratorExit(), None),
        (SystemExit(3), (CallFailed, "3", "SystemExit")),
        (ValueError("x"), (CallFailed, "x", "ValueError")),
        (TypeError("made, and never raised"), (CallFailed, "made, and never raised", "TypeError")),
        (caught(raises, TypeError("within")), (CallFailed, "within", "TypeError")),
        (
            caught(lambda: takes()),  # type: ignore[call-arg]  # noqa: PLW0108
            (CallFailed, "takes() missing 1 required positional argument: 'x'", "TypeError"),
        ),
    ],
    ids=range(9),
)
async def test_what_the_caller_gets(error: BaseException, end: tuple[type, str, str] | None) -> None:
    """A declared error of exactly that class is itself, and so is the end of the process; all else is a failure."""
    assert ending(error) == end


async def test_arguments_that_the_method_does_not_take() -> None:
    """None of it has run, so it is a bad request; a mistake of the same kind within it is a failure."""
    words = "takes() missing 1 required positional argument: 'x'"
    assert await awaited(takes) == (BadRequest, words, "")
    assert await awaited(takes, 1) == (CallFailed, words, "TypeError")

    def refuses() -> None:
        raise ValueError("of a validator")

    assert await awaited(refuses) == (CallFailed, "of a validator", "ValueError")


async def awaited(method: Any, *args: Any) -> tuple[type, str, str] | None:
    """Return how a call of *method* ends for its caller."""
    try:
        await method(*args)
    except Exception as error:  # noqa: BLE001
        return ending(error)
    raise AssertionError


async def test_a_cancellation_of_the_caller_goes_on() -> None:
    """One by a scope, or, on asyncio, of the task; one that comes from within is a failure."""
    ends: list[Any] = []
    assert not cancelled()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert cancelled()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as error:
            ends.append(ending(error))
            raise
    assert ends == [None]
    assert not cancelled()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_task() -> None:
    """As by a library that knows asyncio only."""
    stray = asyncio.CancelledError()
    assert ending(stray) == (CallFailed, "it was cancelled from within", "CancelledError")
    ends: list[Any] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            ends.extend((cancelled(), ending(error)))

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert ends == [True, None]
    asked: list[bool] = []
    asyncio.get_running_loop().call_soon(lambda: asked.append(_asked()))  # where there is no task
    await asyncio.sleep(0)
    assert asked == [False]


def _asked() -> bool:
    return cancelled()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_has_no_tasks_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether asyncio is imported or not."""
    assert not cancelled()
    monkeypatch.delitem(sys.modules, "asyncio")
    assert not cancelled()


def test_a_deadline_that_passed() -> None:
    """An inner call's timeout is ours if ours is over, or will be in a moment."""
    error = DeadlineExceeded("a", "b", "c")
    assert [overdue(error, 10.0, now) for now in (9.9, 9.94, 9.95, 10.0, 11.0)] == [False, False, True, True, True]
    assert not overdue(TimeoutError(), 10.0, 11.0)


def test_the_id_of_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 32 hexadecimal digits; empty if nothing is traced, or if nothing of it is imported."""
    assert trace_id() == ""
    context = trace.SpanContext(0xABC, 1, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert trace_id() == f"{'abc':0>32}"
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert trace_id() == ""
