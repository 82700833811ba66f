"""Texts of environment variables as typed values."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NoReturn,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import attrs

from kernel.masking import MASK, add

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

Seconds = Annotated[float, "a duration"]
"""A config field of this type is a float of seconds, and reads ``10s``, ``1m30s``, ``500ms`` or a number of seconds."""


class Secret(Generic[T]):
    """A value that is masked wherever it is shown: ``token: Secret[str]``. `reveal` gives it, and nothing else does.

    A copy of it is itself, what walks through objects (`attrs.asdict`, a debugger) finds nothing inside, and it refuses
    to be pickled. It can be compared with another `Secret`.
    """

    __slots__ = ("_give",)
    _give: Callable[[], T]

    def __init__(self, value: T) -> None:
        object.__setattr__(self, "_give", lambda: value)  # a function shows nothing of what it holds

    def reveal(self) -> T:
        """The value itself."""
        return self._give()

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"a Secret cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Secret cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return self.reveal() == other.reveal() if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))  # that of a number alone would be the number

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand over what `reveal()` gives, to where it is safe")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret gives its state to nobody")

    def __format__(self, _: str) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK


DEFAULT_LEAST = 8
"""Characters of a default that is looked for: shorter ones are words such as "none", which are no secrets."""


def register(value: Any) -> None:
    """Have the secrets in *value*, a config or a part of one, masked wherever the kernel shows a text.

    Those that were read from a text are known by that already; here come defaults, and what converters have made.
    """
    if isinstance(value, Secret):
        inner = value.reveal()
        text = inner.decode(errors="surrogateescape") if isinstance(inner, bytes) else str(inner)
        if len(text) >= DEFAULT_LEAST:
            add(text)
        register(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            register(one)
    elif isinstance(value, dict):
        register([*value, *value.values()])
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            register(getattr(value, field.name, None))


class UnreadableType(Exception):
    """A field has a type that no text of a variable can become."""


# -- plain ones --------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_duration(text: str) -> float:
    """Seconds in *text*: ``10s``, ``1m30s``, ``500ms``, or a number of seconds.

    Raises:
        ValueError: It is none of these, or negative.

    """
    compact = text.strip().lower()
    if _DURATION.fullmatch(compact):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))
    seconds = float(compact)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def parse_bool(text: str) -> bool:
    """The boolean that *text* spells: true/false, 1/0, yes/no, on/off.

    Raises:
        ValueError: It is none of these.

    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(text)


def parse_list(text: str) -> list[str]:
    """The comma-separated parts of *text*, stripped; empty ones are dropped."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


# -- by type -----------------------------------------------------------------------------------------------------


def _is_sequence(tp: Any) -> bool:
    return get_origin(tp) in {list, tuple, set, frozenset}


def _is_union(tp: Any) -> bool:
    return get_origin(tp) in {Union, UnionType}


def _is_literal(tp: Any) -> bool:
    return get_origin(tp) is Literal


def _is_enum(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, enum.Enum)


def _is_masked(tp: Any) -> bool:
    return get_origin(tp) is Secret


def _is_duration(tp: Any) -> bool:
    return bool(tp == Seconds)


def _is_unreadable(tp: Any) -> bool:
    return attrs.has(tp) or tp is dict or get_origin(tp) is dict


def is_secret(tp: Any) -> bool:
    """Whether a value of type *tp* holds a `Secret`, so that its text must not be shown."""
    below = getattr(tp, "__supertype__", None) or getattr(tp, "__value__", None)  # of a NewType, of a `type` statement
    return _is_masked(tp) or any(is_secret(arg) for arg in get_args(tp)) or (below is not None and is_secret(below))


_WORDS: dict[Any, str] = {
    bool: "true/false, 1/0, yes/no or on/off",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    Seconds: "a duration such as 10s, 1m30s, 500ms or a number of seconds",
    timedelta: "a duration such as 10s, 1m30s, 500ms or a number of seconds",
}


def expected(tp: Any) -> str:
    """What a value of type *tp* may look like, in words."""
    args = get_args(tp)
    if tp in _WORDS:
        words = _WORDS[tp]
    elif _is_masked(tp):
        words = expected(args[0])
    elif _is_literal(tp):
        words = f"one of {', '.join(map(str, args))}"
    elif _is_enum(tp):
        words = f"one of {', '.join(str(member.value) for member in tp)}"
    elif _is_union(tp):
        words = " or ".join(expected(arg) for arg in args if arg is not NoneType)
    elif _is_sequence(tp):
        words = f"a comma-separated list, each part {expected(args[0])}"
    else:
        words = getattr(tp, "__name__", str(tp))
    return words


def structure(text: str, tp: Any) -> Any:
    """*text* as a value of type *tp*.

    Raises:
        UnreadableType: No text can become one.
        Exception: This text cannot; what a converter raises varies.

    """
    return _converter().structure(text, tp)


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter  # imported only where some service has a config

    converter = Converter()
    for predicate, hook in _HOOKS:
        converter.register_structure_hook_func(predicate, hook)
    converter.register_structure_hook(bool, lambda text, _: parse_bool(text))
    converter.register_structure_hook(timedelta, lambda text, _: timedelta(seconds=parse_duration(text)))
    converter.register_structure_hook(Path, lambda text, _: Path(text))
    return converter


def _sequence(text: str, tp: Any) -> Any:
    kind, args, parts = get_origin(tp), get_args(tp), parse_list(text)
    if kind is tuple and args[-1] is not ...:
        if len(parts) != len(args):
            raise ValueError(text)
        return tuple(structure(part, arg) for part, arg in zip(parts, args, strict=True))
    return kind(structure(part, args[0]) for part in parts)


def _union(text: str, tp: Any) -> Any:
    failure: Exception = ValueError(text)
    for arg in get_args(tp):
        if arg is not NoneType:
            try:
                return structure(text, arg)
            except Exception as error:  # noqa: BLE001  (the next member may take it)
                failure = error
    raise failure


def _enumeration(text: str, tp: Any) -> Any:
    for member in tp:
        if text in {str(member.value), member.name}:
            return member
    raise ValueError(text)


def _literal(text: str, tp: Any) -> Any:
    for value in get_args(tp):
        if text == str(value):
            return value
    raise ValueError(text)


def _masked(text: str, tp: Any) -> Any:
    add(text)
    return Secret(structure(text, get_args(tp)[0]))


def _seconds(text: str, _: Any) -> float:
    return parse_duration(text)


def _refuse(_: str, __: Any) -> Any:
    raise UnreadableType


_HOOKS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]], ...] = (
    (_is_unreadable, _refuse),
    (_is_sequence, _sequence),
    (_is_union, _union),
    (_is_literal, _literal),
    (_is_enum, _enumeration),
    (_is_masked, _masked),
    (_is_duration, _seconds),
)
