"""Which changes of an interface its callers bear, and what is said of the others."""

from __future__ import annotations

import enum
import json
import uuid
from typing import Any, Literal, NotRequired, TypedDict

import attrs
import pytest

from kernel import interface
from kernel.calls.contract import contract_of, digest, misfits
from kernel.calls.interface import interface_of


def contract(method: Any, raises: Any = ()) -> dict[str, Any]:
    """The contract of an interface with the one method *method*, as it arrives from elsewhere."""
    cls: type = interface(raises=raises)(type("Api", (), {"do": method, "__module__": __name__}))
    found = interface_of(cls)
    assert found is not None
    described: dict[str, Any] = json.loads(json.dumps(contract_of(found)))
    return described


def taking(tp: Any, *default: Any) -> Any:
    """A method with a parameter of this type."""
    if default:

        async def do(self: object, x: tp = default[0]) -> None: ...

    else:

        async def do(self: object, x: tp) -> None: ...  # type: ignore[misc]

    do.__annotations__ = {"x": tp, "return": None}
    return do


def giving(tp: Any) -> Any:
    """A method with a result of this type."""

    async def do(self: object) -> None: ...

    do.__annotations__ = {"return": tp}
    return do


def named(cls_name: str, /, **fields: Any) -> type:
    """A record."""
    return attrs.make_class(
        cls_name,
        {
            field: attrs.field(type=tp[0], default=tp[1]) if isinstance(tp, tuple) else attrs.field(type=tp)
            for field, tp in fields.items()
        },
        frozen=True,
    )


Flags = enum.Flag("E", {"A": 1})  # type: ignore[misc]
OtherFlags = enum.Flag("E", {"A": 2})  # type: ignore[misc]
V1 = named("User", id=int)
WITH_DEFAULT = named("User", id=int, name=(str, ""))
OTHER_DEFAULT = named("User", id=int, name=(str, "x"))
WITHOUT_DEFAULT = named("User", id=int, name=str)
CHANGED = named("User", id=str)
A, B, C = named("A", x=int), named("B", x=int), named("C", x=int)
Small = enum.Enum("E", {"A": "a"})  # type: ignore[misc]
Large = enum.Enum("E", {"A": "a", "B": "b"})  # type: ignore[misc]


class Must(TypedDict):
    x: int


class May(TypedDict):
    x: NotRequired[int]


# Each pair: what was, and what an argument of it may become. A result may become it the other way round.
WIDER: list[tuple[Any, Any]] = [
    (int, int | None),
    (int, int | str),
    (int | str, int | str | None),
    (Literal["a"], Literal["a", "b"]),
    (Literal["a"], str),
    (Literal["a", 1], str | int),
    (Small, Large),
    (list[int], list[int | None]),
    (tuple[int, ...], tuple[int | None, ...]),
    (tuple[int, str], tuple[int | None, str]),
    (dict[str, int], dict[str, int | None]),
    (A | B, A | B | C),
    (A | B, A | B | None),
    (V1, V1 | None),
    (Must, May),
]
# What may become what in neither direction of either.
UNLIKE: list[tuple[Any, Any]] = [
    (int, str),
    (int, float),
    (int, bool),
    (list[int], set[int]),
    (list[int], tuple[int, ...]),
    (tuple[int, int], tuple[int, int, int]),
    (str, uuid.UUID),
    (dict[str, int], dict[int, int]),
    (dict[str, int], V1),
    (V1, CHANGED),
    (Small, Flags),
    (Flags, OtherFlags),
    (A | B, named("A", x=str) | B),
]


BOTH_WAYS = [*UNLIKE, *(pair[::-1] for pair in UNLIKE)]


@pytest.mark.parametrize(("small", "large"), WIDER, ids=map(repr, WIDER))
def test_a_wider_parameter_is_allowed_and_a_narrower_one_is_not(small: Any, large: Any) -> None:
    """Every argument that was right stays right."""
    assert misfits(contract(taking(small)), contract(taking(large))) == []
    assert misfits(contract(taking(large)), contract(taking(small)))


@pytest.mark.parametrize(("small", "large"), WIDER, ids=map(repr, WIDER))
def test_a_narrower_result_is_allowed_and_a_wider_one_is_not(small: Any, large: Any) -> None:
    """A caller gets nothing that it does not know."""
    assert misfits(contract(giving(large)), contract(giving(small))) == []
    assert misfits(contract(giving(small)), contract(giving(large)))


@pytest.mark.parametrize(("one", "other"), BOTH_WAYS, ids=[f"{index}-{pair}" for index, pair in enumerate(BOTH_WAYS)])
def test_another_type_is_refused(one: Any, other: Any) -> None:
    """In an argument and in a result."""
    assert misfits(contract(taking(one)), contract(taking(other)))
    assert misfits(contract(giving(one)), contract(giving(other)))


EVERY = [tp for pair in [*WIDER, *UNLIKE] for tp in pair]


@pytest.mark.parametrize("tp", EVERY, ids=[f"{index}-{tp!r}" for index, tp in enumerate(EVERY)])
def test_the_same_contract_fits(tp: Any) -> None:
    """With itself, and by the same name."""
    for make in (taking, giving):
        one = contract(make(tp))
        assert misfits(one, one) == []
        assert digest(one) == digest(contract(make(tp)))


def test_a_record_in_a_union_is_written_otherwise() -> None:
    """It carries a tag there, so a record may not become one of several."""
    assert misfits(contract(taking(A)), contract(taking(A | B)))
    assert misfits(contract(giving(A | B)), contract(giving(A)))


@pytest.mark.parametrize(
    ("was", "now", "arguments", "results"),
    [
        (V1, WITH_DEFAULT, "", ""),
        (V1, WITHOUT_DEFAULT, "do: parameter 'x', field 'name' is new and has no default", ""),
        (WITH_DEFAULT, V1, "do: parameter 'x', field 'name' is gone", ""),
        (WITHOUT_DEFAULT, V1, "do: parameter 'x', field 'name' is gone", "do: its result, field 'name' is gone"),
        (
            WITH_DEFAULT,
            OTHER_DEFAULT,
            """do: parameter 'x', field 'name' has the default "" here, and "x" there""",
            """do: its result, field 'name' has the default "" here, and "x" there""",
        ),
        (
            V1,
            CHANGED,
            "do: parameter 'x', field 'id' is int here, and str there",
            "do: its result, field 'id' is int here, and str there",
        ),
    ],
)
def test_fields_of_a_record(was: type, now: type, arguments: str, results: str) -> None:
    """A new field needs a default in an argument; a field that was used must stay. The field is named."""
    assert misfits(contract(taking(was)), contract(taking(now))) == ([arguments] if arguments else [])
    assert misfits(contract(giving(was)), contract(giving(now))) == ([results] if results else [])


@pytest.mark.parametrize(
    ("was", "now", "problem"),
    [
        (Small, Flags, "do: parameter 'x' is E here, and E there"),
        (Flags, Small, "do: parameter 'x' is E here, and E there"),
        (Flags, OtherFlags, "do: parameter 'x' is E here, and E there"),
        (A | B, B | named("A", x=str), "do: parameter 'x', field 'x' is int here, and str there"),
        (A | B | None, B | None, "do: parameter 'x' is A | B | None here, and B | None there"),
        (Literal[1], Literal[True], "do: parameter 'x' is Literal[1] here, and Literal[True] there"),
        (tuple[int, str], tuple[int, bytes], "do: parameter 'x' is str here, and bytes there"),
        (list[V1], list[CHANGED], "do: parameter 'x', field 'id' is int here, and str there"),  # type: ignore[valid-type]
    ],
    ids=range(8),
)
def test_what_differs_is_named(was: Any, now: Any, problem: str) -> None:
    """The innermost part, as it would be written in Python."""
    assert misfits(contract(taking(was)), contract(taking(now))) == [problem]


def test_parameters() -> None:
    """A new one needs a default; one with a default keeps it."""
    none = contract(giving(None))
    assert misfits(none, contract(taking(int, 1))) == []
    assert misfits(none, contract(taking(int))) == ["do: parameter 'x' is new and has no default"]
    assert misfits(contract(taking(int)), none) == ["do: parameter 'x' is gone"]
    assert misfits(contract(taking(int)), contract(taking(int, 1))) == []
    assert misfits(contract(taking(int, 1)), contract(taking(int))) == [
        "do: parameter 'x' may be left out here, and must not be there"
    ]
    assert misfits(contract(taking(int, 1)), contract(taking(int, 2))) == [
        "do: parameter 'x' has the default 1 here, and 2 there"
    ]


def test_methods() -> None:
    """A new one is allowed, one that is gone is not."""
    one = contract(giving(None))
    assert misfits({}, one) == []
    assert misfits(one, {}) == ["there is no method 'do'"]


class Known(Exception):
    def __init__(self, id: int) -> None:  # noqa: A002
        self.id = id


class KnownToo(Exception):
    def __init__(self, id: int, name: str) -> None:  # noqa: A002
        self.id, self.name = id, name


class Bare(Exception):
    pass


def called(cls: type[Exception], name: str) -> type[Exception]:
    """The class under another name, as after a change."""
    return type(name, (cls,), {})


@pytest.mark.parametrize(
    ("was", "now", "problems"),
    [
        (Known, called(KnownToo, "Known"), []),
        (called(KnownToo, "Known"), Known, ["do: Known.'name' is gone"]),
        (called(Bare, "Known"), Known, ["do: Known has other fields"]),
        (Known, called(Bare, "Known"), ["do: Known has other fields"]),
        (Bare, Bare, []),
    ],
    ids=range(5),
)
def test_fields_of_an_error(was: type[Exception], now: type[Exception], problems: list[str]) -> None:
    """They are read by the caller, as those of a result."""
    assert misfits(contract(giving(None), [was]), contract(giving(None), [now])) == problems


def test_errors() -> None:
    """One more that is raised is a wider result."""
    without, with_one = contract(giving(None)), contract(giving(None), [Known])
    assert misfits(with_one, without) == []
    assert misfits(without, with_one) == ["do raises Known, which is not declared here"]


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


def test_a_record_within_itself() -> None:
    """Is compared once, and differs where it differs."""
    one = contract(taking(Tree))
    assert misfits(one, one) == []
    other = json.loads(json.dumps(one).replace('"value": {"type": "int"}', '"value": {"type": "str"}'))
    assert misfits(one, other) == ["do: parameter 'x', field 'value' is int here, and str there"]


@pytest.mark.parametrize("junk", [None, [], "x", 3, {}, {"parameters": []}, {"parameters": {"x": 1}, "types": {}}])
def test_a_schema_of_anybody_is_a_misfit(junk: Any) -> None:
    """What stands on the wire may be anything."""
    assert misfits(contract(taking(int)), {"do": junk})
