"""Any value as text or JSON that cannot break its line: control characters escaped, and nothing that raises."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from kernel.errors import encodable, text_of

DEEP = 20  # levels of a nested value that are told
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""*text* with its control characters as in Python's source, so that it forges no line; ``\n`` and ``\t`` stay."""
    if text.isascii() and text.isprintable():  # as most are
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def message_of(record: logging.LogRecord) -> str:
    """The message of *record*; where its arguments do not fit, the message as it was given, and they."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (whoever logs must not suffer for it, and the record must not be lost)
        return f"{text_of(record.msg)} {text_of(record.args, repr)}"


def json_encoder() -> Callable[[Mapping[str, Any]], str]:
    """A function that gives an object as one line of JSON, whatever is in it."""
    import json  # only where somebody asks for JSON

    encode = json.JSONEncoder(default=text_of, ensure_ascii=False, allow_nan=False).encode

    def encoded(fields: Mapping[str, Any]) -> str:
        try:
            text = encode(fields)
            if text.isascii():
                return text
            text.encode()
        except Exception:  # noqa: BLE001  (values of the user's may do anything)
            text = encode(jsonable(fields))
        # Not all readers agree on what ends a line; a terminal obeys some of these.
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    return encoded


def jsonable(value: object, around: tuple[int, ...] = ()) -> Any:  # noqa: PLR0911  (one for each kind of value)
    """*value* as strict JSON can say it: keys as text; NaN, infinity and what JSON has no word for as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int):
        return int(value) if abs(value) < _LONG else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value)).replace("inf", "Infinity")
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return text_of(value)
    if id(value) in around or len(around) > DEEP:
        return "..."
    around = (*around, id(value))
    try:
        if isinstance(value, Mapping):
            return {encodable(text_of(key)): jsonable(inner, around) for key, inner in value.items()}
        return [jsonable(inner, around) for inner in value]
    except Exception:  # noqa: BLE001  (a mapping of the user's own)
        return text_of(value)


_LONG = 10**1000  # Python refuses to write longer numbers as text
