"""What a service is: the decorator, and what its signature asks for.

Nothing here runs a service. A `Service` is a declaration that can still be called like the function it was
made from, so that it can be tested with fakes.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, get_origin, overload

import attrs

from kernel.declare.retry import Retry
from kernel.errors import DeclarationError, did_you_mean
from kernel.stacks import shorten

P = ParamSpec("P")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
LifespanFunction = Callable[[], AsyncGenerator[None, None]]

SERVICE_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Work(Protocol):
    """The work of a service that is serving; what `async with serving(...)` gives."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a background task that is cancelled with the work; what it raises is the service's crash.

        Args:
            func: The coroutine function to run.
            args: Its positional arguments.
            name: The task's name in debuggers; None takes the function's.

        """

    async def stop_requested(self) -> None:
        """Wait until the service is asked to stop. Only useful with ``drain=True``, as the wait is cancelled else."""


class Serving(Protocol[T_contra]):
    """How a service says that it is ready, and hands over a value: ``async with serving(value) as work``.

    Entered, the service is ready; the block is its work. When a stop is requested the block is cancelled, and what
    surrounds it closes uncancelled. With ``drain=True`` the block is not cancelled: it awaits
    `Work.stop_requested`, finishes what is in flight, and ends by itself within the service's ``stop_timeout``.

    Leaving the block waits until those who hold the value have stopped. One attempt may serve once
    (`kernel.errors.ServedTwice`).
    """

    @overload
    def __call__(self: Serving[None], *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...
    @overload
    def __call__(self, value: T_contra, *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...


@attrs.frozen
class Started:
    """A dependency that needs to be launched only, not to be ready. Made by `started`."""

    service: str | Service[..., Any]


def started(service: str | Service[..., Any]) -> Started:
    """Depend on the launch of *service*, not on its readiness: ``depends=[started("metrics")]``."""
    return Started(service)


@attrs.frozen
class Edge:
    """One dependency of a service.

    Args:
        target: The name of the service depended on.
        kind: "ready" waits until it is ready, "started" until it was launched.
        parameter: The parameter that takes its value; None for an edge of order only.
        optional: Whether that parameter has a default.

    """

    target: str
    kind: Literal["ready", "started"] = "ready"
    parameter: str | None = None
    optional: bool = False


@attrs.frozen
class Needs:
    """What a signature asks for.

    Args:
        edges: The dependencies, with the parameters that take their values.
        serving: The name of the parameter annotated `Serving`, or None.
        config: The parameter annotated with an attrs class and that class, or None.

    """

    edges: tuple[Edge, ...] = ()
    serving: str | None = None
    config: tuple[str, type] | None = None

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the parameters that the kernel fills."""
        names = {edge.parameter for edge in self.edges if edge.parameter}
        if self.serving:
            names.add(self.serving)
        if self.config:
            names.add(self.config[0])
        return frozenset(names)


def to_parameter(name: str) -> str:
    """The parameter that is named after a service."""
    return name.replace("-", "_")


def _to_name(fn: Callable[..., Any]) -> str:
    """The name in kebab-case of what *fn* becomes."""
    return getattr(fn, "__name__", repr(fn)).strip("_").replace("_", "-")


def _register(fn: CommandFunction, commands: dict[str, Callable[..., Any]], whose: str) -> CommandFunction:
    name = _to_name(fn)
    if name in commands:
        raise DeclarationError(f"{whose} two commands named {name!r}", where=declared_at(fn))
    commands[name] = fn
    return fn


def declared_at(fn: Callable[..., Any]) -> str:
    """File and line where *fn* was written."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{shorten(code.co_filename)}:{code.co_firstlineno}" if code else repr(fn)


@attrs.define(eq=False, slots=False)
class Service(Generic[P, R]):
    """A declared service; call it to call its function. Made by `service`.

    Args:
        fn: The coroutine function.
        name: Its name: the file's in `services/`, else the function's in kebab-case.
        depends: What it depends on, as given.
        retry: What happens after a crash.
        allowed_failure: Whether the app goes on when it has failed.
        oneshot: Whether it is ready when it has returned.
        start_timeout: Seconds until it must be ready; None for no limit.
        stop_timeout: Seconds from being asked to stop until it is cut.
        commands: Its commands by name.

    """

    fn: Callable[P, Coroutine[Any, Any, R]]
    name: str
    depends: tuple[str | Service[..., Any] | Started, ...] = ()
    retry: Retry = attrs.field(factory=Retry)
    allowed_failure: bool = False
    oneshot: bool = False
    start_timeout: float | None = 60.0
    stop_timeout: float = 30.0
    commands: dict[str, Callable[..., Any]] = attrs.field(factory=dict, init=False, repr=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function itself, with whatever a test wants to give it."""
        return self.fn(*args, **kwargs)

    def command(self, fn: CommandFunction) -> CommandFunction:
        """Make *fn* a command of this service: ``app <service> <command>``.

        Its parameters are filled as those of a service are, and may also name this service, for its value; every
        other parameter is the command line's. A command that asks for no value may be a plain ``def``.

        Raises:
            DeclarationError: There is a command of that name already.

        """
        return _register(fn, self.commands, f"{self.name} has")

    @property
    def where(self) -> str:
        """File and line where the service is declared."""
        return declared_at(self.fn)

    @functools.cached_property
    def needs(self) -> Needs:
        """What the signature asks for.

        Raises:
            DeclarationError: A parameter that nothing can fill, or a dependency given twice.

        """
        edges = self._edges()
        if not _takes_parameters(self.fn):
            return Needs(edges=edges)  # nothing to fill: spares the slow inspect.signature
        needs = read_signature(self.fn, edges, self.name, spare=False)
        if self.oneshot and needs.serving:
            raise DeclarationError(
                f"{self.name} is a one-shot and takes `Serving`",
                where=self.where,
                hint="a one-shot is ready when it has returned; drop one of the two",
            )
        return needs

    def _edges(self) -> tuple[Edge, ...]:
        edges: list[Edge] = []
        for given in self.depends:
            kind: Literal["ready", "started"] = "started" if isinstance(given, Started) else "ready"
            target = given.service if isinstance(given, Started) else given
            name = target.name if isinstance(target, Service) else target
            if not isinstance(name, str):
                raise DeclarationError(
                    f"{self.name} depends on {target!r}, which is no service", where=self.where, hint="give its name"
                )
            if any(edge.target == name for edge in edges):
                raise DeclarationError(f"{self.name} names the dependency {name!r} twice", where=self.where)
            edges.append(Edge(name, kind))
        return tuple(edges)


def read_signature(fn: Callable[..., Any], edges: Sequence[Edge], owner: str, *, spare: bool) -> Needs:
    """Tell which parameters of *fn* take what: values of *edges*, `Serving`, or an attrs class.

    Annotations of parameters named after a dependency are not evaluated.

    Args:
        fn: The function of a service or of a command.
        edges: What its values may come from.
        owner: The name used in errors.
        spare: Whether parameters that nothing fills are left to somebody else (the command line).

    Raises:
        DeclarationError: A parameter that nothing can fill, or two that ask for the same.

    """
    by_parameter = {to_parameter(edge.target): index for index, edge in enumerate(edges)}
    filled = list(edges)
    serving: str | None = None
    config: tuple[str, type] | None = None
    for parameter in signature_of(fn).parameters.values():
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        has_default = parameter.default is not parameter.empty
        index = by_parameter.get(name)
        if index is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
            if edges[index].kind == "started":
                raise DeclarationError(
                    f"{owner} takes the value of {edges[index].target!r}, but waits only for its start",
                    where=declared_at(fn),
                    hint=f'write depends=["{edges[index].target}"]',
                )
            filled[index] = attrs.evolve(edges[index], parameter=name, optional=has_default)
            continue
        annotation = evaluate(parameter, fn, owner, spare=spare or has_default)
        if (get_origin(annotation) or annotation) is Serving:
            if serving:
                raise DeclarationError(f"{owner} takes `Serving` twice: {serving}, {name}", where=declared_at(fn))
            serving = name
        elif isinstance(annotation, type) and attrs.has(annotation) and not (spare and has_default):
            if config:
                raise DeclarationError(
                    f"{owner} takes two configs: {config[0]}, {name}",
                    where=declared_at(fn),
                    hint="put the fields into one attrs class",
                )
            config = (name, annotation)
        elif not spare and not has_default:
            near = "values are given by name: drop the `/`" if index is not None else did_you_mean(name, by_parameter)
            raise DeclarationError(
                f"{owner} has a parameter {name!r} that nothing can fill",
                where=declared_at(fn),
                hint=near
                or "name it after a dependency, annotate it `Serving[...]` or an attrs class, or give it a default",
            )
    return Needs(edges=tuple(filled), serving=serving, config=config)


def _takes_parameters(fn: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(fn), "__code__", None)  # a `functools.partial` has none
    return code is None or bool(code.co_argcount + code.co_kwonlyargcount)


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature of *fn*, its annotations as they were written: `evaluate` makes objects of them."""
    if sys.version_info >= (3, 14):  # pragma: no cover  (there, a look at annotations evaluates all of them)
        import annotationlib

        return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(fn)


def _closure(function: Callable[..., Any]) -> dict[str, object]:
    """What *function* sees of the functions around it; without names that have no value yet."""
    seen: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            seen[name] = cell.cell_contents
    return seen


def evaluate(parameter: inspect.Parameter, fn: Callable[..., Any], owner: str, *, spare: bool) -> Any:
    """The annotation of *parameter* of *fn* as an object, evaluated where it was written.

    Args:
        parameter: As `inspect.signature` gives it; its annotation may be a text.
        fn: The function that has it.
        owner: The name used in errors.
        spare: Whether one that cannot be evaluated is None.

    Raises:
        DeclarationError: It cannot be evaluated, and *spare* does not allow that.

    """
    annotation = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
    function = inspect.unwrap(fn)
    try:
        while isinstance(annotation, str):  # one that is quoted although it is a text already takes two rounds
            annotation = eval(annotation, function.__globals__, _closure(function))  # noqa: S307  (as typing does)
    except Exception as error:
        if spare:
            return None
        raise DeclarationError(
            f"{owner}: the annotation of parameter {parameter.name!r} cannot be evaluated: {error}",
            where=declared_at(fn),
            hint="import the type at run time, not under TYPE_CHECKING",
        ) from error
    return annotation


def _check_seconds(name: str, value: float | None, where: str, service: str) -> None:
    if value is not None and not value >= 0:
        raise DeclarationError(f"{service}: {name} is {value}; it must not be negative", where=where)


@overload
def service(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Service[P, R]: ...
@overload
def service(
    *,
    depends: Collection[str | Service[..., Any] | Started] = (),
    retries: int | Retry = 0,
    allowed_failure: bool = False,
    oneshot: bool = False,
    start_timeout: float | None = 60.0,
    stop_timeout: float = 30.0,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Service[P, R]]: ...
def service(
    fn: Callable[P, Coroutine[Any, Any, R]] | None = None,
    /,
    *,
    depends: Collection[str | Service[..., Any] | Started] = (),
    retries: int | Retry = 0,
    allowed_failure: bool = False,
    oneshot: bool = False,
    start_timeout: float | None = 60.0,
    stop_timeout: float = 30.0,
) -> Any:
    """Declare a plain async function as a service: ``@service`` or ``@service(depends=["database"])``.

    Args:
        fn: The function, where the decorator is used without parentheses.
        depends: The names of the services that must be ready before this one starts, and that outlive it;
            ``started("x")`` waits for the launch of x only. In tests, service objects do too.
        retries: How often it is tried again after a crash: a number, or a `Retry`.
        allowed_failure: Whether its failure is a warning rather than the end of the app.
        oneshot: It is ready when it has returned well, and is not expected to go on.
        start_timeout: Seconds until it must be ready; None for no limit.
        stop_timeout: Seconds from being asked to stop until it is cut, clean-up included.

    Raises:
        DeclarationError: The function is not async, or a number is negative.

    """

    def declare(fn: Callable[P, Coroutine[Any, Any, R]]) -> Service[P, R]:
        name = _to_name(fn)
        if not inspect.iscoroutinefunction(inspect.unwrap(fn)):
            kind = "an async generator" if inspect.isasyncgenfunction(fn) else "not async"
            raise DeclarationError(
                f"service {name!r} is {kind}",
                where=declared_at(fn),
                hint="write `async def`; blocking code goes to a thread: `await anyio.to_thread.run_sync(work)`",
            )
        where = declared_at(fn)
        if isinstance(depends, str):
            raise DeclarationError(
                f"{name}: depends is the string {depends!r}", where=where, hint=f'write depends=["{depends}"]'
            )
        if isinstance(retries, bool) or not isinstance(retries, int | Retry):
            raise DeclarationError(f"{name}: retries is {retries!r}; it must be a number or a Retry", where=where)
        try:
            retry = Retry.of(retries)
        except ValueError as error:
            raise DeclarationError(f"{name}: retries is {retries}; it must not be negative", where=where) from error
        _check_seconds("start_timeout", start_timeout, where, name)
        _check_seconds("stop_timeout", stop_timeout, where, name)
        declared = Service(fn, name, tuple(depends), retry, allowed_failure, oneshot, start_timeout, stop_timeout)
        functools.update_wrapper(declared, fn, updated=())
        return declared

    return declare if fn is None else declare(fn)


@attrs.define(eq=False)
class Extensions:
    """What `app/init.py` and `app/commands.py` register: the app's lifespans, in order, and its commands."""

    lifespans: list[LifespanFunction] = attrs.field(factory=list)
    commands: dict[str, Callable[..., Any]] = attrs.field(factory=dict)


EXTENSIONS = Extensions()


def lifespan(fn: LifespanFunction) -> LifespanFunction:
    """Run *fn*, an async generator function, around all services: ``@lifespan async def setup(): ...; yield; ...``.

    What comes before its ``yield`` runs before any service starts, what comes after when all have ended, on every
    path. Several run in the order of their declaration and are undone in reverse. One that fails before its
    ``yield`` lets nothing start; either failure makes the exit code 1. What comes after is not cancelled before
    the shutdown deadline is near.

    Raises:
        DeclarationError: *fn* is no async generator function, or takes parameters.

    """
    if not inspect.isasyncgenfunction(fn) or _takes_parameters(fn):
        raise DeclarationError(
            f"lifespan {getattr(fn, '__name__', fn)!r} must be an `async def` without parameters that yields once",
            where=declared_at(fn),
        )
    EXTENSIONS.lifespans.append(fn)
    return fn


def command(fn: CommandFunction) -> CommandFunction:
    """Make *fn* a command of the app: ``app <name>``. Its parameters are the command line's.

    Raises:
        DeclarationError: There is a command of that name already.

    """
    return _register(fn, EXTENSIONS.commands, "there are")


def command_needs(owner: Service[..., Any], fn: Callable[..., Any]) -> Needs:
    """What the command *fn* of the service *owner* asks for; its other parameters are the command line's.

    Raises:
        DeclarationError: It asks for something that cannot be had, or for a value without being async.

    """
    edges = [*(Edge(edge.target) for edge in owner.needs.edges), Edge(owner.name)]
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


__all__ = [
    "EXTENSIONS",
    "SERVICE_NAME",
    "Edge",
    "Extensions",
    "Needs",
    "Retry",
    "Service",
    "Serving",
    "Started",
    "Work",
    "command",
    "command_needs",
    "declared_at",
    "evaluate",
    "lifespan",
    "read_signature",
    "service",
    "signature_of",
    "started",
    "to_parameter",
]
