"""Time that a busy machine does not falsify."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


def waited_for_a_core(pid: int, thread: int) -> float:
    """Return how many seconds a thread has been ready to run while others ran; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Stopwatch:
    """Measures from its making on, for the thread that makes it."""

    def __init__(self) -> None:
        self._thread = threading.get_native_id()
        self._began = time.monotonic()
        self._waited = self._now_waited()

    def _now_waited(self) -> float:
        return waited_for_a_core(os.getpid(), self._thread)

    @property
    def seconds(self) -> float:
        """All of them."""
        return time.monotonic() - self._began

    @property
    def own_seconds(self) -> float:
        """Those in which the thread did not wait for a core: what an upper bound holds for."""
        return self.seconds - (self._now_waited() - self._waited)
