"""The plain types that can travel, and how each is written as JSON: exactly, without coercion.

A value is checked by the same rules when it is sent and when it arrives, so both sides refuse the same values with the
same message.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import uuid
from base64 import b64decode, b64encode
from pathlib import Path
from types import NoneType
from typing import Any

from kernel.calls.shape import Convert, Misfit, Shape, misfit


def _exactly(name: str, tp: type) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not tp:
            raise misfit(name, value)
        return value

    return convert


def text(value: Any) -> str:
    """Return *value* if it is a str that can be encoded as UTF-8."""
    if type(value) is not str:
        raise misfit("str", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Misfit("expected str, got one with a lone surrogate, which is no text") from None
    return value


BITS = 4300 * 3  # Python itself neither writes nor reads much longer numbers


def _int(value: Any) -> int:
    if type(value) is not int:
        raise misfit("int", value)
    if value.bit_length() > BITS:
        raise Misfit(f"expected int, got one of {value.bit_length()} bits; at most {BITS} travel")
    return value


_NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _float(value: Any) -> float:
    """Return *value* as a float: an int is accepted, as by type checkers, unless the conversion would change it."""
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            exact = float(value)
        except OverflowError:
            exact = math.nan
        if exact == value:
            return exact
        raise Misfit("expected float, got an int that no float equals")
    raise misfit("float", value)


def _encode_float(value: Any) -> float | str:
    number = _float(value)
    if math.isfinite(number):
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"  # noqa: PLR0124


def _decode_float(data: Any) -> float:
    if type(data) is str and data in _NAMED:
        return _NAMED[data]
    return _float(data)


def _as_text(name: str, tp: type, write: Convert, read: Convert, pattern: str) -> Shape:
    """Return the shape of a type that travels as text matching *pattern*."""
    form = re.compile(pattern, re.ASCII)

    def encode(value: Any) -> str:
        if type(value) is not tp:
            raise misfit(name, value)
        return text(write(value))

    def decode(data: Any) -> Any:
        if type(data) is not str or not form.fullmatch(data):
            raise misfit(name, data) if type(data) is not str else Misfit(f"expected {name}, got another text")
        try:
            return read(data)
        except (ValueError, ArithmeticError):
            raise Misfit(f"expected {name}, got another text") from None

    return Shape(name, frozenset({"string"}), encode, decode, (tp,))


_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?"
_MICROSECOND = dt.timedelta(microseconds=1)


def _write_duration(value: dt.timedelta) -> str:
    seconds, micros = divmod(abs(value) // _MICROSECOND, 1_000_000)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{'-' if value < dt.timedelta() else ''}{seconds}{fraction}s"


def _read_duration(written: str) -> dt.timedelta:
    whole, _, fraction = written.removeprefix("-").removesuffix("s").partition(".")
    value = dt.timedelta(seconds=int(whole), microseconds=int(fraction.ljust(6, "0")))
    return -value if written.startswith("-") else value


def _write_bytes(value: bytes) -> str:
    return b64encode(value).decode()


def _read_bytes(written: str) -> bytes:
    if len(written) % 4:
        raise ValueError(written)
    return b64decode(written)


_PATH = type(Path())


def _encode_path(value: Any) -> str:
    if type(value) is not _PATH:
        raise misfit("Path", value)
    return text(str(value))


def _plain(name: str, tp: type, kind: str, convert: Convert) -> Shape:
    return Shape(name, frozenset({kind}), convert, convert, (tp,))


SCALARS: dict[Any, Shape] = {
    NoneType: _plain("None", NoneType, "null", _exactly("None", NoneType)),
    bool: _plain("bool", bool, "bool", _exactly("bool", bool)),
    int: _plain("int", int, "int", _int),
    str: _plain("str", str, "string", text),
    # JSON has no NaN or infinity, so they travel as text, as in the JSON of protocol buffers.
    float: Shape("float", frozenset({"float", "string"}), _encode_float, _decode_float, (float,)),
    bytes: _as_text("bytes", bytes, _write_bytes, _read_bytes, r"[A-Za-z0-9+/]*={0,2}"),
    Path: Shape("Path", frozenset({"string"}), _encode_path, lambda data: Path(text(data)), (_PATH,)),
    dt.datetime: _as_text(
        "datetime", dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat, rf"{_DATE}[T ]{_TIME}"
    ),
    dt.date: _as_text("date", dt.date, dt.date.isoformat, dt.date.fromisoformat, _DATE),
    dt.time: _as_text("time", dt.time, dt.time.isoformat, dt.time.fromisoformat, _TIME),
    dt.timedelta: _as_text("timedelta", dt.timedelta, _write_duration, _read_duration, r"-?\d{1,15}(\.\d{1,6})?s"),
    decimal.Decimal: _as_text(
        "Decimal",
        decimal.Decimal,
        str,
        decimal.Decimal,
        r"[+-]?((\d+(\.\d*)?|\.\d+)([Ee][+-]?\d+)?|Infinity|s?NaN\d*)",
    ),
    uuid.UUID: _as_text("UUID", uuid.UUID, str, uuid.UUID, r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
}
"""Each plain type and its shape."""
