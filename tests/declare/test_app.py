"""What an app declares beside its services: lifespans, observers, commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from kernel.declare import app
from kernel.errors import DeclarationError


@pytest.fixture(autouse=True)
def extensions(monkeypatch: pytest.MonkeyPatch) -> app.Extensions:
    """Nothing declared yet."""
    made = app.Extensions()
    monkeypatch.setattr(app, "EXTENSIONS", made)
    return made


def sees(event: object) -> None: ...


async def sees_later(event: object) -> None: ...


async def sees_and_yields(event: object) -> AsyncGenerator[None, None]:
    yield


def sees_nothing() -> None: ...


def sees_two(event: object, another: object) -> None: ...


class Counter:
    """An object that can be called."""

    def __call__(self, event: object, *, spare: int = 0) -> None: ...


@pytest.mark.parametrize("fn", [sees, Counter(), lambda *events: None], ids=["def", "object", "any"])
def test_an_observer_is_registered_and_stays_what_it_is(extensions: app.Extensions, fn: Any) -> None:
    """Any callable that takes an event."""
    assert app.observer(fn) is fn
    assert extensions.observers == [fn]


@pytest.mark.parametrize(
    ("fn", "told", "hint"),
    [
        (sees_later, "observer 'sees_later' is async", "write a plain `def`"),
        (sees_and_yields, "observer 'sees_and_yields' is async", "write a plain `def`"),
        (
            sees_nothing,
            "observer 'sees_nothing' cannot be called with one argument",
            "give it one parameter, the event",
        ),
        (sees_two, "observer 'sees_two' cannot be called with one argument", "give it one parameter, the event"),
    ],
)
def test_what_is_no_observer(extensions: app.Extensions, fn: Any, told: str, hint: str) -> None:
    """It is said where it stands, and what to do; it is not registered."""
    with pytest.raises(DeclarationError) as caught:
        app.observer(fn)
    assert told in str(caught.value)
    assert hint in str(caught.value)
    assert caught.value.where.startswith("tests/declare/test_app.py:")
    assert not extensions.observers


async def no_yield() -> None: ...


async def takes(event: object) -> AsyncGenerator[None, None]:
    yield


async def around() -> AsyncGenerator[None, None]:
    yield


@pytest.mark.parametrize("fn", [no_yield, takes])
def test_what_is_no_lifespan(extensions: app.Extensions, fn: Any) -> None:
    """It yields, and takes nothing: either alone is not enough."""
    with pytest.raises(DeclarationError, match="without parameters that yields once") as caught:
        app.lifespan(fn)
    assert caught.value.where.startswith("tests/declare/test_app.py:")
    assert not extensions.lifespans
    assert app.lifespan(around) is around
    assert extensions.lifespans == [around]
