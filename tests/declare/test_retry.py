"""When a crashed service is tried again."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.declare.retry import Retry, _rand


def steady() -> float:
    """The middle of the jitter."""
    return 0.5


def test_defaults() -> None:
    """Never again by default; the delay is 1 s, doubling to 30 s, with a little jitter, and 60 s of ready forgive."""
    assert attrs.astuple(Retry()) == (0, 1.0, 2.0, 30.0, 0.1, 60.0, None)


def test_of_a_number() -> None:
    """A number means so many times, with the defaults."""
    assert Retry.of(3) == Retry(times=3)


def test_of_a_retry() -> None:
    """A Retry is taken as it is."""
    retry = Retry(times=None, delay=5)
    assert Retry.of(retry) is retry


def test_delays_double_up_to_the_longest() -> None:
    """Each delay is the factor times the one before, up to max_delay."""
    retry = Retry(times=None)
    assert [retry.delay_after(n, steady) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("times", [0, 1, 5])
def test_it_gives_up(times: int) -> None:
    """So many retries, and not one more."""
    retry = Retry(times=times)
    assert [n for n in range(1, 10) if retry.delay_after(n) is not None] == list(range(1, times + 1))


def test_for_ever() -> None:
    """None retries for ever, and a large number of crashes overflows nothing."""
    assert Retry(times=None).delay_after(100_000, steady) == 30
    assert Retry(times=None, factor=3).delay_after(100_000, steady) == 30


@pytest.mark.parametrize(
    ("retry", "seconds", "times"),
    [
        (Retry(times=None), 60, 5),  # 1 + 2 + 4 + 8 + 16, and 30 would be too many
        (Retry(times=None), 61, 6),
        (Retry(times=None, delay=0.2), 60, 8),
        (Retry(times=None, delay=90, max_delay=90), 60, 0),
        (Retry(times=None, delay=0), 60, 100),
        (Retry(times=None, delay=1, factor=0.5), 60, 100),
        (Retry(times=None), None, None),
        (Retry(times=7), 1, 7),
        (Retry(), 1, 0),
    ],
)
def test_within(retry: Retry, seconds: float | None, times: int | None) -> None:
    """One without a limit gets the retries that fit, whatever the jitter; all others stay as they are."""
    found = retry.within(seconds)
    assert found == attrs.evolve(retry, times=times)
    assert (found is retry) == (times == retry.times)


def test_no_delay_for_ever() -> None:
    """A delay of 0 stays 0, however often it is multiplied."""
    assert {Retry(times=None, delay=0).delay_after(n, steady) for n in (1, 2, 100, 5000)} == {0}


@pytest.mark.parametrize(("rand", "delay"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_jitter(rand: float, delay: float) -> None:
    """The delay is varied up or down by its share."""
    assert Retry(times=1).delay_after(1, lambda: rand) == pytest.approx(delay)


def test_jitter_is_random() -> None:
    """Services that crashed together do not come back together."""
    retry = Retry(times=1)
    assert len({retry.delay_after(1) for _ in range(50)}) > 40


@pytest.mark.parametrize("field", ["times", "delay", "factor", "max_delay", "jitter", "reset_after"])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan], ids=str)
def test_a_negative_number_is_refused(field: str, value: float) -> None:
    """A negative number, or none at all, is refused with the field's name."""
    with pytest.raises(ValueError, match=rf"Retry.{field} is {value}; it must not be negative"):
        Retry(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["times", "reset_after"])
def test_none_where_it_means_something(field: str) -> None:
    """None means for ever, or never."""
    assert getattr(Retry(**{field: None}), field) is None  # type: ignore[arg-type]


@given(
    times=st.none() | st.integers(0, 20),
    delay=st.floats(0, 1e6),
    factor=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 3),
    failures=st.integers(1, 10_000),
    rand=st.floats(0, 1),
)
def test_a_delay_is_within_its_bounds(
    *, times: int | None, delay: float, factor: float, max_delay: float, jitter: float, failures: int, rand: float
) -> None:
    """Whatever the numbers, a delay is not negative and longer than max_delay by its jitter at most."""
    retry = Retry(times, delay, factor, max_delay, jitter)
    seconds = retry.delay_after(failures, lambda: rand)
    if times is not None and failures > times:
        assert seconds is None
    else:
        assert seconds is not None
        assert 0 <= seconds <= max_delay * (1 + jitter) * 1.001


@pytest.mark.parametrize(
    ("on", "error", "covered"),
    [
        (None, SystemExit(1), True),
        (OSError, ConnectionRefusedError(), True),
        ((OSError, LookupError), KeyError(), True),
        ([OSError], PermissionError(), True),
        (OSError, ValueError(), False),
        (ConnectionError, OSError(), False),
        (OSError, ExceptionGroup("", [OSError(), ExceptionGroup("", [ConnectionError()])]), True),
        (OSError, ExceptionGroup("", [OSError(), ValueError()]), False),
    ],
)
def test_what_is_retried(on: Any, error: BaseException, covered: bool) -> None:
    """Errors of the classes in `on`, and groups in which each error is; without it, any."""
    assert Retry(times=3, on=on).covers(error) is covered


@pytest.mark.parametrize("on", [(), "OSError", OSError(), (OSError, int), 3])
def test_what_is_no_class_of_errors(on: Any) -> None:
    """It is refused where it is written."""
    with pytest.raises(TypeError, match=r"Retry\.on takes exception classes"):
        Retry(on=on)


def test_chance_takes_the_whole_range() -> None:
    """From 0 to 1, so that those who crash together do not come back together."""
    drawn = [_rand() for _ in range(1000)]
    assert 0 <= min(drawn) < 0.1
    assert 0.9 < max(drawn) < 1
