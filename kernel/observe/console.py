"""Standard output and error: they may be closed, on a full disk, or have an encoding that lacks characters.

Output that cannot be written is dropped, and the exit code stays correct: the interpreter would exit with 120.
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
    if sys.stderr is None:  # closed by our parent; the next file we open would get its descriptor, and our output
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say(text: str, level: int = logging.ERROR) -> None:
    """Print *text* to stderr if possible, with secrets masked and bounded length.

    Args:
        text: One line or several.
        level: Its level as in `logging`, used if stderr is systemd's journal.

    """
    text = shown(text)
    try:
        print(prioritized(text, level) if is_journal(sys.stderr) else text, file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        _drop(sys.stderr)


def close() -> str:
    """Flush both streams a last time. Return why output was lost; empty if none was, or if its reader is gone."""
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
