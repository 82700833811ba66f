"""What runs: from the files, the environment and the command line to the units of the orchestrator.

Everything that can be wrong is found here, before anything starts, and is reported in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from kernel.discovery import ServiceFile, load, load_all
from kernel.errors import ConfigError, DeclarationError, LeftOutError, NamingError, PlanError, Problems, did_you_mean
from kernel.graph import topological
from kernel.orchestrator import Unit
from kernel.settings import KERNEL_VARIABLES, near_misses, read_config, variable, variables
from kernel.spec import Edge, Needs, Service, declared_at, read_signature

Services = Mapping[str, Service[..., Any]]


@attrs.frozen
class Plan:
    """What is to run.

    Args:
        units: The services with their configs, in an order in which each comes after its dependencies.
        warnings: What an operator should know before they start.

    """

    units: tuple[Unit, ...]
    warnings: tuple[str, ...] = ()


# -- which ones --------------------------------------------------------------------------------------------------


def select(known: Collection[str], patterns: Sequence[str] | None, source: str) -> list[str]:
    """The names among *known* that *patterns* choose, in the order of *known*.

    Args:
        known: All names.
        patterns: Names and globs; with ``!`` before it, one to leave out. Only such: all others. Leaving out wins.
            None: all.
        source: What gave the patterns, for errors.

    Raises:
        NamingError: A pattern matches nothing, or nothing is left.

    """
    if patterns is None:
        return list(known)
    from fnmatch import fnmatchcase

    chosen: set[str] = set()
    dropped: set[str] = set()
    errors: list[PlanError] = []
    for pattern in patterns:
        name = pattern.removeprefix("!").strip()
        matches = {one for one in known if fnmatchcase(one, name)}
        if not matches:
            hint = did_you_mean(name.replace("_", "-"), known) or f"there are: {', '.join(known) or 'none'}"
            errors.append(NamingError(f"no service is named {name!r}", where=source, hint=hint))
        (dropped if pattern.startswith("!") else chosen).update(matches)
    Problems.raise_any(errors)
    if all(pattern.startswith("!") for pattern in patterns):
        chosen = set(known)
    result = [one for one in known if one in chosen - dropped]
    if not result:
        raise NamingError(
            f"no service is left of {', '.join(patterns)}", where=source, hint="take one of the exclusions out"
        )
    return result


def load_selected(
    files: Mapping[str, ServiceFile], names: Iterable[str], *, with_dependencies: bool
) -> tuple[dict[str, Service[..., Any]], list[PlanError]]:
    """Import the services of these *names*, and with them all that they depend on if that is wanted."""
    services, errors = load_all({name: files[name] for name in names})
    todo = list(services.values()) if with_dependencies else []
    while todo:
        for target in _targets(todo.pop()):
            if target in files and target not in services:
                try:
                    services[target] = load(files[target])
                except PlanError as error:
                    errors.append(error)
                else:
                    todo.append(services[target])
    return services, errors


def _targets(service: Service[..., Any]) -> list[str]:
    try:
        return [edge.target for edge in service.needs.edges]
    except PlanError:
        return []  # reported by `check_services`


# -- what is wrong with them -------------------------------------------------------------------------------------


def check_services(services: Services, known: Collection[str]) -> tuple[list[PlanError], list[str]]:
    """All that is wrong with how *services* fit together, and what is worth a warning.

    Args:
        services: Those that are enabled.
        known: The names of all that exist; empty where only *services* do.

    """
    errors: list[PlanError] = []
    warnings: list[str] = []
    graph: dict[str, list[str]] = {}
    for name, service in services.items():
        try:
            needs = service.needs
        except PlanError as error:
            errors.append(error)
            continue
        graph[name] = [edge.target for edge in needs.edges if edge.target in services]
        for edge in needs.edges:
            problem = _check_edge(service, edge, services, known)
            if isinstance(problem, PlanError):
                errors.append(problem)
            elif problem:
                warnings.append(problem)
    try:
        topological(graph)
    except PlanError as error:
        errors.append(error)
    return errors, warnings


def _check_edge(
    service: Service[..., Any], edge: Edge, services: Services, known: Collection[str]
) -> PlanError | str | None:
    """What is wrong with one dependency: an error, a warning, or nothing."""
    name, target, where = service.name, edge.target, service.where
    if target in services:
        return _check_giver(name, edge, services[target], where)
    if target not in known:
        hint = did_you_mean(target, [*known, *services]) or f"there are: {', '.join([*known] or [*services])}"
        return NamingError(f"{name} depends on {target!r}, which does not exist", where=where, hint=hint)
    if edge.parameter and not edge.optional:
        return LeftOutError(
            f"{name} needs the value of {target}, which is not enabled",
            where=where,
            hint=f"add {target} to SERVICES_ENABLED, run with --with-dependencies,"
            f" or give the parameter {edge.parameter!r} a default",
        )
    if edge.parameter:
        return f"{name} runs without the value of {target}, which is not enabled: its parameter takes its default"
    return f"{name} does not wait for {target}, which is not enabled"


def _check_giver(name: str, edge: Edge, giver: Service[..., Any], where: str) -> PlanError | None:
    try:
        gives = giver.needs.serving is not None
    except PlanError:
        return None  # reported with the giver
    if edge.parameter is None or gives:
        return None
    return DeclarationError(
        f"{name} takes the value of {giver.name}, which hands over none",
        where=where,
        hint=f"let {giver.name} take `Serving[...]`, or drop the parameter {edge.parameter!r}",
    )


# -- their configs -----------------------------------------------------------------------------------------------


def read_configs(
    services: Services, environ: Mapping[str, str], known: Collection[str] = ()
) -> tuple[dict[str, object], list[PlanError], list[str]]:
    """The config of each service that takes one, all that is wrong in the environment, and near misses.

    Args:
        services: Those that are enabled.
        environ: The environment.
        known: The names of all services that exist: what names a variable of one that is not enabled is no miss.

    """
    configs: dict[str, object] = {}
    errors: list[PlanError] = []
    owners: dict[str, str] = dict.fromkeys(KERNEL_VARIABLES, "the kernel")
    for name, service in services.items():
        needs = _needs(service)
        if needs.config is None:
            continue
        cls = needs.config[1]
        config, wrong = read_config(name, cls, environ)
        configs[name] = config
        errors.extend(wrong)
        for one, field in variables(name, cls).items():
            owner = owners.setdefault(one, name)
            if owner != name:
                errors.append(
                    ConfigError(
                        f"is read by {owner} and by {name} (for {cls.__name__}.{field})",
                        where=one,
                        hint="rename the field or the service",
                    )
                )
    own = owners.keys() - set(KERNEL_VARIABLES)
    left_out = tuple(variable(name, "") for name in known if name not in services)
    rest = {name: text for name, text in environ.items() if not name.startswith(left_out)} if left_out else environ
    return configs, errors, list(near_misses(rest, own))


def _needs(service: Service[..., Any]) -> Needs:
    try:
        return service.needs
    except PlanError:
        return Needs()


def make_plan(
    files: Mapping[str, ServiceFile],
    environ: Mapping[str, str],
    patterns: Sequence[str] | None,
    source: str,
    *,
    with_dependencies: bool = False,
    errors: Sequence[PlanError] = (),
) -> Plan:
    """Import what *patterns* choose, and make a plan of it.

    Args:
        files: All services, as found.
        environ: The environment.
        patterns: As `select` takes them.
        source: Where they come from, for errors.
        with_dependencies: Whether to add what they need.
        errors: What is known to be wrong already; reported with the rest.

    Raises:
        PlanError: Anything is wrong; all of it in one.

    """
    try:
        names = select(list(files), patterns, source)
    except PlanError as error:
        Problems.raise_any([*errors, error])
        raise
    services, wrong = load_selected(files, names, with_dependencies=with_dependencies)
    misfits, warnings = check_services(services, list(files))
    configs, bad_values, misses = read_configs(services, environ, list(files))
    Problems.raise_any([*errors, *wrong, *misfits, *bad_values])
    return Plan(units(services, configs), (*misses, *warnings))


def units(services: Services, configs: Mapping[str, object]) -> tuple[Unit, ...]:
    """A unit for each service, in an order in which each comes after its dependencies."""
    graph = {
        name: [edge.target for edge in service.needs.edges if edge.target in services]
        for name, service in services.items()
    }
    return tuple(Unit(services[name], configs.get(name)) for name in topological(graph))


# -- a command and what it asks for ------------------------------------------------------------------------------


def command_needs(owner: Service[..., Any], fn: Callable[..., Any]) -> Needs:
    """What the command *fn* of the service *owner* asks for; its other parameters are the command line's.

    Raises:
        DeclarationError: It asks for something that cannot be had, or for a value without being async.

    """
    edges = [*(attrs.evolve(edge, kind="ready") for edge in owner.needs.edges), Edge(owner.name)]
    needs = read_signature(fn, edges, f"{owner.name} {fn.__name__}", spare=True)
    if needs.serving:
        raise DeclarationError(
            f"command {fn.__name__!r} takes `Serving`", where=declared_at(fn), hint="only a service serves"
        )
    if needs.config and owner.needs.config and needs.config[1] is not owner.needs.config[1]:
        raise DeclarationError(
            f"command {fn.__name__!r} takes {needs.config[1].__name__}, which is not the config of {owner.name}",
            where=declared_at(fn),
            hint=f"take {owner.needs.config[1].__name__}",
        )
    return attrs.evolve(needs, edges=tuple(edge for edge in needs.edges if edge.parameter))


def plan_command(
    owner: Service[..., Any],
    needs: Needs,
    files: Mapping[str, ServiceFile],
    environ: Mapping[str, str],
    errors: Sequence[PlanError] = (),
) -> tuple[Plan, object]:
    """The givers that a command needs with all that they need, and the config of its service.

    Raises:
        PlanError: Anything is wrong with them; all of it in one.

    """
    givers = [edge.target for edge in needs.edges]
    missing = [
        NamingError(
            f"{owner.name} depends on {name!r}, which does not exist", where=owner.where, hint=did_you_mean(name, files)
        )
        for name in givers
        if name not in files
    ]
    services, wrong = load_selected(files, [name for name in givers if name in files], with_dependencies=True)
    misfits, _ = check_services(services, list(files))
    misfits.extend(
        error
        for edge in needs.edges
        if edge.target in services and (error := _check_giver(owner.name, edge, services[edge.target], owner.where))
    )
    readers = {**services, owner.name: owner} if needs.config else services
    configs, bad_values, _ = read_configs(readers, environ, list(files))
    Problems.raise_any([*errors, *missing, *wrong, *misfits, *bad_values])
    return Plan(units(services, configs)), configs.get(owner.name)
