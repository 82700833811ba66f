"""Whether somebody is debugging, so that deadlines should rest."""

from __future__ import annotations

import sys
from collections.abc import Callable

DEBUGGERS = ("bdb", "pydevd")
"""Modules that are imported exactly when a debugger is at work: pdb and its kin stand on bdb; VS Code's and
PyCharm's are pydevd. They stay imported after "continue", when no trace function is set any more, and a process
that was held for a minute would otherwise be found guilty of it afterwards."""


def attached() -> bool:
    """Whether a debugger is, or was, attached to this process."""
    return any(name in sys.modules for name in DEBUGGERS)


def resting(announce: Callable[[], None]) -> Callable[[], bool]:
    """A check whether deadlines rest, which calls *announce* the first time that they do."""
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
