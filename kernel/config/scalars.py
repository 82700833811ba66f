"""The types of single values that a variable may have: how to read, write and describe each."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import attrs

from kernel.config.values import PARTS, parse_bool, parse_duration


@attrs.frozen
class Scalar:
    """How to read and write single values of one type.

    Args:
        words: The expected format, to complete "expected ...".
        read: Returns the value of a text; may raise any exception if the text is not valid.
        write: Returns a text from which the value can be read.
        rank: The order in which a union tries this type, lowest first.

    """

    words: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    rank: int = 5


def _number(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader that uses *make* but refuses NaN, which would pass any check since all comparisons are false."""

    def read(text: str) -> Any:
        value = make(text.strip())
        if value != value:  # noqa: PLR0124  (only NaN differs from itself)
            raise ValueError(text)
        return value

    return read


def _timedelta(text: str) -> timedelta:
    """Return the duration in *text*, exact to the microsecond."""
    from decimal import Decimal

    parse_duration(text)
    compact = text.strip().lower()
    pairs = PARTS.findall(compact) if compact[-1] in "smhd" else [(compact, "s")]
    micros = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
    total = sum((Decimal(number) * micros[unit] for number, unit in pairs), Decimal(0))
    return timedelta(microseconds=int(total.to_integral_value()))


def _write_timedelta(value: timedelta) -> str:
    micros = value // timedelta(microseconds=1)
    if micros % 1_000_000 == 0:
        return f"{micros // 1_000_000}s"
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}".rstrip("0") + "s"


def _bytes(text: str) -> bytes:
    from base64 import b64decode

    return b64decode(re.sub(r"\s", "", text), validate=True)


def _write_bytes(value: bytes) -> str:
    from base64 import b64encode

    return b64encode(value).decode()


def _isoformat(value: date | time) -> str:
    return value.isoformat()


SCALARS: dict[type, Scalar] = {
    str: Scalar("a text", str, rank=13),
    int: Scalar("a whole number", int, rank=1),
    float: Scalar("a number", _number(float), repr, rank=2),
    bool: Scalar("true/false, 1/0, yes/no or on/off", parse_bool, lambda value: "true" if value else "false", rank=4),
    Path: Scalar("a path", Path, rank=12),
    date: Scalar("a date such as 2026-11-25", lambda text: date.fromisoformat(text.strip()), _isoformat, rank=6),
    datetime: Scalar(
        "a date and time such as 2026-11-25T10:30:00+00:00",
        lambda text: datetime.fromisoformat(text.strip()),
        _isoformat,
        rank=7,
    ),
    time: Scalar("a time such as 10:30:00", lambda text: time.fromisoformat(text.strip()), _isoformat, rank=7),
    timedelta: Scalar(
        "a duration such as 10s, 1m30s, 500ms or a number of seconds", _timedelta, _write_timedelta, rank=8
    ),
    bytes: Scalar("base64", _bytes, _write_bytes, rank=11),
}
"""Types whose modules cost nothing to import."""

_WORDS = {
    "decimal.Decimal": "a number",
    "uuid.UUID": "a UUID",
    "ipaddress.IPv4Address": "an IPv4 address",
    "ipaddress.IPv6Address": "an IPv6 address",
    "ipaddress.IPv4Network": "an IPv4 network such as 10.0.0.0/8",
    "ipaddress.IPv6Network": "an IPv6 network such as fd00::/8",
    "ipaddress.IPv4Interface": "an IPv4 interface such as 10.0.0.1/8",
    "ipaddress.IPv6Interface": "an IPv6 interface such as fd00::1/8",
}


def by_name(tp: Any) -> Scalar | None:
    """Return the scalar for a type whose module is imported only if used; None if there is none for *tp*."""
    name = f"{getattr(tp, '__module__', '')}.{getattr(tp, '__qualname__', '')}"
    words = _WORDS.get(name)
    if words is None:
        return None
    if name == "decimal.Decimal":
        return Scalar(words, _number(tp), rank=3)
    return Scalar(words, lambda text: tp(text.strip()))
