"""The dependency graph: pure functions on names, in time linear in the number of services and edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kernel.errors import CycleError

Graph: TypeAlias = Mapping[str, Collection[str]]
"""The dependencies of each name. Dependencies that are not a key are ignored."""


def find_cycle(graph: Graph) -> tuple[str, ...]:
    """Return the members of one cycle, each depending on the next and the last on the first; empty if there is none."""
    finished: set[str] = set()
    for root in graph:
        if root in finished:
            continue
        path: dict[str, Iterator[str]] = {root: iter(graph[root])}  # in insertion order: the path from the root
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


def cycle_error(members: Sequence[str], where: str = "") -> CycleError:
    """Return the error for a cycle of *members*."""
    chain = " -> ".join((*members, members[0]))
    hint = "remove one of these names from a `depends` list"
    return CycleError(f"dependency cycle: {chain}", where=where, members=tuple(members), hint=hint)


def topological(graph: Graph) -> list[str]:
    """Return all names, each after its dependencies, otherwise in the given order.

    Raises:
        CycleError: There is a dependency cycle; the error names its members.

    """
    missing = {name: len([target for target in targets if target in graph]) for name, targets in graph.items()}
    dependents = reverse(graph)
    order = [name for name, count in missing.items() if not count]
    for name in order:  # grows during the loop
        for dependent in dependents[name]:
            missing[dependent] -= 1
            if not missing[dependent]:
                order.append(dependent)
    if len(order) < len(graph):
        raise cycle_error(find_cycle(graph))
    return order


def reverse(graph: Graph) -> dict[str, list[str]]:
    """Return, for each name, the names that depend on it."""
    dependents: dict[str, list[str]] = {name: [] for name in graph}
    for name, targets in graph.items():
        for target in targets:
            if target in dependents:
                dependents[target].append(name)
    return dependents


def closure(graph: Graph, names: Iterable[str]) -> set[str]:
    """Return *names* and all their direct and indirect dependencies."""
    reached: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo.extend(graph.get(name, ()))
    return reached


def depths(graph: Graph) -> dict[str, int]:
    """Return the number of levels below each name, which is the length of its longest chain of dependencies.

    Raises:
        CycleError: There is a dependency cycle.

    """
    depth: dict[str, int] = {}
    for name in topological(graph):
        depth[name] = max((depth[target] + 1 for target in graph[name] if target in depth), default=0)
    return depth
