"""What an annotation is: behind aliases, without None, with its type arguments, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, NamedTuple, NewType, Optional, TypedDict, Union
from typing import TypeVar as OldTypeVar

import attrs
import pytest
from typing_extensions import TypeAliasType, TypeVar

from kernel.annotations import (
    attrs_class,
    is_union,
    model_kind,
    substitute,
    type_name,
    type_variables,
    unwrap,
    without_none,
)

T = OldTypeVar("T")
K = OldTypeVar("K")
Bound = OldTypeVar("Bound", bound=Path)
Usual = TypeVar("Usual", default=int)

Port = NewType("Port", int)
Old = Optional[int]  # noqa: UP045  (what `X | None` was)
Name = TypeAliasType("Name", str)
Perhaps = TypeAliasType("Perhaps", Union[Port, None])  # noqa: UP007
Many = TypeAliasType("Many", list[T], type_params=(T,))
Table = TypeAliasType("Table", dict[K, list[T]], type_params=(K, T))


@attrs.frozen
class Config:
    port: int = 0


@attrs.frozen
class Page(Generic[T]):
    items: T


class Plain(Generic[T]):
    pass


@dataclass
class Data:
    port: int = 0


class Typed(TypedDict):
    port: int


class Named(NamedTuple):
    port: int


@pytest.mark.parametrize(
    ("tp", "bare"),
    [
        (int, int),
        (Port, int),
        (NewType("Other", Port), int),
        (Name, str),
        (Final[Name], str),
        (Many[Port], list[Port]),
        (Table[str, int], dict[str, list[int]]),
        (Annotated[int, "x"], Annotated[int, "x"]),
        (list[Port], list[Port]),
    ],
    ids=str,
)
def test_what_is_behind_an_alias(tp: Any, bare: Any) -> None:
    """Whatever names a type again is taken away, as often as there is one; what is inside a type stays."""
    assert unwrap(tp) == bare


@pytest.mark.parametrize(
    ("tp", "bare", "optional"),
    [
        (int | None, int, True),
        (Old, int, True),
        (None | Port, int, True),
        (Perhaps, int, True),
        (Many[int] | None, list[int], True),
        (int, int, False),
        (Port, int, False),
        (int | str, int | str, False),
        (int | str | None, int | str | None, False),
        (list[int | None], list[int | None], False),
        (type(None), type(None), False),
    ],
    ids=str,
)
def test_without_none(tp: Any, bare: Any, *, optional: bool) -> None:
    """One type or None is that type; a union of more stays what it is."""
    assert without_none(tp) == (bare, optional)
    assert is_union(tp) is (tp not in {int, Port, Perhaps, list[int | None], type(None)})


@pytest.mark.parametrize(
    ("tp", "cls"),
    [
        (Config, Config),
        (NewType("Own", Config), Config),
        (Annotated[Config, "x"], Config),
        (Annotated[NewType("Own", Config), "x"], Config),
        (Page[int], Page[int]),
        (Page, Page),
        (Data, None),
        (int, None),
        (list[Config], None),
        (Config | None, None),
        ("Config", None),
    ],
    ids=str,
)
def test_an_attrs_class(tp: Any, cls: Any) -> None:
    """It keeps its type arguments; whatever is no class of attrs is None."""
    assert attrs_class(tp) == cls


@pytest.mark.parametrize(
    ("tp", "kind"),
    [
        (Data, "a dataclass"),
        (Typed, "a TypedDict"),
        (Named, "a named tuple"),
        (Config, ""),
        (Page[int], ""),
        (attrs.make_class("Both", ["x"], bases=(Data,)), ""),
        (int, ""),
        (list[Data], ""),
        (Data | None, ""),
        (Data(), ""),
        ("Data", ""),
    ],
    ids=lambda tp: tp if isinstance(tp, str) else type_name(tp),
)
def test_the_kind_of_a_model(tp: Any, kind: str) -> None:
    """Classes of other libraries that hold fields are named; neither attrs' own nor what is no class."""
    assert model_kind(tp) == kind


def test_the_kind_of_a_generic_model() -> None:
    """With its type arguments too."""

    @dataclass
    class Box(Generic[T]):
        item: T

    assert model_kind(Box[int]) == model_kind(Box) == "a dataclass"


@pytest.mark.parametrize(
    ("tp", "name"),
    [
        (int, "int"),
        (Path, "Path"),
        (T, "T"),
        (Port, "Port"),
        (Name, "Name"),
        (Many[Path], "Many[Path]"),
        (Port | None, "Port | None"),
        (Old, "int | None"),
        (list[Path], "list[Path]"),
        (dict[str, Path | None], "dict[str, Path | None]"),
        (Page[Path], "Page[Path]"),
    ],
    ids=str,
)
def test_a_type_in_words(tp: Any, name: str) -> None:
    """Without the names of modules, as it is written."""
    assert type_name(tp) == name


def test_a_local_type_in_words() -> None:
    """Where a class was defined does not matter, with or without arguments."""

    class Local(Generic[T]):
        pass

    assert (type_name(Local), type_name(Local[int])) == ("Local", "Local[int]")


@pytest.mark.parametrize(
    ("tp", "result"),
    [
        (T, int),
        (K, K),
        (list[T], list[int]),  # type: ignore[valid-type]
        (dict[K, T], dict[K, int]),  # type: ignore[valid-type]
        (Page[T], Page[int]),  # type: ignore[valid-type]
        (Page, Page),
        (str, str),
        (list[str], list[str]),
        (T | None, int | None),
    ],
    ids=str,
)
def test_type_variables_are_replaced(tp: Any, result: Any) -> None:
    """Those that have a type; a generic class without arguments stays as it is, and so does what has no variables."""
    assert substitute(tp, {T: int}) == result


def test_the_type_variables_of_a_class_and_its_bases() -> None:
    """Each class has its own, also where a base names them otherwise; what is not given has a default or a bound."""

    class Pair(Plain[K], Generic[T, K]):
        pass

    class Own(Pair[str, list[T]]):
        pass

    class Nothing(Generic[T, Bound, Usual]):
        pass

    assert type_variables(Own[int]) == {Own: {T: int}, Pair: {T: str, K: list[int]}, Plain: {T: list[int]}, Generic: {}}
    assert type_variables(Pair[str, int]) == {Pair: {T: str, K: int}, Plain: {T: int}, Generic: {}}
    assert type_variables(Nothing)[Nothing] == {T: T, Bound: Path, Usual: int}
    assert type_variables(Config) == {Config: {}}
    assert type_variables(int) == {int: {}}


def test_a_base_that_is_met_twice() -> None:
    """The first class that has it decides, as for its methods."""

    class Left(Plain[int]):
        pass

    class Right(Plain[str]):
        pass

    class Both(Left, Right):
        pass

    assert type_variables(Both)[Plain] == {T: int}
