"""Start and stop take exactly the critical path: each service is timed by a model of a few lines, to the last moment.

The model knows the graph, the times that services take to open and to close, and how often they crash before they are
ready. It computes when each must be launched, be ready, be asked to stop and have ended, for a stop at any time, and
the run in virtual time has to agree for every service. So nothing waits for a level, and nothing runs ahead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service, started
from kernel.declare.serving import Serving
from kernel.lifecycle.events import AllReady, State, Transition
from kernel.testing import BACKENDS
from tests.harness import Lab, run_virtually
from tests.shared import examples

A_MOMENT = 1e-6  # what rounding may add to a time
FOR_EVER = 100_000.0  # seconds
GRACE = 1.0  # seconds to become ready, for one that is asked to stop while starting


@attrs.frozen
class Node:
    """A service that keeps its times. They are in seconds."""

    name: str
    style: str = "serving"  # or plain, or oneshot
    ready: tuple[str, ...] = ()  # dependencies that must be ready
    launched: tuple[str, ...] = ()  # dependencies that must be launched
    opening: float = 0.0
    closing: float = 0.0
    crashes: int = 0  # how often its opening fails
    retry: Retry = attrs.field(factory=Retry)

    @property
    def above(self) -> tuple[str, ...]:
        return self.ready + self.launched


@attrs.frozen
class Graph:
    """Services, those that others depend on first, and when they are stopped."""

    nodes: tuple[Node, ...]
    stop: float


# Whole milliseconds, and a stop between two of them, so that nothing comes in the same moment as the stop.
SECONDS = st.integers(0, 3000).map(lambda milliseconds: milliseconds / 1000) | st.sampled_from([0.0, 1.0])
STOPS = (st.integers(0, 40_000) | st.just(1_000_000)).map(lambda milliseconds: (milliseconds + 0.5) / 1000)
RETRIES = st.builds(
    Retry,
    times=st.sampled_from([None, 3]),
    delay=SECONDS,
    factor=st.sampled_from([1.0, 2.0, 3.0]),
    max_delay=st.sampled_from([30.0, 2.0]),
    jitter=st.just(0.0),
)


SIZES = st.sampled_from([1, 2, 3, 5, 8, 13, 20, 30])
PLACES = st.sets(st.integers(0, 29), max_size=3)
NEAR = st.booleans()
AT_LAUNCH = st.sampled_from([0, 0, 0, 1])
STYLES = st.sampled_from(["serving", "serving", "serving", "plain", "oneshot"])
CRASHES = st.sampled_from([0, 0, 0, 1, 2, 3])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A graph of up to thirty services, long or wide."""
    nodes: list[Node] = []
    for i in range(draw(SIZES)):
        near = nodes[-3:] if draw(NEAR) else nodes
        above = sorted({near[place % len(near)].name for place in draw(PLACES)}) if near else []
        at_launch, style = draw(AT_LAUNCH), draw(STYLES)
        crashes = 0 if style == "plain" else draw(CRASHES)
        nodes.append(
            Node(
                f"s{i}",
                style,
                ready=tuple(above[at_launch:]),
                launched=tuple(above[:at_launch]),
                opening=draw(SECONDS),
                closing=draw(SECONDS),
                crashes=crashes,
                retry=draw(RETRIES) if crashes else Retry(),
            )
        )
    return Graph(tuple(nodes), draw(STOPS))


@attrs.define
class Times:
    """When something happens to a service, by the model; infinity stands for never."""

    launched: float = math.inf
    ready: float = math.inf
    ended: float = math.inf
    next: float = math.inf  # when the attempt that runs at the stop becomes ready, or crashes
    crashes: bool = False  # which of the two
    live: bool = False  # whether an attempt runs at the stop


def model(graph: Graph) -> dict[str, Times]:
    """The times of each service."""
    times: dict[str, Times] = {}
    for node in graph.nodes:
        times[node.name] = start(node, graph.stop, times)
    for node in reversed(graph.nodes):
        below = [one.name for one in graph.nodes if node.name in one.above and times[one.name].live]
        asked = max((times[name].ended for name in below), default=graph.stop)
        stop(node, asked, graph.stop, times[node.name])
    return times


def start(node: Node, stop: float, times: dict[str, Times]) -> Times:
    """Its times until the stop, given those of its dependencies."""
    mine = Times()
    begin = max((*(times[one].ready for one in node.ready), *(times[one].launched for one in node.launched), 0.0))
    if begin > stop:
        return mine
    mine.launched, mine.live = begin, True
    if node.style == "plain":
        mine.ready = begin
        return mine
    for crash in range(node.crashes + 1):
        mine.next, mine.crashes = begin + node.opening, crash < node.crashes
        if mine.next > stop:
            return mine
        if mine.crashes:
            begin = mine.next + min(node.retry.delay * node.retry.factor**crash, node.retry.max_delay)
        if begin > stop:  # the stop comes in its backoff
            mine.live = False
            return mine
    mine.ready, mine.live = mine.next, node.style == "serving"
    return mine


def stop(node: Node, asked: float, stop: float, mine: Times) -> None:
    """Its times from the stop on, where it is asked to stop at *asked*, after those that depend on it."""
    if not mine.live:
        mine.ended = min(mine.ready, stop)
    elif node.style == "plain" or mine.ready <= stop:
        mine.ended = asked + (node.closing if node.style == "serving" else 0)
    elif mine.next <= asked and not mine.crashes:  # it could become ready, while others were still stopping
        mine.ready = mine.next
        mine.ended = asked + node.closing if node.style == "serving" else mine.next
    elif mine.next <= asked or node.style == "oneshot":
        mine.ended = min(mine.next, asked)
    else:
        assume(abs(mine.next - asked - GRACE) > A_MOMENT)  # it would be undecided
        if mine.next < asked + GRACE:
            mine.ended = mine.next if mine.crashes else mine.next + node.closing
        else:
            mine.ended = asked + GRACE


def declare(node: Node) -> Service[..., Any]:
    """The service of *node*."""
    crashes = node.crashes

    async def opens() -> None:
        nonlocal crashes
        await anyio.sleep(node.opening)
        crashes -= 1
        if crashes >= 0:
            raise ConnectionError(node.name)

    async def serving_one(serving: Serving[None]) -> None:
        await opens()
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            await anyio.sleep(node.closing)

    functions: dict[str, Callable[[], Awaitable[None]]] = {"oneshot": opens, "plain": anyio.sleep_forever}

    async def plain() -> None:
        await functions[node.style]()

    function = serving_one if node.style == "serving" else plain
    function.__name__ = node.name
    return service(
        depends=[*node.ready, *(started(name) for name in node.launched)],
        oneshot=node.style == "oneshot",
        retries=node.retry,
        start_timeout=None,
        stop_timeout=FOR_EVER,
    )(function)


@settings(
    max_examples=examples(300),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
@given(graphs())
@pytest.mark.no_cover  # other tests cover as much, and the tracer would double the time
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_service_starts_and_stops_at_the_very_moment_that_the_graph_allows(backend: str, graph: Graph) -> None:
    lab = Lab().stop_at(graph.stop)
    services = [declare(node) for node in graph.nodes]
    run_virtually(backend, lambda: lab.run(*services, shutdown_timeout=FOR_EVER))
    times = model(graph)
    note("\n".join(f"{when:9.4f}  {event}" for when, event in lab.log))
    for node in graph.nodes:
        mine, moves = times[node.name], moments(lab, node.name)
        ready = State.DONE if node.style == "oneshot" else State.READY
        assert moves.get(State.STARTING, math.inf) == pytest.approx(mine.launched)
        if ready in moves or moves.get(State.STOPPING) != pytest.approx(mine.ready):
            assert moves.get(ready, math.inf) == pytest.approx(mine.ready)
        # else it would have become ready in the very moment in which its stop was requested: either may come first
        assert max(moves.values()) == pytest.approx(mine.ended)
    if lab.all_ready:
        check_chain(lab.all_ready[0], graph, times)
    last = max(mine.ready for mine in times.values())
    assert bool(lab.all_ready) is (last <= graph.stop)
    assert lab.report.stopping == pytest.approx(max(mine.ended for mine in times.values()) - lab.stopped_at)


def moments(lab: Lab, name: str) -> dict[State, float]:
    """When *name* first came into each state."""
    found: dict[State, float] = {}
    for when, event in lab.log:
        if isinstance(event, Transition) and event.service == name:
            found.setdefault(event.state, when)
    return found


def check_chain(event: AllReady, graph: Graph, times: dict[str, Times]) -> None:
    """The chain that is told took the whole time, without a gap."""
    nodes = {node.name: node for node in graph.nodes}
    assert event.seconds == pytest.approx(max(mine.ready for mine in times.values()))
    assert event.seconds == pytest.approx(times[event.chain[-1]].ready)
    assert times[event.chain[0]].launched == 0
    for before, after in itertools.pairwise(event.chain):
        gave_way = times[before].launched if before in nodes[after].launched else times[before].ready
        assert times[after].launched == pytest.approx(gave_way)
