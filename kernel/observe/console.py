"""Standard output and error: nobody may read them, the disk behind them may be full, and the encoding poor.

What cannot be said is left unsaid, and the exit code still tells the truth: the interpreter itself would end with 120.
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
    if sys.stderr is None:  # closed by who started us: the next file to be opened would get its number, and our words
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say(text: str, level: int = logging.ERROR) -> None:
    """Print *text* to stderr, if that is possible; without secrets, and bounded.

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
    """Flush both, for the last time; tell why what was printed is lost: empty where it is not, or nobody wants it."""
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
    """Redirect *stream* to nowhere; otherwise what it still holds would be written again at exit."""
    if stream is None:
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass
