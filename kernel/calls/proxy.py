"""Proxies: what callers of a service get. They have the methods of its interface, and nothing else.

A call goes straight to the object (`thin`), to the object through JSON (`checked`), or to another process (`client`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, current_effective_deadline, current_time

from kernel.calls.codec import read, write
from kernel.calls.failures import failure_of, overdue
from kernel.calls.interface import Interface, Method
from kernel.calls.shape import Misfit
from kernel.context import current_service
from kernel.errors import BadRequest, CallFailed, DeadlineExceeded, DeclarationError, text_of

if TYPE_CHECKING:
    from kernel.calls.telemetry import Telemetry

Call = Callable[..., Awaitable[Any]]


class Proxy:
    """The base of all proxies: a call for each method, and the object behind them."""

    __slots__ = ("__weakref__", "_about", "_behind")

    _about: str
    _behind: Any

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._about}>"


@functools.cache
def _class_of(interface: Interface) -> type[Proxy]:
    return type(interface.name, (Proxy,), {"__slots__": tuple(interface.methods), "__doc__": interface.cls.__doc__})


def make_proxy(interface: Interface, calls: Mapping[str, Call], about: str, behind: object = None) -> Proxy:
    """Return a proxy.

    Args:
        interface: The interface that the proxy implements.
        calls: What each method does.
        about: What it represents, for people.
        behind: The object that is called, if it is in this process.

    """
    proxy = _class_of(interface)()
    proxy._about, proxy._behind = about, behind  # noqa: SLF001
    for name, call in calls.items():
        setattr(proxy, name, call)
    return proxy


def behind(value: Any) -> Any:
    """Return the object behind a proxy, or *value* itself if it is not a proxy."""
    return value._behind if isinstance(value, Proxy) else value  # noqa: SLF001


def methods_of(interface: Interface, service: str, value: object) -> dict[str, Call]:
    """Return the methods of *value* by name.

    Raises:
        DeclarationError: A method of the interface is missing, or is not async.

    """
    found: dict[str, Call] = {}
    for name in interface.methods:
        call = getattr(value, name, None)
        what = "has no such method" if call is None else "is not async" if _is_plain(call) else ""
        if what:
            raise DeclarationError(
                f"{service} serves a {type(value).__name__} as {interface.name}, whose {name!r} {what}",
                hint=f"write `async def {name}` in {type(value).__name__}",
            )
        found[name] = call  # type: ignore[assignment]
    return found


def _is_plain(call: object) -> bool:
    return not callable(call) or (
        (inspect.isfunction(call) or inspect.ismethod(call)) and not inspect.iscoroutinefunction(call)
    )


# -- thin and checked --------------------------------------------------------------------------------------------


def thin(interface: Interface, service: str, value: object, telemetry: Telemetry | None = None) -> Proxy:
    """Return a proxy that calls *value* directly: arguments by reference, no timeout.

    Args:
        interface: The methods that can be called.
        service: The service's name.
        value: The value that the service provides.
        telemetry: Spans and durations; None for neither.

    Raises:
        DeclarationError: *value* lacks a method.

    """
    calls: dict[str, Call] = {}
    for name, fn in methods_of(interface, service, value).items():
        method = interface.methods[name]
        call = _thin(service, method, fn)
        calls[name] = call if telemetry is None else _traced(call, service, method, telemetry)
    return make_proxy(interface, calls, f"{service}, local", value)


def checked(interface: Interface, service: str, value: object, telemetry: Telemetry | None = None) -> Proxy:
    """Return a proxy that calls *value* as if it ran elsewhere: through JSON, and within the interface's timeout.

    Args and errors are those of `thin`.
    """
    spans = telemetry or NO_SPANS
    calls = {
        name: _checked(service, interface.methods[name], fn, interface.timeout, spans)
        for name, fn in methods_of(interface, service, value).items()
    }
    return make_proxy(interface, calls, f"{service}, checked", value)


def _thin(service: str, method: Method, fn: Call) -> Call:
    name, declared = method.name, method.declared
    enter, leave = current_service.set, current_service.reset

    async def call(*args: Any, **kwargs: Any) -> Any:
        token = enter(service)  # the service whose code runs now
        try:
            return await fn(*args, **kwargs)
        except BaseException as error:
            failure = failure_of(error, service, name, declared)
            if failure is None:
                raise
            raise failure from error  # noqa: ASYNC104
        finally:
            try:  # noqa: SIM105  (`suppress` takes as long as the call)
                leave(token)
            except ValueError:
                pass  # a call that nobody awaits any more is closed in another context

    return named(call, method)


def _traced(call: Call, service: str, method: Method, telemetry: Telemetry) -> Call:
    """Return *call* with the spans and durations of both sides, as for a call to another process."""

    async def traced(*args: Any, **kwargs: Any) -> Any:
        with telemetry.client(service, method.name):
            caller = current_service.get()
            current_service.set(service)  # the service that the span belongs to
            try:
                with telemetry.server(service, method.name):
                    return await call(*args, **kwargs)
            finally:
                current_service.set(caller)

    return named(traced, method)


def named(call: Any, method: Method) -> Call:
    """Return *call* under the name of *method*."""
    call.__name__ = method.name
    call.__qualname__ = f"{method.interface}.{method.name}"
    call.__doc__ = method.text
    return call  # type: ignore[no-any-return]


class _NoSpans:
    """In place of `Telemetry`, where nothing reads it."""

    _nothing = contextlib.nullcontext()

    def client(self, service: str, method: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        return self._nothing

    server = client


NO_SPANS = _NoSpans()


def _checked(service: str, method: Method, fn: Call, timeout: float, spans: Telemetry | _NoSpans) -> Call:
    name, result = method.name, method.result

    async def call(*args: Any, **kwargs: Any) -> Any:
        with spans.client(service, name):
            try:
                given = read(method.decode, write(lambda _: method.encode(args, kwargs), None))
            except Misfit as misfit:
                raise BadRequest(service, name, str(misfit)) from None
            caller = current_service.get()
            current_service.set(service)
            try:
                with spans.server(service, name):
                    answer = await execute(given)
            finally:
                current_service.set(caller)
            try:
                return read(result.decode, answer)
            except Misfit as misfit:
                raise CallFailed(service, name, f"executed, but its answer does not fit: {misfit}") from None

    async def execute(given: Mapping[str, Any]) -> bytes:
        deadline = current_effective_deadline()
        own = deadline == math.inf
        until = current_time() + timeout if own else deadline
        value: Any = None
        with CancelScope(deadline=until if own else math.inf) as scope:
            try:
                value = await fn(**given)
            except BaseException as error:
                failure: BaseException | None
                if overdue(error, until, current_time()):
                    failure = DeadlineExceeded(service, name, text_of(error))
                else:
                    failure = failure_of(error, service, name, method.declared) or arrived(error, service, method)
                if failure is None:
                    raise
                raise failure from error  # noqa: ASYNC104
        if scope.cancelled_caught:
            raise DeadlineExceeded(service, name, f"no answer after {timeout:g} s")
        try:
            return write(result.encode, value)
        except Misfit as misfit:
            raise CallFailed(service, name, f"executed, but its result does not fit: {misfit}") from None

    return named(call, method)


def arrived(error: BaseException, service: str, method: Method) -> BaseException | None:
    """Return a declared error as it arrives in another process; None for any other error."""
    shape = method.raises.get(type(error).__name__)
    if shape is None or shape.cls is not type(error):
        return None
    try:
        there: BaseException = read(shape.decode, write(shape.encode, error))
    except Misfit as misfit:
        return CallFailed(service, method.name, f"{text_of(error)} ({misfit})", type(error).__name__)
    return there
