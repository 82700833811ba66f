"""Texts of environment variables as typed values."""

from __future__ import annotations

import re
from typing import Annotated, Generic, TypeVar

import attrs

T = TypeVar("T")

SECONDS = "a duration"  # what makes a float a duration
Seconds = Annotated[float, SECONDS]
"""A config field of this type is a float of seconds, and reads ``10s``, ``1m30s``, ``500ms`` or a number of seconds."""

MASK = "********"


@attrs.frozen(repr=False, str=False)
class Secret(Generic[T]):
    """A value that is masked wherever it is shown: ``token: Secret[str]``. `reveal` gives it."""

    _value: T

    def reveal(self) -> T:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK


# -- plain ones --------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_duration(text: str) -> float:
    """Seconds in *text*: ``10s``, ``1m30s``, ``500ms``, or a number of seconds.

    Raises:
        ValueError: It is none of these, or negative.

    """
    compact = text.strip().lower()
    if _DURATION.fullmatch(compact):
        return sum(float(number) * _UNITS[unit] for number, unit in PARTS.findall(compact))
    seconds = float(compact)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def write_seconds(seconds: float) -> str:
    """A text that `parse_duration` reads as *seconds*."""
    text = repr(float(seconds)).removesuffix(".0")
    return f"{text}s" if _DURATION.fullmatch(f"{text}s") else text


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
