"""The table of states and moves."""

from __future__ import annotations

import attrs
import pytest

from kernel.lifecycle.events import ENDED, LIVE, MOVES, AllReady, Ending, Forced, Notice, State, StopBegan, Transition


def test_the_table_names_every_state() -> None:
    """Each state has its moves, and each state but the first can be reached."""
    assert set(MOVES) == set(State)
    assert set().union(*MOVES.values()) == set(State)


def test_ended_states() -> None:
    """The states that are never left are the ends a service can come to."""
    assert {state.value for state in ENDED} == {"stopped", "done", "failed", "abandoned"}


def test_live_states() -> None:
    """An attempt runs in three of the states, and none of them is an end."""
    assert {state.value for state in LIVE} == {"starting", "ready", "stopping"}
    assert not LIVE & ENDED


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED], ids=lambda state: state.value)
def test_every_end_can_be_reached(state: State) -> None:
    """From each state a service can come to an end."""
    reached, todo = set[State](), [state]
    while todo:
        one = todo.pop()
        if one not in reached:
            reached.add(one)
            todo += MOVES[one]
    assert reached & ENDED


def test_only_what_ran_needs_to_stop_first() -> None:
    """A ready service never ends without stopping, and one without an attempt never passes through stopping."""
    assert MOVES[State.READY] == {State.STOPPING}
    for halted in (State.WAITING, State.BACKOFF):
        assert State.STOPPING not in MOVES[halted]
        assert State.STOPPED in MOVES[halted]


def test_states_are_hashed_by_identity() -> None:
    """States are keys that cost nothing."""
    assert hash(State.READY) == object.__hash__(State.READY)
    assert {State.READY: 1}[State("ready")] == 1


@pytest.mark.parametrize("event", [Transition, AllReady, StopBegan, Forced, Notice], ids=lambda event: event.__name__)
def test_events_are_frozen(event: type[attrs.AttrsInstance]) -> None:
    """An observer cannot change what the next one sees."""
    one = event(**{field.name: None for field in attrs.fields(event)})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(one, attrs.fields(event)[0].name, "x")


def test_what_an_event_leaves_out() -> None:
    """What is short to write in a test of an observer is the usual: no failure, nothing special."""
    move = Transition("api", State.WAITING, State.STARTING, 1, 0.5)
    assert (move.reason, move.error, move.waited_for, move.cause) == ("", None, (), "")
    assert move.allowed is move.internal is StopBegan("SIGTERM", 10.0).failure is Notice("api", "x").calm is False
    assert Notice("api", "x").error is None
    ending = Ending("api", State.FAILED, 1, 0.0, "", None, allowed=False, internal=False)
    assert not ending.late
    assert ending.fatal
