"""What still waits for what, down to the culprit: the tree that a start or a stop which takes long is explained by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kernel.errors import one_line
from kernel.lifecycle.events import ENDED, LIVE, State
from kernel.lifecycle.supervisor import Supervisor

LINES = 40  # of a tree; what is beyond is counted

Below = Callable[[Supervisor], Iterable[Supervisor]]


def starting_tree(supervisors: Iterable[Supervisor], now: float) -> tuple[str, ...]:
    """A line for each service that is not ready yet, below those that wait for it."""
    return _tree([one for one in supervisors if not one.open], awaited, now)


def stopping_tree(supervisors: Iterable[Supervisor], now: float) -> tuple[str, ...]:
    """A line for each service that still runs, below those that may only stop after it."""
    live = [one for one in supervisors if one.state in LIVE]

    def hold_up(one: Supervisor) -> list[Supervisor]:
        return [dependent for dependent, _ in one.dependents if dependent.state in LIVE]

    return _tree(live, hold_up, now)


def awaited(one: Supervisor) -> list[Supervisor]:
    """Whom *one* has to wait for before it can start; nobody once it is launched, or has ended."""
    if one.state in LIVE | ENDED:
        return []
    return [target for target, edge in one.links if not _met(target, edge.kind)]


def _met(target: Supervisor, kind: str) -> bool:
    return target.open if kind == "ready" else bool(target.attempt) or target.state in ENDED


def _tree(members: Sequence[Supervisor], below: Below, now: float) -> tuple[str, ...]:
    """Draw *members* as trees, from those that nobody waits for; each is described once."""
    awaited = {id(target) for one in members for target in below(one)}
    roots = [one for one in members if id(one) not in awaited]
    lines: list[str] = []
    drawn: set[int] = set()
    todo: list[tuple[Supervisor, str, str]] = [(one, "", "") for one in reversed(roots)]
    while todo:
        one, indent, branch = todo.pop()
        again = id(one) in drawn
        drawn.add(id(one))
        lines.append(f"{indent}{branch}{one.name}: {'see above' if again else describe(one, now)}")
        if not again:
            inner = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            children = list(below(one))
            marks = ["├─ "] * (len(children) - 1) + ["└─ "]
            todo += [(child, inner, mark) for child, mark in reversed(list(zip(children, marks, strict=False)))]
    if len(lines) > LINES:
        lines[LINES:] = [f"... and {len(lines) - LINES} more lines"]
    return tuple(lines)


def describe(one: Supervisor, now: float) -> str:
    """State, attempt, last error, next try, and where it stands: ``starting for 4.2 s, attempt 2, at api.py:3``."""
    words = [f"{one.state.value} for {now - one.since:.1f} s"]
    if one.attempt > 1:
        words.append(f"attempt {one.attempt}")
    if one.state is State.BACKOFF and one.next_step_at is not None:
        words.append(f"next try in {one.next_step_at - now:.1f} s")
    if one.state in LIVE:
        words.append(one.doing() if one.doing is not None else f"at {one.stands_at()}")
    if one.error is not None:
        words.append(f"last error: {one_line(one.error)}")
    return ", ".join(words)
