"""Prepare records and tracebacks for display: mask secrets, and limit their length."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable
from types import TracebackType

from kernel import masking
from kernel.errors import encodable, text_of
from kernel.masking import TRACE, TRACE_LINE, bounded, mask, shown
from kernel.observe.plain import message_of

CAUSES = 20  # maximum number of errors in a chain of causes
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class Rewritten(logging.Formatter):
    """Changes the output of another formatter.

    Args:
        formatter: The other formatter.
        change: Returns the text to write, given the other formatter's output and the record.

    """

    def __init__(self, formatter: logging.Formatter, change: Callable[[str, logging.LogRecord], str]) -> None:
        super().__init__()
        self._formatter, self._change = formatter, change

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return self._change(self._formatter.format(record), record)


def masked(formatter: logging.Formatter) -> logging.Formatter:
    """Return a formatter that masks secrets in the output of *formatter*, including those in the text of objects."""
    return Rewritten(formatter, lambda text, _: mask(text))


def mask_record(record: logging.LogRecord, told: Callable[[BaseException], str]) -> None:
    """Remove secrets, and text that is too long, from *record*, for any formatter.

    Args:
        record: Changed only if there is something to remove.
        told: Returns the traceback of an error.

    """
    message = message_of(record)
    fit = shown(message)
    if fit is not message:
        record.msg, record.args = fit, None
    fields = record.__dict__
    for name in fields.keys() - _STANDARD:
        if isinstance(fields[name], str):
            fields[name] = shown(fields[name])
    if record.stack_info:
        record.stack_info = shown(record.stack_info)
    if masking.known() and record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        record.exc_text = told(record.exc_info[1])  # other formatters use this text unchanged


def traceback_text(
    error: BaseException,
    trace: TracebackType | None,
    edit: Callable[[traceback.TracebackException], object] = lambda _: None,
) -> str:
    """Return the traceback of *error* from *trace* on, including causes. *edit* may change it before formatting.

    Never raises: if the traceback cannot be formatted, a plain one is returned.
    """
    cut = False
    try:
        made = traceback.TracebackException(type(error), error, trace)
        cut = _cut(made)
        edit(made)
        text = "".join(made.format())
    except Exception:  # noqa: BLE001  (methods of the error may raise, and files may have run out)
        text = _plain(error, trace)
    text = mask(encodable(text)).rstrip()
    text = bounded("\n".join(bounded(line, TRACE_LINE) for line in text.split("\n")), TRACE)
    return f"[... earlier causes left out ...]\n\n{text}" if cut else text


def _plain(error: BaseException, trace: TracebackType | None, causes: int = CAUSES) -> str:
    """Return a traceback for which nothing is imported or read. From Python 3.15 on, `traceback` imports lazily."""
    lines = []
    cause, how = error.__cause__, "This caused"
    if cause is None and not error.__suppress_context__:
        cause, how = error.__context__, "While this was handled, there was"
    if cause is not None and causes:
        lines += [_plain(cause, cause.__traceback__, causes - 1), "", f"{how} another exception:", ""]
    lines.append("Traceback (most recent call last):")
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    kind = type(error)
    module = "" if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}."
    text = text_of(error)
    lines += [
        f"{module}{kind.__qualname__}{': ' if text else ''}{text}",
        *map(text_of, getattr(error, "__notes__", ())),
    ]
    if isinstance(error, BaseExceptionGroup) and causes:
        lines += ["", *(_plain(inner, inner.__traceback__, causes // 2) for inner in error.exceptions)]
    return "\n".join(lines)


def _cut(made: traceback.TracebackException) -> bool:
    """Remove the causes from *made* after the first `CAUSES`, and return whether there were any."""
    left, cut = CAUSES, False
    todo = deque([made])
    while todo:
        error = todo.popleft()
        todo += error.exceptions or ()
        cause = error.__cause__ or error.__context__
        if cause is not None and left:
            left -= 1
            todo.append(cause)
        elif cause is not None:
            error.__cause__, error.__context__, cut = None, None, True
    return cut
