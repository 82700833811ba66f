"""The tree that explains a slow start or stop: which service waits for which, down to the cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kernel.lifecycle.events import LIVE
from kernel.lifecycle.explain import describe
from kernel.lifecycle.node import Node

LINES = 40  # maximum lines of a tree; the others are only counted

Below = Callable[[Node], Iterable[Node]]


def starting_tree(nodes: Iterable[Node], now: float) -> tuple[str, ...]:
    """Return a line for each service that is not ready yet, below the services that wait for it."""
    return _tree([node for node in nodes if not node.open], lambda node: node.waits_for, now)


def stopping_tree(nodes: Iterable[Node], now: float) -> tuple[str, ...]:
    """Return a line for each running service, below the services that can stop only after it."""

    def running_dependents(node: Node) -> list[Node]:
        return [dependent for dependent, _ in node.dependents if dependent.state in LIVE]

    return _tree([node for node in nodes if node.state in LIVE], running_dependents, now)


def _tree(members: Sequence[Node], below: Below, now: float) -> tuple[str, ...]:
    """Draw *members* as trees, and describe each member once. Roots are the members that no other member waits for."""
    awaited = {id(target) for node in members for target in below(node)}
    roots = [node for node in members if id(node) not in awaited]
    lines: list[str] = []
    drawn: set[int] = set()
    todo: list[tuple[Node, str, str]] = [(node, "", "") for node in reversed(roots)]
    while todo:
        node, indent, branch = todo.pop()
        again = id(node) in drawn
        drawn.add(id(node))
        lines.append(f"{indent}{branch}{node.name}: {'see above' if again else describe(node, now)}")
        if not again:
            inner = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            children = reversed(list(below(node)))
            todo += [(child, inner, "├─ " if place else "└─ ") for place, child in enumerate(children)]
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"... and {len(lines) - LINES + 1} more lines"]
    return tuple(lines)
