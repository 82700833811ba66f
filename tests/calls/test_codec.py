"""What travels arrives as it was; everything else is refused, on both sides and with the same words."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.calls.codec import Shapes, read, write
from kernel.calls.shape import CannotTravel, Misfit, Shape

T = TypeVar("T")
UserId = NewType("UserId", int)


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Line:
    start: Point
    points: list[Point] = dataclasses.field(default_factory=list)
    length: float = dataclasses.field(default=0.0, init=False, compare=False)


class Pair(NamedTuple):
    left: str
    right: int = 3


class Options(TypedDict):
    deep: bool
    limit: NotRequired[int]


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Odd(enum.Enum):
    ONE = (1, 2)
    TWO = Path("x")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag, boundary=enum.STRICT):  # not the default of the first releases of Python 3.11
    READ = 1
    WRITE = 2


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


@attrs.frozen
class Page(Generic[T]):
    items: list[T]
    next: int | None = None


@attrs.frozen
class Circle:
    radius: float


@attrs.frozen
class Square:
    side: float


texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False)
points = st.builds(Point, st.integers(), floats)
offsets = st.none() | st.builds(
    dt.timezone, st.integers(-1380, 1380).map(lambda minutes: dt.timedelta(minutes=minutes))
)

TRAVELS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (str, texts),
    (float, floats),
    (bytes, st.binary()),
    (dt.datetime, st.datetimes(timezones=offsets)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (uuid.UUID, st.uuids()),
    (Path, texts.map(Path)),
    (Literal["a", 1, True] | None, st.sampled_from(["a", 1, True, None])),
    (Colour, st.sampled_from(Colour)),
    (Odd, st.sampled_from(Odd)),
    (Level, st.sampled_from(Level)),
    (Rights, st.sampled_from([Rights(0), *Rights, Rights.READ | Rights.WRITE])),
    (UserId, st.integers()),
    (Annotated[int, "of pages"], st.integers()),
    (int | None, st.integers() | st.none()),
    (list[int], st.lists(st.integers())),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (tuple[int, str, bool], st.tuples(st.integers(), texts, st.booleans())),
    (tuple[()], st.just(())),
    (set[str], st.sets(texts)),
    (frozenset[int | str], st.frozensets(st.integers() | texts)),
    (dict[str, int], st.dictionaries(texts, st.integers())),
    (dict[int, list[bytes]], st.dictionaries(st.integers(), st.lists(st.binary()))),
    (dict[uuid.UUID, Decimal], st.dictionaries(st.uuids(), st.decimals(allow_nan=False))),
    (dict[tuple[int, bool], str], st.dictionaries(st.tuples(st.integers(), st.booleans()), texts)),
    (Point, points),
    (Line, st.builds(Line, points, st.lists(points))),
    (Pair, st.builds(Pair, texts, st.integers())),
    (Options, st.fixed_dictionaries({"deep": st.booleans()}, optional={"limit": st.integers()})),
    (Tree, st.recursive(st.builds(Tree, st.integers()), lambda inner: st.builds(Tree, st.integers(), st.lists(inner)))),
    (Page[Point], st.builds(Page, st.lists(points), st.none() | st.integers())),
    (Page[UserId | str], st.builds(Page, st.lists(st.integers() | texts))),
    (Circle | Square, st.builds(Circle, floats) | st.builds(Square, floats)),
    (Circle | Square | None, st.builds(Circle, floats) | st.builds(Square, floats) | st.none()),
    (int | float, st.integers() | floats),
    (float | str, floats | texts),
    (float | None, st.sampled_from([math.inf, -math.inf, 0.5, None])),
    (str | uuid.UUID | dt.datetime, texts | st.uuids() | st.datetimes()),
    (dict[str, int] | Circle | str, st.dictionaries(texts, st.integers()) | st.builds(Circle, floats) | texts),
    (
        list[int] | set[int] | tuple[int, int],
        st.lists(st.integers()) | st.sets(st.integers()) | st.tuples(*[st.integers()] * 2),
    ),
    (Colour | str | None, st.sampled_from(Colour) | texts | st.none()),
    (Level | int, st.sampled_from(Level) | st.integers()),
]
NAMES = [f"{index}-{getattr(tp, '__name__', tp)}" for index, (tp, _) in enumerate(TRAVELS)]


def there_and_back(shape: Shape, value: object) -> Any:
    """What arrives of *value*, by way of bytes."""
    return read(shape.decode, write(shape.encode, value))


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_what_arrives_equals_what_was_sent(index: int) -> None:
    """A value arrives as an equal value of the same class."""
    tp, strategy = TRAVELS[index]
    shape = Shapes().of(tp)

    @settings(max_examples=40, deadline=None)
    @given(strategy)
    def check(value: Any) -> None:
        arrived = there_and_back(shape, value)
        assert arrived == value
        assert type(arrived) is type(value)
        assert repr(arrived) == repr(value) or isinstance(
            value, dict | set | frozenset | dt.datetime | dt.time | Page | Tree
        )

    check()


POOL: list[Any] = [
    *(
        None,
        True,
        0,
        1,
        5,
        -3,
        0.5,
        5.7,
        math.inf,
        "",
        "5",
        "red",
        "x",
        b"",
        b"a",
        [],
        [1],
        ["a"],
        (),
        (1,),
        (1, "a", True),
    ),
    *(set(), {1}, frozenset({"a"}), {}, {"a": 1}, {1: []}, {"deep": True}, {"deep": 1}, {"deep": True, "more": 1}),
    *(
        Decimal("1.5"),
        uuid.UUID(int=5),
        Path("x"),
        dt.date(2026, 1, 1),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.time(1),
        dt.timedelta(1),
    ),
    *(
        Colour.RED,
        Odd.ONE,
        Level.LOW,
        Rights.READ,
        Point(1),
        Line(Point(1)),
        Pair("a"),
        Tree(1),
        Page([1]),
        Circle(1.0),
    ),
    *("\ud800", 1 << 20_000, object(), int, Misfit("x")),
]


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_everything_else_is_refused(index: int) -> None:
    """Each value of another type is refused, or arrives as an equal one: nothing becomes something else."""
    shape = Shapes().of(TRAVELS[index][0])
    for value in POOL:
        try:
            arrived = there_and_back(shape, value)
        except Misfit as error:
            assert str(error)  # noqa: PT017
        else:
            assert arrived == value
            assert type(arrived) is type(value) or (type(arrived), type(value)) == (float, int)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["$type", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("index", range(len(TRAVELS)), ids=NAMES)
def test_no_json_breaks_a_decoder(index: int) -> None:
    """Whatever JSON arrives, it is read as a value of the type, or is a misfit."""
    tp, _ = TRAVELS[index]
    shape = Shapes().of(tp)

    @settings(max_examples=60, deadline=None)
    @given(json_values)
    def check(data: Any) -> None:
        try:
            value = shape.decode(data)
        except Misfit:
            return
        shape.encode(value)

    check()


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000) | st.just(b"1" * 10_000))
def test_no_bytes_break_the_parser(payload: bytes) -> None:
    """What is no JSON is a misfit."""
    try:
        read(Shapes().of(Tree).decode, payload)
    except Misfit as error:
        assert "expected" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("tp", "value", "message"),
    [
        (int, "5", "expected int, got str"),
        (int, True, "expected int, got bool"),
        (int, 5.7, "expected int, got float"),
        (str, "\ud800", "expected str, got one with a lone surrogate, which is no text"),
        (float, (1 << 53) + 1, "expected float, got an int that no float equals"),
        (float, "1.5", "expected float, got str"),
        (bool, 1, "expected bool, got int"),
        (list[Point], [Point(1), None], "[1]: expected Point, got None"),
        (dict[str, tuple[int, str]], {"a": (1, 2)}, "['a'][1]: expected str, got int"),
        (Circle | Square, Point(1), "expected Circle | Square, got Point"),
        (Literal["a", "b"], "c", "expected one of 'a', 'b', got another str"),
        (Literal["a", 1, True], 2, "expected one of 'a', 1, True, got another int"),
        (Literal["a"], False, "expected one of 'a', got another bool"),
        (Literal["a"], 0.5, "expected one of 'a', got float"),
        (Literal["a"], [], "expected one of 'a', got list"),
        (tuple[int, str], (1,), "expected tuple[int, str], got 1 values"),
        (tuple[int, str], (1, 2), "[1]: expected str, got int"),
        (tuple[()], (1,), "expected tuple[()], got 1 values"),
        (list[int], [1, 2, "3"], "[2]: expected int, got str"),
        (Rights, 1, "expected Rights, got int"),
        (int, 1 << 12_900, "expected int, got one of 12901 bits; at most 12900 travel"),
    ],
)
def test_a_misfit_says_where_and_what(tp: Any, value: object, message: str) -> None:
    """The words are for whoever reads them at night."""
    with pytest.raises(Misfit) as caught:
        Shapes().of(tp).encode(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (int, "5"),
        (int, True),
        (int, 5.7),
        (str, "\ud800"),
        (bool, 1),
        (str, None),
        (int | None, "x"),
        (list[int], [1, "x"]),
        (Rights, "READ"),
        (Rights, True),
        (Colour | int, 0.5),
        (int, 1 << 12_900),
        (float, (1 << 53) + 1),
        (float, 1 << 5_000),
        (Literal["a", 1], True),
    ],
)
def test_both_sides_say_the_same(tp: Any, value: Any) -> None:
    """What JSON has a type for is refused with the same words where it leaves and where it arrives."""
    shape = Shapes().of(tp)
    with pytest.raises(Misfit) as leaving:
        shape.encode(value)
    with pytest.raises(Misfit) as arriving:
        shape.decode(value)
    assert str(leaving.value) == str(arriving.value)


@pytest.mark.parametrize(
    ("tp", "data", "message"),
    [
        (Rights, 4, "expected Rights, got another int"),
        (Rights, -8, "expected Rights, got another int"),
        (set[int], [1, 2, 1], "expected set[int], got a value twice"),
        (frozenset[int], {}, "expected frozenset[int], got dict"),
        (dict[int, str], [[1, "a"], [1, "b"]], "expected dict[int, str], got a key twice"),
        (dict[int, str], [[1, "a"], [2]], "expected dict[int, str] as a list of pairs"),
        (dict[int, str], [[1, "a"], [2, "b", "c"]], "expected dict[int, str] as a list of pairs"),
        (dict[int, str], [[1, "a"], None], "expected dict[int, str] as a list of pairs"),
        (dict[int, str], {"1": "a"}, "expected dict[int, str], got dict"),
        (dict[str, int], [["a", 1]], "expected dict[str, int], got list"),
        (dict[int, str], [[1, "a"], [2, 3]], "[2]: expected str, got int"),
        (tuple[int, str], [1, "a", 2], "expected tuple[int, str], got 3 values"),
        (tuple[int, str], "ab", "expected tuple[int, str], got str"),
        (Colour, "blue", "expected one of 'red', 'green', got another str"),
        (dict[str, int] | Circle, {"$type": "Square", "side": 1}, "an object whose '$type' is none of these"),
        (dict[str, int] | Circle, {"$type": 3}, "an object whose '$type' is none of these"),
        (dict[str, int] | Circle, {"$type": "dict[str, int]"}, "expected an object of '$type' and 'value'"),
        (dict[str, int] | Circle, {"$type": "Circle", "radius": "x"}, "radius: expected float, got str"),
        (Circle | Square, {"$type": "Circle", "side": 1.0}, "its field 'radius' is missing"),
        (int | None, "x", "expected int | None, got str"),
        (int | str, {"a": 1}, "expected int | str, got dict"),
    ],
)
def test_json_that_is_no_value_says_what_was_expected(tp: Any, data: Any, message: str) -> None:
    """What another client in another language has written, say."""
    with pytest.raises(Misfit) as caught:
        Shapes().of(tp).decode(data)
    assert message in str(caught.value)


@pytest.mark.parametrize("tp", [float, float | None, float | list[int]])
def test_an_int_of_json_is_a_float_where_a_float_is_expected(tp: Any) -> None:
    """Other languages write 3 for 3.0; beside an int, it is one."""
    value = Shapes().of(tp).decode(3)
    assert (value, type(value)) == (3.0, float)
    value = Shapes().of(int | float).decode(3)
    assert (value, type(value)) == (3, int)


def test_what_is_written_is_json_and_as_it_was_given() -> None:
    """Keys keep their order, nothing is left out, and what is not JSON is an error."""

    def as_it_is(value: Any) -> Any:
        return value

    assert write(as_it_is, {"b": 1, "a": ["ä", None]}) == '{"b":1,"a":["ä",null]}'.encode()
    for value, error in ((math.nan, ValueError), ({(1,): 2}, TypeError), ({"a": object()}, TypeError)):
        with pytest.raises(error):
            write(as_it_is, value)
    with pytest.raises(TypeError, match="object is no JSON"):
        write(as_it_is, [object()])


def test_spaces_around_json_are_ignored() -> None:
    """As other clients may write them; anything else there is an error."""
    shape = Shapes().of(list[int])
    assert read(shape.decode, b" [1] \n") == read(shape.decode, b"[1]") == [1]
    for payload in (b"[1]]", b"[1] x", b"", b" "):
        with pytest.raises(Misfit, match="expected JSON, got something else"):
            read(shape.decode, payload)


def test_nan_travels() -> None:
    """Where a float may be NaN it arrives as one; there is no NaN in JSON, so it goes as a text."""
    shape = Shapes().of(float)
    assert write(shape.encode, math.nan) == b'"NaN"'
    assert math.isnan(there_and_back(shape, math.nan))
    assert there_and_back(shape, -math.inf) == -math.inf


def test_the_sign_of_zero_arrives() -> None:
    """-0.0 is another float than 0.0, although they are equal."""
    assert math.copysign(1, there_and_back(Shapes().of(float), -0.0)) == -1


class Sub(str):
    __slots__ = ()


@attrs.frozen
class Point3(Point):
    z: int = 0


@pytest.mark.parametrize(
    ("tp", "value"), [(str, Sub("x")), (Point, Point3(1)), (int, Level.LOW), (Point | None, Point3(1))]
)
def test_a_subclass_is_refused(tp: Any, value: object) -> None:
    """It would arrive as something else."""
    with pytest.raises(Misfit):
        Shapes().of(tp).encode(value)


def test_unknown_fields_are_refused_in_an_argument_and_ignored_in_a_result() -> None:
    """So an old caller lives with a new service, and nobody's argument is lost unseen."""
    data = {"x": 1, "y": 0.0, "z": 3}
    assert Shapes(ignore_unknown=True).of(Point).decode(data) == Point(1)
    with pytest.raises(Misfit, match="Point has no field 'z'"):
        Shapes().of(Point).decode(data)


def test_a_missing_field_takes_its_default() -> None:
    """And one without a default is a misfit."""
    shape = Shapes().of(Point)
    assert shape.decode({"x": 1}) == Point(1)
    with pytest.raises(Misfit, match="its field 'x' is missing"):
        shape.decode({})


def test_what_a_validator_refuses_is_a_misfit() -> None:
    """A record says itself what it takes, whatever it raises."""

    @attrs.frozen
    class Even:
        value: int = attrs.field()

        @value.validator
        def _check(self, _: object, value: int) -> None:
            if value % 2:
                raise ZeroDivisionError("odd")

    with pytest.raises(Misfit, match="Even refuses it: ZeroDivisionError: odd"):
        Shapes(names={"Even": Even}).of(Even).decode({"value": 3})


class Plain:
    pass


@pytest.mark.parametrize(
    ("tp", "words"),
    [
        (Any, "name a type"),
        (object, "name a type"),
        (list, "write list"),
        (dict, "write dict"),
        (Plain, "a Plain cannot be sent"),
        (T, "say which"),
        (complex, "a complex cannot be sent"),
        (list[complex], "a complex cannot be sent"),
        (list[int] | list[str], "cannot be told apart"),
        (Literal[b"x"], "cannot be sent"),
        (type[int], "cannot be sent"),
    ],
)
def test_a_type_that_cannot_travel_is_refused(tp: Any, words: str) -> None:
    """At start, and with what to write instead."""
    with pytest.raises(CannotTravel, match=words):
        Shapes().of(tp)


def test_deep_nesting_is_a_misfit() -> None:
    """Rather than the end of the process."""
    shape = Shapes().of(Tree)
    tree = Tree(0)
    for _ in range(sys.getrecursionlimit()):
        tree = Tree(0, [tree])
    with pytest.raises(Misfit, match="nested too deeply"):
        write(shape.encode, tree)
    deep = b'{"value":0,"children":[' * 2000 + b"]}" * 2000
    with pytest.raises(Misfit):
        read(shape.decode, deep)
