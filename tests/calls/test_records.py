"""The fields of records and errors of each kind: their types, defaults and names, and which of them cannot be sent."""

from __future__ import annotations

import collections
import dataclasses
import json
import uuid
from typing import Any, Generic, NamedTuple, NotRequired, Required, TypedDict, TypeVar

import attrs
import pytest

from kernel.calls.codec import Shapes, read, write
from kernel.calls.records import is_record
from kernel.calls.shape import CannotTravel, Misfit
from tests.modules import new_module

T = TypeVar("T")


def _three() -> int:
    return 3


@attrs.define
class Item:
    plain: int
    _private: str = "p"
    renamed: int = attrs.field(default=1, alias="other")
    none: int = None  # type: ignore[assignment]
    listed: list[int] = attrs.field(factory=list)
    made: int = attrs.field(factory=_three)
    of_self: int = attrs.field(default=attrs.Factory(lambda self: self.plain, takes_self=True))
    cached: int = attrs.field(default=0, init=False)


@dataclasses.dataclass
class Data:
    plain: int
    default: str = "d"
    none: int = None  # type: ignore[assignment]
    mapped: dict[str, int] = dataclasses.field(default_factory=dict)
    made: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
    cached: int = dataclasses.field(default=0, init=False)


class Pair(NamedTuple):
    left: int
    right: str | None = None


class Total(TypedDict):
    must: int
    may: NotRequired[int]


class Partial(TypedDict, total=False):
    must: Required[int]
    may: int


@attrs.define
class Page(Generic[T]):
    items: list[T]
    first: T


@attrs.define
class Pages:
    pages: list[Page[int]]
    texts: Page[str]


INT, STR = {"type": "int"}, {"type": "str"}


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (
            Item,
            {
                "plain": INT,
                "private": {**STR, "default": "p"},
                "other": {**INT, "default": 1},
                "none": {**INT, "default is": "None"},
                "listed": {"type": {"list": "int"}, "default": []},
                "made": {**INT, "default made by": "_three"},
                "of_self": {**INT, "default made by": "Item.<lambda>"},
            },
        ),
        (
            Data,
            {
                "plain": INT,
                "default": {**STR, "default": "d"},
                "none": {**INT, "default is": "None"},
                "mapped": {"type": {"dict": ["str", "int"]}, "default": {}},
                "made": {"type": "UUID", "default made by": "uuid4"},
            },
        ),
        (Pair, {"left": INT, "right": {"type": {"union": ["str", "None"]}, "default": None}}),
        (Total, {"must": INT, "may": {**INT, "optional": True}}),
        (Partial, {"must": INT, "may": {**INT, "optional": True}}),
    ],
)
def test_the_fields_of_a_record(cls: Any, fields: dict[str, Any]) -> None:
    """By the names that set them, with what they are if they are left out."""
    shapes = Shapes()
    assert shapes.of(cls).schema == {"ref": cls.__name__}
    assert shapes.described == {cls.__name__: fields}
    assert list(shapes.described[cls.__name__]) == list(fields)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Item(1, "x", 2), b'{"plain":1,"private":"x","other":2,"none":4,"listed":[],"made":3,"of_self":1}'),
        (Pair(1, "a"), b'{"left":1,"right":"a"}'),
        (Pair(1), b'{"left":1,"right":null}'),
    ],
)
def test_a_record_as_json(value: Any, data: bytes) -> None:
    """An object of its fields; what has a default may be left out."""
    shape = Shapes().of(type(value))
    if isinstance(value, Item):
        value.none = 4
    assert write(shape.encode, value) == data
    assert read(shape.decode, data) == value
    first, given = next(iter(json.loads(data).items()))
    assert shape.decode({first: given}) == type(value)(given)


def test_a_typed_dict_as_json() -> None:
    """Only the keys that it has."""
    for cls in (Total, Partial):
        shape = Shapes().of(cls)
        for value in ({"must": 1}, {"must": 1, "may": 2}):
            assert shape.encode(value) == value == shape.decode(value)
        for wrong, says in (
            ({"may": 2}, f"expected {cls.__name__}, but its field 'must' is missing"),
            ({"must": 1, "more": 2}, f"{cls.__name__} has no field 'more'"),
            ({"must": "x"}, "must: expected int, got str"),
            ([], f"expected {cls.__name__}, got list"),
        ):
            for convert in (shape.encode, shape.decode):
                with pytest.raises(Misfit) as caught:
                    convert(wrong)
                assert str(caught.value) == says
        assert shape.types == (dict,)


def test_an_attribute_that_is_gone() -> None:
    """A record may lose one, since Python lets it."""
    item = Item(1)
    del item.plain
    with pytest.raises(Misfit, match="expected Item, got one without 'plain'"):
        Shapes().of(Item).encode(item)


def test_a_record_of_any_type_is_one_record_for_each() -> None:
    """Named by its arguments."""
    shapes = Shapes()
    shapes.of(Pages)
    assert shapes.described == {
        "Pages": {"pages": {"type": {"list": {"ref": "Page[int]"}}}, "texts": {"type": {"ref": "Page[str]"}}},
        "Page[int]": {"items": {"type": {"list": "int"}}, "first": INT},
        "Page[str]": {"items": {"type": {"list": "str"}}, "first": STR},
    }
    assert shapes.of(Page[int]) is shapes.of(Page[int])
    with pytest.raises(CannotTravel, match=r"Page\.items: ~T stands for any type; say which"):
        shapes.of(Page)


def test_two_records_of_the_same_name() -> None:
    """The later one is named with its module."""
    other = new_module("elsewhere")
    exec("import attrs\n@attrs.define\nclass Pair:\n    x: int\n", vars(other))  # noqa: S102
    shapes = Shapes()
    shapes.of(Pair)
    assert shapes.of(other.Pair).schema == {"ref": "elsewhere.Pair"}
    assert shapes.of(other.Pair) is shapes.of(other.Pair)
    assert list(shapes.described) == ["Pair", "elsewhere.Pair"]


@dataclasses.dataclass
class WithInit:
    seed: dataclasses.InitVar[int]


@attrs.define
class Untyped:
    x = attrs.field(default=1)  # type: ignore[var-annotated]


@attrs.define
class Unknown:
    x: Missing  # type: ignore[name-defined]  # noqa: F821


@attrs.define
class Deep:
    inner: list[Inner]


@attrs.define
class Inner:
    x: object


@pytest.mark.parametrize(
    ("tp", "says"),
    [
        (WithInit, "WithInit.seed is an InitVar: it cannot be read from a value that is sent"),
        (Untyped, "Untyped.x has no annotation"),
        (collections.namedtuple("Bare", "x y"), "Bare.x has no annotation: write a typing.NamedTuple"),  # noqa: PYI024
        (
            Unknown,
            "an annotation of Unknown cannot be evaluated: name 'Missing' is not defined; import the type at run",
        ),
        (Deep, "Deep.inner: Inner.x: object may be anything, which cannot be sent; name a type"),
    ],
    ids=range(5),
)
def test_a_record_that_cannot_be_sent(tp: Any, says: str) -> None:
    """The error names the field."""
    with pytest.raises(CannotTravel) as caught:
        Shapes().of(tp)
    assert str(caught.value).startswith(says)


def test_what_is_a_record() -> None:
    """A class with a few named fields; an instance is none."""
    assert all(map(is_record, (Item, Data, Pair, Total)))
    assert not any(map(is_record, (int, Item(1), dict, list[int], object, None)))
