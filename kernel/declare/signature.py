"""What the signature of a service or of a command asks for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, get_origin

import attrs

from kernel.declare.serving import Serving
from kernel.errors import DeclarationError, did_you_mean
from kernel.stacks import shorten


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


def declared_at(fn: Callable[..., Any]) -> str:
    """File and line where *fn* was written."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{shorten(code.co_filename)}:{code.co_firstlineno}" if code else repr(fn)


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


def takes_parameters(fn: Callable[..., Any]) -> bool:
    """Tell whether *fn* has parameters, without the slow `inspect.signature`."""
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
