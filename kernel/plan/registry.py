"""The enabled services as a graph: how they fit together, and their configs."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from kernel.annotations import type_name
from kernel.config.near_misses import near_misses
from kernel.config.settings import KERNEL_VARIABLES
from kernel.config.values import variable
from kernel.declare.service import Service
from kernel.declare.signature import Edge, Needs, read_signature
from kernel.errors import ConfigError, CycleError, DeclarationError, LeftOutError, NamingError, PlanError, did_you_mean
from kernel.lifecycle.graph import Graph, cycle_error, find_cycle, topological
from kernel.lifecycle.units import Unit


@attrs.frozen(repr=False)
class Registry:
    """Services by name.

    Args:
        services: The enabled services, imported.
        known: The names of all services, enabled or not.
        absent: The names of services that the artifact was built without.
        remote: Whether services that are not enabled here can be called in other processes.
        chosen: The names of the services to import, including any whose import failed. That failure is reported
            elsewhere; errors that follow from it are left out.

    """

    services: Mapping[str, Service[..., Any]]
    known: Collection[str] = ()
    absent: Collection[str] = ()
    remote: bool = False
    chosen: Collection[str] = ()

    @property
    def graph(self) -> Graph:
        """The enabled dependencies of each service. Services that are declared wrongly are left out."""
        known = {name: needs for name, service in self.services.items() if (needs := needs_of(service)) is not None}
        return {name: [edge.target for edge in needs.edges if edge.target in known] for name, needs in known.items()}

    def units(self, configs: Mapping[str, object]) -> tuple[Unit, ...]:
        """Return a unit for each service, each after its dependencies.

        Raises:
            CycleError: There is a dependency cycle.

        """
        return tuple(Unit(self.services[name], configs.get(name)) for name in topological(self.graph))

    # -- how they fit together -----------------------------------------------------------------------------------

    def check(self) -> tuple[list[PlanError], list[str]]:
        """Return the errors and warnings about how the services fit together."""
        errors: list[PlanError] = []
        warnings: list[str] = []
        for service in self.services.values():
            try:
                edges = service.needs.edges
            except PlanError as error:
                errors += self._explain(service, error)
                continue
            for edge in edges:
                problem = self.check_edge(service, edge)
                if isinstance(problem, PlanError):
                    errors.append(problem)
                elif problem:
                    warnings.append(problem)
        return [*errors, *self._cycles()], warnings

    def _cycles(self) -> Iterator[CycleError]:
        """Yield an error for each dependency cycle that shares no service with another before it."""
        graph = self.graph
        while members := find_cycle(graph):
            yield cycle_error(members, where=", ".join(self.services[name].where for name in members))
            graph = {name: targets for name, targets in graph.items() if name not in members}

    def _explain(self, service: Service[..., Any], error: PlanError) -> list[PlanError]:
        """Return the errors of a *service* that is declared wrongly: first the names in `depends` that do not exist.

        To check its parameters nevertheless, which are named after dependencies, each such name is replaced by the most
        similar one that exists.
        """
        try:
            edges = service.edges
        except PlanError:
            return [error]
        found = [(edge, self.check_edge(service, edge)) for edge in edges]
        unknown = {edge.target: problem for edge, problem in found if isinstance(problem, NamingError)}
        if not unknown:
            return [error]
        from difflib import get_close_matches

        meant = {name: get_close_matches(name, list(self._names), n=1) for name in unknown}
        errors: list[PlanError] = [*unknown.values()]
        if all(meant.values()):
            targets = {name: near[0] for name, near in meant.items()}
            mended = [attrs.evolve(edge, target=targets.get(edge.target, edge.target)) for edge in edges]
            try:
                read_signature(service.fn, mended, service.name, spare=False)
            except PlanError as another:
                errors.append(another)
        return errors

    @property
    def _names(self) -> Collection[str]:
        """The names that a service can depend on."""
        return [*self.known, *self.absent] or [*self.services]

    def check_edge(  # noqa: PLR0911  (each line is a rule)
        self, service: Service[..., Any], edge: Edge
    ) -> PlanError | str | None:
        """Return an error or a warning about one dependency of *service*, or None."""
        name, target, where = service.name, edge.target, service.where
        provider = self.services.get(target)
        if provider is not None:
            needs = needs_of(provider)
            if edge.parameter is None or needs is None or needs.serving:
                return None
            return DeclarationError(
                f"{name} takes the value of {target}, which provides none",
                where=where,
                hint=f"let {target} take `Serving[...]`, or remove the parameter {edge.parameter!r}",
            )
        if target in self.chosen:
            return None  # its import failed
        if target not in self.known and target not in self.absent:
            hint = did_you_mean(target, self._names) or f"there are: {', '.join(self._names)}"
            return NamingError(f"{name} depends on {target!r}, which does not exist", where=where, hint=hint)
        is_not = "is not in this artifact" if target in self.absent else "is not enabled"
        if edge.parameter is None:
            return f"{name} does not wait for {target}, which {is_not}"
        interface = taken_interface(service, edge)
        if interface and self.remote:
            return None
        if edge.optional:
            return f"{name} runs without the value of {target}, which {is_not}: its parameter takes its default"
        enable = f"add {target} to SERVICES_ENABLED, run with --with-dependencies"
        return LeftOutError(
            f"{name} needs the value of {target}, which {is_not}",
            where=where,
            hint=f"{'build one with it' if target in self.absent else enable},"
            f" {'' if interface else 'or '}give the parameter {edge.parameter!r} a default"
            + (f", or set NATS_URL, since {interface} can be called in another process" if interface else ""),
        )

    # -- what they read ------------------------------------------------------------------------------------------

    def read_configs(self, environ: Mapping[str, str]) -> tuple[dict[str, object], list[PlanError], list[str]]:
        """Return the config of each service that takes one, the errors in *environ*, and warnings of near misses."""
        configs: dict[str, object] = {}
        errors: list[PlanError] = []
        owners: dict[str, str] = dict.fromkeys(KERNEL_VARIABLES, "the kernel")
        for name, service in self.services.items():
            needs = needs_of(service)
            if needs is None or needs.config is None:
                continue
            from kernel.config.service_config import read_config, variables  # imported only if there is a config

            cls = needs.config[1]
            configs[name], wrong = read_config(name, cls, environ, needs.config_default)
            errors.extend(wrong)
            for read_from, field in variables(name, cls).items():
                owner = owners.setdefault(read_from, name)
                if owner != name:
                    errors.append(
                        ConfigError(
                            f"is read by {owner} and by {name} (for {type_name(cls)}.{field})",
                            where=read_from,
                            hint="rename the field or the service",
                        )
                    )
        # A variable of a service that is not enabled is not a near miss.
        others = tuple(variable(name, "") for name in (*self.known, *self.absent) if name not in self.services)
        rest = {name: text for name, text in environ.items() if not name.startswith(others)}
        return configs, errors, list(near_misses(rest, owners.keys() - set(KERNEL_VARIABLES)))


def needs_of(service: Service[..., Any]) -> Needs | None:
    """Return what *service* needs; None if it is declared wrongly, which `Registry.check` reports."""
    try:
        return service.needs
    except PlanError:
        return None


def taken_interface(service: Service[..., Any], edge: Edge) -> str:
    """Return the name of the interface that a parameter of *service* takes; an empty string if it takes none."""
    if "kernel.calls.interface" not in sys.modules:
        return ""  # no interface is declared
    from kernel.calls.wiring import taken_by

    found = taken_by(service, edge)
    return found.name if found is not None else ""
