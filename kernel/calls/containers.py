"""Shapes of types made from others: containers, literals, enums and unions."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from kernel.calls.shape import ARRAY, CONTENT, KINDS, OBJECT, TAG, CannotTravel, Convert, Misfit, Shape, misfit, words


def _each(convert: Convert, values: Any) -> list[Any]:
    result: list[Any] = []
    try:
        for value in values:
            result.append(convert(value))  # noqa: PERF401  (how many there are tells where it failed)
    except Misfit as error:
        raise error.within(f"[{len(result)}]") from None
    return result


def sequence_of(cls: type, inner: Shape) -> Shape:
    """Return the shape of a list, set, frozenset or tuple of any length; *inner* is the shape of its items."""
    name = words({cls.__name__: inner.schema})
    unique = cls in {set, frozenset}

    def encode(value: Any) -> list[Any]:
        if type(value) is not cls:
            raise misfit(name, value)
        return _each(inner.encode, value)

    def decode(data: Any) -> Any:
        if type(data) is not list:
            raise misfit(name, data)
        values = _each(inner.decode, data)
        if cls is list:
            return values
        try:
            made = cls(values)
        except TypeError:
            raise Misfit(f"expected {name}, got values that have no hash") from None
        if unique and len(made) != len(values):
            raise Misfit(f"expected {name}, got a value twice")
        return made

    return Shape({cls.__name__: inner.schema}, ARRAY, encode, decode, (cls,))


def tuple_of(members: list[Shape]) -> Shape:
    """Return the shape of a tuple of fixed length."""
    schema = {"tuple": [member.schema for member in members]}
    name = words(schema)
    encodes, decodes = [member.encode for member in members], [member.decode for member in members]

    def convert(converts: list[Convert], values: Any) -> list[Any]:
        if len(values) != len(converts):
            raise Misfit(f"expected {name}, got {len(values)} values")
        result: list[Any] = []
        try:
            for convert, value in zip(converts, values, strict=True):
                result.append(convert(value))
        except Misfit as error:
            raise error.within(f"[{len(result)}]") from None
        return result

    def encode(value: Any) -> list[Any]:
        if type(value) is not tuple:
            raise misfit(name, value)
        return convert(encodes, value)

    def decode(data: Any) -> tuple[Any, ...]:
        if type(data) is not list:
            raise misfit(name, data)
        return tuple(convert(decodes, data))

    return Shape(schema, ARRAY, encode, decode, (tuple,))


def dict_of(key: Shape, value: Shape) -> Shape:
    """Return the shape of a dict: an object if all keys are strings, else a list of pairs."""
    schema = {"dict": [key.schema, value.schema]}
    name = words(schema)
    by_text = key.kinds == {"string"}

    def encode(given: Any) -> Any:
        if type(given) is not dict:
            raise misfit(name, given)
        found = _pairs(key.encode, value.encode, given.items())
        return dict(found) if by_text else found

    def decode(data: Any) -> dict[Any, Any]:
        found = _pairs(key.decode, value.decode, _items(name, data, by_text=by_text))
        try:
            made = {key: value for key, value in found}  # noqa: C416  (pairs are lists)
        except TypeError:
            raise Misfit(f"expected {name}, got keys that have no hash") from None
        if len(made) != len(found):
            raise Misfit(f"expected {name}, got a key twice")
        return made

    return Shape(schema, OBJECT if by_text else ARRAY, encode, decode, (dict,))


def _items(name: str, data: Any, *, by_text: bool) -> Iterable[Any]:
    """Return the keys and values of a dict in JSON."""
    if type(data) is dict and by_text:
        return data.items()
    if type(data) is not list or by_text:
        raise misfit(name, data)
    if any(type(pair) is not list or len(pair) != 2 for pair in data):  # noqa: PLR2004
        raise Misfit(f"expected {name} as a list of pairs")
    return data


def _pairs(first: Convert, second: Convert, items: Iterable[Any]) -> list[list[Any]]:
    result: list[list[Any]] = []
    for key, value in items:
        try:
            result.append([first(key), second(value)])
        except Misfit as error:
            raise error.within(f"[{key!r:.40}]") from None
    return result


# -- one of several ----------------------------------------------------------------------------------------------


def _choice(schema: Any, values: list[Any], results: list[Any], types: tuple[type, ...]) -> Shape:
    """Return the shape of a choice: each of *values* in JSON stands for the result at the same position."""
    expected = f"one of {', '.join(map(repr, values))}"
    read = {(type(value), value): result for value, result in zip(values, results, strict=True)}
    written = {(type(result), result): value for value, result in zip(values, results, strict=True)}

    def convert(table: dict[Any, Any], value: Any) -> Any:
        try:
            return table[type(value), value]
        except (KeyError, TypeError):
            raise Misfit(f"expected {expected}, got {_shown(value)}") from None

    return Shape(
        schema,
        frozenset(KINDS[type(value)] for value in values),
        lambda value: convert(written, value),
        lambda data: convert(read, data),
        types,
    )


def _shown(value: object) -> str:
    return type(value).__name__ if type(value) not in {str, int, bool} else f"another {type(value).__name__}"


def literal_of(values: tuple[Any, ...]) -> Shape:
    """Return the shape of a literal.

    Raises:
        CannotTravel: One of its values has a type that JSON cannot express.

    """
    for value in values:
        if type(value) not in {str, int, bool, type(None)}:
            raise CannotTravel(f"Literal[{value!r}] cannot be sent; use str, int, bool and None in it")
    every = tuple(dict.fromkeys(type(value) for value in values))
    return _choice({"literal": list(values)}, list(values), list(values), every)


def enum_of(cls: type[enum.Enum]) -> Shape:
    """Return the shape of an enum: by value if all values are strings or numbers, else by name."""
    members = list(cls)
    if issubclass(cls, enum.Flag):
        return _flags(cls)
    plain = {type(member.value) for member in members} <= {str, int}
    values = [member.value if plain else member.name for member in members]
    return _choice({"enum": cls.__name__, "values": values}, values, members, (cls,))


def _flags(cls: type[enum.Flag]) -> Shape:
    def encode(value: Any) -> int:
        if type(value) is not cls:
            raise misfit(cls.__name__, value)
        return int(value.value)

    def decode(data: Any) -> Any:
        if type(data) is not int:
            raise misfit(cls.__name__, data)
        try:
            made = cls(data)
        except ValueError:
            made = None
        if type(made) is not cls:
            raise Misfit(f"expected {cls.__name__}, got another int")
        return made

    values = {member.name: member.value for member in cls}
    return Shape({"enum": cls.__name__, "flags": values}, frozenset({"int"}), encode, decode, (cls,))


def union_of(members: list[Shape]) -> Shape:
    """Return the shape of a union: records carry a tag, and so do members that look alike in JSON.

    Raises:
        CannotTravel: Two members have values of the same class.

    """
    union = _Union(members)
    kinds = frozenset(union.by_kind) | (OBJECT if union.by_tag else frozenset())
    return Shape(union.schema, kinds, union.encode, union.decode, tuple(union.by_type))


class _Union:
    """Choose the member for a value: by its class, by its tag in JSON, or by its kind of JSON."""

    def __init__(self, members: list[Shape]) -> None:
        tagged = _tagged(members)
        self.by_type: dict[type, Convert] = {}
        self.by_tag: dict[str, Shape] = {}
        self.by_kind: dict[str, Convert] = {}
        described: list[Any] = []
        for member in members:
            encode = member.encode
            if member in tagged:
                tag = words(member.schema)
                self.by_tag[tag] = member
                described.append({TAG: tag, "of": member.schema})
                encode = _tagging(tag, member)
            else:
                described.append(member.schema)
                self.by_kind |= dict.fromkeys(member.kinds, member.decode)
            for cls in member.types:
                if cls in self.by_type:
                    raise CannotTravel(f"two members of a union are a {cls.__name__}, and cannot be told apart")
                self.by_type[cls] = encode
        if float in self.by_type and int not in self.by_type:  # where int is not a member, an int counts as a float
            self.by_type[int] = self.by_type[float]
            if "float" in self.by_kind:
                self.by_kind["int"] = self.by_kind["float"]
        self.schema = {"union": described}
        self._expected = words(self.schema)

    def encode(self, value: Any) -> Any:
        encode = self.by_type.get(type(value))
        if encode is None:
            raise misfit(self._expected, value)
        return encode(value)

    def decode(self, data: Any) -> Any:
        if type(data) is dict and self.by_tag:
            return self._untag(data)
        decode = self.by_kind.get(KINDS.get(type(data), ""))
        if decode is None:
            raise misfit(self._expected, data)
        return decode(data)

    def _untag(self, data: dict[str, Any]) -> Any:
        tag = data.get(TAG)
        member = self.by_tag.get(tag) if type(tag) is str else None
        if member is None:
            raise Misfit(f"expected {self._expected}, got an object whose {TAG!r} is none of these")
        if is_ref(member):
            return member.decode({key: part for key, part in data.items() if key != TAG})
        if data.keys() != {TAG, CONTENT}:
            raise Misfit(f"expected an object of {TAG!r} and {CONTENT!r}")
        return member.decode(data[CONTENT])


def _tagged(members: list[Shape]) -> list[Shape]:
    """Return the members of a union that carry a tag."""
    if sum(member.schema != "None" for member in members) < 2:  # noqa: PLR2004
        return []
    found = [
        member
        for member in members
        if is_ref(member) or any(member.kinds & other.kinds for other in members if other is not member)
    ]
    # The tag is part of an object, so every other object needs a tag too.
    return [member for member in members if member in found or (found and "object" in member.kinds)]


def is_ref(shape: Shape) -> bool:
    """Return whether the shape belongs to a record."""
    return isinstance(shape.schema, dict) and "ref" in shape.schema


def _tagging(tag: str, member: Shape) -> Convert:
    encode = member.encode
    if is_ref(member):
        return lambda value: {TAG: tag, **encode(value)}
    return lambda value: {TAG: tag, CONTENT: encode(value)}
