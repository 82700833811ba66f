"""Records and tracebacks as they may be shown: without secrets, and of a bounded length."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from types import TracebackType

from kernel import masking
from kernel.masking import TRACE, TRACE_LINE, bounded, mask, shown
from kernel.observe.plain import message_of

CAUSES = 20  # errors of a chain of causes that are shown
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class Masked(logging.Formatter):
    """What another formatter makes of a record, without secrets: also those in the text of some object.

    Args:
        formatter: The other.

    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return mask(self._formatter.format(record))


def mask_record(record: logging.LogRecord, told: Callable[[BaseException], str]) -> None:
    """Take secrets, and what is too long, out of *record*, whoever formats it.

    Args:
        record: It is changed only where there is something to take out.
        told: Gives the traceback of an error.

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
        record.exc_text = told(record.exc_info[1])  # which formatters other than ours take as it is


def traceback_text(error: BaseException, trace: TracebackType | None) -> str:
    """The traceback of *error* from *trace* on, with the causes before it."""
    links = [error]
    while len(links) <= CAUSES and (cause := _cause(links[-1])) is not None:
        links.append(cause)
    beyond = {id(one) for one in links[CAUSES:]}
    made = traceback.TracebackException(type(error), error, trace, _seen=beyond or None)
    text = mask("".join(made.format())).rstrip()
    text = bounded("\n".join(bounded(line, TRACE_LINE) for line in text.split("\n")), TRACE)
    return f"[... earlier causes left out ...]\n\n{text}" if beyond else text


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
