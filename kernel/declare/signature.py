"""Find out what a service or a command needs, from its signature."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import attrs

from kernel.annotations import attrs_class, model_kind, type_name, without_none
from kernel.declare.serving import Serving
from kernel.errors import DeclarationError, PlanError, Problems, did_you_mean
from kernel.stacks import shorten


@attrs.frozen(repr=False)
class Edge:
    """One dependency of a service.

    Args:
        target: The name of the dependency.
        kind: "ready" to wait until it is ready, "started" to wait until it has been launched.
        parameter: The parameter that takes its value; None if the edge only sets the order.
        optional: Whether that parameter has a default.

    """

    target: str
    kind: Literal["ready", "started"] = "ready"
    parameter: str | None = None
    optional: bool = False


@attrs.frozen(repr=False)
class Needs:
    """What a signature needs.

    Args:
        edges: The dependencies, with the parameters that take their values.
        serving: The name of the parameter annotated `Serving`, or None.
        config: The parameter annotated with an attrs class, and the class, which may have type arguments; None if there
            is none.
        config_default: The default of that parameter; `inspect.Parameter.empty` if it has none.
        serves: The T of its ``Serving[T]``; None if it is not annotated.

    """

    edges: tuple[Edge, ...] = ()
    serving: str | None = None
    config: tuple[str, Any] | None = None
    config_default: object = inspect.Parameter.empty
    serves: Any = None

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
    """Return the name of the parameter that takes the value of the service *name*."""
    return name.replace("-", "_")


def declared_at(fn: Callable[..., Any]) -> str:
    """Return the file and line where *fn* is declared."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{shorten(code.co_filename)}:{code.co_firstlineno}" if code else repr(fn)


def read_signature(
    fn: Callable[..., Any], edges: Sequence[Edge], owner: str, *, spare: bool, config: Any = None
) -> Needs:
    """Determine what each parameter of *fn* takes: the value of a dependency in *edges*, `Serving`, or a config.

    The annotations of parameters named after a dependency are not evaluated.

    Args:
        fn: The function of a service or of a command.
        edges: The dependencies that can provide values.
        owner: The name used in errors.
        spare: Whether the command line fills parameters that nothing else fills, and attrs classes with a default.
        config: The attrs class that counts as a config even if *spare* is set; None for none.

    Raises:
        DeclarationError: Nothing can fill a parameter, or two parameters take the same; several errors are raised as
            `Problems`.

    """
    reading = _Reading(fn, owner, spare, config, {to_parameter(edge.target): n for n, edge in enumerate(edges)}, edges)
    errors: list[PlanError] = []
    for parameter in signature_of(fn).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        try:
            reading.read(parameter)
        except PlanError as error:
            errors.append(error)
    Problems.raise_any(errors)
    return reading.needs


@attrs.define(eq=False, repr=False)
class _Reading:
    """Reads one signature."""

    fn: Callable[..., Any]
    owner: str
    spare: bool
    config: Any
    by_parameter: Mapping[str, int]
    edges: Sequence[Edge]
    needs: Needs = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.needs = Needs(edges=tuple(self.edges))

    def read(self, parameter: inspect.Parameter) -> None:
        """Record what *parameter* takes."""
        has_default = parameter.default is not parameter.empty
        index = self.by_parameter.get(parameter.name)
        if index is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
            self._take_value(parameter.name, index, optional=has_default)
            return
        annotation = evaluate(parameter, self.fn, self.owner, spare=self.spare or has_default)
        bare, may_be_none = without_none(annotation)
        cls = attrs_class(bare)
        if (get_origin(annotation) or annotation) is Serving:
            self._take_serving(parameter.name, next(iter(get_args(annotation)), None))
        elif cls is not None and (not (self.spare and has_default) or cls == self.config):
            default = None if may_be_none and not has_default else parameter.default
            self._take_config(parameter.name, cls, default)
        elif not self.spare and not has_default:
            raise self._unfilled(parameter.name, bare, positional=index is not None)

    def _take_value(self, name: str, index: int, *, optional: bool) -> None:
        edge = self.edges[index]
        if edge.kind == "started":
            raise DeclarationError(
                f"{self.owner} takes the value of {edge.target!r}, but waits only for its start",
                where=declared_at(self.fn),
                hint=f'write depends=["{edge.target}"]',
            )
        edges = list(self.needs.edges)
        edges[index] = attrs.evolve(edge, parameter=name, optional=optional)
        self.needs = attrs.evolve(self.needs, edges=tuple(edges))

    def _take_serving(self, name: str, serves: Any) -> None:
        if before := self.needs.serving:
            raise DeclarationError(f"{self.owner} takes `Serving` twice: {before}, {name}", where=declared_at(self.fn))
        self.needs = attrs.evolve(self.needs, serving=name, serves=serves)

    def _take_config(self, name: str, cls: Any, default: object) -> None:
        if self.needs.config:
            raise DeclarationError(
                f"{self.owner} takes two configs: {self.needs.config[0]}, {name}",
                where=declared_at(self.fn),
                hint="put the fields into one attrs class",
            )
        self.needs = attrs.evolve(self.needs, config=(name, cls), config_default=default)

    def _unfilled(self, name: str, tp: Any, *, positional: bool) -> DeclarationError:
        """Return the error for a parameter that nothing can fill."""
        if kind := model_kind(tp):
            return DeclarationError(
                f"{self.owner} has a parameter {name!r} that nothing can fill: {type_name(tp)} is {kind}",
                where=declared_at(self.fn),
                hint="for a config, make it an attrs class: decorate it with @attrs.frozen",
            )
        near = "values are passed by name: remove the `/`" if positional else did_you_mean(name, self.by_parameter)
        return DeclarationError(
            f"{self.owner} has a parameter {name!r} that nothing can fill",
            where=declared_at(self.fn),
            hint=near
            or "name it after a dependency, annotate it `Serving[...]` or an attrs class, or give it a default",
        )


def takes_parameters(fn: Callable[..., Any]) -> bool:
    """Return whether *fn* has parameters, without the slow `inspect.signature`."""
    code = getattr(inspect.unwrap(fn), "__code__", None)  # a `functools.partial` has none
    return code is None or bool(code.co_argcount + code.co_kwonlyargcount)


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of *fn*, with annotations as they were written; `evaluate` turns them into objects."""
    if sys.version_info >= (3, 14):  # pragma: no cover  (3.14 evaluates all annotations when one is read)
        import annotationlib

        return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(fn)


def _closure(function: Callable[..., Any]) -> dict[str, object]:
    """Return the variables that *function* uses from enclosing functions, except those without a value so far."""
    seen: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            seen[name] = cell.cell_contents
    return seen


def evaluate(parameter: inspect.Parameter, fn: Callable[..., Any], owner: str, *, spare: bool) -> Any:
    """Return the annotation of *parameter* of *fn* as an object, evaluated in the scope of *fn*.

    Args:
        parameter: From `inspect.signature`; its annotation may be a string.
        fn: The function that has the parameter.
        owner: The name used in errors.
        spare: Whether to return None if the annotation cannot be evaluated.

    Raises:
        DeclarationError: The annotation cannot be evaluated, and *spare* is false.

    """
    annotation = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
    function = inspect.unwrap(fn)
    try:
        while isinstance(annotation, str):  # a quoted annotation in a module with postponed evaluation takes two rounds
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
