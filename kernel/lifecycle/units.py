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
        internal: Whether it belongs to the kernel or the app's lifespan: it then counts neither in "all ready", nor
            in "everything done", nor in "every service failed".
        command: Whether it is a command: it is not started again when a value it holds is lost, and its end is the
            end of the app.
        awaited: Whether "all ready" waits for it although it is internal.
        wrap: Makes what consumers get of the value that it hands over; None where they get the value itself.
        doing: Says in words what it is waiting for; None where the line at which it stands says enough.
        after: Names of internal services that it starts after and ends before, besides its own dependencies.

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
    """*units* within services of the kernel's or the app's own, each of them below all that come after it.

    So what holds for services holds for them: they start one after the other, are undone in reverse when all services
    have ended, get their turn before the deadline, and their failure is reported like any.
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
        """The others start after these anyway. One whose dependencies are all left out is a root as well."""
        return not unit.after and not any(edge.target in names for edge in unit.service.needs.edges)

    return made + [attrs.evolve(unit, after=after) if is_root(unit) else unit for unit in inner]
