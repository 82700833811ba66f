"""Every observer takes every event."""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest
from opentelemetry.sdk.resources import Resource

from kernel.lifecycle.events import (
    MOVES,
    AllReady,
    Event,
    Forced,
    Notice,
    Observer,
    ReadyAgain,
    State,
    StillWaiting,
    StopBegan,
    Transition,
)
from kernel.observe.lifecycle_log import LogObserver
from kernel.observe.spans import SpanObserver
from kernel.observe.status import Stats
from kernel.observe.systemd import Notifier
from kernel.observe.tracer import Dispatcher
from kernel.process.collector import PatientCollector
from kernel.process.watchdog import Watchdog
from kernel.run import runner

SAMPLES: dict[type, list[Event]] = {
    Transition: [
        Transition("db", previous, state, 1, 0.5, "why", ValueError("boom") if fails else None, allowed=allowed)
        for previous, states in MOVES.items()
        for state in states
        for fails in (False, True)
        for allowed in (False, True)
        if fails or state not in {State.FAILED, State.ABANDONED, State.BACKOFF}  # which have an error always
    ],
    AllReady: [AllReady(1.0, ()), AllReady(1.0, ("db", "api"))],
    ReadyAgain: [ReadyAgain(1.0, ("db", "api"))],
    StopBegan: [StopBegan("SIGTERM", 10.0), StopBegan("db failed", 10.0, failure=True)],
    Forced: [Forced(("db",))],
    Notice: [Notice("db", "starts late"), Notice("", "odd", ValueError("boom"))],
    StillWaiting: [StillWaiting(stopping=False, seconds=5.0, lines=("db",))],
}


def phases() -> Observer:
    """The runner's own, on a watchdog that never bites."""
    watchdog = Watchdog(lambda _: None, lambda: True)
    watchdog.dismiss()
    return runner._Phases(watchdog, PatientCollector(1))


def notifier() -> Observer:
    """One that nobody listens to."""
    return Notifier(lambda _: None, None)


def spans() -> Observer:
    """One whose spans go nowhere."""
    return SpanObserver(Dispatcher(lambda name: Resource({"service.name": name})))


OBSERVERS: list[Callable[[], Observer]] = [LogObserver, Stats, notifier, spans, phases]


def test_there_is_a_sample_of_each() -> None:
    """A new kind of event needs one here."""
    assert set(SAMPLES) == set(typing.get_args(Event))


@pytest.mark.parametrize("make", OBSERVERS)
def test_every_observer_takes_every_event(make: Callable[[], Observer]) -> None:
    """None of them raises: one that did would be disabled."""
    observer = make()
    for events in SAMPLES.values():
        for event in events:
            observer(event)


@pytest.mark.parametrize("make", [LogObserver, spans])
def test_an_event_of_no_known_kind_is_not_lost_silently(make: Callable[[], Observer]) -> None:
    """What takes all kinds says so of another one, where no type checker has."""
    with pytest.raises(AssertionError):
        make()(object())  # type: ignore[arg-type]
