"""Records of every kind: attrs, dataclass, NamedTuple, TypedDict or exception."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kernel.calls.shape import Convert, Misfit, Shape, misfit
from kernel.errors import text_of

NO_DEFAULT: Any = inspect.Parameter.empty


@attrs.frozen(eq=False)
class Made:
    """A default that a factory of this name makes anew for each record."""

    name: str


@attrs.frozen(eq=False)
class Field:
    """One field of a record, or one parameter of a method.

    Args:
        name: Its name in JSON, and as the argument that sets it.
        type: Its type, evaluated.
        optional: Whether it may be omitted.
        default: Its value if omitted, or a `Made`; `NO_DEFAULT` if the field is then absent.
        attribute: The attribute that has its value; empty for a key of a TypedDict.

    """

    name: str
    type: Any
    optional: bool = False
    default: Any = NO_DEFAULT
    attribute: str = ""

    @property
    def has_default(self) -> bool:
        """Whether it has a value when omitted."""
        return self.default is not NO_DEFAULT


def is_record(tp: Any) -> bool:
    """Return whether *tp* is a class whose values consist of a few named fields."""
    return isinstance(tp, type) and (
        attrs.has(tp) or dataclasses.is_dataclass(tp) or typing.is_typeddict(tp) or hasattr(tp, "_fields")
    )


def fields_of(cls: Any, names: Mapping[str, Any] | None = None) -> list[Field]:
    """Return the fields of the record *cls*, in order.

    Args:
        cls: The class.
        names: Names that its annotations may use besides those of its module.

    Raises:
        TypeError: A field has no type, or cannot be set when a record is made.

    """
    hints = hints_of(cls, names)
    owner: str = cls.__name__
    if attrs.has(cls):
        return [_of_attrs(cls, field, hints) for field in attrs.fields(cls) if field.init]
    if dataclasses.is_dataclass(cls):
        for name, tp in hints.items():
            if isinstance(tp, dataclasses.InitVar):
                raise TypeError(f"{owner}.{name} is an InitVar: it cannot be read from a value that is sent")
        return [
            Field(field.name, hints[field.name], *_default_of(field), attribute=field.name)
            for field in dataclasses.fields(cls)
            if field.init
        ]
    if typing.is_typeddict(cls):
        return [Field(name, tp, not _is_required(cls, name, tp)) for name, tp in hints.items()]
    defaults: Mapping[str, Any] = cls._field_defaults
    for name in cls._fields:
        if name not in hints:
            raise TypeError(f"{owner}.{name} has no annotation: write a typing.NamedTuple")
    return [Field(name, hints[name], name in defaults, defaults.get(name, NO_DEFAULT), name) for name in cls._fields]


def hints_of(owner: Any, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the evaluated annotations of a class or a function.

    Raises:
        TypeError: An annotation cannot be evaluated.

    """
    try:
        return typing.get_type_hints(owner, localns=dict(names) if names else None, include_extras=True)
    except Exception as error:
        name = getattr(owner, "__qualname__", repr(owner))
        raise TypeError(
            f"an annotation of {name} cannot be evaluated: {error};"
            " import the type at run time, not under TYPE_CHECKING"
        ) from error


def _is_required(cls: Any, name: str, tp: Any) -> bool:
    """Return whether a TypedDict requires this key; with string annotations, the class itself does not know."""
    marks = {typing.Required: True, typing.NotRequired: False}
    return marks.get(typing.get_origin(tp), name in cls.__required_keys__)


def _of_attrs(cls: type, field: attrs.Attribute[Any], hints: Mapping[str, Any]) -> Field:
    tp = hints.get(field.name, field.type)
    if tp is None:
        raise TypeError(f"{cls.__name__}.{field.name} has no annotation")
    default: Any = NO_DEFAULT if field.default is attrs.NOTHING else field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = _made(default.factory, takes_none=not default.takes_self)
    return Field(field.alias or field.name, tp, default is not NO_DEFAULT, default, field.name)


def _default_of(field: dataclasses.Field[Any]) -> tuple[bool, Any]:
    if field.default is not dataclasses.MISSING:
        return True, field.default
    if field.default_factory is not dataclasses.MISSING:
        return True, _made(field.default_factory, takes_none=True)
    return False, NO_DEFAULT


def _made(factory: Callable[..., Any], *, takes_none: bool) -> Any:
    """Return what *factory* makes, if that is always the same, as for `list` and `dict`; else a `Made`."""
    if takes_none and factory in {list, dict, set, frozenset, tuple}:
        return factory()
    return Made(getattr(factory, "__qualname__", repr(factory)))


# -- errors ------------------------------------------------------------------------------------------------------


def error_fields(cls: type[BaseException], names: Mapping[str, Any] | None = None) -> list[Field] | None:
    """Return the fields of an error that travels: its own, or else the arguments of its ``__init__``.

    None for a class without either, whose `args` travel as they are.

    Raises:
        TypeError: The parameters of its ``__init__`` cannot be determined.

    """
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return fields_of(cls, names)
    if "__init__" not in {name for base in cls.__mro__ if base.__module__ != "builtins" for name in vars(base)}:
        return None
    hints = hints_of(cls.__init__, names)
    found: list[Field] = []
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        name = parameter.name
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY} or name not in hints:
            raise TypeError(f"{cls.__name__}.__init__ takes {name!r}, whose type is not known; annotate it, by name")
        has_default = parameter.default is not parameter.empty
        found.append(Field(name, hints[name], has_default, parameter.default, name))
    return found


# -- to and from JSON -------------------------------------------------------------------------------------------------


def record_encoder(cls: type, name: str, fields: list[tuple[Field, Shape]]) -> Convert:
    """Return the encoder that writes a value of exactly the class *cls* as an object of its *fields*."""
    steps = [(field.name, field.attribute, shape.encode) for field, shape in fields]

    def encode(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            raise misfit(name, value)
        made = {}
        for key, attribute, convert in steps:
            try:
                made[key] = convert(getattr(value, attribute))
            except Misfit as error:
                raise error.within(f".{key}") from None
            except AttributeError:
                raise Misfit(f"expected {name}, got one without {attribute!r}") from None
        return made

    return encode


def dict_encoder(name: str, fields: list[tuple[Field, Shape]]) -> Convert:
    """Return the encoder that writes a TypedDict as an object of exactly its *fields*."""
    steps = [(field.name, field.optional, shape.encode) for field, shape in fields]
    known = {field.name for field, _ in fields}

    def encode(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise misfit(name, value)
        made = {}
        for key, optional, convert in steps:
            if key in value:
                try:
                    made[key] = convert(value[key])
                except Misfit as error:
                    raise error.within(f".{key}") from None
            elif not optional:
                raise Misfit(f"expected {name}, but its field {key!r} is missing")
        if len(made) != len(value):
            raise unknown_field(name, value, known)
        return made

    return encode


def record_decoder(cls: Any, name: str, fields: list[tuple[Field, Shape]], *, ignore_unknown: bool) -> Convert:
    """Return the decoder that makes a value of *cls* from an object; missing fields take their defaults."""
    steps = [(field.name, field.optional, shape.decode) for field, shape in fields]
    known = {field.name for field, _ in fields}

    def decode(data: Any) -> Any:
        if type(data) is not dict:
            raise misfit(name, data)
        given = {}
        for key, optional, convert in steps:
            if key in data:
                try:
                    given[key] = convert(data[key])
                except Misfit as error:
                    raise error.within(f".{key}") from None
            elif not optional:
                raise Misfit(f"expected {name}, but its field {key!r} is missing")
        if len(given) != len(data) and not ignore_unknown:
            raise unknown_field(name, data, known)
        try:
            return cls(**given)
        except Exception as error:
            raise Misfit(f"{name} refuses it: {type(error).__name__}: {text_of(error)}") from error

    return decode


def unknown_field(name: str, data: Mapping[str, Any], known: set[str]) -> Misfit:
    """Return the error for an object with an unknown field."""
    extra = next(key for key in data if key not in known)
    return Misfit(f"{name} has no field {extra!r:.60}")
