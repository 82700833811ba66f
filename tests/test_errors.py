"""What the errors say."""

from __future__ import annotations

import pickle

import pytest

from kernel import errors
from kernel.errors import (
    CallError,
    ConfigError,
    CycleError,
    KernelError,
    NamingError,
    NeverServed,
    PlanError,
    Problems,
    ServedTwice,
    ServiceError,
    StartTimeout,
    StopTimeout,
    StrayCancellation,
    Uncancellable,
    ValueLost,
    chain,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PlanError("it is wrong"), "it is wrong"),
        (PlanError("it is wrong", where="x.py:3"), "x.py:3: it is wrong"),
        (PlanError("it is wrong", hint="mend it"), "it is wrong; mend it"),
        (PlanError("it is wrong", where="x.py:3", hint="mend it"), "x.py:3: it is wrong; mend it"),
        (NeverServed("api"), "api returned without serving: it takes `Serving`, so it must enter `serving(...)`"),
        (ServedTwice("api"), "api entered `serving(...)` a second time; each attempt can serve only once"),
        (StartTimeout("api", 60.0, "x.py:3 in api"), "api was not ready after 60 s; it was at x.py:3 in api"),
        (StopTimeout("api", 9.25, "x.py:3"), "api did not stop in time: cancelled 9.25 s after the request, at x.py:3"),
        (ValueLost("api", "db", "failed"), "api needs the value of db, which failed"),
        (StrayCancellation("api"), "api was cancelled from within: no stop was requested"),
        (Uncancellable("api", "x.py:3"), "api could not be cancelled; it is at x.py:3"),
    ],
    ids=str,
)
def test_what_an_error_says(error: KernelError, text: str) -> None:
    """Each error formats itself from its fields."""
    assert str(error) == text


def test_raise_any_of_none() -> None:
    """No problem raises nothing."""
    Problems.raise_any([])


def test_raise_any_of_one() -> None:
    """One problem is raised as itself."""
    error = NamingError("no such service")
    with pytest.raises(NamingError) as caught:
        Problems.raise_any([error])
    assert caught.value is error


def test_raise_any_of_several() -> None:
    """Several problems are raised together, one a line, and those that are several themselves are taken apart."""
    first, second, third = NamingError("one"), ConfigError("two", where="X"), CycleError("three", members=("a", "b"))
    with pytest.raises(Problems) as caught:
        Problems.raise_any([Problems("2 problems", errors=(first, second)), third])
    assert caught.value.errors == (first, second, third)
    assert str(caught.value) == "one\nX two\nthree"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("databse", "did you mean 'database'?"),
        ("work", "did you mean 'works' or 'worker'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(name: str, hint: str) -> None:
    """The nearest one or two names are suggested, and nothing where none is near."""
    assert did_you_mean(name, ["database", "worker", "works"]) == hint


def test_every_error_is_a_kernel_error() -> None:
    """Four kinds: of a plan, a service, a call, a brick. The tree in the docstring names them all."""
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KernelError)}
    for cls in classes - {KernelError}:
        assert issubclass(cls, PlanError | ServiceError | CallError | errors.BrickError)
        assert cls.__name__ in (errors.__doc__ or "")


def test_errors_are_compared_by_identity() -> None:
    """Two errors of the same words are two errors, and an error can be a key."""
    assert NeverServed("x") != NeverServed("x")
    assert len({NeverServed("x"), NeverServed("x")}) == 2


def test_an_error_can_be_chained_and_noted() -> None:
    """The kernel's errors carry causes and notes as any exception does."""
    error = StartTimeout("api", 1, "x.py:3")
    error.add_note("in service api")
    with pytest.raises(StartTimeout) as caught:
        raise error from ValueError("why")
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__notes__ == ["in service api"]


def test_an_error_survives_pickling() -> None:
    """A test runner that works in several processes can send a service's error home."""
    error = pickle.loads(pickle.dumps(ValueLost("api", "db", "failed")))  # noqa: S301  (ours)
    assert str(error) == "api needs the value of db, which failed"


def test_a_chain_of_errors() -> None:
    """Each once, by the first link that there is; it may lead back."""
    first, second, third, fourth = (ValueError(number) for number in range(4))
    first.__cause__, first.__context__ = second, third
    second.__context__, third.__context__ = fourth, first
    assert [*chain(None, "__cause__")] == []
    assert [*chain(fourth, "__cause__", "__context__")] == [fourth]
    assert [*chain(first, "__cause__")] == [first, second]
    assert [*chain(first, "__context__")] == [first, third]
    assert [*chain(first, "__cause__", "__context__")] == [first, second, fourth]
    fourth.__cause__ = fourth
    assert [*chain(second, "__context__", "__cause__")] == [second, fourth]
    first.__context__ = group = ExceptionGroup("both", [third, fourth])
    group.__context__, third.__context__ = second, first
    assert [*chain(first, "__context__", ungrouped=True)] == [first, fourth, third]
    assert [*chain(first, "__context__")] == [first, group, second, fourth]
