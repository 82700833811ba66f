"""Lines for systemd's journal: each begins with its priority, as in sd-daemon(3); the journal adds the time."""

from __future__ import annotations

import logging
import os
from typing import Any

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def is_journal(stream: Any) -> bool:
    """Return whether *stream* is connected to the journal: JOURNAL_STREAM contains its device and inode.

    The variable alone is not enough: child processes inherit it even if their output goes elsewhere.
    """
    try:
        found = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):  # there is none, it has no descriptor, or is closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def prioritized(text: str, level: int) -> str:
    """Return *text* with the priority of *level* before each line, since the journal makes a record of each line.

    Args:
        text: One line or several.
        level: A level as in `logging`.

    """
    prefix = f"<{next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)}>"
    return prefix + text.replace("\n", f"\n{prefix}")
