"""How a command is called, and its exit code."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import pytest

from kernel.declare.signature import Edge, Needs
from kernel.errors import DeclarationError
from kernel.run.command import Outcome, call_with, for_command_line, refuse_values


@attrs.frozen
class Config:
    """A config."""


def everything(db: str, a: int, /, b: int = 2, *rest: str, c: "int | None" = None, **more: float) -> tuple[Any, ...]:  # noqa: UP037
    """Takes what can be taken.

    And more.
    """
    return (db, a, b, rest, c, more)


def bare(x, config: Config):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return x, config


DB = Needs(edges=(Edge("db", parameter="db"),))


def test_the_parameters_of_the_command_line() -> None:
    """All but those that the kernel fills, with their annotations as objects, under the function's own name."""
    seen: list[dict[str, Any]] = []

    def act(values: dict[str, Any]) -> int:
        seen.append(values)
        return 7

    run: Any = for_command_line(everything, DB, act)
    parameters = inspect.signature(run).parameters
    assert [*parameters] == ["a", "b", "rest", "c", "more"]
    assert [parameter.annotation for parameter in parameters.values()] == [int, int, str, int | None, float]
    assert run.__annotations__ == {"a": int, "b": int, "rest": str, "c": int | None, "more": float}
    assert (run.__name__, run.__module__) == ("everything", __name__)
    assert run.__doc__ == "Takes what can be taken.\n\nAnd more."
    assert run(1, 5, "x", "y", c=3, z=0.5) == 7
    assert run(1) == 7
    assert seen == [{"a": 1, "b": 5, "rest": ("x", "y"), "c": 3, "more": {"z": 0.5}}, {"a": 1}]
    run = for_command_line(bare, Needs(config=("config", Config)), act)
    assert [*inspect.signature(run).parameters] == ["x"]
    assert run.__annotations__ == {}
    assert run.__doc__ is None


def test_an_annotation_that_cannot_be_evaluated() -> None:
    """The command is named."""

    def wrong(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(DeclarationError, match="command 'wrong': the annotation of parameter 'x' cannot be evaluated"):
        for_command_line(wrong, Needs(), lambda _: 0)


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ({"db": "pool", "a": 1}, ("pool", 1, 2, (), None, {})),
        ({"db": "pool", "a": 1, "rest": ("x",)}, ("pool", 1, 2, ("x",), None, {})),
        (
            {"db": "pool", "a": 1, "b": 5, "rest": ("x", "y"), "c": 3, "more": {"z": 0.5}},
            ("pool", 1, 5, ("x", "y"), 3, {"z": 0.5}),
        ),
    ],
)
def test_a_command_is_called(values: dict[str, Any], result: tuple[Any, ...]) -> None:
    """Each value as its kind of parameter requires; what is missing keeps its default."""
    assert call_with(everything, values) == result


def test_a_command_of_the_app_takes_no_values() -> None:
    """A required parameter that is named after a service is a mistake; any other may have such a name."""

    def asks(x: int, example_db: int) -> None: ...

    def may(x: int, example_db: int = 1) -> None: ...

    def all_of_them(*example_db: int) -> None: ...

    def by_name(**example_db: int) -> None: ...

    services = {"example_db": "example-db", "other": "other"}
    for fn in (may, all_of_them, by_name):
        refuse_values(fn, services)
    refuse_values(asks, {"other": "other"})
    with pytest.raises(DeclarationError) as refused:
        refuse_values(asks, services)
    assert "command 'asks' has a parameter 'example_db', which is the name of a service" in refused.value.what
    assert refused.value.where.startswith("tests/run/test_command.py:")
    assert "`@example_db.command` in the file of example-db, or rename the parameter" in refused.value.hint


@pytest.mark.parametrize(
    ("result", "code"),
    [(None, 0), (0, 0), (1, 1), (7, 7), (255, 255), (256, 1), (-1, 1), (True, 0), (False, 0), ("7", 0), (7.0, 0)],
)
def test_what_a_command_returns(result: object, code: int) -> None:
    """A whole number is its exit code, or 1 if the system would cut it; anything else means that all is well."""
    outcome = Outcome()
    assert outcome.code == 0
    outcome.returned(result)
    assert outcome.code == code


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (3, 3, ""),
        (256, 1, ""),
        (True, 1, ""),
        (False, 0, ""),
        ("no disk", 1, "no disk\n"),
        (0.5, 1, "0.5\n"),
    ],
)
def test_what_a_command_exits_with(given: object, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As Python has it: a text is printed, and means 1."""
    outcome = Outcome()
    outcome.exited(SystemExit(given))
    assert outcome.code == code
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(
    ("reason", "code"), [("", 7), ("the command has ended", 7), ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]
)
def test_what_a_signal_makes_of_it(reason: str, code: int) -> None:
    """As in shells, whatever the command returned."""
    assert Outcome(7).after(reason) == code
