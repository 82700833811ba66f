"""`app check`: find all problems without running anything."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

import attrs

from kernel.declare.service import Service, command_needs
from kernel.declare.signature import Edge, evaluate, signature_of
from kernel.errors import DeclarationError, LeftOutError, PlanError
from kernel.lifecycle.graph import depths, topological
from kernel.lifecycle.shutdown import cancelled_by, level_share
from kernel.plan import selection
from kernel.plan.discovery import Catalogue, load_all
from kernel.plan.drawing import told_apart
from kernel.plan.environment import unreadable
from kernel.plan.registry import Registry, needs_of
from kernel.stacks import shorten

TASK_GROUPS = frozenset({"create_task_group", "open_nursery", "TaskGroup"})
MANY = 100  # crashes in a row after which the retry delay no longer changes
REST = 0.01  # seconds between attempts, enough to keep the CPU mostly idle


@attrs.frozen
class Findings:
    """Errors, which prevent a start, and warnings."""

    errors: tuple[PlanError, ...]
    warnings: tuple[str, ...]
    apart: str = ""  # says which services can run in different processes


def check(
    files: Catalogue,
    environ: Mapping[str, str],
    patterns: tuple[Sequence[str] | None, str],
    shutdown_timeout: float,
    errors: Sequence[PlanError] = (),
    *,
    names: Sequence[str] = (),
    settings: bool = True,
) -> Findings:
    """Import every service, check how they fit together, and check the configuration of the enabled ones.

    Args:
        files: All services.
        environ: The environment.
        patterns: The patterns that select services, and where they were given.
        shutdown_timeout: Seconds for the whole shutdown.
        errors: Errors found before.
        names: Check only these services, as if no others were enabled. Dependencies outside of them are not reported.
        settings: Whether to check the values in *environ*.

    """
    found = list(errors)
    services, broken = load_all({name: files[name] for name in names} if names else files)
    found += broken
    enabled = names
    try:
        enabled = names or selection.select(files, *patterns)
    except PlanError as error:
        found.append(error)
    every = selection.registry_of(services, files, names or files)
    misfits, warnings = every.check()
    if names:
        misfits = [error for error in misfits if not isinstance(error, LeftOutError)]
        warnings = []
    found += misfits
    found += _check_interfaces(services)
    remote = bool(environ.get("NATS_URL", "").strip())
    present = {name: services[name] for name in enabled if name in services}
    chosen = selection.registry_of(present, files, enabled, remote=remote)
    left_out, skipped = chosen.check()
    if not names:
        told = {str(error) for error in misfits}  # an artifact with only some services always has these errors
        found += [error for error in left_out if isinstance(error, LeftOutError) and str(error) not in told]
        warnings += [warning for warning in skipped if warning not in warnings]
    if settings:
        _, bad_values, misses = chosen.read_configs(environ)
        found += bad_values
        warnings += misses
    unread = {name: service for name, service in services.items() if not settings or name not in enabled}
    found += unreadable(unread)
    warnings += _check_budget(chosen, shutdown_timeout)
    for service in services.values():
        found += _check_commands(service, every)
        warnings += _check_retries(service)
        warnings += _check_shape(service)
        warnings += _check_values(service, services)
    apart = "" if found else told_apart(services)
    return Findings(tuple(found), tuple(warnings), apart)


def _check_budget(registry: Registry, shutdown_timeout: float) -> list[str]:
    """Warn of services that may be cancelled before their stop_timeout, if their dependents use up theirs.

    A service with the default stop_timeout is assumed to stop at once, since the default says nothing about its needs.
    """
    try:
        below = depths(registry.graph)
    except PlanError:
        return []  # a dependency cycle, which is reported elsewhere
    default = attrs.fields(Service).stop_timeout.default
    share = level_share(shutdown_timeout, below.values())
    asked = dict.fromkeys(below, 0.0)  # the latest time at which each service is requested to stop
    warnings: list[str] = []
    for name in reversed(topological(registry.graph)):
        service = registry.services[name]
        cut = cancelled_by(shutdown_timeout, share, below[name])
        own = 0.0 if service.stop_timeout == default else service.stop_timeout
        if asked[name] + own > cut:
            warnings.append(
                f"{service.where}: {name} has a stop_timeout of {own:g} s, but may be cancelled after"
                f" {max(cut - asked[name], 0):.3g} s, since the whole shutdown has {shutdown_timeout:g} s"
                " (RUNNER_SHUTDOWNTIMEOUT), shared with its dependents and dependencies"
            )
        ended = min(asked[name] + own, cut)
        for target in registry.graph[name]:
            asked[target] = max(asked[target], ended)
    return warnings


def _check_retries(service: Service[..., Any]) -> list[str]:
    """Warn of a service that is retried forever without a delay: it could use up a whole CPU."""
    rest = service.retry.delay_after(MANY, rand=lambda: 0.5)
    if service.retry.times is not None or rest is None or rest >= REST:
        return []
    warning = (
        f"{service.where}: {service.name} is retried forever, in the end every {rest:.3g} s: if it keeps crashing, it"
        " uses up a whole CPU; give its Retry a delay"
    )
    return [warning]


def _check_commands(service: Service[..., Any], registry: Registry) -> list[PlanError]:
    """Return the errors in the commands of *service*; those in its own signature are reported elsewhere."""
    own = needs_of(service)
    if own is None:
        return []
    taken = {edge.target for edge in own.edges if edge.parameter}
    asked: dict[str, Edge] = {}  # providers from which only commands take a value
    errors: list[PlanError] = []
    for fn in service.commands.values():
        try:
            needs = command_needs(service, fn)
            asked |= {edge.target: edge for edge in needs.edges if edge.target not in taken}
            for parameter in signature_of(fn).parameters.values():
                if parameter.name not in needs.parameters:  # filled from the command line
                    evaluate(parameter, fn, f"command {fn.__name__!r}", spare=False)
        except PlanError as error:
            errors.append(error)
    misfits = (registry.check_edge(service, edge) for edge in asked.values())
    return errors + [error for error in misfits if isinstance(error, DeclarationError)]


def _check_interfaces(services: Mapping[str, Service[..., Any]]) -> list[PlanError]:
    """Return the errors in the interfaces that *services* serve and use, and in how they fit together."""
    if "kernel.calls.interface" not in sys.modules:
        return []  # no interface is declared
    from kernel.calls.wiring import read_interfaces, unlike

    whole = [service for service in services.values() if needs_of(service) is not None]
    return read_interfaces(whole) or unlike(whole)


def _check_values(service: Service[..., Any], services: Mapping[str, Service[..., Any]]) -> list[str]:
    """Warn of values that may never be available again, and of parameters whose type differs from the provider's."""
    warnings: list[str] = []
    needs = needs_of(service)
    for edge in needs.edges if needs else ():
        provider = services.get(edge.target)
        if edge.parameter is None or provider is None:
            continue
        if provider.allowed_failure and not service.allowed_failure and not edge.optional:
            warnings.append(
                f"{service.where}: {service.name} is not allowed to fail, but needs the value of {provider.name},"
                f" whose failure is allowed: if {provider.name} ends for good, the app stops"
            )
        given, taken = _given_type(provider), _annotation(service.fn, edge.parameter)
        if given is not None and taken is not None and given != taken and not _is_base(taken, given):
            warnings.append(
                f"{service.where}: {service.name} takes {edge.parameter!r} as {_name(taken)},"
                f" but {provider.name} serves {_name(given)}"
            )
    return warnings


def _given_type(provider: Service[..., Any]) -> Any:
    """Return the T of the provider's `Serving[T]`; None if it is unknown."""
    needs = needs_of(provider)
    annotation = _annotation(provider.fn, needs.serving) if needs and needs.serving else None
    args = get_args(annotation)
    return args[0] if args else None


def _annotation(fn: Callable[..., Any], parameter: str) -> Any:
    """Return the annotation of *parameter* as an object; None if there is none, or evaluating it fails at run time."""
    annotation = evaluate(signature_of(fn).parameters[parameter], fn, "", spare=True)
    return None if annotation in {inspect.Parameter.empty, Any, object} else annotation


def _is_base(taken: Any, given: Any) -> bool:
    """Return whether *taken* accepts *given*: a base class, or a type that cannot be checked at run time."""
    if isinstance(taken, type) and isinstance(given, type):
        try:
            return issubclass(given, taken)
        except TypeError:  # the protocol is not runtime-checkable
            return True
    return get_origin(taken) is not None or get_origin(given) is not None


def _name(tp: Any) -> str:
    return getattr(tp, "__qualname__", str(tp))


# -- the shape of a service's function ---------------------------------------------------------------------------


def _check_shape(service: Service[..., Any]) -> list[str]:
    """Warn of resources that would be cancelled together with the work, judging by the function's source."""
    function = inspect.unwrap(service.fn)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        serving = service.needs.serving
    except (OSError, SyntaxError, PlanError):
        return []
    definition = tree.body[0]
    assert isinstance(definition, ast.AsyncFunctionDef)
    looker = _Looker(serving)
    for statement in definition.body:
        looker.visit(statement)
    file = shorten(function.__code__.co_filename)
    first = function.__code__.co_firstlineno - 1
    warnings = []
    if serving is None and looker.resources and not service.oneshot:
        line = first + looker.resources[0]
        warnings.append(
            f"{file}:{line}: {service.name} holds a resource but takes no `Serving`, so it is cancelled as a whole, and"
            " the resource cannot await while closing; take `Serving[None]` and work inside `async with serving()`"
        )
    if serving is not None:
        warnings += [
            f"{file}:{first + line}: {service.name} opens a task group around its serving block, so its tasks are not"
            " cancelled with the work; open it inside the block, or use work.start_soon"
            for line in looker.groups
        ]
    return warnings


class _Looker(ast.NodeVisitor):
    """Finds `async with` statements and task groups outside the serving block."""

    def __init__(self, serving: str | None) -> None:
        self.resources: list[int] = []
        self.groups: list[int] = []
        self._serving = serving

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        for item in node.items:
            called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            if name and name == self._serving:
                return
            if name in TASK_GROUPS:
                self.groups.append(node.lineno)
            else:
                self.resources.append(node.lineno)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Skip nested functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Skip nested functions."""
