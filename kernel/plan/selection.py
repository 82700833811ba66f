"""Select what runs: from files, environment and command line to the units of the orchestrator.

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


@attrs.frozen
class Plan:
    """What is to run.

    Args:
        units: The services with their configs, each after its dependencies.
        warnings: What an operator should know before the start.

    """

    units: tuple[Unit, ...]
    warnings: tuple[str, ...] = ()


# -- which ones --------------------------------------------------------------------------------------------------


def select(files: Catalogue, patterns: Sequence[str] | None, source: str) -> list[str]:
    """Return the names in *files* that *patterns* select, in the order of *files*.

    Args:
        files: All services.
        patterns: Names and globs. A ``!`` before one excludes what it matches; exclusions take precedence, and on
            their own they select all others. None selects all.
        source: Where the patterns come from, for errors.

    Raises:
        NamingError: A pattern matches nothing, or nothing is left.

    """
    if not files:
        raise NamingError(
            "there is no service", where="services", hint="write one: services/hello.py with an async function @service"
        )
    if patterns is None:
        return list(files)
    chosen, dropped = _matched(files, patterns, source)
    result = [one for one in files if one in chosen - dropped]
    if not result:
        raise NamingError(
            f"no service is left of {', '.join(patterns)}", where=source, hint="remove one of the exclusions"
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
        matches = {one for one in files if fnmatchcase(one, name)}
        absent = [one for one in files.absent if fnmatchcase(one, name)]
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
    """Import the services *names*, and if requested their dependencies; return also the names that were tried.

    Args:
        files: All services.
        names: Those to import.
        with_dependencies: Whether to import their dependencies, too.
        left_out: Dependencies that are imported for their value only, not for the order.

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
        services: Those that could be imported.
        files: All services.
        chosen: Those that should have been imported.
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
        files: All services, as found.
        environ: The environment.
        patterns: As for `select`.
        source: Where they come from, for errors.
        with_dependencies: Whether to add their dependencies, but for the order none that a pattern excludes.
        errors: Errors found before, reported with the rest.

    Raises:
        PlanError: Anything is wrong; several errors are raised as `Problems`.

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
        for miss in misses:  # a variable that is missing may be set under a misspelt name
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
    """Return the plan of the providers that a command needs, and the config of its service.

    Args:
        owner: The service whose command it is.
        needs: What the command needs. Whose value it takes runs, enabled or not, and so does whose value that takes.
        files: All services.
        environ: The environment.
        enabled: The patterns of SERVICES_ENABLED; what they leave out does not run for the order alone. None for all.
        errors: Errors found before, reported with the rest.

    Raises:
        PlanError: Anything is wrong with them; several errors are raised as `Problems`.

    """
    providers = [edge.target for edge in needs.edges if edge.target in files]
    left_out: set[str] = set()
    if enabled is not None:
        chosen, dropped = _matched(files, enabled, "SERVICES_ENABLED")
        left_out = {*files} - (chosen - dropped)
    services, _, wrong = load_selected(files, providers, with_dependencies=True, left_out=left_out)
    registry = registry_of(services, files, files)
    misfits, _ = registry.check()
    own = [registry.check_edge(owner, edge) for edge in needs.edges]
    readers = registry_of({**services, owner.name: owner}, files, files) if needs.config else registry
    configs, bad_values, _ = readers.read_configs(environ)
    if needs.config and owner.name not in configs:  # the service itself takes none
        from kernel.config.service_config import read_config

        configs[owner.name], refused = read_config(owner.name, needs.config[1], environ, needs.config_default)
        bad_values += refused
    Problems.raise_any([*errors, *wrong, *misfits, *(one for one in own if isinstance(one, PlanError)), *bad_values])
    return Plan(registry.units(configs)), configs.get(owner.name)
