"""What the errors say."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from kernel import errors
from kernel.errors import (
    GROUPED,
    HINT,
    NESTED,
    CallError,
    CallFailed,
    CannotListen,
    ConfigError,
    CycleError,
    KernelError,
    NamingError,
    NeverServed,
    PlanError,
    Problems,
    ProgramError,
    ServedTwice,
    ServiceError,
    StartTimeout,
    StopTimeout,
    StrayCancellation,
    Uncancellable,
    ValueLost,
    add_note,
    chain,
    did_you_mean,
    encodable,
    hint_at_backend,
    one_line,
    text_of,
)
from tests.odd_errors import Unchangeable, Unprintable

LATE = "api did not stop in time: cancelled 9.25 s after the request, at x.py:3"
PROGRAM = "listening on 80", "Error: port in use", "FATAL: giving up", "an error is above", "see the manual"


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
        (StopTimeout("api", 9.25, "x.py:3"), LATE),
        (StopTimeout("api", 9.25, "x.py:3", limit=9.2505), LATE),
        (StopTimeout("api", 0.999, "x.py:3", limit=1), LATE.replace("9.25", "0.999")),
        (
            StopTimeout("api", 9.25, "x.py:3", limit=9.26),
            f"{LATE}; its stop_timeout is 9.26 s, but RUNNER_SHUTDOWNTIMEOUT left no more time",
        ),
        (StopTimeout("api", 1, "x.py:3", forced=True, limit=9), "api was cancelled by another signal, at x.py:3"),
        (ConfigError("is not a port", where="API_PORT"), "API_PORT is not a port"),
        (ConfigError("is not a port", where="API_PORT", hint="mend it"), "API_PORT is not a port; mend it"),
        (CannotListen("[::]:80", "it is in use"), "cannot listen on [::]:80: it is in use"),
        (CannotListen("[::]:80", "it is in use", "mend it"), "cannot listen on [::]:80: it is in use; mend it"),
        (CallError("db", "get", "no"), "db.get: no"),
        (CallFailed("db", "get", "no"), "db.get: no"),
        (CallFailed("db", "get", "no", "OSError"), "db.get: OSError: no"),
        (CallFailed("db", "get", "", "OSError", "0f"), "db.get: OSError (trace 0f)"),
        (ProgramError("psql", "is not installed"), "psql is not installed"),
        (ProgramError("psql", "failed", 1, PROGRAM), "psql failed; its error: FATAL: giving up"),
        (ProgramError("psql", "failed", 1, PROGRAM[:2]), "psql failed; its error: Error: port in use"),
        (ProgramError("psql", "failed", 1, PROGRAM[-1:]), "psql failed; its last line: see the manual"),
        (ProgramError("psql", "was killed", -9, PROGRAM), "psql was killed; its last line: see the manual"),
        (ProgramError("psql", "ended", 0, PROGRAM), "psql ended; its last line: see the manual"),
        (ProgramError("psql", "is missing", None, PROGRAM), "psql is missing; its last line: see the manual"),
        (ProgramError("psql", "failed", 1), "psql failed"),
        (ValueLost("api", "db", "failed"), "api needs the value of db, which failed"),
        (StrayCancellation("api"), "api was cancelled from within: no stop was requested"),
        (Uncancellable("api", "x.py:3"), "api could not be cancelled; it is at x.py:3"),
    ],
    ids=repr,
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


# -- in one line -------------------------------------------------------------------------------------------------


def nested(levels: int) -> BaseException:
    """A group in a group in a group."""
    return BaseExceptionGroup("all", [nested(levels - 1)]) if levels else OSError("deep")


def noted(error: BaseException, *notes: str) -> BaseException:
    """*error* with these notes."""
    for note in notes:
        error.add_note(note)
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no disk"), "OSError: no disk"),
        (OSError("no disk\nand more"), "OSError: no disk"),
        (OSError(), "OSError"),
        (NeverServed("api"), str(NeverServed("api"))),
        (Problems("2", errors=(NamingError("one"), NamingError("two"))), "one\ntwo"),
        (Unprintable(), "Unprintable: (no text: RuntimeError)"),
        (OSError("\udcff"), "OSError: \\udcff"),
        (noted(OSError("no disk"), "seen", f"{HINT}buy one", f"{HINT}or two"), "OSError: no disk; buy one; or two"),
        (noted(OSError(), f"{HINT}buy one"), "OSError; buy one"),
        (
            ExceptionGroup("all", [OSError("a"), NeverServed("api")]),
            f"ExceptionGroup: OSError: a; {NeverServed('api')}",
        ),
        (
            ExceptionGroup("all", [OSError(str(number)) for number in range(GROUPED)]),
            "ExceptionGroup: " + "; ".join(f"OSError: {number}" for number in range(10)),
        ),
        (
            ExceptionGroup("all", [OSError(str(number)) for number in range(GROUPED + 2)]),
            "ExceptionGroup: " + "; ".join(f"OSError: {number}" for number in range(10)) + "; and 2 more errors",
        ),
        (nested(NESTED), "ExceptionGroup: " * 5 + "OSError: deep"),
        (nested(NESTED + 1), "ExceptionGroup: " * 5 + "ExceptionGroup (nested groups left out)"),
    ],
    ids=range(14),
)
def test_an_error_in_one_line(error: BaseException, line: str) -> None:
    """Its type and the first line of its text, with hints; of a group, those of its errors, up to some."""
    assert one_line(error) == line


def test_a_long_error_in_one_line() -> None:
    """The middle of what is too long is left out: of a text, of hints, and of a group."""
    for error in (
        OSError("x" * 5000),
        noted(OSError(), HINT + "x" * 5000),
        ExceptionGroup("", [OSError("x" * 900)] * 5),
    ):
        line = one_line(error)
        assert "characters left out" in line
        assert 1000 < len(line) < 1100


def test_what_cannot_be_encoded() -> None:
    """It is escaped, and only that."""
    assert encodable("naïve 😀") == "naïve 😀"
    assert encodable("na\udcefve 😀") == "na\\udcefve 😀"


def test_a_text_that_fails() -> None:
    """What fails is named instead."""
    assert text_of(Unprintable(), repr) == "Unprintable()"
    assert text_of("x", lambda _: 1 / 0) == "(no text: ZeroDivisionError)"  # type: ignore[arg-type,return-value]


# -- notes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "instead_of", "after"),
    [
        ((), "", ("new",)),
        ((), "in", ("new",)),
        (("in a", "seen"), "", ("in a", "seen", "new")),
        (("in a", "seen"), "in", ("seen", "new")),
        (("seen", "in a", "in b"), "in", ("seen", "new")),
        (("seen", "within"), "in", ("seen", "within", "new")),
    ],
)
def test_a_note_that_takes_the_place_of_others(
    before: tuple[str, ...], instead_of: str, after: tuple[str, ...]
) -> None:
    """Those that begin so are removed, and no others; it comes last."""
    error = noted(OSError(), *before)
    add_note(error, "new", instead_of=instead_of)
    assert (*error.__notes__,) == after


def test_a_note_that_is_not_accepted() -> None:
    """An error that cannot be changed stays as it is, and nothing is raised."""
    error = Unchangeable()
    add_note(error, "new")
    assert not getattr(error, "__notes__", ())


ASYNCIO = [
    (RuntimeError, "no running event loop"),
    (RuntimeError, "There is no current event loop in thread 'MainThread'."),
    (TypeError, "trio got unrecognized yield message <Future pending>"),
]
OTHERS = [(RuntimeError, "no luck"), (TypeError, "no text"), (OSError, "no current event loop")]


def alone(error: Exception) -> Exception:
    """Return *error*."""
    return error


def in_a_group(error: Exception) -> Exception:
    """Return a group with *error*."""
    return ExceptionGroup("all", [OSError(), error])


@pytest.mark.parametrize("case", [*ASYNCIO, *OTHERS], ids=lambda case: case[1])
@pytest.mark.parametrize("group", [alone, in_a_group])
def test_a_library_that_needs_asyncio(
    case: tuple[type[Exception], str], group: Callable[[Exception], Exception]
) -> None:
    """The errors that mean so get a hint, once, also in a group; where asyncio runs none does."""
    error = case[0](case[1])
    hint_at_backend(group(error), "asyncio")
    assert not hasattr(error, "__notes__")
    hint_at_backend(group(error), "trio")
    hint_at_backend(group(error), "trio")
    hints = [note for note in getattr(error, "__notes__", ()) if note.startswith(f"{HINT}the library needs asyncio")]
    assert len(hints) == (case in ASYNCIO)
