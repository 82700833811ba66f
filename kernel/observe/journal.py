"""Lines for systemd's journal: each begins with its priority, as in sd-daemon(3); the journal adds the time."""

from __future__ import annotations

import logging
import os
from typing import TextIO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def is_journal(stream: TextIO | None) -> bool:
    """Return whether *stream* is connected to the journal: JOURNAL_STREAM contains its device and inode.

    The variable alone is not enough: child processes inherit it even if their output goes elsewhere.
    """
    named = os.environ.get("JOURNAL_STREAM")
    if not named or stream is None:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it has no descriptor, or is closed
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def prioritized(text: str, level: int) -> str:
    """Return *text* with the priority of *level* before each line, since the journal makes a record of each line.

    Args:
        text: One line or several.
        level: A level as in `logging`.

    """
    prefix = f"<{next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)}>"
    return prefix + text.replace("\n", f"\n{prefix}")
