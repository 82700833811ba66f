"""What can be called of a service: declared, read, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol, TypeVar

import attrs
import pytest

import kernel
from kernel import interface
from kernel.calls.interface import Method, interface_of
from kernel.calls.shape import Misfit
from kernel.errors import DeclarationError, PlanError, Problems

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class User:
    id: int
    name: str


class NoSuchUser(LookupError):
    def __init__(self, id: int) -> None:  # noqa: A002
        super().__init__(f"there is no user {id}")
        self.id = id


@attrs.define
class Taken(Exception):
    name: str
    by: User


class Plain(Exception):
    pass


@interface(raises=[NoSuchUser, Taken, Plain], timeout=5)
class Users(Protocol):
    """Everything about users.

    And more.
    """

    async def get(self, id: int) -> User:  # noqa: A002
        """Give one user."""

    async def rename(self, id: int, name: str, *, notify: bool = False) -> User: ...  # noqa: A002

    async def later(self) -> Later: ...


@attrs.frozen
class Later:
    users: list[User]


def method(name: str) -> Method:
    found = interface_of(Users)
    assert found is not None
    return found.methods[name]


def problems_of(cls: type) -> list[str]:
    found = interface_of(cls)
    assert found is not None
    with pytest.raises(PlanError) as caught:
        found.methods  # noqa: B018
    errors = caught.value.errors if isinstance(caught.value, Problems) else (caught.value,)
    return [str(error) for error in errors]


def test_it_is_public_and_stays_a_class() -> None:
    """`from kernel import interface`; what it decorates is the Protocol itself."""
    assert kernel.interface is interface
    assert Users.__name__ == "Users"
    found = interface_of(Users)
    assert found is not None
    assert (found.name, found.text, found.timeout) == ("Users", "Everything about users.", 5)
    assert list(found.methods) == ["get", "rename", "later"]
    assert method("get").text == "Give one user."


def test_what_is_no_interface() -> None:
    """A plain class, or what is no class, is none."""
    assert interface_of(User) is None
    assert interface_of(3) is None
    assert interface_of(list[User]) is None


class Box(Protocol[T_co]):
    async def get(self) -> int: ...


def test_a_generic_interface() -> None:
    """Is the same one with its arguments."""
    interface(Box)  # type: ignore[type-abstract]
    found = interface_of(Box)
    assert found is not None
    assert interface_of(Box[int]) is found
    assert list(found.methods) == ["get"]


def test_arguments_are_sent_as_they_were_given() -> None:
    """By name, and only those that the caller passed."""
    rename = method("rename")
    assert rename.encode((1, "x"), {}) == {"id": 1, "name": "x"}
    assert rename.encode((1,), {"notify": True, "name": "x"}) == {"id": 1, "name": "x", "notify": True}
    assert rename.decode({"id": 1, "name": "x"}) == {"id": 1, "name": "x"}


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1, "x", True), {}, "takes 2 arguments by position, got 3"),
        ((1,), {}, "the argument 'name' is missing"),
        ((1, "x"), {"id": 2}, "got the argument 'id' twice"),
        ((1, "x"), {"more": 2}, "takes no argument 'more'"),
        (("1", "x"), {}, "id: expected int, got str"),
        ((1, "x"), {"notify": 1}, "notify: expected bool, got int"),
    ],
)
def test_wrong_arguments_are_misfits(args: tuple[Any, ...], kwargs: dict[str, Any], words: str) -> None:
    """Each says which argument is wrong."""
    with pytest.raises(Misfit) as caught:
        method("rename").encode(args, kwargs)
    assert str(caught.value) == words


@pytest.mark.parametrize("data", [None, [], 1, {"id": 1}, {"id": "1", "name": "x"}, {"id": 1, "name": "x", "more": 1}])
def test_wrong_arguments_of_anybody_are_misfits(data: Any) -> None:
    """Whatever JSON arrives."""
    with pytest.raises(Misfit):
        method("rename").decode(data)


@pytest.mark.parametrize("error", [NoSuchUser(4), Taken("x", User(1, "x")), Plain(), Plain("a", 1, None)])
def test_declared_errors_cross_as_themselves(error: Exception) -> None:
    """With their class, their fields and their message."""
    shape = method("get").raises[type(error).__name__]
    arrived = shape.decode(shape.encode(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert getattr(arrived, "id", None) == getattr(error, "id", None)
    if isinstance(error, Taken):
        assert isinstance(arrived, Taken)
        assert arrived.by == error.by


def test_the_message_of_an_error_is_kept() -> None:
    """Also where it was changed after the error was made."""
    error = NoSuchUser(4)
    error.args = ("gone",)
    shape = method("get").raises["NoSuchUser"]
    assert str(shape.decode(shape.encode(error))) == "gone"


def test_an_error_that_holds_anything_does_not_cross() -> None:
    """One without fields crosses with plain arguments only."""
    with pytest.raises(Misfit):
        method("get").raises["Plain"].encode(Plain(object()))


def test_a_type_may_be_written_below() -> None:
    """Annotations are read when they are first needed."""
    assert method("later").schema["result"] == {"ref": "Later"}
    assert set(method("later").schema["types"]) == {"Later", "User"}


def test_a_class_within_a_function_sees_what_is_around_it() -> None:
    """As in a test."""

    @attrs.frozen
    class Inner:
        value: int

    @interface
    class Local(Protocol):
        async def get(self) -> Inner: ...

    found = interface_of(Local)
    assert found is not None
    assert found.methods["get"].result.encode(Inner(1)) == {"value": 1}


def test_methods_of_a_base_count() -> None:
    """An interface may extend another one."""

    @interface
    class More(Users, Protocol):
        async def count(self) -> int: ...

    found = interface_of(More)
    assert found is not None
    assert list(found.methods) == ["get", "rename", "later", "count"]


def test_each_misfit_is_named_with_its_place() -> None:  # noqa: C901
    """All of them at once, each with file, line, method and parameter."""

    @interface
    class Bad(Protocol):
        def sync(self) -> int: ...
        async def bare(self, x) -> int: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
        async def anything(self, x: object, y: User) -> int: ...
        async def many(self, *values: int) -> int: ...
        async def keywords(self, **values: int) -> int: ...
        async def nameless(self, x: int, /) -> int: ...
        async def result(self) -> Iterable[int]: ...
        async def nothing(self): ...  # type: ignore[no-untyped-def]  # noqa: ANN202
        async def field(self, x: Holder) -> None: ...
        async def stream(self) -> AsyncIterator[int]:
            yield 1

        @property
        def value(self) -> int: ...

    told = problems_of(Bad)
    line = Bad.sync.__code__.co_firstlineno
    assert told[0].endswith(f"test_interface.py:{line}: interface Bad: sync is not async; write `async def`")
    for number, words in enumerate(
        [
            "bare: parameter 'x' has no annotation",
            "anything: parameter 'x': object may be anything",
            "many takes *values; give each parameter a name",
            "keywords takes **values",
            "nameless takes x",
            "the result of result: Iterable is no type of a value",
            "the result of nothing has no annotation",
            "field: parameter 'x': Holder.inner: a object cannot",
            "stream is an async generator; a call has one result",
            "value is no method",
        ],
        start=1,
    ):
        assert words in told[number] or number == 8, told[number]
        assert "test_interface.py" in told[number]
    assert "Holder.inner" in told[8]


@attrs.frozen
class Holder:
    inner: complex


def test_an_unknown_type_is_named() -> None:
    """An annotation that cannot be evaluated says what to do."""

    @interface
    class Unknown(Protocol):
        async def get(self) -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    assert "import the type at run time" in problems_of(Unknown)[0]


def test_an_error_whose_fields_are_unknown_is_refused() -> None:
    """It could not be made again on the other side."""

    class Odd(Exception):
        def __init__(self, *parts: object) -> None: ...

    @interface(raises=[Odd])
    class Uses(Protocol):
        async def get(self) -> int: ...

    assert "Odd.__init__ takes 'parts'" in problems_of(Uses)[0]


def test_an_interface_without_methods_is_refused() -> None:
    """There would be nothing to call."""

    @interface
    class Empty(Protocol): ...

    assert problems_of(Empty) == [f"{__name__}: interface Empty: no method; write an `async def` in it"]


def test_an_attribute_is_refused() -> None:
    """It would be read without a call; a private one is nobody's business, and neither is a private method."""

    @interface
    class Attributes(Protocol):
        value: int
        _private: int

        async def get(self) -> int: ...
        def _helper(self) -> object: ...

    (problem,) = problems_of(Attributes)
    assert problem.endswith("interface Attributes: value is no method; an interface has methods alone")


class Counted(Exception):
    def __init__(self, count: int) -> None:
        self.count = count


def test_the_whole_of_a_method() -> None:
    """Its schema has all that a call depends on, with the records that it refers to."""

    @interface(raises=[Counted])
    class Api(Protocol):
        async def do(self, user: User, deep: bool = False, *, more: Later | None = None) -> list[Later]:
            """Do it.

            In detail.
            """

    found = interface_of(Api)
    assert found is not None
    assert (found.text, found.timeout, found.raises) == ("", 10.0, (Counted,))
    do = found.methods["do"]
    assert (do.interface, do.name, do.text, do.positional) == ("Api", "do", "Do it.", ("user", "deep"))
    assert do.declared == (Counted,)
    assert do.schema == {
        "parameters": {
            "user": {"type": {"ref": "User"}},
            "deep": {"type": "bool", "default": False},
            "more": {"type": {"union": [{"ref": "Later"}, "None"]}, "default": None},
        },
        "result": {"list": {"ref": "Later"}},
        "raises": {"Counted": {"count": {"type": "int"}}},
        "types": {
            "Later": {"users": {"type": {"list": {"ref": "User"}}}},
            "User": {"id": {"type": "int"}, "name": {"type": "str"}},
        },
    }
    assert do.encode((User(1, "x"),), {"more": None}) == {"user": {"id": 1, "name": "x"}, "more": None}
    with pytest.raises(Misfit, match="takes no argument 'xxxx"):
        do.decode({"x" * 100: 1})
    with pytest.raises(Misfit, match="the argument 'user' is missing"):
        do.decode({})
    with pytest.raises(Misfit, match="expected an object of the arguments, got list"):
        do.decode([])
    unknown = {"user": {"id": 1, "name": "x", "more": 1}}
    with pytest.raises(Misfit, match="user: User has no field 'more'"):
        do.decode(unknown)
    later = [{"users": [unknown["user"]], "more": 1}]
    assert do.result.decode(later) == [Later([User(1, "x")])]


@pytest.mark.parametrize("raises", [[3], [BaseException], [int], [NoSuchUser(1)]])
def test_what_is_raised_must_be_errors(raises: Any) -> None:
    """KeyboardInterrupt and its kin are no answers."""
    with pytest.raises(DeclarationError, match="give classes of errors"):

        @interface(raises=raises)
        class Wrong(Protocol):
            async def get(self) -> int: ...


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_the_timeout_must_be_positive(timeout: float) -> None:
    """A call without a limit would wait for a dead machine for ever."""
    with pytest.raises(DeclarationError, match="must be positive"):

        @interface(timeout=timeout)
        class Wrong(Protocol):
            async def get(self) -> int: ...
