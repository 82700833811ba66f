"""The tree of what still waits, of services that are where they are; when it is told is in `test_explain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from kernel.lifecycle.events import State
from kernel.lifecycle.tree import LINES, starting_tree, stopping_tree


@attrs.define(eq=False)
class Fake:
    """A service in the graph."""

    name: str
    state: State = State.WAITING
    waits_for: Sequence[Fake] = ()
    open: bool = False
    dependents: list[tuple[Fake, None]] = attrs.field(factory=list)
    since: float = 0.0
    attempt: int = 1
    error: BaseException | None = None
    doing: Any = None
    next_step_at: float | None = None

    def stands_at(self) -> str:
        """Return where it is."""
        return f"{self.name}.py:1"


def starting(*nodes: Any) -> list[str]:
    """Return the tree of a start, at 5 s."""
    return [line.replace(" for 5.0 s", "") for line in starting_tree(nodes, 5.0)]


def stopping(*nodes: Any) -> list[str]:
    """Return the tree of a stop, at 5 s."""
    return [line.replace(" for 5.0 s", "") for line in stopping_tree(nodes, 5.0)]


def test_who_waits_for_whom() -> None:
    """Each is below those that wait for it, and is described once; who is ready is left out."""
    db = Fake("db", State.STARTING)
    flaky = Fake("flaky", State.BACKOFF)
    cache = Fake("cache", waits_for=[db])
    queue = Fake("queue", waits_for=[cache, flaky, db])
    api = Fake("api", waits_for=[queue, db])
    other = Fake("other", waits_for=[flaky])
    ready = Fake("ready", State.READY, open=True)
    assert starting(db, ready, flaky, cache, queue, api, other) == [
        "api: waiting",
        "├─ queue: waiting",
        "│  ├─ cache: waiting",
        "│  │  └─ db: starting, at db.py:1",
        "│  ├─ flaky: backoff",
        "│  └─ db: see above",
        "└─ db: see above",
        "other: waiting",
        "└─ flaky: see above",
    ]


def test_what_was_drawn_is_not_drawn_below_again() -> None:
    """What it waits for is shown where it was first."""
    db = Fake("db", State.STARTING)
    cache = Fake("cache", waits_for=[db])
    one, two = (Fake(name, waits_for=[cache]) for name in ("one", "two"))
    assert starting(one, two, cache, db)[3:] == ["two: waiting", "└─ cache: see above"]


def test_who_stops_only_after_whom() -> None:
    """Each is below those that stop after it; who has ended, or has not begun, keeps nobody."""
    db, cache, api = Fake("db", State.READY), Fake("cache", State.READY), Fake("api", State.STOPPING)
    ended, waiting, alone = Fake("ended", State.DONE), Fake("waiting"), Fake("alone", State.STARTING)
    db.dependents = [(ended, None), (cache, None), (waiting, None), (api, None)]
    cache.dependents = [(api, None), (waiting, None)]
    ended.dependents = [(waiting, None)]
    assert stopping(ended, waiting, db, cache, api, alone) == [
        "db: ready, at db.py:1",
        "├─ cache: ready, at cache.py:1",
        "│  └─ api: stopping, at api.py:1",
        "└─ api: see above",
        "alone: starting, at alone.py:1",
    ]


@pytest.mark.parametrize(
    ("many", "last"), [(LINES, "39: waiting"), (LINES + 1, "... and 2 more lines"), (1000, "... and 961 more lines")]
)
def test_a_tree_that_is_too_large(many: int, last: str) -> None:
    """It has forty lines; the last one counts those that are left out."""
    lines = starting(*(Fake(str(number)) for number in range(many)))
    assert lines == [*(f"{number}: waiting" for number in range(39)), last]


def test_nobody_waits() -> None:
    """There is nothing to draw."""
    assert starting() == stopping(Fake("ended", State.DONE)) == []
