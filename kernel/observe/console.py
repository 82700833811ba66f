"""Standard output and error: they may be closed, their disk may be full, and their encoding may lack characters.

What cannot be written is dropped, and the exit code stays correct: the interpreter itself would exit with 120.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from io import TextIOWrapper
from typing import TextIO

from kernel.masking import shown
from kernel.observe.journal import is_journal, prioritized


def prepare() -> None:
    """Escape characters that the encoding lacks, and replace a missing stderr, so that writing never raises."""
    if sys.stderr is None:  # closed by our parent: the next opened file would get its number, and our output
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say(text: str, level: int = logging.ERROR) -> None:
    """Print *text* to stderr if possible; without secrets, and bounded.

    Args:
        text: One line or several.
        level: How important it is, a number of `logging`, where stderr is the journal.

    """
    text = shown(text)
    try:
        print(prioritized(text, level) if is_journal(sys.stderr) else text, file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        _drop(sys.stderr)


def close() -> str:
    """Flush both for the last time; return why output was lost: empty if it was not, or if nobody reads it."""
    lost = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            _drop(stream)
            if stream is sys.stdout and isinstance(error, OSError) and error.errno != errno.EPIPE:
                lost = error.strerror or str(error)
    return lost


def _drop(stream: TextIO | None) -> None:
    """Redirect *stream* to the null device, so that its buffer is not written again at exit."""
    if stream is None:
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass
