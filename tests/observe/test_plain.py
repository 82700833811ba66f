"""Any value as text or JSON on one line."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kernel.observe.plain import escaped, json_encoder, jsonable, message_of


class Odd:
    """Says only what it is."""

    def __repr__(self) -> str:
        return "odd"


class Torn(Mapping[str, int]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1

    def __str__(self) -> str:
        return "torn"


class Number(int):
    """An int with a text of its own, as those of an enumeration."""

    def __str__(self) -> str:
        return "a number"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 漢", "größe 漢"),
        ("a\n\tb", "a\n\tb"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("del\x7f, ü\x85", r"del\x7f, ü\x85"),
        ("lines\r\u2028\u2029", r"lines\r\u2028\u2029"),
        ("\u202eback\u2069", r"\u202eback\u2069"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    """Only line ends and tabs stay, and all that is printed; in JSON nothing at all acts."""
    assert escaped(text) == shown
    line = json_encoder()({"text": text})
    assert line.isprintable()
    assert json.loads(line) == {"text": text.replace("\udc80", "\\udc80")}
    assert ("ü" in line, "漢" in line) == ("ü" in text, "漢" in text)


VALUES: list[tuple[object, Any]] = [
    (None, None),
    (True, True),
    ("text", "text"),
    (-3, -3),
    (10**1000 - 1, 10**1000 - 1),
    (10**1000, hex(10**1000)),  # Python refuses to convert much longer ones to decimal text
    (-(10**5000), hex(-(10**5000))),
    (Number(7), 7),
    (0.5, 0.5),
    (math.nan, "nan"),
    (math.inf, "Infinity"),
    (-math.inf, "-Infinity"),
    (b"raw", "b'raw'"),
    (range(2), "range(0, 2)"),
    (Odd(), "odd"),
    (Torn(), "torn"),
    ([1, ("a", Odd())], [1, ["a", "odd"]]),
    (frozenset({1}), [1]),
    ({1: {None: "x", "\udc80": math.nan}}, {"1": {"None": "x", "\\udc80": "nan"}}),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=map(str, range(len(VALUES))))
def test_any_value_is_strict_json(value: object, shown: Any) -> None:
    """What JSON does not know is text; an encoder makes the same of it inside a record."""
    assert jsonable(value) == shown
    assert type(jsonable(value)) is type(shown)
    line = json_encoder()({"value": value, "also": math.nan})
    assert json.loads(line, parse_constant=pytest.fail) == {"value": shown, "also": "nan"}


def test_what_contains_itself_or_is_deep_ends() -> None:
    """A value may occur twice; one in itself, and what is nested more than twenty-one times, is left out."""
    ring: list[Any] = [[1], "x"]
    ring += [ring[0], ring]
    assert jsonable(ring) == [[1], "x", [1], "..."]
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    assert json.dumps(jsonable(deep)) == "[" * 21 + '"..."' + "]" * 21
    assert json.loads(json_encoder()({"ring": ring}))["ring"] == [[1], "x", [1], "..."]


def test_a_message_whose_arguments_do_not_fit() -> None:
    """It is kept with them; one that fits is as ever."""
    assert message_of(logging.LogRecord("x", logging.INFO, "f", 1, "%d of %s", (1, "a"), None)) == "1 of a"
    assert message_of(logging.LogRecord("x", logging.INFO, "f", 1, "%d", ("no number",), None)) == "%d ('no number',)"
