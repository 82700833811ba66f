"""Show any value as text or JSON on one line: control characters are escaped, and nothing raises."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from kernel.errors import encodable, text_of

DEEP = 20  # maximum depth of a nested value
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Return *text* with control characters escaped as in Python, except ``\n`` and ``\t``: it cannot forge lines."""
    if text.isprintable():  # the usual case
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def message_of(record: logging.LogRecord) -> str:
    """Return the message of *record*. If its arguments do not fit, return the unformatted message and the arguments."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (logging must not fail for the caller, and the record must not be lost)
        return f"{text_of(record.msg)} {text_of(record.args, repr)}"


def json_encoder() -> Callable[[Mapping[str, Any]], str]:
    """Return a function that writes any object as one line of JSON."""
    import json  # only if JSON is needed

    encode = json.JSONEncoder(default=text_of, ensure_ascii=False, allow_nan=False).encode

    def encoded(fields: Mapping[str, Any]) -> str:
        try:
            text = encode(fields)
            if text.isprintable():  # the usual case
                return text
            text.encode()
        except Exception:  # noqa: BLE001  (the user's values may raise anything)
            text = encode(jsonable(fields))
        # Readers disagree on what ends a line, and terminals act on some of these characters.
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    return encoded


def jsonable(value: object, around: tuple[int, ...] = ()) -> Any:  # noqa: PLR0911  (one for each kind of value)
    """Return *value* as strict JSON: keys as text; NaN, infinity and values unknown to JSON as text."""
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
    except Exception:  # noqa: BLE001  (the user's mapping class may raise)
        return text_of(value)


_LONG = 10**1000  # Python refuses to convert longer numbers to text
