"""A command: what of its parameters is the command line's, how it is called, and the exit code that it ends with."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kernel.declare.signature import Needs, declared_at, evaluate, signature_of
from kernel.errors import DeclarationError, text_of
from kernel.observe import console

CODES = 256  # more than these the system cannot tell apart, and takes 256 for 0


def for_command_line(fn: Callable[..., Any], needs: Needs, act: Callable[[dict[str, Any]], int]) -> Callable[..., int]:
    """Make a function with those parameters of *fn* that are the command line's.

    Args:
        fn: The user's function.
        needs: What the kernel fills.
        act: Takes their values by name, as `call_with` does; gives the exit code.

    Raises:
        DeclarationError: An annotation cannot be evaluated.

    """
    owner = f"command {fn.__name__!r}"
    kept = inspect.Signature(
        [
            parameter.replace(annotation=evaluate(parameter, fn, owner, spare=False))
            for parameter in signature_of(fn).parameters.values()
            if parameter.name not in needs.parameters
        ]
    )

    def run(*args: Any, **kwargs: Any) -> int:
        return act(dict(kept.bind(*args, **kwargs).arguments))

    given = kept.parameters.values()
    run.__signature__ = kept  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in given if one.annotation is not one.empty}
    run.__doc__ = inspect.getdoc(fn)
    run.__name__ = fn.__name__
    run.__module__ = fn.__module__
    return run


def call_with(fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call *fn* with *values* by the names of its parameters, each in the way that its kind asks for.

    Args:
        fn: The user's function.
        values: Of ``*args`` a tuple, of ``**kwargs`` a dict. What is missing has its default.

    """
    bound = inspect.BoundArguments(signature_of(fn), dict(values))
    bound.apply_defaults()
    return fn(*bound.args, **bound.kwargs)


def refuse_values(fn: Callable[..., Any], services: Mapping[str, str]) -> None:
    """Raise where a command of the app asks for a value, by a required parameter that is named after a service.

    Args:
        fn: The user's function.
        services: The services' names by that of the parameter.

    Raises:
        DeclarationError: There is such a parameter.

    """
    for parameter in signature_of(fn).parameters.values():
        named = parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        if named and parameter.default is parameter.empty and parameter.name in services:
            service = services[parameter.name]
            raise DeclarationError(
                f"command {fn.__name__!r} has a parameter {parameter.name!r}, which is the name of a service; the value"
                f" of a service goes to a service's commands",
                where=declared_at(fn),
                hint=f"put it under `@{parameter.name}.command` in the file of {service}, or rename the parameter",
            )


@attrs.define
class Outcome:
    """How a command ended, where nothing went wrong.

    Args:
        code: The exit code that the command itself has chosen.

    """

    code: int = 0

    def returned(self, result: object) -> None:
        """Take what the command returned: an int is the exit code, anything else is 0."""
        if isinstance(result, int) and not isinstance(result, bool):
            self.code = result if 0 <= result < CODES else 1

    def exited(self, error: SystemExit) -> None:
        """Take what it gave to `sys.exit`, as Python does: a text is printed, and means 1."""
        if error.code is None or isinstance(error.code, int):
            self.returned(int(error.code or 0))
        else:
            console.say(text_of(error.code))
            self.code = 1

    def after(self, reason: str) -> int:
        """Give the exit code after a stop for this *reason*; for a signal's name 128 and its number, as shells do."""
        if reason in signal.Signals.__members__:
            return 128 + signal.Signals[reason]
        return self.code
