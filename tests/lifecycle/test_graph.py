"""The graph of dependencies, against slow and obvious definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import CycleError
from kernel.lifecycle.graph import closure, depths, find_cycle, reverse, topological

DIAMOND = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}
LONG = 20_000


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, list[str]]:
    """Graphs without cycles, in any order of their names."""
    names = [f"s{i}" for i in range(draw(st.integers(0, 9)))]
    edges = {name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)}
    return {name: edges[name] for name in draw(st.permutations(names))}


@st.composite
def arbitrary(draw: st.DrawFn) -> dict[str, list[str]]:
    """Graphs that may have cycles."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 7)))]
    return {name: draw(st.lists(st.sampled_from(names), unique=True)) for name in names}


def reaches(graph: Mapping[str, Sequence[str]], start: str, target: str) -> bool:
    """Whether *start* depends on *target*, directly or not."""
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo.extend(graph[one])
    return target in seen


def test_a_diamond_in_order() -> None:
    """Each name comes after those it depends on."""
    assert topological(DIAMOND) == ["a", "b", "c", "d"]


def test_independent_names_keep_their_order() -> None:
    """What nothing orders stays as given."""
    assert topological({"c": [], "a": [], "b": []}) == ["c", "a", "b"]


def test_nothing() -> None:
    """An empty graph is a graph."""
    assert topological({}) == []
    assert depths({}) == {}
    assert reverse({}) == {}
    assert closure({}, []) == set()
    assert find_cycle({}) == ()


def test_a_name_that_is_not_in_the_graph() -> None:
    """A dependency that is not among the names orders nothing."""
    graph = {"a": ["elsewhere"]}
    assert topological(graph) == ["a"]
    assert depths(graph) == {"a": 0}
    assert reverse(graph) == {"a": []}
    assert closure(graph, ["a"]) == {"a", "elsewhere"}
    assert find_cycle(graph) == ()


def test_reverse() -> None:
    """Each name with those that depend on it."""
    assert reverse(DIAMOND) == {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}


def test_closure() -> None:
    """Names with all that they depend on."""
    assert closure(DIAMOND, ["b"]) == {"a", "b"}
    assert closure(DIAMOND, ["d"]) == set(DIAMOND)


def test_depths() -> None:
    """The longest chain below a name counts, not the shortest."""
    assert depths({"c": ["a", "b"], "b": ["a"], "a": []}) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("graph", "members"),
    [
        ({"a": ["a"]}, ("a",)),
        ({"a": ["b"], "b": ["a"]}, ("a", "b")),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"], "y": []}, ("a", "b", "c")),
        ({"x": ["y"], "y": [], "z": ["y", "x"], "a": ["y", "b"], "b": ["x", "a"]}, ("a", "b")),
    ],
    ids=["itself", "two", "three", "apart"],
)
def test_a_cycle_is_named(graph: dict[str, list[str]], members: tuple[str, ...]) -> None:
    """The error names the members, each waiting for the next, and closes the circle."""
    assert find_cycle(graph) == members
    for function in (topological, depths):
        with pytest.raises(CycleError) as caught:
            function(graph)
        assert caught.value.members == members
        assert str(caught.value).startswith(f"dependency cycle: {' -> '.join((*members, members[0]))}; ")


def test_a_chain_longer_than_the_stack() -> None:
    """No length of a chain is too long."""
    graph = {str(i): [str(i - 1)] if i else [] for i in range(LONG)}
    assert depths(graph)[str(LONG - 1)] == LONG - 1
    assert len(closure(graph, [str(LONG - 1)])) == LONG
    graph["0"] = [str(LONG - 1)]
    assert len(find_cycle(graph)) == LONG


class Counting(dict[str, list[str]]):
    """A graph that counts how often the dependencies of a name are read."""

    def __init__(self, graph: Mapping[str, list[str]]) -> None:
        super().__init__(graph)
        self.reads = Counter[str]()

    def __getitem__(self, name: str) -> list[str]:
        self.reads[name] += 1
        return super().__getitem__(name)


def test_many_paths_to_the_same_name() -> None:
    """Each name is looked at once to find a cycle, however many paths lead to it."""
    graph = Counting({str(i): [str(j) for j in range(i)] for i in reversed(range(12))})
    assert find_cycle(graph) == ()
    assert graph.reads == dict.fromkeys(graph, 1)
    assert depths(graph)["11"] == 11


@given(acyclic())
def test_topological_is_an_order(graph: dict[str, list[str]]) -> None:
    """Every name once, each after all that it depends on."""
    order = topological(graph)
    assert sorted(order) == sorted(graph)
    assert all(order.index(target) < order.index(name) for name in graph for target in graph[name])


@given(acyclic())
def test_depths_are_longest_chains(graph: dict[str, list[str]]) -> None:
    """A depth is one more than the deepest dependency's."""
    depth = depths(graph)
    assert all(depth[name] == max((depth[one] + 1 for one in graph[name]), default=0) for name in graph)


@given(acyclic())
def test_reverse_twice(graph: dict[str, list[str]]) -> None:
    """Reversed twice, a graph is the same."""
    twice = reverse(reverse(graph))
    assert {name: set(targets) for name, targets in twice.items()} == {name: set(graph[name]) for name in graph}


@given(arbitrary())
def test_a_cycle_is_found_where_there_is_one(graph: dict[str, list[str]]) -> None:
    """A cycle is found exactly where some name reaches itself, and what is found is one."""
    cycle = find_cycle(graph)
    assert bool(cycle) == any(reaches(graph, name, name) for name in graph)
    assert len(set(cycle)) == len(cycle)
    assert all(after in graph[before] for before, after in zip(cycle, (*cycle[1:], *cycle[:1]), strict=True))


@given(arbitrary(), st.data())
def test_closure_is_what_is_reached(graph: dict[str, list[str]], data: st.DataObject) -> None:
    """The closure is the names and all that they reach."""
    names = data.draw(st.lists(st.sampled_from(sorted(graph))))
    assert closure(graph, names) == {one for one in graph if one in names or any(reaches(graph, n, one) for n in names)}
