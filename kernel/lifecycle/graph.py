"""The graph of dependencies: pure functions over names, linear in services plus edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from kernel.errors import CycleError

Graph: TypeAlias = Mapping[str, Collection[str]]
"""Each name with the names it depends on. A name that is only depended on counts as a node too."""


def find_cycle(graph: Graph) -> tuple[str, ...]:
    """The members of one cycle, each depending on the next and the last on the first; empty where there is none."""
    finished: set[str] = set()
    for root in graph:
        if root in finished:
            continue
        path: dict[str, Iterator[str]] = {root: iter(graph[root])}  # insertion order is the path from the root
        while path:
            node = next(reversed(path))
            for target in path[node]:
                if target in path:
                    members = list(path)
                    return tuple(members[members.index(target) :])
                if target not in finished and target in graph:
                    path[target] = iter(graph[target])
                    break
            else:
                finished.add(node)
                del path[node]
    return ()


def topological(graph: Graph) -> list[str]:
    """All names, each after those it depends on; otherwise in the order given.

    Raises:
        CycleError: There is a cycle; it names the members.

    """
    missing = {name: len([target for target in targets if target in graph]) for name, targets in graph.items()}
    dependents = reverse(graph)
    order = [name for name, count in missing.items() if not count]
    for name in order:  # grows while we walk it
        for dependent in dependents[name]:
            missing[dependent] -= 1
            if not missing[dependent]:
                order.append(dependent)
    if len(order) < len(graph):
        members = find_cycle(graph)
        chain = " -> ".join((*members, members[0]))
        raise CycleError(
            f"services wait for each other: {chain}", members=members, hint="take one of these names out of its depends"
        )
    return order


def reverse(graph: Graph) -> dict[str, list[str]]:
    """Each name with the names that depend on it."""
    dependents: dict[str, list[str]] = {name: [] for name in graph}
    for name, targets in graph.items():
        for target in targets:
            if target in dependents:
                dependents[target].append(name)
    return dependents


def closure(graph: Graph, names: Iterable[str]) -> set[str]:
    """*names* and all that they depend on, directly or not."""
    reached: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo.extend(graph.get(name, ()))
    return reached


def depths(graph: Graph) -> dict[str, int]:
    """For each name the number of levels below it: the longest chain of names that it depends on.

    Raises:
        CycleError: There is a cycle.

    """
    depth: dict[str, int] = {}
    for name in topological(graph):
        depth[name] = max((depth[target] + 1 for target in graph[name] if target in depth), default=0)
    return depth
