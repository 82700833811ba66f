"""Select the services to run: from files, environment and command line to the orchestrator's units.

All errors are found here before anything starts, and are reported together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from kernel.declare.service import Service
from kernel.declare.signature import Needs
from kernel.errors import NamingError, PlanError, Problems, did_you_mean
from kernel.lifecycle.units import Unit
from kernel.plan.discovery import Catalogue, ServiceFile, load, load_all
from kernel.plan.registry import Registry, needs_of


@attrs.frozen(repr=False)
class Plan:
    """What to run.

    Args:
        units: The services with their configs, each after its dependencies.
        warnings: Messages for the operator before the start.

    """

    units: tuple[Unit, ...]
    warnings: tuple[str, ...] = ()


# -- which ones --------------------------------------------------------------------------------------------------


def select(files: Catalogue, patterns: Sequence[str] | None, source: str) -> list[str]:
    """Return the names in *files* that *patterns* select, in the order of *files*.

    Args:
        files: All services.
        patterns: Names and globs. A ``!`` before one excludes what it matches. Exclusions take precedence; if there are
            only exclusions, they select all others. None selects all.
        source: Where the patterns were given, for errors.

    Raises:
        NamingError: A pattern matches nothing, or no service is left.

    """
    if not files:
        raise NamingError(
            "there is no service", where="services", hint="write an async function with @service in services/hello.py"
        )
    if patterns is None:
        return list(files)
    chosen, dropped = _matched(files, patterns, source)
    result = [service for service in files if service in chosen - dropped]
    if not result:
        raise NamingError(
            f"{', '.join(patterns)} selects no service", where=source, hint="remove one of the exclusions"
        )
    return result


def _matched(files: Catalogue, patterns: Sequence[str], source: str) -> tuple[set[str], set[str]]:
    """Return the names that *patterns* choose, and those that they exclude; the parameters are those of `select`."""
    from fnmatch import fnmatchcase

    chosen: set[str] = set()
    dropped: set[str] = set()
    errors: list[PlanError] = []
    for pattern in patterns:
        name = pattern.removeprefix("!").strip()
        matches = {service for service in files if fnmatchcase(service, name)}
        absent = [service for service in files.absent if fnmatchcase(service, name)]
        if absent and not matches and not pattern.startswith("!"):
            hint = "remove it, or build an artifact with it"
            errors.append(NamingError(f"{', '.join(absent)} is not in this artifact", where=source, hint=hint))
        elif not matches and not absent:
            names = [*files, *files.absent]
            hint = did_you_mean(name.replace("_", "-"), names) or f"there are: {', '.join(names)}"
            errors.append(NamingError(f"no service is named {name!r}", where=source, hint=hint))
        (dropped if pattern.startswith("!") else chosen).update(matches)
    Problems.raise_any(errors)
    if all(pattern.startswith("!") for pattern in patterns):
        chosen = set(files)
    return chosen, dropped


def load_selected(
    files: Mapping[str, ServiceFile],
    names: Iterable[str],
    *,
    with_dependencies: bool,
    left_out: Collection[str] = (),
) -> tuple[dict[str, Service[..., Any]], set[str], list[PlanError]]:
    """Import the services *names*, with their dependencies if requested; also return which names were tried.

    Args:
        files: All services.
        names: The services to import.
        with_dependencies: Whether to import their dependencies, too.
        left_out: Dependencies that are imported only where their value is needed, not for the order.

    """
    services, errors = load_all({name: files[name] for name in names})
    tried = {*names}
    todo = list(services.values()) if with_dependencies else []
    while todo:
        needs = needs_of(todo.pop())
        for edge in needs.edges if needs else ():
            target = edge.target
            if edge.parameter is None and target in left_out:
                continue
            if target in files and target not in tried:
                tried.add(target)
                try:
                    services[target] = load(files[target])
                except PlanError as error:
                    errors.append(error)
                else:
                    todo.append(services[target])
    return services, tried, errors


def registry_of(
    services: Mapping[str, Service[..., Any]], files: Catalogue, chosen: Collection[str] = (), *, remote: bool = False
) -> Registry:
    """Return the registry of the enabled services.

    Args:
        services: The services that could be imported.
        files: All services.
        chosen: The services that should have been imported.
        remote: Whether other services can be called in other processes.

    """
    return Registry(services, files, files.absent, remote, chosen)


def make_plan(
    files: Catalogue,
    environ: Mapping[str, str],
    patterns: Sequence[str] | None,
    source: str,
    *,
    with_dependencies: bool = False,
    errors: Sequence[PlanError] = (),
) -> Plan:
    """Import the services that *patterns* select, and plan their run.

    Args:
        files: All services that were found.
        environ: The environment.
        patterns: As for `select`.
        source: Where the patterns were given, for errors.
        with_dependencies: Whether to add the dependencies of the selected services. A dependency that a pattern
            excludes is added only where its value is needed.
        errors: Errors found before, which are reported with the others.

    Raises:
        PlanError: There are errors; several are raised as `Problems`.

    """
    try:
        names = select(files, patterns, source)
    except PlanError as error:
        Problems.raise_any([*errors, error])
        raise
    left_out = _matched(files, patterns, source)[1] if patterns and with_dependencies else ()
    services, tried, wrong = load_selected(files, names, with_dependencies=with_dependencies, left_out=left_out)
    registry = registry_of(services, files, tried, remote=bool(environ.get("NATS_URL", "").strip()))
    misfits, warnings = registry.check()
    configs, bad_values, misses = registry.read_configs(environ)
    try:
        Problems.raise_any([*errors, *wrong, *misfits, *bad_values])
    except PlanError as error:
        for miss in misses:  # a missing variable may be set under a misspelt name
            error.add_note(miss)
        raise
    return Plan(registry.units(configs), (*misses, *warnings))


# -- a command and what it asks for ------------------------------------------------------------------------------


def plan_command(
    owner: Service[..., Any],
    needs: Needs,
    files: Catalogue,
    environ: Mapping[str, str],
    *,
    enabled: Sequence[str] | None = None,
    errors: Sequence[PlanError] = (),
) -> tuple[Plan, object]:
    """Plan the run of a command: return its providers, and the config of the service it belongs to.

    Args:
        owner: The service whose command it is.
        needs: What the command needs.
        files: All services that were found.
        environ: The environment.
        enabled: The patterns of SERVICES_ENABLED; None if it is not set. A service that they leave out runs only where
            its value is needed.
        errors: Errors found before, which are reported with the others.

    Raises:
        PlanError: There are errors; several are raised as `Problems`.

    """
    providers = [edge.target for edge in needs.edges if edge.target in files]
    left_out = _matched(files, enabled, "SERVICES_ENABLED")[1] if enabled else ()
    services, _, wrong = load_selected(files, providers, with_dependencies=True, left_out=left_out)
    registry = registry_of(services, files, files)
    misfits, _ = registry.check()
    own = [registry.check_edge(owner, edge) for edge in needs.edges]
    readers = registry_of({**services, owner.name: owner}, files, files) if needs.config else registry
    configs, bad_values, _ = readers.read_configs(environ)
    if needs.config and owner.name not in configs:  # the service itself takes no config
        from kernel.config.service_config import read_config

        configs[owner.name], refused = read_config(owner.name, needs.config[1], environ, needs.config_default)
        bad_values += refused
    Problems.raise_any(
        [*errors, *wrong, *misfits, *(error for error in own if isinstance(error, PlanError)), *bad_values]
    )
    return Plan(registry.units(configs)), configs.get(owner.name)
