"""A service to run, as the plan passes it to the orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from kernel.declare.service import Service


@attrs.frozen(repr=False)
class Unit:
    """A service to run.

    Args:
        service: The declaration.
        config: The value of its config parameter; None if it has none.
        internal: Whether it belongs to the kernel or the app's lifespan. Internal services do not count in "all
            ready", "every service has ended" or "every service failed".
        command: Whether it is a command: the app ends when a command ends, and a command is not restarted when it loses
            a provider.
        awaited: Whether "all ready" waits for it although it is internal.
        wrap: Converts the value that the service provides to the one that consumers get; None to pass it unchanged.
        doing: Describes what the service is waiting for; None to show its current line of code.
        after: Names of internal services that it starts after and stops before, in addition to its dependencies.

    """

    service: Service[..., Any]
    config: object = None
    internal: bool = False
    command: bool = False
    awaited: bool = False
    wrap: Callable[[Any], Any] | None = None
    doing: Callable[[], str] | None = None
    after: tuple[str, ...] = ()


def nest(units: Iterable[Unit], outer: Sequence[Service[..., Any]]) -> list[Unit]:
    """Return *units* nested inside *outer*, the internal services: each depends on those before it, *units* on all.

    Internal services then behave like any other: they start in order, stop in reverse once all services have ended, get
    their share of the deadline, and their failures are reported.
    """
    made: list[Unit] = []
    after: tuple[str, ...] = ()
    for service in outer:
        made.append(Unit(service, internal=True, after=after))
        after = (service.name,)
    inner = list(units)
    names = {unit.service.name for unit in inner}

    def is_root(unit: Unit) -> bool:
        """Return whether *unit* depends on no other unit; all others start after the roots anyway."""
        return not unit.after and not any(edge.target in names for edge in unit.service.needs.edges)

    return made + [attrs.evolve(unit, after=after) if is_root(unit) else unit for unit in inner]
