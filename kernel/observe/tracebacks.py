"""Tracebacks without the kernel's own lines; on a terminal with the frames of libraries folded."""

from __future__ import annotations

import os
import traceback
from typing import Any

from kernel.observe.shown import traceback_text
from kernel.stacks import KERNEL, is_users_file, without_kernel

FEW = 1  # frames that are not worth folding


def text_of_traceback(error: BaseException, *, folded: bool = False) -> str:
    """The traceback of *error*, and of what it was caused by and groups, without secrets, and of a bounded length.

    Args:
        error: The error.
        folded: Whether frames of libraries in a row are one line, which names them; of a traceback without a line of
            the user's, nothing is folded.

    """
    return traceback_text(error, without_kernel(error), _fold if folded else lambda _: None)


def _fold(told: traceback.TracebackException) -> None:
    todo: list[traceback.TracebackException | None] = [told]
    while todo:
        one = todo.pop()
        if one is None:
            continue
        stack = _Folded()
        stack.extend(one.stack)
        one.stack = stack
        todo += [one.__cause__, one.__context__, *(one.exceptions or ())]


class _Folded(traceback.StackSummary):
    """Frames of which those of libraries are told in one line."""

    def format(self, **options: Any) -> list[str]:
        """The lines, each with what ends it."""
        if not any(is_users_file(frame.filename) for frame in self):
            return super().format(**options)
        lines: list[str] = []
        run: list[traceback.FrameSummary] = []
        for frame in [*self, None]:
            if frame is not None and not is_users_file(frame.filename):
                run.append(frame)
                continue
            if len(run) > FEW:
                names = list(dict.fromkeys(_library_of(one.filename) for one in run))
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
    """The package that the file is of, or Python's own module."""
    if path.startswith(KERNEL):
        return "kernel"
    for folder in ("site-packages", "dist-packages"):
        _, found, rest = path.partition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest.partition(os.sep)[0].removesuffix(".py")
    rest = path.removeprefix(os.path.dirname(os.__file__) + os.sep)  # noqa: PTH120
    return rest.partition(os.sep)[0].removesuffix(".py") if rest != path else path
