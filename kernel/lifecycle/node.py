"""A service in the graph: its supervisor, its dependencies and dependents, and the orchestrator's counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from kernel.declare.signature import Edge
from kernel.errors import ValueLost
from kernel.lifecycle.events import ENDED, LIVE, Ending, State, Transition
from kernel.lifecycle.host import Host, Want
from kernel.lifecycle.supervisor import Supervisor
from kernel.lifecycle.units import Unit


@attrs.define(eq=False, repr=False)
class Node(Supervisor):
    """A supervisor with its place in the graph, which the orchestrator maintains.

    Attributes:
        links: Its dependencies, with the edge to each.
        dependents: Its dependents, with the edge from each.
        unmet: How many of its dependencies are not available yet.
        last_met: The dependency that ended its last wait; None if it did not wait.
        after: The dependencies that have become available since it began to wait, in that order; each with the service
            that took the time: itself, unless it only had to be launched.
        in_vain: Whether its last wait ended without a launch.
        cause: The service whose crash or end made it stop most recently.
        open: Whether dependents that wait for its readiness may start.
        live_dependents: How many of its dependents have a running attempt.
        depth: The number of levels below it in the shutdown.

    """

    links: list[tuple[Node, Edge]] = attrs.field(factory=list, init=False)
    dependents: list[tuple[Node, Edge]] = attrs.field(factory=list, init=False)
    unmet: int = attrs.field(default=0, init=False)
    last_met: Node | None = attrs.field(default=None, init=False)
    after: dict[str, Node | None] = attrs.field(factory=dict, init=False)
    in_vain: bool = attrs.field(default=False, init=False)
    cause: str = attrs.field(default="", init=False)
    open: bool = attrs.field(default=False, init=False)
    live_dependents: int = attrs.field(default=0, init=False)
    depth: int = attrs.field(default=0, init=False)

    @property
    def waits_for(self) -> list[Node]:
        """The dependencies it still waits for before it can start; empty once it was launched or has ended."""
        if self.state in LIVE or self.state in ENDED:
            return []
        return [target for target, edge in self.links if not target.meets(edge)]

    @property
    def chain(self) -> tuple[str, ...]:
        """The critical path to its readiness: each service waited for the one before, and this one is last.

        Services that waited in vain are left out, since they took no time.
        """
        chain: list[Node] = [self]
        while (met := chain[-1].last_met) is not None and not met.internal:
            chain.append(met)
        return tuple(node.name for node in reversed(chain) if not node.in_vain) or (self.name,)

    def meet(self, node: Node, *, launched: bool) -> None:
        """Record that the dependency *node* is met: it was *launched*, or is ready."""
        self.after.pop(node.name, None)  # so that it comes last
        self.after[node.name] = node.last_met if launched else node  # what is only launched took no time itself

    def transition(self, previous: State, seconds: float, reason: str) -> Transition:
        """Return the event for its move from *previous*, a state that lasted *seconds*."""
        after: tuple[str, ...] = ()
        self.in_vain = previous is State.WAITING and self.state is not State.STARTING
        if previous is State.WAITING:
            self.last_met = next(reversed(self.after.values()), None)
            after = tuple(self.after)
            if self.in_vain:
                after = tuple(target.name for target, edge in self.links if not target.meets(edge))
            if isinstance(self.error, ValueLost):
                after = (*(name for name in after if name != self.error.provider), self.error.provider)
        else:
            self.after.clear()
        return Transition(
            self.name,
            previous,
            self.state,
            self.attempt,
            seconds,
            reason,
            self.error,
            self.spec.allowed_failure,
            self.internal,
            after,
            self.cause if self.state is State.STOPPING and self.wanted is Want.RESTART else "",
        )

    def meets(self, edge: Edge) -> bool:
        """Return whether a dependent that has this *edge* to the node may start now."""
        return self.open if edge.kind == "ready" else bool(self.attempt) or self.state in ENDED

    def lost_to(self, edge: Edge) -> bool:
        """Return whether a dependent that has this *edge* to the node needs a value that will never be available."""
        return edge.parameter is not None and not edge.optional and self.state in ENDED

    def ending(self, deadline: float) -> Ending:
        """Return how the service ended; *deadline* is the shutdown's, in seconds on the loop's clock."""
        return Ending(
            self.name,
            self.state,
            self.attempt,
            self.uptime,
            self.reason,
            self.error,
            self.spec.allowed_failure,
            self.internal,
            self.since > deadline,
        )


def targets_of(units: Mapping[str, Unit]) -> dict[str, list[str]]:
    """Return the dependencies of each unit by name, without those that are not among *units*."""
    return {
        name: [edge.target for edge in unit.service.needs.edges if edge.target in units] + list(unit.after)
        for name, unit in units.items()
    }


def build(units: Iterable[Unit], host: Host[Node]) -> dict[str, Node]:
    """Make a node for each of *units*, link them, and return them by name."""
    nodes: dict[str, Node] = {}
    made: list[tuple[Node, Unit]] = []
    for unit in units:
        node = Node(unit.service, host, unit.config, unit.internal, unit.command, unit.awaited, unit.wrap, unit.doing)
        nodes[node.name] = node
        made.append((node, unit))
    for node, unit in made:
        for edge in (*node.needs.edges, *map(Edge, unit.after)):
            target = nodes.get(edge.target)
            if target is not None:
                node.links.append((target, edge))
                target.dependents.append((node, edge))
                node.unmet += 1
    return nodes
