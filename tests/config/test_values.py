"""Texts as typed values."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
import pprint
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import attrs
import cattrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.config.values import (
    Seconds,
    Secret,
    UnreadableType,
    expected,
    is_secret,
    parse_bool,
    parse_duration,
    parse_list,
    structure,
)


class Colour(enum.Enum):
    """Something to choose from."""

    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Inner:
    """A class that is no value of a variable."""

    x: int = 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5s", 1.5),
        ("7", 7),
        ("0", 0),
        ("0.25", 0.25),
        (" 10S ", 10),
        ("1e3", 1000),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Units, several of them, or a number of seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "10x", "-1", "-1s", "1s2", "inf", "nan", "1m 30s", "s", "1_0x"])
def test_what_is_no_duration(text: str) -> None:
    """What is none, negative or endless is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  (its message is never shown)
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, millis: int) -> None:
    """All units together are their sum."""
    text = f"{hours}h{minutes}m{seconds}s{millis}ms"
    assert math.isclose(parse_duration(text), hours * 3600 + minutes * 60 + seconds + millis / 1000)


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " Yes "])
def test_true(text: str) -> None:
    """Four words for yes, in any case."""
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "Off"])
def test_false(text: str) -> None:
    """Four words for no."""
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "y", "2", "truth"])
def test_what_is_no_boolean(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError):  # noqa: PT011  (its message is never shown)
        parse_bool(text)


@pytest.mark.parametrize(("text", "parts"), [("a, b,,c ", ["a", "b", "c"]), ("", []), (" , ", []), ("a", ["a"])])
def test_lists(text: str, parts: list[str]) -> None:
    """Comma-separated, stripped, and empty parts dropped."""
    assert parse_list(text) == parts


@pytest.mark.parametrize(
    ("text", "tp", "value"),
    [
        ("7", int, 7),
        ("7.5", float, 7.5),
        ("7", str, "7"),
        ("off", bool, False),
        ("a/b", Path, Path("a/b")),
        ("1m", Seconds, 60.0),
        ("1m", timedelta, timedelta(minutes=1)),
        ("red", Colour, Colour.RED),
        ("RED", Colour, Colour.RED),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("1,2", list[int], [1, 2]),
        ("1,2", tuple[int, ...], (1, 2)),
        ("1,x", tuple[int, str], (1, "x")),
        ("a,a", set[str], {"a"}),
        ("a,a", frozenset[str], frozenset({"a"})),
        ("1s,2s", list[Seconds], [1.0, 2.0]),
        ("7", int | None, 7),
        ("x", int | str, "x"),
        ("red,blue", list[Colour], [Colour.RED, Colour.BLUE]),
    ],
    ids=str,
)
def test_structure(text: str, tp: Any, value: object) -> None:
    """A text becomes a value of the type that was asked for."""
    got = structure(text, tp)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "tp"),
    [
        ("x", int),
        ("1.5", int),
        ("x", float),
        ("maybe", bool),
        ("x", Seconds),
        ("x", timedelta),
        ("green", Colour),
        ("c", Literal["a", "b"]),
        ("1,x", list[int]),
        ("1", tuple[int, str]),
        ("x", int | None),
        ("x", Secret[int]),
    ],
    ids=str,
)
def test_what_cannot_be_structured(text: str, tp: Any) -> None:
    """A text that does not fit is refused."""
    with pytest.raises(Exception):  # noqa: B017, PT011  (what a converter raises varies)
        structure(text, tp)


@pytest.mark.parametrize("tp", [dict, dict[str, int], Inner, list[Inner], Inner | None], ids=str)
def test_types_that_no_text_can_become(tp: Any) -> None:
    """They are told apart from a text that does not fit."""
    with pytest.raises(UnreadableType):
        structure("x", tp)


@pytest.mark.parametrize(
    ("tp", "words"),
    [
        (int, "a whole number"),
        (bool, "true/false, 1/0, yes/no or on/off"),
        (Seconds, "a duration such as 10s, 1m30s, 500ms or a number of seconds"),
        (timedelta, "a duration such as 10s, 1m30s, 500ms or a number of seconds"),
        (Secret[int], "a whole number"),
        (Literal["a", 1], "one of a, 1"),
        (Colour, "one of red, blue"),
        (int | None, "a whole number"),
        (int | str, "a whole number or a text"),
        (list[int], "a comma-separated list, each part a whole number"),
        (tuple[Path, ...], "a comma-separated list, each part a path"),
        (complex, "complex"),
    ],
    ids=str,
)
def test_expected(tp: Any, words: str) -> None:
    """What was expected is told in words."""
    assert expected(tp) == words


@pytest.mark.parametrize("tp", [Secret[str], Secret[str] | None, list[Secret[str]], tuple[int, Secret[int]]], ids=str)
def test_secret_types(tp: Any) -> None:
    """A type that holds a secret anywhere is one."""
    assert is_secret(tp)
    assert not is_secret(list[str])


def test_a_secret_is_masked() -> None:
    """It shows itself nowhere, alone or inside of something, and gives its value only to who asks for it."""
    secret = structure("hunter2", Secret[str])

    @attrs.frozen
    class Config:
        token: Secret[str]

    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", repr([secret]), repr(Config(secret))):
        assert "hunter2" not in shown
        assert "****" in shown
    assert secret.reveal() == "hunter2"


def test_secrets_are_values() -> None:
    """Two secrets of one value are equal, and a secret may be a key."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"
    assert hash(Secret(1234)) != 1234


def test_a_secret_cannot_be_changed() -> None:
    """It is frozen."""
    with pytest.raises(AttributeError):
        Secret("a")._give = "b"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        del Secret("a")._give


@attrs.frozen
class Login:
    """A config with secrets, some of them inside of others."""

    password: Secret[str]
    others: tuple[Secret[str], ...] = ()


@given(st.text())
def test_a_secret_gives_nothing_away(text: str) -> None:
    """Whatever walks through an object, copies, formats or dumps it."""
    secret = Secret(f"Zq{text}Zq")
    login = Login(secret, (secret,))
    shown = [
        *(repr(one) for one in (secret, login, attrs.asdict(login), attrs.astuple(login), copy.copy(secret))),
        *(repr(one) for one in (copy.deepcopy(login), cattrs.unstructure(login), dir(secret), vars(type(secret)))),
        json.dumps(attrs.asdict(login), default=str),
        *(f"{secret}", f"{secret!s:>40}", f"{secret:>40}", f"{secret!r}", "%s %r" % (secret, secret)),  # noqa: UP031
        pprint.pformat(attrs.asdict(login)),
        *(repr(getattr(secret, name)) for name in dir(secret) if not name.startswith("__")),
    ]
    for one in shown:
        assert "Zq" not in one
    assert copy.deepcopy(login) == login
    refusing: tuple[Any, ...] = (pickle.dumps, Secret.__getstate__, json.dumps, bytes, float)
    for refuses in refusing:
        with pytest.raises(TypeError):
            refuses(secret)


def test_a_secret_by_another_name_is_one() -> None:
    """A NewType of a Secret, and an annotated one."""
    assert is_secret(NewType("Token", Secret[str]))
    assert is_secret(Annotated[Secret[str], "of the mailer"])
