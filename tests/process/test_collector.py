"""The garbage collector waits longer while services start and stop."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from kernel.process import collector as module
from kernel.process.collector import YOUNG, YOUNG_EACH, PatientCollector

USUAL = (700, 11, 9)  # no two are the same, as in some versions of Python
PATIENT = (YOUNG + 100 * YOUNG_EACH, *USUAL[1:])


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests beside this one have the usual collector."""
    monkeypatch.setattr(module, "USUAL", USUAL)
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def test_it_is_patient_at_both_ends_of_a_run() -> None:
    """While services start and stop, and not in between or afterwards."""
    with PatientCollector(100) as collector:
        assert gc.get_threshold() == PATIENT
        collector.usual()
        assert gc.get_threshold() == USUAL
        collector.patient()
        assert gc.get_threshold() == PATIENT
    assert gc.get_threshold() == USUAL


def test_one_that_somebody_has_set_up_is_left_alone() -> None:
    """Before the run, or while it goes on."""
    gc.set_threshold(555, 5, 5)
    with PatientCollector(100) as collector:
        collector.usual()
        collector.patient()
        assert gc.get_threshold() == (555, 5, 5)
    assert gc.get_threshold() == (555, 5, 5)
    gc.set_threshold(*USUAL)
    with PatientCollector(100) as collector:
        gc.set_threshold(555, 5, 5)
        collector.usual()
    assert gc.get_threshold() == (555, 5, 5)
