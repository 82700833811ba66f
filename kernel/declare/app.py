"""What the app itself declares: its lifespans, in `app/init.py`, and its commands, in `app/commands.py`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

import attrs

from kernel.declare.service import CommandFunction, register_command
from kernel.declare.signature import declared_at, takes_parameters
from kernel.errors import DeclarationError

LifespanFunction = Callable[[], AsyncGenerator[None, None]]


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
    if not inspect.isasyncgenfunction(fn) or takes_parameters(fn):
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
    return register_command(fn, EXTENSIONS.commands, "there are")
