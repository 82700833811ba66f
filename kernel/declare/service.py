"""The `service` decorator, and the declaration that it returns.

Nothing here runs a service. A `Service` can still be called like the function it decorates, for example with fakes in
a test.
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
    """A dependency that only has to be launched, not ready. Created by `started`."""

    service: str | Service[..., Any]


def started(service: str | Service[..., Any]) -> Started:
    """Depend on the launch of *service*, not on its readiness: ``depends=[started("metrics")]``."""
    return Started(service)


def _to_name(fn: Callable[..., Any]) -> str:
    """Return the name of *fn* in kebab-case."""
    return getattr(fn, "__name__", repr(fn)).strip("_").replace("_", "-")


def register_command(fn: CommandFunction, commands: dict[str, Callable[..., Any]], whose: str) -> CommandFunction:
    """Add *fn* to *commands* under its name in kebab-case.

    Raises:
        DeclarationError: A command with that name already exists; *whose* begins the message.

    """
    name = _to_name(fn)
    if name in commands:
        raise DeclarationError(f"{whose} two commands named {name!r}", where=declared_at(fn))
    commands[name] = fn
    return fn


@attrs.frozen(eq=False, slots=False)
class Service(Generic[P, R]):
    """A declared service; calling it calls its function. Created by `service`.

    Args:
        fn: The coroutine function.
        name: Its name: that of its file in `services/`, otherwise that of the function in kebab-case.
        depends: Its dependencies, as given.
        retry: When it is restarted after a crash.
        allowed_failure: Whether the app continues after it has failed.
        oneshot: Whether it counts as ready once it has returned.
        start_timeout: Seconds until it must be ready; None for no limit.
        stop_timeout: Seconds from the request to stop until it is cancelled.
        concurrency: How many calls from other processes run at once.
        asks: What it needs; None to read that from its signature.
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
        """Call the function itself with any arguments, as in a test."""
        return self.fn(*args, **kwargs)

    def command(self, fn: CommandFunction) -> CommandFunction:
        """Make *fn* a command of this service: ``app <service> <command>``.

        Parameters are filled like those of a service, and one may be named after this service to take its value. All
        other parameters come from the command line. A command that takes no value may be a plain ``def``.

        Raises:
            DeclarationError: A command with that name already exists.

        """
        return register_command(fn, self.commands, f"{self.name} has")

    def dressed(self, fn: Callable[..., Any]) -> Self:
        """Copy the name, docstring and annotations of *fn*, as `functools.update_wrapper` does."""
        told: dict[str, Any] = {name: getattr(fn, name) for name in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, name)}
        vars(self).update(told, __wrapped__=fn)
        return self

    def named(self, name: str) -> Service[P, R]:
        """Return the same service under another name; both share their commands."""
        if name == self.name:
            return self
        return self._changed(name=name)

    def needing(self, needs: Needs) -> Service[P, R]:
        """Return the same service with *needs* instead of those of its signature; both share their commands."""
        return self._changed(asks=needs)

    def _changed(self, **fields: Any) -> Service[P, R]:
        made = copy.copy(self)
        vars(made).update(fields)
        vars(made).pop("needs", None)
        return made

    @property
    def where(self) -> str:
        """The file and line where the service is declared."""
        return declared_at(self.fn)

    @functools.cached_property
    def needs(self) -> Needs:
        """What the signature needs.

        Raises:
            DeclarationError: Nothing can fill a parameter, or a dependency is given twice.

        """
        if self.asks is not None:
            return self.asks
        edges = self.edges
        if not takes_parameters(self.fn):
            return Needs(edges=edges)  # skips inspect.signature, which is slow
        needs = read_signature(self.fn, edges, self.name, spare=False)
        if self.oneshot and needs.serving:
            raise DeclarationError(
                f"{self.name} is a one-shot and takes `Serving`",
                where=self.where,
                hint="a one-shot is ready when it has returned; remove one of the two",
            )
        return needs

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Its dependencies, regardless of its parameters.

        Raises:
            DeclarationError: A dependency is not a service, or is given twice.

        """
        edges: list[Edge] = []
        for given in self.depends:
            kind: Literal["ready", "started"] = "started" if isinstance(given, Started) else "ready"
            target = given.service if isinstance(given, Started) else given
            name = target.name if isinstance(target, Service) else target
            if not isinstance(name, str):
                raise DeclarationError(
                    f"{self.name} depends on {target!r}, which is not a service", where=self.where, hint="give its name"
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
        fn: The function, if the decorator is used without parentheses.
        depends: The names of the services that must be ready before this one starts, and that stop after it;
            ``started("x")`` waits only for the launch of x. Service objects are accepted too, for tests.
        retries: How often it is retried after a crash: a number, or a `Retry`.
        allowed_failure: Whether the app continues after it has failed, with only a warning.
        oneshot: Whether it is ready once it has returned without an error, like a migration.
        start_timeout: Seconds until it must be ready; None for no limit.
        stop_timeout: Seconds from the request to stop until it is cancelled, clean-up included.
        concurrency: How many calls from other processes run at once. Up to 1,000 more wait; any beyond that fail with
            `kernel.Overloaded`. Applies only to a service that serves an interface.

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
                hint="write `async def`; run blocking code in a thread: `await anyio.to_thread.run_sync(work)`",
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
    """Return what *fn*, a command of the service *owner*, needs; its other parameters come from the command line.

    Raises:
        DeclarationError: It needs something that does not exist, or takes a value without being async.

    """
    edges = [*(Edge(edge.target) for edge in owner.needs.edges), Edge(owner.name)]
    own = owner.needs.config[1] if owner.needs.config else None
    needs = read_signature(fn, edges, f"{owner.name} {fn.__name__}", spare=True, config=own)
    if needs.serving:
        raise DeclarationError(
            f"command {fn.__name__!r} takes `Serving`", where=declared_at(fn), hint="only a service can serve"
        )
    if needs.config and own and needs.config[1] != own:
        raise DeclarationError(
            f"command {fn.__name__!r} takes {type_name(needs.config[1])}, which is not the config of {owner.name}",
            where=declared_at(fn),
            hint=f"take {type_name(own)}",
        )
    return attrs.evolve(needs, edges=tuple(edge for edge in needs.edges if edge.parameter))
