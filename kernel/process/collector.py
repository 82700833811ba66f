"""The garbage collector, patient while services start and while they stop."""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Self

USUAL = gc.get_threshold()

YOUNG = 50_000
"""New objects after which the collector looks at them, in place of Python's 700 to 2,000.

What an app makes while it starts mostly stays, and what it frees while it stops mostly goes by itself: to look often
finds nothing. 10,000 services start in half the time, and stop in two thirds.
"""

YOUNG_EACH = 50
"""As many more for each service, which takes 30 to 40 to start: 10,000 start in 0.8 of the time that they take without.

The garbage that may lie about is then at most about as much as the services themselves take.
"""


class PatientCollector:
    """Has the collector wait for more new objects, as a context manager around a run.

    Once all services are ready the app's own work decides what is garbage, and waiting gains nothing (parsing JSON
    into a cache took 0.99 to 1.04 of the time): from `usual` on it is as Python has it, until `patient` is called.
    Thresholds that `app/init.py` has set are left alone.

    Args:
        services: How many there are.

    """

    def __init__(self, services: int) -> None:
        self._young = YOUNG + YOUNG_EACH * services

    def patient(self) -> None:
        """Wait for more new objects."""
        if gc.get_threshold() == USUAL:
            gc.set_threshold(self._young, *USUAL[1:])

    def usual(self) -> None:
        """Be as Python has it."""
        if gc.get_threshold() == (self._young, *USUAL[1:]):
            gc.set_threshold(*USUAL)

    def __enter__(self) -> Self:
        self.patient()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.usual()
