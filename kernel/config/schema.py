"""The variables of a service's config: one for each field of its attrs class and of nested attrs classes.

A `Schema` does not know the environment. Reading configs, warning of near misses and listing variables all use it.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, get_type_hints

import attrs

from kernel.annotations import attrs_class, origin_of, substitute, type_name, type_variables, without_none
from kernel.config.readers import Reader, UnreadableType, reader_of
from kernel.config.values import variable
from kernel.errors import ConfigError
from kernel.stacks import shorten

UNKNOWN = object()
"""Represents a default that is known only when the config is created."""


@attrs.frozen
class Leaf:
    """A field that is read from one variable.

    Args:
        argument: The field's name in the class's `__init__`.
        variable: The variable.
        reader: Converts its text.
        attribute: The attrs attribute of the field.
        owner: The class whose body declares the field.

    """

    argument: str
    variable: str
    reader: Reader
    attribute: attrs.Attribute[Any]
    owner: type

    @property
    def variables(self) -> tuple[str, ...]:
        """The variable, as a tuple."""
        return (self.variable,)


@attrs.frozen
class Branch:
    """A field that is a nested attrs class.

    Args:
        argument: The field's name in the outer class's `__init__`.
        schema: The fields of the nested class.
        optional: Whether the field may be None.
        attribute: The attrs attribute of the field.
        owner: The class whose body declares the field.

    """

    argument: str
    schema: Schema
    optional: bool
    attribute: attrs.Attribute[Any]
    owner: type

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of all fields of the nested class."""
        return tuple(leaf.variable for leaf in self.schema.leaves())


@attrs.frozen
class Schema:
    """The fields of an attrs class that are read from the environment.

    Args:
        cls: The class, without type arguments.
        members: Its fields, in order, except those that cannot be read.
        errors: The problems with the fields that cannot be read.

    """

    cls: type
    members: tuple[Leaf | Branch, ...]
    errors: tuple[ConfigError, ...] = ()

    def leaves(self) -> Iterator[Leaf]:
        """Every variable, including those of nested classes."""
        for member in self.members:
            if isinstance(member, Leaf):
                yield member
            else:
                yield from member.schema.leaves()


@functools.cache
def schema_of(service: str, cls: Any) -> Schema:
    """Return the variables of a service's config, the attrs class *cls*, which may have type arguments."""
    schema = _schema(service, cls, ())
    errors = list(schema.errors)
    for name, count in Counter(leaf.variable for leaf in schema.leaves()).items():
        if count > 1:
            places = " and ".join(f"{leaf.owner.__name__}.{leaf.attribute.name}" for leaf in _named(schema, name))
            errors.append(ConfigError(f"is read for {places}", where=name, hint="rename one of them"))
    return attrs.evolve(schema, errors=tuple(errors))


def _named(schema: Schema, name: str) -> Iterator[Leaf]:
    return (leaf for leaf in schema.leaves() if leaf.variable == name)


def _schema(prefix: str, cls: Any, outer: tuple[type, ...]) -> Schema:
    origin = origin_of(cls)
    members: list[Leaf | Branch] = []
    errors: list[ConfigError] = []
    types = type_variables(cls)
    for attribute in attrs.fields(origin):
        if not attribute.init:
            continue
        argument = attribute.alias or attribute.name
        name = variable(prefix, argument)
        owner = _owner(origin, attribute.name)
        try:
            tp = substitute(_resolve(attribute, owner), types.get(owner, {}))
            group, optional = without_none(tp)
            inner = attrs_class(group)
            if inner is None:
                members.append(Leaf(argument, name, reader_of(tp), attribute, owner))
                continue
            if origin_of(inner) in (*outer, origin):
                raise UnreadableType(inner, "it contains itself, so its variables never end: write str")  # noqa: TRY301
            schema = _schema(name, inner, (*outer, origin))
        except UnreadableType as error:
            tp = f"is of type {type_name(error.type)}" if error.type is not None else "has no type"
            what = f"cannot be read: its field {tp}"
            errors.append(ConfigError(what, where=name, hint=f"{error.instead} ({place(owner, attribute.name)})"))
        except _Unresolved as error:
            what = f"cannot be read: the type of its field cannot be evaluated: {error}"
            hint = f"import it at run time, not under TYPE_CHECKING ({place(owner, attribute.name)})"
            errors.append(ConfigError(what, where=name, hint=hint))
        else:
            errors += schema.errors
            members.append(Branch(argument, schema, optional, attribute, owner))
    return Schema(origin, tuple(members), tuple(errors))


# -- the types of fields -----------------------------------------------------------------------------------------


class _Unresolved(Exception):
    """An annotation cannot be evaluated; the message says why."""


def _owner(cls: type, field: str) -> type:
    """Return the class whose body declares a field."""

    def declares(base: type) -> bool:
        own: Any = vars(base).get("__attrs_attrs__", ())
        return any(attribute.name == field and not attribute.inherited for attribute in own)

    return next(filter(declares, cls.__mro__), cls)


def _resolve(attribute: attrs.Attribute[Any], owner: type) -> Any:
    """Return the type of a field as an object, with annotations in strings evaluated."""
    tp: Any = attribute.type
    if isinstance(tp, type) or tp is None:
        return tp
    around = getattr(sys.modules.get(owner.__module__), "__dict__", {})
    inside = {**{parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}, **vars(owner)}
    try:
        # As in typing: names of the module take precedence over names of the class.
        hints = get_type_hints(SimpleNamespace(__annotations__={"it": tp}), inside, around, include_extras=True)
    except Exception as error:
        raise _Unresolved(error) from error
    return hints["it"]


# -- defaults ----------------------------------------------------------------------------------------------------


def default_of(attribute: attrs.Attribute[Any]) -> Any:
    """Return the default of a field; `attrs.NOTHING` for none, `UNKNOWN` if it is computed from other fields."""
    default: Any = attribute.default
    if not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return default
    if default.takes_self:
        return UNKNOWN
    try:
        return default.factory()
    except Exception:  # noqa: BLE001  (the user's code; the error is reported when the config is created)
        return UNKNOWN


@attrs.frozen
class Entry:
    """A variable, with its default.

    Args:
        leaf: The variable.
        default: As returned by `default_of`.
        idle: Whether its class is None because none of the class's variables is set.

    """

    leaf: Leaf
    default: Any
    idle: bool

    @property
    def required(self) -> bool:
        """Whether it must be set."""
        return self.default is attrs.NOTHING and not self.idle


def entries(schema: Schema, environ: Mapping[str, str], outer: object, *, idle: bool = False) -> Iterator[Entry]:
    """Return every variable with its default.

    Args:
        schema: The fields.
        environ: The environment.
        outer: The default of the whole: an instance of the class, None, or any other object if there is no default.
        idle: Whether the schema is part of a value that is None.

    """
    if outer is None and not any(environ.get(leaf.variable) for leaf in schema.leaves()):
        idle = idle or any(leaf.attribute.default is attrs.NOTHING for leaf in schema.leaves())
    for member in schema.members:
        default = default_of(member.attribute)
        if isinstance(outer, schema.cls):
            default = getattr(outer, member.attribute.name, UNKNOWN)
        if isinstance(member, Leaf):
            yield Entry(member, default, idle)
        else:
            nothing = default is None or (default is attrs.NOTHING and member.optional)
            unset = not any(environ.get(name) for name in member.variables)
            yield from entries(member.schema, environ, default, idle=idle or (nothing and unset))


# -- where a field is declared -----------------------------------------------------------------------------------


def place(owner: type, field: str) -> str:
    """Return class, field, file and line; without file and line if there is no source. An empty *field*: the class."""
    lines, first, path = source_of(owner)
    name = f"{owner.__name__}.{field}" if field else owner.__name__
    if not lines:
        return name
    own = (i for i, line in enumerate(lines) if field and re.match(rf"\s+{re.escape(field)}\s*[:=]", line))
    offset = next(own, 0)
    return f"{name}, {path}:{first + offset}"


@functools.cache
def source_of(cls: type) -> tuple[tuple[str, ...], int, str]:
    """Return the lines of a class, the number of the first line, and the file; no lines if there is no source."""
    try:
        lines, first = inspect.getsourcelines(cls)
        path = inspect.getsourcefile(cls) or ""
    except (OSError, TypeError):
        return (), 0, ""
    return tuple(lines), first, shorten(path)
