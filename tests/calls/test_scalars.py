"""How each plain type is written, exactly, and what is not read as one."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kernel.calls.codec import Shapes, read, write
from kernel.calls.shape import Misfit

HOUR = dt.timezone(dt.timedelta(hours=-1))
ID = uuid.UUID(int=0xABC)

WRITTEN: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    (1 << 12_899, str(1 << 12_899)),
    (-((1 << 12_900) - 1), str(-((1 << 12_900) - 1))),
    ('ä"', '"ä\\""'),
    (0.5, "0.5"),
    (math.inf, '"Infinity"'),
    (-math.inf, '"-Infinity"'),
    (b"\x00\xff\xfe", '"AP/+"'),
    (b"", '""'),
    (dt.timedelta(days=1, seconds=2), '"86402s"'),
    (dt.timedelta(microseconds=1_500_000), '"1.5s"'),
    (dt.timedelta(microseconds=-1), '"-0.000001s"'),
    (dt.timedelta(microseconds=1_000_010), '"1.00001s"'),
    (dt.timedelta(), '"0s"'),
    (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), '"2026-01-02T03:04:05+00:00"'),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=HOUR), '"2026-01-02T03:04:05.000006-01:00"'),
    (dt.date(2026, 1, 2), '"2026-01-02"'),
    (dt.time(3, 4, 5), '"03:04:05"'),
    (Decimal("1.50"), '"1.50"'),
    (Decimal("-Infinity"), '"-Infinity"'),
    (ID, '"00000000-0000-0000-0000-000000000abc"'),
    (Path("a/b"), '"a/b"'),
]


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=range(len(WRITTEN)))
def test_how_a_value_is_written(value: Any, text: str) -> None:
    """As the documentation says, for clients in other languages; and it is read as the same value."""
    shape = Shapes().of(type(value) if not isinstance(value, Path) else Path)
    assert write(shape.encode, value) == text.encode()
    back = read(shape.decode, text.encode())
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize(
    ("tp", "data", "value"),
    [
        (float, 3, 3.0),
        (float, "Infinity", math.inf),
        (dt.datetime, "2026-01-02 03:04", dt.datetime(2026, 1, 2, 3, 4)),  # noqa: DTZ001
        (dt.datetime, "2026-01-02T03:04:05Z", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        (dt.time, "03:04", dt.time(3, 4)),
        (dt.timedelta, "-1.5s", dt.timedelta(seconds=-1.5)),
        (Decimal, "1E+3", Decimal(1000)),
        (Decimal, ".5", Decimal("0.5")),
        (uuid.UUID, str(ID).upper(), ID),
    ],
    ids=range(9),
)
def test_what_else_is_read(tp: Any, data: Any, value: Any) -> None:
    """As other languages write it."""
    assert Shapes().of(tp).decode(data) == value


@pytest.mark.parametrize(
    ("tp", "data"),
    [
        (bytes, "AAAA="),
        (bytes, "AA="),
        (bytes, "A"),
        (bytes, "AA-_"),
        (bytes, "AAAA\n"),
        (dt.datetime, "2026-01-02"),
        (dt.datetime, "2026-13-02T03:04:05"),
        (dt.datetime, "20260102T030405"),
        (dt.date, "2026-1-2"),
        (dt.date, "2026-02-30"),
        (dt.time, "3:04"),
        (dt.time, "25:04"),
        (dt.timedelta, "5"),
        (dt.timedelta, "1.5.5s"),
        (dt.timedelta, "1.1234567s"),
        (dt.timedelta, "999999999999999s"),
        (Decimal, "1,5"),
        (Decimal, " 1"),
        (Decimal, "\u0661"),
        (Decimal, ""),
        (uuid.UUID, ID.hex),
        (uuid.UUID, f"{{{ID}}}"),
        (float, "nan"),
        (float, "inf"),
        (float, ""),
    ],
    ids=range(25),
)
def test_what_is_not_read(tp: Any, data: str) -> None:
    """One way to write each value is enough; the text itself is not shown, as it may be a secret."""
    with pytest.raises(Misfit) as caught:
        Shapes().of(tp).decode(data)
    assert str(caught.value) == (
        "expected float, got str" if tp is float else f"expected {tp.__name__}, got another text"
    )


@pytest.mark.parametrize("tp", [bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, uuid.UUID, Path])
def test_each_type_is_named_where_it_was_expected(tp: Any) -> None:
    """On both sides."""
    shape = Shapes().of(tp)
    with pytest.raises(Misfit) as caught:
        shape.encode(object())
    assert str(caught.value) == f"expected {tp.__name__}, got object"
    with pytest.raises(Misfit) as caught:
        shape.decode(3)
    assert str(caught.value) == f"expected {'str' if tp is Path else tp.__name__}, got int"


def test_text_with_half_a_character() -> None:
    """Cannot be sent, in a path neither."""
    for tp, value in ((str, "a\ud800"), (Path, Path("a\ud800"))):
        with pytest.raises(Misfit, match="expected str, got one with a lone surrogate, which is no text"):
            Shapes().of(tp).encode(value)
