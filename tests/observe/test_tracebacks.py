"""Frames of libraries are folded where a person reads."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kernel import masking
from kernel.observe import tracebacks
from kernel.observe.shown import _plain
from kernel.observe.tracebacks import _Folded, _library_of, text_of_traceback


def raised(call: Callable[[], Any]) -> Exception:
    """What *call* raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_a_row_of_frames_is_one_line() -> None:
    """It names the libraries; the user's lines, and the error, stay."""
    error = raised(lambda: json.loads("{"))
    folded = text_of_traceback(error, folded=True)
    assert "  ... 3 frames in json\n" in folded
    assert 'json.loads("{")' in folded
    assert "raw_decode" not in folded
    assert folded.splitlines()[-1] == text_of_traceback(error).splitlines()[-1]
    assert "raw_decode" in text_of_traceback(error)


def test_frames_between_the_users() -> None:
    """Each row by itself, with all that it is of."""

    async def fail() -> None:
        raise LookupError("here")

    def run() -> None:
        anyio.run(fail)

    folded = text_of_traceback(raised(run), folded=True)
    assert "frames in anyio, asyncio" in folded
    assert "in fail" in folded
    assert folded.count("frames in") == 1


def test_causes_and_groups_are_folded_too() -> None:
    """Whatever is told of an error."""

    def cause() -> None:
        try:
            json.loads("{")
        except ValueError as error:
            raise ExceptionGroup("two", [raised(lambda: json.loads("[")), RuntimeError("other")]) from error

    folded = text_of_traceback(raised(cause), folded=True)
    assert folded.count("frames in json") == 2
    assert "raw_decode" not in folded


def test_a_cause_of_libraries_alone_is_folded() -> None:
    """The user's line stands in the error that it caused."""
    cause = raised(lambda: json.loads("{"))
    trace = cause.__traceback__
    while trace is not None and "json" not in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    cause.__traceback__ = trace

    def fail() -> None:
        raise LookupError from cause

    folded = text_of_traceback(raised(fail), folded=True)
    assert "raw_decode" not in folded
    assert "frames in json" in folded
    assert "JSONDecodeError" in folded


def test_nothing_is_folded_where_nothing_is_the_users() -> None:
    """A traceback of libraries alone would say nothing."""

    async def fail() -> None:
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("\0", 1), 1)

    error = raised(lambda: asyncio.run(fail()))
    trace = error.__traceback__
    while trace is not None and "asyncio" not in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    while trace is not None and "test_tracebacks" in str([f.tb_frame.f_code.co_filename for f in _all(trace)]):
        trace = trace.tb_next
    error.__traceback__ = trace
    assert "frames in" not in text_of_traceback(error, folded=True)


def _all(trace: Any) -> list[Any]:
    found = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (tracebacks.__file__, "kernel"),
        (json.__file__, "json"),
        (traceback.__file__, "traceback"),
        ("/env/lib/python3/site-packages/anyio/abc/__init__.py", "anyio"),
        ("/usr/lib/python3/dist-packages/six.py", "six"),
        ("/elsewhere/parts/of.py", "/elsewhere/parts/of.py"),
    ],
    ids=["kernel", "package", "module", "installed", "Debian's", "unknown"],
)
def test_what_a_file_belongs_to(path: str, name: str) -> None:
    """The kernel, a module of the standard library, an installed package; of another file all is told."""
    assert _library_of(path) == name


@pytest.mark.parametrize("folded", [True, False])
def test_an_error_without_traceback(folded: bool) -> None:
    """It is one line either way."""
    assert text_of_traceback(ValueError("x"), folded=folded) == "ValueError: x"


def test_options_for_frames_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's later versions have for colours."""
    seen: list[dict[str, Any]] = []

    def formatted(_: object, **options: Any) -> list[str]:
        seen.append(options)
        return []

    monkeypatch.setattr(traceback.StackSummary, "format", formatted)
    stack = _Folded()
    stack.append(traceback.FrameSummary(json.__file__, 1, "loads", line=""))
    stack.append(traceback.FrameSummary(__file__, 1, "test", line=""))
    assert stack.format(colorize=True) == []
    assert seen == [{"colorize": True}] * len(seen)
    assert len(seen) > 1


def test_a_plain_traceback_is_bounded() -> None:
    """Of groups within groups a few are told, of causes twenty."""
    nested: Exception = ValueError("innermost")
    for _ in range(30):
        nested = ExceptionGroup("group", [nested])
    assert _plain(nested, None).count("ExceptionGroup: group") == 6
    error = ValueError("first")
    for number in range(30):
        after = ValueError(number)
        after.__cause__, error = error, after
    text = _plain(error, None)
    assert text.count("ValueError: ") == text.count("This caused another exception:") + 1 == 21
    handled = ValueError("second")
    handled.__context__ = KeyError("first")
    assert "KeyError: 'first'\n\nWhile this was handled, there was another exception:\n\n" in _plain(handled, None)
    handled.__suppress_context__ = True
    assert _plain(handled, None) == "Traceback (most recent call last):\nValueError: second"


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("place", [(traceback, "TracebackException"), (traceback.StackSummary, "format")])
def test_what_cannot_be_formatted_is_told_plainly(
    monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], folded: bool
) -> None:
    """Its lines and the error itself, without secrets, where Python can import or open nothing, or `str` raises."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError(17)

    def odd() -> None:
        raise Odd

    def both() -> None:
        raise ExceptionGroup("both", [raised(odd), TimeoutError()])

    def no_way() -> None:
        raise LookupError("no way with hunter2-hunter2") from raised(both)

    def nothing(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(masking, "_secrets", {})
    monkeypatch.setattr(masking, "_longest_first", [])
    masking.add("hunter2-hunter2")
    error = raised(no_way)
    error.add_note("in service api")
    with monkeypatch.context() as broken:
        broken.setattr(*place, nothing)
        lines = text_of_traceback(error, folded=folded).splitlines()
    assert [line for line in lines if not line.startswith("  File ")] == [
        "Traceback (most recent call last):",
        "ExceptionGroup: both (2 sub-exceptions)",
        "",
        "Traceback (most recent call last):",
        f"{__name__}.{Odd.__qualname__}: (no text: ValueError)",
        "Traceback (most recent call last):",
        "TimeoutError",
        "",
        "This caused another exception:",
        "",
        "Traceback (most recent call last):",
        "LookupError: no way with ********",
        "in service api",
    ]
    assert [line.rpartition(", in ")[2] for line in lines if line.startswith("  File ")] == [
        *("raised", "both"),
        *("raised", "odd"),
        *("raised", "no_way"),
    ]
