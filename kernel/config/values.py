"""Convert texts of environment variables to typed values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, NoReturn, Self, TypeVar

import attrs

from kernel.errors import text_of
from kernel.masking import MASK, add


def variable(service: str, field: str) -> str:
    """Return the variable for a *field* of a service's config, such as ``EXAMPLE_DATABASE_PATH``."""
    return f"{service}_{field}".replace("-", "_").upper()


T = TypeVar("T")

SECONDS = "a duration"  # marks a float as a duration
Seconds = Annotated[float, SECONDS]
"""A config field of this type is a float in seconds, written ``10s``, ``1m30s``, ``500ms`` or as a plain number."""


class Secret(Generic[T]):
    """A value that is masked wherever it is shown: ``token: Secret[str]``. Only `reveal` returns it.

    Copying returns the same object. Tools that walk through objects (`attrs.asdict`, a debugger) do not find the value,
    and pickling is refused. A secret can be compared with another `Secret`.
    """

    __slots__ = ("_give",)
    _give: Callable[[], T]

    def __init__(self, value: T) -> None:
        object.__setattr__(self, "_give", lambda: value)  # a closure does not show its value

    def reveal(self) -> T:
        """Return the value itself."""
        return self._give()

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"a Secret cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Secret cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return self.reveal() == other.reveal() if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))  # the hash of a number would reveal it

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass what `reveal()` returns, and only where that is safe")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be serialized")

    def __format__(self, _: str) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK


DEFAULT_LEAST = 8
"""Minimum length of a default that is masked: shorter ones are words such as "none" rather than secrets."""


def register(value: Any) -> None:
    """Register the secrets in *value*, a config or part of one, so that all output of the kernel masks them.

    Secrets read from a text are registered already; this adds defaults and the results of converters.
    """
    add(*(text for text in secrets_in(value) if len(text) >= DEFAULT_LEAST))


def secrets_in(value: Any, *, secret: bool = False) -> Iterator[str]:
    """Yield the texts of the secrets in *value*, a config or part of one: each whole secret, and each element of it.

    Args:
        value: What to search.
        secret: Whether all of *value* is secret, except the names in a dict.

    """
    if isinstance(value, Secret):
        inner = value.reveal()
        yield text_of(inner)
        yield from secrets_in(inner, secret=True)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from secrets_in(item, secret=secret)
    elif isinstance(value, dict):
        yield from secrets_in([*value])
        yield from secrets_in([*value.values()], secret=secret)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from secrets_in(getattr(value, field.name, None), secret=secret)
    elif secret:
        yield value.decode(errors="surrogateescape") if isinstance(value, bytes) else text_of(value)


# -- plain ones --------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_duration(text: str) -> float:
    """Return the seconds in *text*: ``10s``, ``1m30s``, ``500ms``, or a number of seconds.

    Raises:
        ValueError: *text* is none of these, or is negative.

    """
    compact = text.strip().lower()
    if _DURATION.fullmatch(compact):
        return sum(float(number) * _UNITS[unit] for number, unit in PARTS.findall(compact))
    seconds = float(compact)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def write_seconds(seconds: float) -> str:
    """Return a text that `parse_duration` converts back to *seconds*."""
    text = repr(float(seconds)).removesuffix(".0")
    return f"{text}s" if _DURATION.fullmatch(f"{text}s") else text


def parse_bool(text: str) -> bool:
    """Return the boolean in *text*: true/false, 1/0, yes/no, on/off.

    Raises:
        ValueError: *text* is none of these.

    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(text)


def parse_list(text: str) -> list[str]:
    """Return the comma-separated parts of *text*, stripped and without empty ones."""
    return [part for part in (part.strip() for part in text.split(",")) if part]
