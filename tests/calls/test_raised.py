"""How errors travel: with their class, their fields and their message."""

from __future__ import annotations

import json
from typing import Any, Self

import attrs
import pytest

from kernel.calls.codec import Shapes
from kernel.calls.raised import shape_of
from kernel.calls.shape import Misfit
from tests.modules import new_module

INT, STR = {"type": "int"}, {"type": "str"}


class Named(Exception):
    def __init__(self, id: int, *, name: str = "x") -> None:  # noqa: A002
        super().__init__(f"{id} {name}")
        self.id, self.name = id, name


class Heir(Named):
    pass


@attrs.define
class Whole(Exception):
    code: int
    text: str = ""


class Bare(Exception):
    pass


class Lost(Exception):
    def __init__(self, id: int) -> None:  # noqa: A002
        super().__init__(id)


class Refusing(Exception):
    def __init__(self, id: int) -> None:  # noqa: A002
        super().__init__(id)
        self.id = 10 // id


class Grumpy(Bare):
    def __new__(cls, *args: Any) -> Self:
        if args == ("no",):
            raise ValueError("not that")
        return super().__new__(cls, *args)


NAMED = {"id": INT, "name": {**STR, "default": "x"}}


@pytest.mark.parametrize(
    ("error", "schema", "data"),
    [
        (Named(1, name="y"), NAMED, {"type": "Named", "message": "1 y", "fields": {"id": 1, "name": "y"}}),
        (Heir(1), NAMED, {"type": "Heir", "message": "1 x", "fields": {"id": 1, "name": "x"}}),
        (
            Whole(1, "t"),
            {"code": INT, "text": {**STR, "default": ""}},
            {"type": "Whole", "message": "(1, 't')", "fields": {"code": 1, "text": "t"}},
        ),
        (Bare(), None, {"type": "Bare", "message": "", "fields": []}),
        (
            Bare("a", 1, None, True, 0.5),
            None,
            {"type": "Bare", "message": "('a', 1, None, True, 0.5)", "fields": ["a", 1, None, True, 0.5]},
        ),
    ],
    ids=range(5),
)
def test_the_fields_of_an_error(error: Exception, schema: Any, data: Any) -> None:
    """Its own, or its parameters, or its arguments: it arrives with all of them, and with its message."""
    shape = shape_of(type(error), Shapes())
    assert shape.schema == schema
    assert shape.encode(error) == data
    arrived = shape.decode(json.loads(json.dumps(data)))
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)
    for message in ("changed", "", 3, None):
        changed = shape.decode({**data, "message": message})
        assert changed.args == ((message,) if isinstance(message, str) and message != str(error) else error.args)


def test_the_arguments_of_an_error_may_be_a_message_with_one_more() -> None:
    """A message that is the same leaves them as they are."""
    error = shape_of(Bare, Shapes()).decode({"fields": [1], "message": "1"})
    assert error.args == (1,)


@pytest.mark.parametrize("value", [object(), [1], {"a": 1}, b"x", float("nan"), float("inf"), ("a",)])
def test_an_argument_that_is_not_plain(value: Any) -> None:
    """Needs a field with a type."""
    with pytest.raises(Misfit) as caught:
        shape_of(Bare, Shapes()).encode(Bare(0.5, value))
    assert str(caught.value) == f"Bare holds a {type(value).__name__}, and declares no fields"


@pytest.mark.parametrize(
    ("cls", "data", "says"),
    [
        (Bare, {"fields": {}}, "expected the arguments of Bare, got dict"),
        (Bare, {}, "expected the arguments of Bare, got NoneType"),
        (Grumpy, {"fields": ["no"]}, "Grumpy refuses them: ValueError: not that"),
        (Named, {"fields": {"name": "x"}}, "expected Named, but its field 'id' is missing"),
        (Named, {"fields": {"id": "x"}}, "id: expected int, got str"),
        (Refusing, {"fields": {"id": 0}}, "Refusing refuses it: ZeroDivisionError: integer division or modulo by zero"),
    ],
    ids=range(6),
)
def test_an_error_that_cannot_be_made_again(cls: type[Exception], data: Any, says: str) -> None:
    """Whatever arrives is a misfit that says why."""
    with pytest.raises(Misfit) as caught:
        shape_of(cls, Shapes()).decode(data)
    assert str(caught.value) == says


def test_fields_of_a_newer_version_are_ignored() -> None:
    """As those of a result."""
    error = shape_of(Named, Shapes()).decode({"fields": {"id": 1, "more": 2}})
    assert isinstance(error, Named)
    assert (error.id, error.name) == (1, "x")


def test_an_error_that_does_not_keep_its_parameter() -> None:
    """Is told when it is to be sent."""
    with pytest.raises(Misfit, match="expected Lost, got one without 'id'"):
        shape_of(Lost, Shapes()).encode(Lost(1))


@pytest.mark.parametrize("parameters", ["*parts: int", "**parts: int", "parts", "parts: int, /"])
def test_parameters_that_cannot_be_passed_by_name(parameters: str) -> None:
    """The error could not be made again."""
    module = new_module("errors")
    exec(f"class Odd(Exception):\n    def __init__(self, {parameters}): ...\n", vars(module))  # noqa: S102
    with pytest.raises(TypeError, match=r"Odd.__init__ takes 'parts', whose type is not known; annotate it, by name"):
        shape_of(module.Odd, Shapes())
