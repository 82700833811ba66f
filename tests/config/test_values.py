"""Texts as typed values."""

from __future__ import annotations

import copy
import json
import math
import pickle
import pprint
from typing import Any

import attrs
import cattrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import masking
from kernel.config.values import Secret, parse_bool, parse_duration, parse_list, register, secrets_in, write_seconds


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


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90s"), (90.0, "90s"), (0.5, "0.5s"), (0, "0s"), (1e300, "1e+300"), (1e-7, "1e-07")]
)
def test_a_duration_is_written(seconds: float, text: str) -> None:
    """With its unit, where that can be read again."""
    assert write_seconds(seconds) == text
    assert parse_duration(text) == seconds


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


def test_a_secret_is_masked() -> None:
    """It shows itself nowhere, alone or inside of something, and gives its value only to who asks for it."""
    secret = Secret("hunter2")

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


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("plain", set()),
        ([None, 1, {"a": b"b"}], set()),
        (Secret("a"), {"a"}),
        (Secret(Secret(7)), {"********", "7"}),
        (Secret(b"a"), {"b'a'", "a"}),
        (Secret(b"\xff"), {"b'\\xff'", "\udcff"}),
        (Secret("\u00e9".encode()), {"b'\\xc3\\xa9'", "\u00e9"}),
        (["plain", Secret("a")], {"a"}),
        (Secret(["a", "b"]), {"['a', 'b']", "a", "b"}),
        (Secret({"name": {"inner": "a"}}), {"{'name': {'inner': 'a'}}", "a"}),
        ({Secret("a"): "plain", "name": ({Secret("b")}, frozenset([Secret("c")]))}, {"a", "b", "c"}),
        (Login(Secret("a"), (Secret("b"),)), {"a", "b"}),
        ([Login(Secret(""))], {""}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else type(value).__name__,
)
def test_the_secrets_in_a_value(value: object, texts: set[str]) -> None:
    """Each whole one and each of its elements, at any depth; what is not secret, and names in a dict, are not."""
    assert {*secrets_in(value)} == texts


def test_short_defaults_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words such as "default" are not masked wherever they occur; what is longer is."""
    monkeypatch.setattr(masking, "_secrets", {})
    monkeypatch.setattr(masking, "_longest_first", [])
    register(Login(Secret("default"), (Secret("12345678"),)))
    assert masking.mask("default, 12345678, 123456789") == f"default, {masking.MASK}, {masking.MASK}9"
