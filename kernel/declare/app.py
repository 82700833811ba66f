"""Declarations of the app itself: lifespans and observers in `app/init.py`, commands in `app/commands.py`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import attrs

from kernel.declare.service import CommandFunction, register_command
from kernel.declare.signature import declared_at, takes_parameters
from kernel.errors import DeclarationError

ObserverFunction = TypeVar("ObserverFunction", bound=Callable[[Any], None])
LifespanFunction = Callable[[], AsyncGenerator[None, None]]


@attrs.define(eq=False, repr=False)
class Extensions:
    """Everything that `app/init.py` and `app/commands.py` register: lifespans in order, observers, and commands."""

    lifespans: list[LifespanFunction] = attrs.field(factory=list)
    commands: dict[str, Callable[..., Any]] = attrs.field(factory=dict)
    observers: list[Callable[[Any], None]] = attrs.field(factory=list)


EXTENSIONS = Extensions()


def lifespan(fn: LifespanFunction) -> LifespanFunction:
    """Run *fn*, an async generator function, around all services: ``@lifespan async def setup(): ...; yield; ...``.

    The code before ``yield`` runs before any service starts. The code after it runs when all services have ended,
    however they ended. Several lifespans start in the order of their declaration and end in reverse. If one fails
    before its ``yield``, no service starts; a failure before or after it makes the exit code 1. The code after the
    ``yield`` is not cancelled until shortly before the shutdown deadline.

    Raises:
        DeclarationError: *fn* is not an async generator function, or takes parameters.

    """
    if not inspect.isasyncgenfunction(fn) or takes_parameters(fn):
        raise DeclarationError(
            f"lifespan {getattr(fn, '__name__', fn)!r} must be an `async def` without parameters that yields once",
            where=declared_at(fn),
        )
    EXTENSIONS.lifespans.append(fn)
    return fn


def observer(fn: ObserverFunction) -> ObserverFunction:
    """Call *fn* with each event of a run, in order: ``@observer def page(event: Event) -> None: ...``.

    Each event is an instance of one of the frozen classes in `kernel.events`. The observer is called in the event
    loop's thread, from the first launch to the last end, and must not block. If it raises, it is reported and disabled,
    and the run continues. Commands have no observers.

    Args:
        fn: A plain function, or anything else that can be called with an event.

    Raises:
        DeclarationError: *fn* is async, or cannot be called with one argument.

    """
    name = getattr(fn, "__name__", repr(fn))
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise DeclarationError(
            f"observer {name!r} is async, but observers are called synchronously",
            where=declared_at(fn),
            hint="write a plain `def`, and pass slow work to a service, for example through a memory stream",
        )
    try:
        inspect.signature(fn).bind(None)
    except TypeError:
        raise DeclarationError(
            f"observer {name!r} cannot be called with one argument",
            where=declared_at(fn),
            hint="give it one parameter, the event",
        ) from None
    EXTENSIONS.observers.append(fn)
    return fn


def command(fn: CommandFunction) -> CommandFunction:
    """Make *fn* a command of the app: ``app <name>``. Its parameters come from the command line.

    Raises:
        DeclarationError: A command with that name already exists.

    """
    return register_command(fn, EXTENSIONS.commands, "there are")
