"""Add calls to a plan: to services in this process, to other processes, and from them.

The link to NATS, the stand-in for a service that runs elsewhere, and the export of a service that runs here are
services of the kernel's own, so everything that holds for services holds for them. A stand-in is a dependency of its
callers. An export is a consumer of the value that it exports, and ends before the service does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from kernel.annotations import without_none
from kernel.calls.interface import Interface, interface_of
from kernel.calls.proxy import checked, thin
from kernel.declare.service import Service
from kernel.declare.signature import Edge, Needs, evaluate, signature_of
from kernel.errors import ConfigError, DeclarationError, PlanError, Problems
from kernel.lifecycle.units import Unit

if TYPE_CHECKING:
    from kernel.calls.client import Client
    from kernel.calls.exporter import Exporter
    from kernel.calls.nats import Link
    from kernel.calls.telemetry import Telemetry
    from kernel.config.nats import Nats

IF_THERE = " (if there)"  # ends the name of a stand-in for those who start without the service after a while
EXPORT_TIMEOUT = 3600.0  # seconds for calls to finish; the limits of the service itself apply first


def served_by(service: Service[..., Any]) -> Interface | None:
    """Return the interface that *service* serves, or None."""
    return interface_of(service.needs.serves)


def taken_by(service: Service[..., Any], edge: Edge) -> Interface | None:
    """Return the interface that *service* takes by the parameter of *edge*, or None."""
    if edge.parameter is None:
        return None
    parameter = signature_of(service.fn).parameters.get(edge.parameter)
    if parameter is None:
        return None
    annotation, _ = without_none(evaluate(parameter, service.fn, service.name, spare=True))
    return interface_of(annotation)


def read_interfaces(services: Iterable[Service[..., Any]]) -> list[PlanError]:
    """Return all problems of the interfaces that *services* serve and take."""
    found: dict[Interface, None] = {}
    for service in services:
        served = served_by(service)
        taken = [taken_by(service, edge) for edge in service.needs.edges]
        found |= dict.fromkeys(interface for interface in (served, *taken) if interface is not None)
    errors: list[PlanError] = []
    for interface in found:
        try:
            interface.methods  # noqa: B018  (which reads them)
        except PlanError as error:
            errors.append(error)
    return errors


def unlike(services: Iterable[Service[..., Any]]) -> list[PlanError]:
    """Return where a consumer's interface does not fit its provider's."""
    from kernel.calls.contract import contract_of, misfits

    by_name = {service.name: service for service in services}
    errors: list[PlanError] = []
    for service in by_name.values():
        for edge in service.needs.edges:
            taken, provider = taken_by(service, edge), by_name.get(edge.target)
            served = served_by(provider) if provider is not None else None
            if taken is not None and served is not None and taken is not served:
                errors += [
                    DeclarationError(
                        f"{service.name} takes {taken.name}, which {edge.target} does not serve: {problem}",
                        where=service.where,
                        hint=f"take {served.name}",
                    )
                    for problem in misfits(contract_of(taken), contract_of(served))
                ]
    return errors


@attrs.define
class Wiring:
    """The units of a plan, including those that calls need.

    Args:
        units: All units, in order.
        link: The connection to NATS; None if not needed.
        clients: The clients of services that run elsewhere.
        exporters: The exporters of services to other processes.

    """

    units: list[Unit]
    link: Link | None = None
    clients: dict[str, Client] = attrs.field(factory=dict)
    exporters: dict[str, Exporter] = attrs.field(factory=dict)

    def status(self) -> dict[str, Any]:
        """Return the state of calls between processes, for the status."""
        link = self.link
        return {
            "server": (link.server or None) if link is not None else None,
            "connected": bool(link and link.server),
            "error": (link.error or None) if link is not None else None,
            "reconnects": link.reconnects if link is not None else 0,
            "calls": {name: client.status() for name, client in self.clients.items()},
            "serves": {name: exporter.status() for name, exporter in self.exporters.items()},
        }


def connect(
    units: Sequence[Unit],
    *,
    app: str,
    version: str,
    nats: Nats | None,
    dev: bool = False,
    backend: str = "asyncio",
    export: bool = True,
    telemetry: bool = False,
    through: bool = False,
) -> Wiring:
    """Return *units* with what they need to call each other.

    Args:
        units: The units of the plan.
        app: The app's name, the prefix of subjects if NATS_PREFIX is not set.
        version: The app's version.
        nats: How to reach services that run elsewhere; None for not at all.
        dev: Whether calls within the process go through JSON, as between two processes.
        backend: The event loop's name.
        export: Whether to serve calls from elsewhere.
        telemetry: Whether spans or durations are read.
        through: Whether calls within this process go through NATS too, as in a test.

    Raises:
        DeclarationError: An interface cannot be served or called.
        ConfigError: Calls between processes need asyncio.

    """
    Problems.raise_any(read_interfaces(unit.service for unit in units))
    spans = _telemetry() if telemetry else None
    names = {unit.service.name for unit in units}
    served = {unit.service.name: found for unit in units if (found := served_by(unit.service)) is not None}
    wrap = checked if dev else thin
    made = [
        attrs.evolve(unit, wrap=functools.partial(wrap, served[name], name, telemetry=spans))
        if (name := unit.service.name) in served
        else unit
        for unit in units
    ]
    wiring = Wiring(made)
    if nats is None:
        return wiring
    away = _elsewhere(units, names)
    exported = {unit.service.name: unit.service for unit in units if unit.service.name in served} if export else {}
    if not away and not exported:
        return wiring
    if backend == "trio":
        raise ConfigError(
            "is trio, and calls between processes need asyncio",
            where="KERNEL_BACKEND",
            hint="leave it out, or NATS_URL, so that all services run in this process",
        )
    from kernel.calls.client import Client
    from kernel.calls.discovery import Offer
    from kernel.calls.exporter import Exporter
    from kernel.calls.nats import NAME, Link

    prefix = nats.prefix or app
    link = wiring.link = Link(nats, app)
    first = [Unit(_own(NAME, link.serve), internal=True, awaited=True, doing=link.doing)]
    for name, (interface, stand_ins) in away.items():
        client = wiring.clients[name] = Client(link, prefix, name, interface, spans)
        for stand_in, optional in stand_ins.items():
            service = _own(stand_in, functools.partial(client.serve, optional=optional), NAME, allowed=optional)
            first.append(Unit(service, internal=True, awaited=True, doing=client.doing))
    made = [_without_waiting(unit, away) for unit in made]
    last: list[Unit] = []
    for name, service in exported.items():
        offer = Offer(prefix, name, served[name], version)
        exporter = wiring.exporters[name] = Exporter(link, offer, concurrency=service.concurrency, telemetry=spans)
        own = _own(f"{name} export", exporter.serve, NAME, value=name, stop_timeout=EXPORT_TIMEOUT)
        last.append(Unit(own, internal=True, awaited=True))
    if spans is not None:
        _watch(spans, wiring.clients, wiring.exporters)
    if through:
        for name, interface in served.items():
            wiring.clients[name] = Client(link, prefix, name, interface, spans)
        made = [_through(unit, wiring.clients) for unit in made]
    wiring.units = [*first, *made, *last]
    return wiring


def _watch(telemetry: Telemetry, clients: Mapping[str, Client], exporters: Mapping[str, Exporter]) -> None:
    """Count calls in progress when metrics are collected."""
    sent = "Calls that wait for an answer from elsewhere"
    telemetry.watch("kernel.calls.sent", sent, lambda: _each(clients, "in_flight"))
    telemetry.watch("kernel.calls.running", "Calls from elsewhere that run", lambda: _each(exporters, "running"))
    telemetry.watch("kernel.calls.waiting", "Calls from elsewhere that wait", lambda: _each(exporters, "waiting"))


def _each(of: Mapping[str, Client] | Mapping[str, Exporter], number: str) -> dict[str, int]:
    return {name: side.status()[number] for name, side in of.items()}


def _through(unit: Unit, clients: Mapping[str, Client]) -> Unit:
    """Return *unit* with calls to and from it going through NATS."""
    client = clients.get(unit.service.name)
    edges = unit.service.needs.edges
    after = tuple(f"{edge.target} export" for edge in edges if edge.parameter and edge.target in clients)
    return attrs.evolve(unit, after=(*unit.after, *after), wrap=client.around if client is not None else unit.wrap)


def _telemetry() -> Telemetry:
    from kernel.calls.telemetry import Telemetry

    return Telemetry()


Away = Mapping[str, tuple[Interface, Mapping[str, bool]]]


def _elsewhere(units: Iterable[Unit], names: set[str]) -> Away:
    """Return the services that run elsewhere, by name: interface, and the stand-ins of each.

    The stand-in for consumers that require a service waits for it without limit. Those that do not start without it
    after a while, so where there are consumers of both kinds, they have a stand-in of their own. Its value says whether
    nobody requires it.
    """
    found: dict[str, tuple[Interface, dict[str, bool]]] = {}
    for unit in units:
        for edge in unit.service.needs.edges:
            interface = taken_by(unit.service, edge) if edge.target not in names else None
            if interface is not None:
                _, kinds = found.setdefault(edge.target, (interface, {}))
                kinds[edge.target + (IF_THERE if edge.optional else "")] = edge.optional
    for name, (_, kinds) in found.items():
        if name not in kinds:
            kinds.clear()
            kinds[name] = True
    return found


def _without_waiting(unit: Unit, away: Away) -> Unit:
    """Return *unit* with its optional dependencies on stand-ins of their own, where there are any."""
    needs = unit.service.needs
    edges = tuple(
        attrs.evolve(edge, target=edge.target + IF_THERE)
        if edge.optional and edge.target in away and len(away[edge.target][1]) > 1
        else edge
        for edge in needs.edges
    )
    if edges == needs.edges:
        return unit
    return attrs.evolve(unit, service=unit.service.needing(attrs.evolve(needs, edges=edges)))


def _own(
    name: str,
    fn: Callable[..., Any],
    *depends: str,
    value: str = "",
    stop_timeout: float = 5.0,
    allowed: bool = False,
) -> Service[..., Any]:
    """Return a service of the kernel's own.

    Args:
        name: Its name.
        fn: Takes `Serving`, and *value* as the parameter ``value`` if there is one.
        depends: Its dependencies.
        value: The service whose value it takes; empty for none.
        stop_timeout: Seconds.
        allowed: Whether its failure is allowed.

    """

    async def run(**given: Any) -> None:
        await fn(**given)

    edges = [Edge(target) for target in depends]
    if value:
        edges.append(Edge(value, parameter="value"))
    needs = Needs(edges=tuple(edges), serving="serving")
    return Service(run, name, allowed_failure=allowed, start_timeout=None, stop_timeout=stop_timeout, asks=needs)
