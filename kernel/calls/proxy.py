"""Proxies: what callers of a service get. They have the methods of its interface, and nothing else.

A call goes straight to the object (`thin`), to the object by way of JSON (`checked`), or to another process (`client`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from anyio import current_effective_deadline, current_time, move_on_after

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
    doc = inspect.getdoc(interface.cls)
    return type(interface.name, (Proxy,), {"__slots__": tuple(interface.methods), "__doc__": doc})


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


# -- thin --------------------------------------------------------------------------------------------------------


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
    calls = {
        name: _told(_thin(service, interface.methods[name], call), service, interface.methods[name], telemetry)
        for name, call in methods_of(interface, service, value).items()
    }
    return make_proxy(interface, calls, f"{service}, local", value)


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


def _told(call: Call, service: str, method: Method, telemetry: Telemetry | None) -> Call:
    """Return *call* with the spans and durations of both sides, as for a call to another process."""
    if telemetry is None:
        return call

    async def told(*args: Any, **kwargs: Any) -> Any:
        with telemetry.client(service, method.name):
            caller = current_service.get()
            current_service.set(service)  # the service that the span belongs to
            try:
                with telemetry.server(service, method.name):
                    return await call(*args, **kwargs)
            finally:
                current_service.set(caller)

    return named(told, method)


def named(call: Any, method: Method) -> Call:
    """Return *call* under the name of *method*."""
    call.__name__ = method.name
    call.__qualname__ = f"{method.interface}.{method.name}"
    call.__doc__ = method.text
    return call  # type: ignore[no-any-return]


# -- checked -----------------------------------------------------------------------------------------------------


def checked(interface: Interface, service: str, value: object, telemetry: Telemetry | None = None) -> Proxy:
    """Return a proxy that calls *value* as if it ran elsewhere: by way of JSON, and within the interface's timeout.

    Args:
        interface: The methods that can be called.
        service: The service's name.
        value: The value that the service provides.
        telemetry: Spans and durations; None for neither.

    Raises:
        DeclarationError: *value* lacks a method.

    """
    calls = {
        name: _told(
            _checked(service, interface.methods[name], call, interface.timeout),
            service,
            interface.methods[name],
            telemetry,
        )
        for name, call in methods_of(interface, service, value).items()
    }
    return make_proxy(interface, calls, f"{service}, checked", value)


def _checked(service: str, method: Method, fn: Call, timeout: float) -> Call:
    name, result = method.name, method.result

    async def run(given: Mapping[str, Any]) -> Any:
        if current_effective_deadline() != math.inf:
            return await fn(**given)
        with move_on_after(timeout) as scope:
            return await fn(**given)
        if scope.cancelled_caught:
            raise DeadlineExceeded(service, name, f"no answer after {timeout:g} s")
        raise AssertionError  # the scope swallows only its own cancellation

    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = read(method.decode, write(lambda _: method.encode(args, kwargs), None))
        except Misfit as error:
            raise BadRequest(service, name, str(error)) from None
        caller = current_service.get()
        current_service.set(service)
        deadline = current_effective_deadline()
        try:
            value = await run(given)
        except BaseException as error:
            failure: BaseException | None
            if isinstance(error, DeadlineExceeded) and (
                (deadline == math.inf and error.service == service and error.method == name)
                or overdue(error, deadline, current_time())
            ):
                raise
            failure = failure_of(error, service, name, method.declared) or arrived(error, service, method)
            if failure is None:
                raise
            raise failure from error  # noqa: ASYNC104
        finally:
            current_service.set(caller)
        try:
            return read(result.decode, write(result.encode, value))
        except Misfit as error:
            raise CallFailed(service, name, f"executed, but its result does not fit: {error}") from None

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
