"""How texts become values by their type, what is refused, and the way back."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import ipaddress
import re
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from kernel import Seconds, Secret
from kernel.config.readers import UnreadableType, reader_of


class Colour(enum.Enum):
    """Something to choose from; the name of one is the value of another."""

    RED = "red"
    BLUE = "RED"


class Level(enum.IntEnum):
    """Whole numbers with names."""

    LOW = 1
    HIGH = 20


class Size(int, enum.Enum):
    """The same as people wrote it before there was `IntEnum`."""

    SMALL = 1
    LARGE = 2


class Mode(enum.StrEnum):
    """Texts with names."""

    FAST = "fast"
    SAFE = "safe"


class Rate(enum.Enum):
    """Values that can be written in more than one way."""

    HALF = 0.5
    FULL = 1.0


class Odd(enum.Enum):
    """Values that no text stands for, so that only names are left."""

    PAIR = (1, 2)
    NOTHING = None


class Mixed(enum.Enum):
    """Values of several types, the first of one that no text becomes."""

    NONE = 1j
    WHOLE = 3
    MORE = 1.5


class Loose(enum.Enum):
    """One that says itself what it takes."""

    ON = "on"

    @classmethod
    def _missing_(cls, value: object) -> Loose | None:
        return cls.ON if str(value).lower() == "on" else None


class Right(enum.Flag):
    """Several at once."""

    READ = 1
    WRITE = 2
    RUN = 4


class Loud(enum.IntFlag):
    """One that Python itself lets have any number."""

    HIGH = 1
    LOW = 2


@attrs.frozen
class Inner:
    """A class with fields."""

    x: int = 0


@dataclasses.dataclass
class Data:
    """One that is not attrs's."""

    x: int = 0


class Pair(NamedTuple):
    """One that is a tuple."""

    x: int


class Typed(TypedDict):
    """One that is a dict."""

    x: int


Token = NewType("Token", Secret[str])
Port = NewType("Port", int)
T = TypeVar("T")
Name = TypeAliasType("Name", str)  # as `type Name = str`
Many = TypeAliasType("Many", list[T], type_params=(T,))
Named = TypeAliasType("Named", dict[str, T], type_params=(T,))


@pytest.mark.parametrize(
    ("text", "tp", "value"),
    [
        ("7", int, 7),
        ("7.5", float, 7.5),
        ("7", str, "7"),
        (" a ", str, " a "),
        ("off", bool, False),
        ("a/b", Path, Path("a/b")),
        ("1m", Seconds, 60.0),
        ("1m", timedelta, timedelta(minutes=1)),
        ("1h", timedelta, timedelta(hours=1)),
        ("1d", timedelta, timedelta(days=1)),
        ("0.25", Decimal, Decimal("0.25")),
        ("2026-11-25T10:30:00Z", datetime, datetime(2026, 11, 25, 10, 30, tzinfo=UTC)),
        ("2026-11-25", date, date(2026, 11, 25)),
        ("10:30", time, time(10, 30)),
        ("{12345678-1234-5678-1234-567812345678}", uuid.UUID, uuid.UUID("12345678-1234-5678-1234-567812345678")),
        ("aGV\nsbG8=\n", bytes, b"hello"),
        ("10.0.0.1", ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
        ("::1", ipaddress.IPv6Address, ipaddress.IPv6Address("::1")),
        ("::1", ipaddress.IPv4Address | ipaddress.IPv6Address, ipaddress.IPv6Address("::1")),
        ("10.0.0.0/8", ipaddress.IPv4Network, ipaddress.IPv4Network("10.0.0.0/8")),
        # -- choices
        ("red", Colour, Colour.RED),
        ("RED", Colour, Colour.BLUE),  # the value of the one wins over the name of the other
        ("BLUE", Colour, Colour.BLUE),
        ("20", Level, Level.HIGH),
        ("HIGH", Level, Level.HIGH),
        ("2", Size, Size.LARGE),
        ("SMALL", Size, Size.SMALL),
        ("fast", Mode, Mode.FAST),
        ("0.50", Rate, Rate.HALF),
        ("1", Rate, Rate.FULL),
        ("PAIR", Odd, Odd.PAIR),
        ("NOTHING", Odd, Odd.NOTHING),
        ("ON", Loose, Loose.ON),
        ("On", Loose, Loose.ON),
        ("READ|RUN", Right, Right.READ | Right.RUN),
        ("3", Right, Right.READ | Right.WRITE),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("yes", Literal["a", True], True),
        ("RED", Literal[Colour.BLUE], Colour.BLUE),
        # -- several
        ("1,2", list[int], [1, 2]),
        ("1,2", tuple[int, ...], (1, 2)),
        ("1,x", tuple[int, str], (1, "x")),
        ("a,a", set[str], {"a"}),
        ("a,a", frozenset[str], frozenset({"a"})),
        ("ab,c", Sequence[str], ("ab", "c")),
        ("ab,c", typing.Sequence[str], ("ab", "c")),
        ("ab,c", Sequence[str] | None, ("ab", "c")),
        ("ab,c", list, ["ab", "c"]),
        ("ab,c", typing.List, ["ab", "c"]),  # noqa: UP006
        ("ab,c", tuple, ("ab", "c")),
        ("ab,ab", set, {"ab"}),
        ("ab,ab", frozenset, frozenset({"ab"})),
        ("ab,c", Sequence, ("ab", "c")),
        (",", list[str], []),
        ("1s,2s", list[Seconds], [1.0, 2.0]),
        ("red,RED", list[Colour], [Colour.RED, Colour.BLUE]),
        ("a=1, b = 2", dict[str, int], {"a": 1, "b": 2}),
        ("a=b=c,d=", dict[str, str], {"a": "b=c", "d": ""}),
        # -- unions: what takes any text comes last, in whatever order they are written
        ("7", int | None, 7),
        ("x", int | str, "x"),
        ("7", str | int, 7),
        ("true", int | bool, True),
        ("1", bool | int, 1),
        ("1.0", int | float, 1.0),
        ("1", bool | float, 1.0),
        ("1", bool | Decimal, Decimal(1)),
        ("1", Decimal | float, 1.0),
        ("10", timedelta | time, time(10)),
        ("a,b", str | list[str], ["a", "b"]),
        ("a", str | list[str], "a"),
        ("2026-11-25", datetime | date, date(2026, 11, 25)),
        ("5", list[int] | None, [5]),
        # -- one of several that the text means, after others that it cannot be
        ("1.50", Mixed, Mixed.MORE),
        ("2.50", Literal[3, True, "x", 2.5], 2.5),
        ("ON", Literal[3, "x", True], True),
        # -- other names for a type
        ("7", Port, 7),
        ("7", Port | None, 7),
        ("7", Final[int], 7),
        ("7", Annotated[int, "how many"], 7),
        ("1m", Annotated[Seconds, "how long"], 60.0),
        ("x", Token, Secret("x")),
        ("1,2", Secret[list[int]], Secret([1, 2])),
        ("x", Name, "x"),
        ("x", Name | None, "x"),
        ("1,2", Many[int], [1, 2]),
        ("a=1", Named[int], {"a": 1}),
    ],
    ids=str,
)
def test_what_is_read(text: str, tp: Any, value: object) -> None:
    """A text becomes a value of the type that was asked for."""
    got = reader_of(tp).read(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "tp"),
    [
        ("x", int),
        ("1.5", int),
        ("x", float),
        ("nan", float),
        ("maybe", bool),
        ("x", Seconds),
        ("x", timedelta),
        ("-1s", timedelta),
        ("1e99", timedelta),
        ("x", Decimal),
        ("sNaN", Decimal),
        ("today", date),
        ("2026-02-30", datetime),
        ("25:00", time),
        ("x", uuid.UUID),
        ("a", bytes),
        ("YWJj!", bytes),
        ("!YWJj", bytes),
        ("YW_j", bytes),
        ("YW=Jj", bytes),
        ("é", bytes),
        ("10.0.0.256", ipaddress.IPv4Address),
        ("10.0.0.1/8", ipaddress.IPv4Network),
        ("green", Colour),
        ("3", Level),
        ("1,2", Odd),
        ("8", Right),
        ("8", Loud),
        ("READ|NOTHING", Right),
        ("c", Literal["a", "b"]),
        ("1,x", list[int]),
        ("1", tuple[int, str]),
        ("1,2,3", tuple[int, str]),
        ("a", dict[str, int]),
        ("a=x", dict[str, int]),
        ("a=1,a=2", dict[str, int]),
        ("=1", dict[str, int]),
        ("x", int | None),
        ("x", int | list[int]),
        ("x", Secret[int]),
    ],
    ids=str,
)
def test_what_cannot_be_read(text: str, tp: Any) -> None:
    """A text that does not fit is refused."""
    with pytest.raises(Exception):  # noqa: B017, PT011  (what it is varies, and is never shown)
        reader_of(tp).read(text)


@pytest.mark.parametrize(
    ("tp", "instead"),
    [
        (collections.deque[str], "write list[str]"),
        (collections.deque[int] | None, "write list[int]"),
        (Iterable[Path], "write list[Path]"),
        (collections.abc.Set[int], "write frozenset[int]"),
        (dict, "write dict[str, str]"),
        (Mapping[str, int], "write dict[str, int]"),
        (collections.OrderedDict[str, float], "write dict[str, float]"),
        (dict[int, str], "write dict[str, str]"),
        (list[list[int]], "lists cannot be nested"),
        (dict[str, list[int]], "lists cannot be nested"),
        (list[Inner], "an attrs class can be a field of its own"),
        (Inner | int, "an attrs class can be a field of its own"),
        (Secret[Inner], "make its secret fields Secret"),
        (Data, "Data is a dataclass: make it an attrs class"),
        (list[Data], "Data is a dataclass: make it an attrs class"),
        (Pair, "Pair is a named tuple: make it an attrs class"),
        (Typed, "Typed is a TypedDict: make it an attrs class"),
        (Callable[[], int], "attrs.field(init=False)"),
        (Any, "annotate the field with a specific type"),
        (object, "annotate the field with a specific type"),
        (None, "annotate the field with a specific type"),
        (T, "such as Config[int]"),
        (complex, "write st"),
        (type, "write st"),
        (enum.Enum, "write st"),
        (int | complex, "write st"),
        (Secret[complex], "write st"),
    ],
    ids=str,
)
def test_what_no_text_can_become(tp: Any, instead: str) -> None:
    """It is refused before there is a text, with what to write instead."""
    with pytest.raises(UnreadableType, match=re.escape(instead)):
        reader_of(tp)


@pytest.mark.parametrize(
    ("tp", "words"),
    [
        (int, "a whole number"),
        (bool, "true/false, 1/0, yes/no or on/off"),
        (Seconds, "a duration such as 10s, 1m30s, 500ms or a number of seconds"),
        (timedelta, "a duration such as 10s, 1m30s, 500ms or a number of seconds"),
        (Secret[int], "a whole number"),
        (Literal["a", 1], "one of a, 1"),
        (Colour, "one of red, RED"),
        (Level, "one of 1, 20"),
        (Odd, "one of PAIR, NOTHING"),
        (Right, "any of READ, WRITE, RUN, with | between"),
        (int | None, "a whole number"),
        (int | str, "a whole number or a text"),
        (list[int], "a comma-separated list, each part a whole number"),
        (tuple[Path, ...], "a comma-separated list, each part a path"),
        (tuple[int, str], "2 parts with commas between: a whole number, a text"),
        (dict[str, int], "name=value pairs with commas between, each value a whole number"),
        (bytes, "base64"),
    ],
    ids=str,
)
def test_expected(tp: Any, words: str) -> None:
    """What was expected is told in words."""
    assert reader_of(tp).words == words


@pytest.mark.parametrize(
    ("tp", "shown"),
    [
        (int | str, "int | str"),
        (str | None, "str | None"),
        (None | int | str, "int | str | None"),
        (Secret[str] | None, "Secret[str] | None"),
        (Secret[int | None], "Secret[int | None]"),
        (Secret[int | bool], "Secret[int | bool]"),
        (list[int] | None, "list[int] | None"),
        (Literal["a", 1], "a | 1"),
        (Colour | None, "red | RED | None"),
        (Right, "READ | WRITE | RUN"),
        (dict[str, int | float], "dict[str, int | float]"),
    ],
    ids=str,
)
def test_the_type_for_people(tp: Any, shown: str) -> None:
    """The members of a union in their order; None last, and only where it is allowed."""
    assert reader_of(tp).type == shown


@pytest.mark.parametrize(
    "tp",
    [
        Secret[str],
        Secret,
        Secret[str] | None,
        list[Secret[str]],
        tuple[int, Secret[int]],
        Token,
        Token | None,
        list[Token],
    ],
    ids=str,
)
def test_secret_types(tp: Any) -> None:
    """A type that holds a secret anywhere is one, by whatever name."""
    assert reader_of(tp).secret
    assert not reader_of(list[str]).secret


# -- for each type -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
WORD = TEXT.map(str.strip).filter(lambda text: text and "," not in text)  # what may be a part of a list
KEY = WORD.filter(lambda text: "=" not in text)
ZONED = st.datetimes(timezones=st.sampled_from([None, UTC]))
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, TEXT),
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (Path, TEXT.map(Path)),
    (Seconds, st.floats(0, 1e300, allow_subnormal=False)),
    (timedelta, st.timedeltas(min_value=timedelta(0))),
    (Decimal, st.decimals(allow_nan=False)),
    (datetime, ZONED),
    (date, st.dates()),
    (time, st.times()),
    (uuid.UUID, st.uuids()),
    (bytes, st.binary(min_size=1)),
    (ipaddress.IPv4Address, st.ip_addresses(v=4)),
    (ipaddress.IPv6Address, st.ip_addresses(v=6)),
    (ipaddress.IPv4Address | ipaddress.IPv6Address, st.ip_addresses()),
    *((cls, st.sampled_from(cls)) for cls in (Colour, Level, Size, Mode, Rate, Odd, Loose, Right)),
    (Literal["a", "b", 3, True], st.sampled_from(["a", "b", 3, True])),
    (list[int], st.lists(st.integers())),
    (list[str], st.lists(WORD)),
    (Sequence[str], st.lists(WORD).map(tuple)),
    (list, st.lists(WORD)),
    (tuple[float, ...], st.lists(st.floats(allow_nan=False)).map(tuple)),
    (tuple[int, str], st.tuples(st.integers(), WORD)),
    (set[date], st.sets(st.dates())),
    (frozenset[Colour], st.frozensets(st.sampled_from(Colour))),
    (dict[str, int], st.dictionaries(KEY, st.integers())),
    (dict[str, str], st.dictionaries(KEY, WORD)),
    (int | None, st.integers()),
    (int | float | bool, st.integers() | st.floats(allow_nan=False) | st.booleans()),
    (date | time | int, st.dates() | st.times(timezones=st.none()).filter(lambda one: one.second) | st.integers(-9, 9)),
    (Port, st.integers()),
    (Secret[str], TEXT.map(Secret)),
    (Token | None, TEXT.map(Secret)),
    (Secret[list[int]], st.lists(st.integers()).map(Secret)),
]


@pytest.mark.parametrize(("tp", "values"), VALUES, ids=[str(tp) for tp, _ in VALUES])
@given(data=st.data())
def test_a_value_that_is_written_comes_back(tp: Any, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    """For each type that is supported: as text and back, it is equal and of its own type."""
    value = data.draw(values)
    reader = reader_of(tp)
    again = reader.read(reader.written(value))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (str, ""),
        (str, "a\0b"),
        (list[str], ["a,b"]),
        (list[str], [" a"]),
        (list[str], [""]),
        (dict[str, str], {"a=b": "c"}),
        (dict[str, str], {"a": "b,c"}),
        (timedelta, timedelta(-1)),
        (Seconds, float("inf")),
        (int | None, None),
        (int, "x"),
        (Colour, "red"),
    ],
    ids=str,
)
def test_what_cannot_be_written(tp: Any, value: object) -> None:
    """Where no text would come back as the value, there is none."""
    with pytest.raises(ValueError, match="no text represents this"):
        reader_of(tp).written(value)
