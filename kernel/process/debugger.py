"""Detect a debugger, so that deadlines can be suspended."""

from __future__ import annotations

import sys
from collections.abc import Callable

DEBUGGERS = ("bdb", "pydevd")
"""Modules that only debuggers import: pdb and similar ones use bdb; VS Code and PyCharm use pydevd. They stay
imported after "continue", when no trace function is set any more; otherwise the time spent at a breakpoint would count
afterwards."""


def attached() -> bool:
    """Return whether a debugger is, or was, attached to this process."""
    return any(name in sys.modules for name in DEBUGGERS)


def resting(announce: Callable[[], None]) -> Callable[[], bool]:
    """Return a function that tells whether deadlines are suspended. It calls *announce* the first time they are."""
    announced = False

    def rests() -> bool:
        nonlocal announced
        if not attached():
            return False
        if not announced:
            announced = True
            announce()
        return True

    return rests
