"""Types as people annotate them: aliases, unions, generics and classes, told apart at run time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import attrs


def unwrap(tp: Any) -> Any:
    """The type that *tp* is another name for: without `NewType`, `type X = ...`, `Final` and annotations of no meaning.

    An `Annotated` type comes back as it is.
    """
    while True:
        origin = get_origin(tp)
        if hasattr(tp, "__supertype__"):  # a NewType
            tp = tp.__supertype__
        elif hasattr(origin, "__value__"):  # X[int], of type X[T] = ...; it has what X has, too
            tp = substitute(origin.__value__, dict(zip(origin.__type_params__, get_args(tp), strict=False)))
        elif hasattr(tp, "__value__"):  # type X = ...
            tp = tp.__value__
        elif origin is Final:
            (tp,) = get_args(tp)
        else:
            return tp


def is_union(tp: Any) -> bool:
    """Whether *tp* is a union, of one type and None too."""
    return get_origin(tp) in {Union, UnionType}


def without_none(tp: Any) -> tuple[Any, bool]:
    """The one type of ``X | None``, and True; any other type as it is, and False."""
    bare = unwrap(tp)
    if is_union(bare):
        rest = [one for one in get_args(bare) if one is not NoneType]
        if len(rest) == 1 and len(rest) < len(get_args(bare)):
            return unwrap(rest[0]), True
    return bare, False


def attrs_class(tp: Any) -> Any:
    """The attrs class that *tp* is, with its arguments where it is generic; None where it is none."""
    bare = unwrap(tp)
    if get_origin(bare) is Annotated:
        bare = unwrap(get_args(bare)[0])
    origin = get_origin(bare) or bare
    return bare if isinstance(origin, type) and attrs.has(origin) else None


def origin_of(cls: Any) -> type:
    """The class itself, without the arguments of a generic one."""
    origin: type = get_origin(cls) or cls
    return origin


def model_kind(tp: Any) -> str:
    """What kind of class with fields *tp* is, if it is one that is not attrs's: a dataclass, say. Else empty."""
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
"""By what each kind of class is told."""


def type_name(tp: Any) -> str:
    """What people call *tp*: ``list[Path] | None``, without the modules."""
    if isinstance(tp, type) and not get_args(tp):
        return tp.__name__
    if isinstance(tp, TypeVar):
        return tp.__name__
    if hasattr(tp, "__supertype__") or (hasattr(tp, "__value__") and not get_args(tp)):
        return str(tp.__name__)
    if is_union(tp):
        return " | ".join("None" if one is NoneType else type_name(one) for one in get_args(tp))
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(tp)).replace("<locals>.", "")


def substitute(tp: Any, types: Mapping[Any, Any]) -> Any:
    """*tp* with the type that *types* has for each of its type variables; those it does not have stay."""
    if isinstance(tp, TypeVar):
        return types.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    if not parameters or isinstance(tp, type):
        return tp
    return tp[tuple(types.get(one, one) for one in parameters)]


def type_variables(cls: Any) -> dict[type, dict[Any, Any]]:
    """What the type variables of the class *cls* and of each of its bases stand for, by class."""
    found: dict[type, dict[Any, Any]] = {}

    def visit(tp: Any, outer: Mapping[Any, Any]) -> None:
        origin = origin_of(tp)
        parameters = getattr(origin, "__parameters__", ())
        args = [substitute(one, outer) for one in get_args(tp)]
        own = dict(zip(parameters, args, strict=False)) or {one: _fallback(one) for one in parameters}
        found.setdefault(origin, own)
        for base in getattr(origin, "__orig_bases__", None) or origin.__bases__:
            if isinstance(origin_of(base), type) and origin_of(base) is not object:
                visit(base, own)

    visit(cls, {})
    return found


def _fallback(variable: Any) -> Any:
    """What a type variable stands for where nobody says: its default, else its bound, else itself."""
    if getattr(variable, "has_default", bool)():
        return variable.__default__
    return getattr(variable, "__bound__", None) or variable
