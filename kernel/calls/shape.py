"""The shape of a type: how its values are written as JSON, read back, and described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

ARRAY, OBJECT = frozenset({"array"}), frozenset({"object"})
KINDS = {type(None): "null", bool: "bool", int: "int", float: "float", str: "string", list: "array", dict: "object"}
TAG, CONTENT = "$type", "value"

Convert = Callable[[Any], Any]


class Misfit(Exception):
    """Raised for a value that does not fit its type; `path` says where in the value, innermost step first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.path)).removeprefix(".")
        return f"{path}: {self.what}" if path else self.what

    def within(self, step: str) -> Misfit:
        """Add the *step* that leads to the wrong part, as ``.name`` or ``[3]``."""
        self.path.append(step)
        return self


def misfit(expected: str, value: object) -> Misfit:
    """Return the error for *value*; it names only the type, since the value may be a secret."""
    return Misfit(f"expected {expected}, got {'None' if value is None else type(value).__name__}")


class CannotTravel(Exception):
    """Raised for a type whose values cannot be sent; the message says which, and what to write instead."""


@attrs.frozen(eq=False)
class Shape:
    """How values of one type are encoded and decoded.

    Args:
        schema: The type, readable by people and by programs.
        kinds: The kinds of JSON that its values can become: null, bool, int, float, string, array, object.
        encode: Returns the JSON for a value.
        decode: Returns the value for JSON.
        types: The classes of its values, by which a union selects its member.

    Both raise `Misfit`.
    """

    schema: Any
    kinds: frozenset[str]
    encode: Convert
    decode: Convert
    types: tuple[type, ...]


def words(schema: Any) -> str:  # noqa: PLR0911
    """Return a schema as it would be written in Python."""
    if isinstance(schema, str):
        return schema
    (kind, inner), *_ = schema.items()
    match kind:
        case "ref" | "enum":
            return str(inner)
        case "literal":
            return f"Literal[{', '.join(map(repr, inner))}]"
        case "union":
            return " | ".join(words(one["of"] if isinstance(one, dict) and TAG in one else one) for one in inner)
        case "tuple" if isinstance(inner, list):
            return f"tuple[{', '.join(map(words, inner)) or '()'}]"
        case "tuple":
            return f"tuple[{words(inner)}, ...]"
        case "dict":
            return f"dict[{words(inner[0])}, {words(inner[1])}]"
    return f"{kind}[{words(inner)}]"
