"""What a service is: the decorator, and the declaration that it makes.

Nothing here runs a service. A `Service` is a declaration that can still be called like the function it was
made from, so that it can be tested with fakes.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, overload

import attrs

from kernel.annotations import type_name
from kernel.declare.retry import Retry
from kernel.declare.signature import Edge, Needs, declared_at, read_signature, takes_parameters
from kernel.errors import DeclarationError

P = ParamSpec("P")
R = TypeVar("R")
CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])

SERVICE_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@attrs.frozen
class Started:
    """A dependency that needs to be launched only, not to be ready. Made by `started`."""

    service: str | Service[..., Any]


def started(service: str | Service[..., Any]) -> Started:
    """Depend on the launch of *service*, not on its readiness: ``depends=[started("metrics")]``."""
    return Started(service)


def _to_name(fn: Callable[..., Any]) -> str:
    """The name in kebab-case of what *fn* becomes."""
    return getattr(fn, "__name__", repr(fn)).strip("_").replace("_", "-")


def register_command(fn: CommandFunction, commands: dict[str, Callable[..., Any]], whose: str) -> CommandFunction:
    """Add *fn* to *commands* under its name in kebab-case.

    Raises:
        DeclarationError: There is a command of that name already; *whose* begins the sentence.

    """
    name = _to_name(fn)
    if name in commands:
        raise DeclarationError(f"{whose} two commands named {name!r}", where=declared_at(fn))
    commands[name] = fn
    return fn


@attrs.frozen(eq=False, slots=False)
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
        concurrency: How many calls from other processes run at once.
        asks: What it asks for, where that is not for its signature to say; None: the signature says it.
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
    concurrency: int = 100
    asks: Needs | None = attrs.field(default=None, kw_only=True, repr=False)
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
        return register_command(fn, self.commands, f"{self.name} has")

    def dressed(self, fn: Callable[..., Any]) -> Self:
        """Take on the name, the docstring and the annotations of *fn*, as `functools.update_wrapper` does."""
        told: dict[str, Any] = {name: getattr(fn, name) for name in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, name)}
        vars(self).update(told, __wrapped__=fn)
        return self

    def named(self, name: str) -> Service[P, R]:
        """Return the same service under another name; its commands are the same, those still to come as well."""
        if name == self.name:
            return self
        made = copy.copy(self)
        vars(made).update(name=name)
        vars(made).pop("needs", None)
        return made

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
        if self.asks is not None:
            return self.asks
        edges = self.edges
        if not takes_parameters(self.fn):
            return Needs(edges=edges)  # nothing to fill: spares the slow inspect.signature
        needs = read_signature(self.fn, edges, self.name, spare=False)
        if self.oneshot and needs.serving:
            raise DeclarationError(
                f"{self.name} is a one-shot and takes `Serving`",
                where=self.where,
                hint="a one-shot is ready when it has returned; drop one of the two",
            )
        return needs

    @property
    def edges(self) -> tuple[Edge, ...]:
        """What it depends on, whatever its parameters are.

        Raises:
            DeclarationError: A dependency that is no service, or is given twice.

        """
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
    concurrency: int = 100,
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
    concurrency: int = 100,
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
        concurrency: How many calls from other processes run at once; 1,000 more wait, and what comes beyond that is
            answered with `kernel.Overloaded`. It counts only where the service serves an interface.

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
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise DeclarationError(f"{name}: concurrency is {concurrency!r}; it must be a number from 1", where=where)
        declared = Service(
            fn, name, tuple(depends), retry, allowed_failure, oneshot, start_timeout, stop_timeout, concurrency
        )
        return declared.dressed(fn)

    return declare if fn is None else declare(fn)


def command_needs(owner: Service[..., Any], fn: Callable[..., Any]) -> Needs:
    """What the command *fn* of the service *owner* asks for; its other parameters are the command line's.

    Raises:
        DeclarationError: It asks for something that cannot be had, or for a value without being async.

    """
    edges = [*(Edge(edge.target) for edge in owner.needs.edges), Edge(owner.name)]
    own = owner.needs.config[1] if owner.needs.config else None
    needs = read_signature(fn, edges, f"{owner.name} {fn.__name__}", spare=True, config=own)
    if needs.serving:
        raise DeclarationError(
            f"command {fn.__name__!r} takes `Serving`", where=declared_at(fn), hint="only a service serves"
        )
    if needs.config and own and needs.config[1] != own:
        raise DeclarationError(
            f"command {fn.__name__!r} takes {type_name(needs.config[1])}, which is not the config of {owner.name}",
            where=declared_at(fn),
            hint=f"take {type_name(own)}",
        )
    return attrs.evolve(needs, edges=tuple(edge for edge in needs.edges if edge.parameter))
