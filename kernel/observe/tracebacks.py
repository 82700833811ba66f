"""Tracebacks without the kernel's own lines. On a terminal, frames of libraries are folded."""

from __future__ import annotations

import os
import traceback
from typing import Any

from kernel.observe.shown import traceback_text
from kernel.stacks import KERNEL, is_users_file, without_kernel

FEW = 1  # maximum number of frames that are not folded


def text_of_traceback(error: BaseException, *, folded: bool = False) -> str:
    """Return the traceback of *error* with its causes and grouped errors, without secrets, and bounded in length.

    Args:
        error: The error.
        folded: Whether successive frames of libraries become one line that names the libraries. If neither the error
            nor any of its causes has a line of the user's code, nothing is folded.

    """
    return traceback_text(error, without_kernel(error), _fold if folded else lambda _: None)


def _fold(told: traceback.TracebackException) -> None:
    todo: list[traceback.TracebackException | None] = [told]
    found: list[traceback.TracebackException] = []
    while todo:
        part = todo.pop()
        if part is not None:
            found.append(part)
            todo += [part.__cause__, part.__context__, *(part.exceptions or ())]
    if not any(is_users_file(frame.filename) for error in found for frame in error.stack):
        return
    for error in found:
        stack = _Folded()
        stack.extend(error.stack)
        error.stack = stack


class _Folded(traceback.StackSummary):
    """A stack whose frames of libraries are folded into one line."""

    def format(self, **options: Any) -> list[str]:
        """Return the lines, each with its line ending."""
        lines: list[str] = []
        run: list[traceback.FrameSummary] = []
        for frame in [*self, None]:
            if frame is not None and not is_users_file(frame.filename):
                run.append(frame)
                continue
            if len(run) > FEW:
                names = list(dict.fromkeys(_library_of(frame.filename) for frame in run))
                lines.append(f"  ... {len(run)} frames in {', '.join(names)}\n")
            else:
                lines += _format(run, options)
            run = []
            if frame is not None:
                lines += _format([frame], options)
        return lines


def _format(frames: list[traceback.FrameSummary], options: dict[str, Any]) -> list[str]:
    plain = traceback.StackSummary()
    plain.extend(frames)
    return plain.format(**options)


def _library_of(path: str) -> str:
    """Return the package that a file belongs to, or the module of the standard library."""
    if path.startswith(KERNEL):
        return "kernel"
    for folder in ("site-packages", "dist-packages"):
        _, found, rest = path.partition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest.partition(os.sep)[0].removesuffix(".py")
    rest = path.removeprefix(os.path.dirname(os.__file__) + os.sep)  # noqa: PTH120
    return rest.partition(os.sep)[0].removesuffix(".py") if rest != path else path
