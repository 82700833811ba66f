"""Commands: which parameters come from the command line, how a command is called, and its exit code."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kernel.declare.signature import Needs, declared_at, evaluate, signature_of
from kernel.errors import DeclarationError, text_of
from kernel.observe import console

CODES = 256  # the system keeps only the exit code modulo 256, so 256 would become 0


def for_command_line(fn: Callable[..., Any], needs: Needs, act: Callable[[dict[str, Any]], int]) -> Callable[..., int]:
    """Return a function with the parameters of *fn* that come from the command line.

    Args:
        fn: The user's function.
        needs: The parameters that the kernel fills.
        act: Called with the other parameters' values by name, as `call_with` takes them; returns the exit code.

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
    run.__annotations__ = {
        parameter.name: parameter.annotation for parameter in given if parameter.annotation is not parameter.empty
    }
    run.__doc__ = inspect.getdoc(fn)
    run.__name__ = fn.__name__
    run.__module__ = fn.__module__
    return run


def call_with(fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call *fn* with *values* by parameter name. Each value is passed as its kind of parameter requires.

    Args:
        fn: The user's function.
        values: A tuple for ``*args``, a dict for ``**kwargs``. Missing parameters keep their defaults.

    """
    bound = inspect.BoundArguments(signature_of(fn), dict(values))
    bound.apply_defaults()
    return fn(*bound.args, **bound.kwargs)


def refuse_values(fn: Callable[..., Any], services: Mapping[str, str]) -> None:
    """Raise if a command of the app takes a service's value, that is, if a required parameter has a service's name.

    Args:
        fn: The user's function.
        services: The names of the services by parameter name.

    Raises:
        DeclarationError: There is such a parameter.

    """
    for parameter in signature_of(fn).parameters.values():
        named = parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        if named and parameter.default is parameter.empty and parameter.name in services:
            service = services[parameter.name]
            raise DeclarationError(
                f"command {fn.__name__!r} has a parameter {parameter.name!r}, which is the name of a service;"
                " only the commands of a service can take a service's value",
                where=declared_at(fn),
                hint=f"decorate it with `@{parameter.name}.command` in the file of {service}, or rename the parameter",
            )


@attrs.define(repr=False)
class Outcome:
    """How a command ended, if nothing went wrong.

    Args:
        code: The exit code that the command returned.

    """

    code: int = 0

    def returned(self, result: object) -> None:
        """Record what the command returned: an int is the exit code, anything else means 0."""
        if isinstance(result, int) and not isinstance(result, bool):
            self.code = result if 0 <= result < CODES else 1

    def exited(self, error: SystemExit) -> None:
        """Record the argument of `sys.exit` as Python treats it: a text is printed, and means 1."""
        if error.code is None or isinstance(error.code, int):
            self.returned(int(error.code or 0))
        else:
            console.say(text_of(error.code))
            self.code = 1

    def after(self, reason: str) -> int:
        """Return the exit code after a stop for *reason*; for a signal, 128 plus its number, as in shells."""
        if reason in signal.Signals.__members__:
            return 128 + signal.Signals[reason]
        return self.code
