"""Signals: which one counts."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from kernel.process.signals import Signals

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
    ("came", "counts"),
    [
        ([(INT, 0), (INT, 0.49)], [1]),
        ([(INT, 0), (INT, 0.51)], [1, 2]),
        ([(INT, 0), (INT, 0.3), (INT, 0.6)], [1, 2]),  # whoever holds the key down means it
        ([(INT, 0), (TERM, 0.1)], [1]),
        ([(TERM, 0), (INT, 0.1)], [1]),
        ([(TERM, 0), (HUP, 0.1)], [1]),
        ([(HUP, 0), (TERM, 0.1)], [1]),
        ([(INT, 0), (TERM, 0.6), (TERM, 0.7)], [1, 2]),
        ([(INT, 0), (HUP, 0.1)], [1, 2]),  # a terminal that is closed sends it to those who did not heed Ctrl+C
        ([(INT, 0), (HUP, 0.1), (TERM, 0.2)], [1, 2]),
        ([(INT, 0), (TERM, 0.6), (HUP, 1.2)], [1, 2, 130]),
        ([(INT, 0), (INT, 1), (INT, 2)], [1, 2, 130]),
    ],
)
def test_which_signals_are_one_within_half_a_second(
    monkeypatch: pytest.MonkeyPatch, came: list[tuple[signal.Signals, float]], counts: list[int]
) -> None:
    """The same twice, and SIGTERM with any; each other one counts, and the third ends the process."""
    told: list[int] = []

    class Left(BaseException):
        """The process would be gone."""

    def leave(code: int) -> None:
        told.append(code)
        raise Left

    signals = Signals(told.append, lambda *_: None)
    signals.listen(lambda _: None)
    monkeypatch.setattr(os, "_exit", leave)
    for number, when in came:
        monkeypatch.setattr("kernel.process.signals.time", SimpleNamespace(monotonic=lambda when=when: 100 + when))
        try:
            signals._handle(number)
        except Left:
            break
    assert told == counts
