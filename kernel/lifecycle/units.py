"""One service to run, as the plan hands it to the orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from kernel.declare.service import Service


@attrs.frozen
class Unit:
    """One service to run.

    Args:
        service: The declaration.
        config: The value of its config parameter, or None where it has none.
        internal: Whether it belongs to the kernel or the app's lifespan. Internal services do not count in "all
            ready", "every service has ended" or "every service failed".
        command: Whether it is a command: it is not restarted when a provider it uses is lost, and the app ends when it
            ends.
        awaited: Whether "all ready" waits for it although it is internal.
        wrap: Makes the value that consumers get from the one the service provides; None to pass the value itself.
        doing: Describes what it is waiting for; None to show its current line of code instead.
        after: Names of internal services that it starts after and stops before, besides its own dependencies.

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

    So internal services behave as services do: they start in order, stop in reverse once all services have ended, get
    their share of the deadline, and their failures are reported.
    """
    made: list[Unit] = []
    after: tuple[str, ...] = ()
    for service in outer:
        made.append(Unit(service, internal=True, after=after))
        after = (service.name,)
    inner = list(units)
    if not after:
        return inner
    names = {unit.service.name for unit in inner}

    def is_root(unit: Unit) -> bool:
        """Return whether *unit* depends on no other unit; all others start after the roots anyway."""
        return not unit.after and not any(edge.target in names for edge in unit.service.needs.edges)

    return made + [attrs.evolve(unit, after=after) if is_root(unit) else unit for unit in inner]
