"""A type in words, and where in a value something is wrong."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import attrs
import pytest

from kernel.calls.codec import Shapes
from kernel.calls.shape import Misfit, words

T = TypeVar("T")


@attrs.define
class Point:
    x: int


@attrs.define
class Circle:
    radius: float


@attrs.define
class Box(Generic[T]):
    item: T


Id: Any = Final[int]


@pytest.mark.parametrize(
    ("tp", "text"),
    [
        (int, "int"),
        (Id, "int"),
        (list[int], "list[int]"),
        (frozenset[str], "frozenset[str]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (tuple[int, str], "tuple[int, str]"),
        (tuple[()], "tuple[()]"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (int | None, "int | None"),
        (list[int] | tuple[int, ...], "list[int] | tuple[int, ...]"),
        (Point | Circle, "Point | Circle"),
        (Box[int], "Box[int]"),
    ],
    ids=range(12),
)
def test_a_type_in_words(tp: Any, text: str) -> None:
    """As it would be written in Python."""
    assert words(Shapes().of(tp).schema) == text


def test_a_misfit_knows_its_text() -> None:
    """Also where it is shown by `repr`, as in a group."""
    assert repr(Misfit("wrong")) == "Misfit('wrong')"
    assert str(Misfit("wrong").within("[1]").within(".a").within(".b")) == "b.a[1]: wrong"
