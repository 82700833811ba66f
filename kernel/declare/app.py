"""What the app itself declares: its lifespans, in `app/init.py`, and its commands, in `app/commands.py`."""

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


@attrs.define(eq=False)
class Extensions:
    """What `app/init.py` and `app/commands.py` register: lifespans, in order, commands, and observers."""

    lifespans: list[LifespanFunction] = attrs.field(factory=list)
    commands: dict[str, Callable[..., Any]] = attrs.field(factory=dict)
    observers: list[Callable[[Any], None]] = attrs.field(factory=list)


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
    if not inspect.isasyncgenfunction(fn) or takes_parameters(fn):
        raise DeclarationError(
            f"lifespan {getattr(fn, '__name__', fn)!r} must be an `async def` without parameters that yields once",
            where=declared_at(fn),
        )
    EXTENSIONS.lifespans.append(fn)
    return fn


def observer(fn: ObserverFunction) -> ObserverFunction:
    """Tell *fn* each event of a run, in order: ``@observer def page(event: Event) -> None: ...``.

    It is called in the event loop's thread, with one of the frozen classes of `kernel.events`, from the first launch
    to the last end, and must not block. One that raises is reported and disabled; the run goes on. Commands have no
    observers.

    Args:
        fn: A plain function, or anything else that can be called with an event.

    Raises:
        DeclarationError: *fn* is async, or cannot be called with one argument.

    """
    name = getattr(fn, "__name__", repr(fn))
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise DeclarationError(
            f"observer {name!r} is async, but is called between two steps of the run",
            where=declared_at(fn),
            hint="write a plain `def`, and hand what takes long to a service, by a stream say",
        )
    try:
        inspect.signature(fn).bind(None)
    except TypeError:
        raise DeclarationError(
            f"observer {name!r} cannot be called with one argument", where=declared_at(fn), hint="let it take the event"
        ) from None
    EXTENSIONS.observers.append(fn)
    return fn


def command(fn: CommandFunction) -> CommandFunction:
    """Make *fn* a command of the app: ``app <name>``. Its parameters are the command line's.

    Raises:
        DeclarationError: There is a command of that name already.

    """
    return register_command(fn, EXTENSIONS.commands, "there are")
