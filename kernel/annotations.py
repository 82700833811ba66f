"""Inspect annotations at run time: aliases, unions, generics and classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import attrs


def unwrap(tp: Any) -> Any:
    """Resolve *tp* to the type behind aliases: remove `NewType`, `type X = ...`, `Final` and similar wrappers.

    An `Annotated` type is returned unchanged.
    """
    while True:
        origin = get_origin(tp)
        if hasattr(tp, "__supertype__"):  # a NewType
            tp = tp.__supertype__
        elif hasattr(origin, "__value__"):  # X[int] of type X[T] = ...; it has the attributes of X too
            tp = substitute(origin.__value__, dict(zip(origin.__type_params__, get_args(tp), strict=False)))
        elif hasattr(tp, "__value__"):  # type X = ...
            tp = tp.__value__
        elif origin is Final:
            (tp,) = get_args(tp)
        else:
            return tp


def is_union(tp: Any) -> bool:
    """Return whether *tp* is a union, including ``X | None``."""
    return get_origin(tp) in {Union, UnionType}


def without_none(tp: Any) -> tuple[Any, bool]:
    """Return X and True for ``X | None``; return any other type unchanged, and False."""
    bare = unwrap(tp)
    if is_union(bare):
        rest = [member for member in get_args(bare) if member is not NoneType]
        if len(rest) == 1 and len(rest) < len(get_args(bare)):
            return unwrap(rest[0]), True
    return bare, False


def attrs_class(tp: Any) -> Any:
    """Return *tp* as an attrs class, with its type arguments if it is generic; None if it is not an attrs class."""
    bare = unwrap(tp)
    if get_origin(bare) is Annotated:
        bare = unwrap(get_args(bare)[0])
    origin = get_origin(bare) or bare
    return bare if isinstance(origin, type) and attrs.has(origin) else None


def origin_of(cls: Any) -> type:
    """Return the class without type arguments."""
    origin: type = get_origin(cls) or cls
    return origin


def model_kind(tp: Any) -> str:
    """Name the kind of class with fields that *tp* is, such as a dataclass; empty for attrs classes and other types."""
    cls = get_origin(tp) or tp
    if not isinstance(cls, type) or attrs.has(cls):
        return ""
    return next((kind for mark, kind in _MODELS.items() if hasattr(cls, mark)), "")


_MODELS = {
    "__dataclass_fields__": "a dataclass",
    "__pydantic_core_schema__": "a pydantic model",
    "__pydantic_fields__": "a pydantic model",
    "__struct_fields__": "a msgspec struct",
    "__required_keys__": "a TypedDict",
    "_field_defaults": "a named tuple",
}
"""The attribute that identifies each kind of class."""


def type_name(tp: Any) -> str:
    """Format *tp* for people, without module names: ``list[Path] | None``."""
    if isinstance(tp, type) and not get_args(tp):
        return tp.__name__
    if isinstance(tp, TypeVar):
        return tp.__name__
    if is_union(tp):
        return " | ".join("None" if arg is NoneType else type_name(arg) for arg in get_args(tp))
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(tp).replace("<locals>.", ""))


def substitute(tp: Any, types: Mapping[Any, Any]) -> Any:
    """Replace the type variables in *tp* that are keys of *types* with their types."""
    if isinstance(tp, TypeVar):
        return types.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    if not parameters or isinstance(tp, type):
        return tp
    return tp[tuple(types.get(parameter, parameter) for parameter in parameters)]


def type_variables(cls: Any) -> dict[type, dict[Any, Any]]:
    """Return the values of the type variables of *cls* and each of its bases, by class."""
    found: dict[type, dict[Any, Any]] = {}

    def visit(tp: Any, outer: Mapping[Any, Any]) -> None:
        origin = origin_of(tp)
        parameters = getattr(origin, "__parameters__", ())
        args = [substitute(argument, outer) for argument in get_args(tp)]
        own = dict(zip(parameters, args, strict=False)) or {parameter: _fallback(parameter) for parameter in parameters}
        found.setdefault(origin, own)
        for base in getattr(origin, "__orig_bases__", None) or origin.__bases__:
            if isinstance(origin_of(base), type) and origin_of(base) is not object:
                visit(base, own)

    visit(cls, {})
    return found


def _fallback(variable: Any) -> Any:
    """Return the value of a type variable that was not given: its default, its bound, or itself."""
    if getattr(variable, "has_default", bool)():
        return variable.__default__
    return getattr(variable, "__bound__", None) or variable
