"""When a crashed service is restarted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs

MOST = 100  # maximum retries that `within` allows, however short the delays are


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:  # also refuses NaN
        message = f"Retry.{attribute.name} is {value}; it must not be negative"
        raise ValueError(message)


def _to_classes(given: Any) -> tuple[type[BaseException], ...] | None:
    if given is None:
        return None
    classes = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
    wrong = [cls for cls in classes if not (isinstance(cls, type) and issubclass(cls, BaseException))]
    if wrong or not classes:
        raise TypeError(f"Retry.on takes exception classes, as in on=(OSError,); got {given!r}")
    return classes


@attrs.frozen
class Retry:
    """Retry a service after a crash, with exponential backoff.

    Args:
        times: The number of retries after the first attempt; None for no limit.
        delay: Seconds before the first retry.
        factor: The factor by which each further delay is longer.
        max_delay: The longest delay, in seconds.
        jitter: The fraction by which each delay varies randomly, up or down, so that services that crashed together do
            not restart together.
        on: The exception class or classes to retry; any other exception fails the service at once. None retries all. A
            group is retried if every exception in it is.
        reset_after: Seconds of readiness after which the retries and the delay start over; None for never.

    Raises:
        ValueError: A number is negative.
        TypeError: *on* is not an exception class or a tuple of them.

    """

    times: int | None = attrs.field(default=0, validator=_not_negative)
    delay: float = attrs.field(default=1.0, validator=_not_negative)
    factor: float = attrs.field(default=2.0, validator=_not_negative)
    max_delay: float = attrs.field(default=30.0, validator=_not_negative)
    jitter: float = attrs.field(default=0.1, validator=_not_negative)
    reset_after: float | None = attrs.field(default=60.0, validator=_not_negative)
    on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_to_classes, kw_only=True)

    @classmethod
    def of(cls, retries: int | Retry) -> Retry:
        """Return *retries* if it is a `Retry`; else a `Retry` with that many *times* and the defaults."""
        return retries if isinstance(retries, Retry) else cls(times=retries)

    def within(self, seconds: float | None) -> Retry:
        """Return a `Retry` limited to the retries whose delays fit into *seconds*; unchanged if it has a limit already.

        Args:
            seconds: The time for all delays; None for no limit, which returns this `Retry` unchanged.

        """
        if self.times is not None or seconds is None:
            return self
        times, waited, exact = 0, 0.0, attrs.evolve(self, jitter=0.0)
        while times < MOST and (waited := waited + (exact.delay_after(times + 1) or 0.0)) <= seconds:
            times += 1
        return attrs.evolve(self, times=times)

    def covers(self, error: BaseException) -> bool:
        """Return whether *error* is retried."""
        if self.on is None or isinstance(error, self.on):
            return True
        return isinstance(error, BaseExceptionGroup) and all(map(self.covers, error.exceptions))

    def delay_after(self, failures: int, rand: Callable[[], float] | None = None) -> float | None:
        """Return the seconds to wait after the *failures*-th crash in a row (from 1); None if no retry is left.

        *rand* returns a number from 0 to 1; None uses a random one.
        """
        if self.times is not None and failures > self.times:
            return None
        try:
            delay = min(self.delay * self.factor ** (failures - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay if self.delay else 0.0
        if not self.jitter:
            return delay
        return max(delay * (1 + self.jitter * (2 * (rand or _rand)() - 1)), 0.0)


def _rand() -> float:
    """Return a number from 0 to 1. Avoids `random`: importing it takes 5 ms, and fails if no file can be opened."""
    return int.from_bytes(os.urandom(6)) / (1 << 48)
