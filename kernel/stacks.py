"""Where code is: the line of a suspended coroutine or a running thread. Also tracebacks without the kernel's frames."""

from __future__ import annotations

import contextlib
import functools
import os.path
import sys
from collections.abc import Callable, Coroutine, Mapping
from types import AsyncGeneratorType, CodeType, FrameType, TracebackType
from typing import Any

UNKNOWN = "an unknown line"
WRAPPERS = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})
KERNEL = os.path.dirname(__file__) + os.sep  # noqa: PTH120  (pathlib costs 5 ms at every start)
ROOT = KERNEL.removesuffix(f"kernel{os.sep}")
UNPACKED = os.path.isfile(f"{ROOT}build.json")  # noqa: PTH113  (in an artifact, paths are shown relative to it)


@functools.cache
def _places() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the path prefixes of the user's code, and the prefixes of other code below them."""
    if UNPACKED or not os.path.isdir(ROOT):  # noqa: PTH112  (libraries are elsewhere, or in the same file)
        return (f"{ROOT}app{os.sep}", f"{ROOT}services{os.sep}"), ()
    # `sysconfig` is not used: this runs when something fails, perhaps because no file can be opened.
    return ("",), (KERNEL, "<", os.path.dirname(os.__file__) + os.sep)  # noqa: PTH120


def _is_users(code: CodeType) -> bool:
    return is_users_file(code.co_filename)


def is_users_file(path: str) -> bool:
    """Return whether the file belongs to the user rather than to the kernel, a library or Python."""
    own, foreign = _places()
    return path.startswith(own) and not path.startswith(foreign) and not any(place in path for place in _PACKAGES)


_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


def shorten(path: str) -> str:
    """Return *path* relative to the current folder if it is below it, which makes it readable and clickable.

    In an artifact it is relative to the artifact's folder, as in the source tree.
    """
    if UNPACKED:
        return path.removeprefix(ROOT)
    try:
        here = os.getcwd()  # noqa: PTH109
    except BaseException:  # noqa: ASYNC103, BLE001  (usually the folder was removed)
        return path  # noqa: ASYNC104
    return path.removeprefix(here + os.sep)


def _line(code: CodeType, line: int) -> str:
    return f"{shorten(code.co_filename)}:{line} in {code.co_qualname}"


def stands_at(coroutine: Coroutine[Any, Any, Any] | None) -> str:
    """Return the innermost line of user code where *coroutine* waits, such as ``services/api.py:12 in fetch``.

    Never raises, since a report about something that hangs must not fail.
    """
    try:
        return _innermost(coroutine)
    except BaseException:  # noqa: ASYNC103, BLE001
        return UNKNOWN  # noqa: ASYNC104


def _innermost(coroutine: Coroutine[Any, Any, Any] | None) -> str:
    innermost = UNKNOWN
    awaited: Any = coroutine
    while awaited is not None:
        frame = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is not None and (_is_users(frame.f_code) or awaited is coroutine):
            innermost = _line(frame.f_code, frame.f_lineno)
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
            or _wrapped(awaited)
        )
    return innermost


def _wrapped(awaited: object) -> object:
    """Return the async generator or coroutine inside *awaited*, if that is a wrapper written in C."""
    if type(awaited).__name__ not in WRAPPERS:
        return None
    import gc

    inside = (Coroutine, AsyncGeneratorType)
    return next((referent for referent in gc.get_referents(awaited) if isinstance(referent, inside)), None)


def runs_at(frame: FrameType | None) -> str:
    """Return the line that the thread with the innermost *frame* runs: the innermost line of user code, if any."""
    try:
        return _line_of(frame)
    except BaseException:  # noqa: ASYNC103, BLE001  (as in `stands_at`)
        return UNKNOWN  # noqa: ASYNC104


def _line_of(frame: FrameType | None) -> str:
    first = frame
    while frame is not None and not _is_users(frame.f_code):
        frame = frame.f_back
    frame = frame or first
    return _line(frame.f_code, frame.f_lineno) if frame is not None else UNKNOWN


def owner_of(frame: FrameType | None, functions: Mapping[str, Callable[..., Any]]) -> str:
    """Return the name of the function whose code runs in *frame* or one of its callers; an empty string if none does.

    The function's own frame decides; otherwise its file does, if only one of *functions* is defined in it.
    """
    codes = {fn.__code__: name for name, fn in functions.items() if hasattr(fn, "__code__")}
    files: dict[str, set[str]] = {}
    for code, name in codes.items():
        files.setdefault(code.co_filename, set()).add(name)
    while frame is not None:
        if frame.f_code in codes:
            return codes[frame.f_code]
        names = files.get(frame.f_code.co_filename, set())
        if len(names) == 1:
            return next(iter(names))
        frame = frame.f_back
    return ""


def without_kernel(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error* from the first frame outside the kernel on; all of it if there is none."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(KERNEL):
        traceback = traceback.tb_next
    return traceback or error.__traceback__


def frame_of(ident: int | None) -> FrameType | None:
    """Return the innermost frame of the thread *ident*; None if it is not running."""
    return sys._current_frames().get(ident or 0)  # noqa: SLF001  (documented for debugging)


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of *error*, its causes and grouped errors: their frames keep local variables alive."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        with contextlib.suppress(Exception):  # a frozen error cannot be changed
            current.__traceback__ = None
        todo += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            todo += current.exceptions
