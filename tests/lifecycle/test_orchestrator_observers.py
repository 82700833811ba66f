"""All services: observers, also those that fail."""

from __future__ import annotations

import anyio
import attrs
import pytest

from kernel.declare.service import service
from kernel.lifecycle.events import AllReady, Event, Notice, State, Transition
from kernel.lifecycle.observers import Observers
from tests.harness import Lab
from tests.lifecycle.parts import Part, chain, crash_later, named, sleeper, story

pytestmark = pytest.mark.anyio


async def test_an_observer_that_fails_is_asked_no_more(lab: Lab) -> None:
    """It is reported to the others, which go on, and takes no service down."""
    seen: list[Event] = []

    def bad(event: Event) -> None:
        seen.append(event)
        raise ValueError("cannot export")

    await lab.stop_at(5).run(sleeper("a"), observers=[bad])
    assert len(seen) == 1
    (notice,) = (event for event in lab.events if isinstance(event, Notice))
    assert "test_an_observer_that_fails_is_asked_no_more" in notice.message
    assert notice.message.endswith("failed and was disabled")
    assert isinstance(notice.error, ValueError)
    assert lab.path("a") == "waiting starting ready stopping stopped"
    assert lab.exit_code == 0


async def test_every_observer_sees_the_same_order(lab: Lab) -> None:
    """Also when an observer itself causes events, all see them in the order in which they happened."""
    seen: list[Event] = []

    def stops(event: Event) -> None:
        if isinstance(event, AllReady):
            lab.orchestrator.request_stop("by an observer")

    def fails(event: Event) -> None:
        raise ValueError

    await lab.run(sleeper("a"), sleeper("b", "a"), observers=[stops, fails, seen.append])
    assert seen == lab.events
    assert lab.stop_began.reason == "by an observer"
    assert lab.exit_code == 0


@pytest.mark.parametrize("nth", range(1, 8))
async def test_an_observer_may_ask_for_a_stop_at_any_event(lab: Lab, nth: int) -> None:
    """Whatever the moment, the stop is complete and every move legal."""
    count = 0

    def stops(_: Event) -> None:
        nonlocal count
        count += 1
        if count == nth:
            lab.orchestrator.request_stop("by an observer")

    @service(depends=["b"])
    async def c(b: str) -> None:
        await anyio.sleep_forever()

    await lab.run(sleeper("a", opening=1), sleeper("b", "a", opening=50), c, observers=[stops])
    assert lab.now <= 52
    assert lab.exit_code == 0


async def test_an_observer_that_asks_for_a_stop_at_a_launch(lab: Lab) -> None:
    """A service that was just launched has its 1 s then, as at any other moment."""

    def stops(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.STARTING:
            lab.orchestrator.request_stop("by an observer")

    await lab.run(sleeper("a", opening=50), observers=[stops])
    assert lab.when("a", "stopped") == 0


async def test_the_events_of_a_life(lab: Lab) -> None:
    """Each move tells its service, states, attempt, the time in the state before, reason and error."""
    await lab.stop_at(9).run(sleeper("a", opening=2), named("bad", service(allowed_failure=True)(crash_later)))
    assert [(move.previous, move.state, move.attempt, move.seconds, move.reason) for move in lab.moves("a")] == [
        (State.WAITING, State.STARTING, 1, 0, ""),
        (State.STARTING, State.READY, 1, 2, ""),
        (State.READY, State.STOPPING, 1, 7, "requested"),
        (State.STOPPING, State.STOPPED, 1, 0, ""),
    ]
    failed = lab.moves("bad")[-1]
    assert isinstance(failed.error, ValueError)
    assert failed.allowed
    assert not failed.internal
    assert isinstance(lab.events[0], Transition)


@pytest.mark.parametrize(
    ("trigger", "force", "code", "ends"),
    [
        ("cache ready", False, 0, "stopped stopped stopped"),
        ("cache ready", True, 130, "failed failed failed"),
        ("AllReady", False, 0, "stopped stopped stopped"),
        ("db stopping", False, 1, "failed stopped stopped"),
        ("cache waiting", False, 1, "failed stopped stopped"),
        ("db backoff", False, 0, "stopped stopped stopped"),
        ("db starting", False, 0, "stopped stopped stopped"),
        ("StopBegan", True, 130, "failed failed failed"),
        ("api stopped", True, 130, "failed failed stopped"),
    ],
)
async def test_an_observer_asks_in_the_very_event(lab: Lab, trigger: str, force: bool, code: int, ends: str) -> None:
    """Whatever the event tells of has happened, and nothing is launched any more."""
    asked: list[float] = []

    def asks(event: Event) -> None:
        told = f"{event.service} {event.state.value}" if isinstance(event, Transition) else type(event).__name__
        if told == trigger and not asked:
            asked.append(lab.now)
            (lab.orchestrator.force if force else lambda: lab.orchestrator.request_stop("by an observer"))()

    if trigger in {"StopBegan", "api stopped"}:
        lab.stop_at(4)
    parts = chain(db=Part(crashes=(5,), closing=1), cache=Part(closing=1), api=Part())
    await lab.run(*parts, observers=[asks])
    launches = [when for when, event in lab.log if isinstance(event, Transition) and event.state is State.STARTING]
    assert max(launches) <= asked[0]
    assert " ".join(ending.state.value for ending in lab.report.endings) == ends
    assert lab.exit_code == code


async def test_an_observer_asks_as_it_learns_of_a_failure(lab: Lab) -> None:
    """The failure has begun the stop already, and stays its reason."""

    def asks(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.FAILED:
            lab.orchestrator.request_stop("by an observer")

    (db,) = chain(db=Part(crashes=(5,), retries=0))
    await lab.run(db, observers=[asks])
    assert attrs.astuple(lab.stop_began) == ("db failed", 10.0, True)
    assert lab.exit_code == 1


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.STOPPED])
@pytest.mark.parametrize("error", [SystemExit(3), BaseExceptionGroup("", [SystemExit(3)])], ids=["exit", "group"])
async def test_an_observer_that_exits_takes_nothing_down(lab: Lab, error: BaseException, state: State) -> None:
    """It is reported and asked no more, as one that fails in any other way."""

    def exits(event: Event) -> None:
        if isinstance(event, Transition) and event.state is state:
            raise error

    await lab.stop_at(5).run(*chain(db=Part(), cache=Part(closing=1)), observers=[exits])
    assert story(lab, "db") == "ready@0 stopping@6 stopped@6"
    assert len(lab.notices) == 1
    assert lab.exit_code == 0


def test_without_an_observer_nothing_is_kept() -> None:
    """Neither where there is none, nor once the only one has failed."""

    def fails(event: Event) -> None:
        raise ValueError

    interrupted: list[bool] = []
    for given in ([], [fails]):
        observers = Observers(given, lambda: interrupted.append(True))
        observers.emit(AllReady(1.0, ()))
        assert bool(observers) is bool(given)
        if given:
            observers.tell_next()
        observers.emit(AllReady(2.0, ()))
        assert not observers
    assert not interrupted
