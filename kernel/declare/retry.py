"""When a crashed service is tried again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:  # also refuses NaN
        message = f"Retry.{attribute.name} is {value}; it must not be negative"
        raise ValueError(message)


def _to_classes(given: Any) -> tuple[type[BaseException], ...] | None:
    if given is None:
        return None
    classes = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
    wrong = [one for one in classes if not (isinstance(one, type) and issubclass(one, BaseException))]
    if wrong or not classes:
        raise TypeError(f"Retry.on takes classes of errors, as in on=(OSError,); it was given {given!r}")
    return classes


@attrs.frozen
class Retry:
    """Try again after a crash, with exponential backoff.

    Args:
        times: How many times after the first attempt; None means for ever.
        delay: Seconds before the first retry.
        factor: What each further delay is multiplied by.
        max_delay: The longest delay, in seconds.
        jitter: The share of the delay by which it is varied at random, up or down, so that services
            that crashed together do not come back together.
        on: The errors that are retried, a class or several: any other is final at once, as a wrong password needs no
            six tries. None means any. A group of errors is retried where each error in it is.
        reset_after: Seconds of being ready after which the budget is full again and the delay short;
            counted from the moment of being ready. None means never.

    Raises:
        ValueError: A number is negative.
        TypeError: *on* is no class of errors.

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
        """*retries* itself, or that many times with the defaults."""
        return retries if isinstance(retries, Retry) else cls(times=retries)

    def covers(self, error: BaseException) -> bool:
        """Whether *error* is one that is retried."""
        if self.on is None or isinstance(error, self.on):
            return True
        return isinstance(error, BaseExceptionGroup) and all(map(self.covers, error.exceptions))

    def delay_after(self, failures: int, rand: Callable[[], float] | None = None) -> float | None:
        """Seconds to wait after the *failures*-th crash in a row (from 1); None means give up.

        *rand* gives a number from 0 to 1; None takes chance.
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
    """From 0 to 1. Not by `random`: to import it takes 5 ms, and files, of which there may be no more to open."""
    return int.from_bytes(os.urandom(6)) / (1 << 48)
