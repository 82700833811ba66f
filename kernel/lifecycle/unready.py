"""`work.unready`: a service that serves, and would rather not be sent any traffic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from anyio import current_time


class Withheld(Protocol):
    """What a supervisor is here."""

    withheld: tuple[str, ...]

    def tell_unready(self, change: int, message: str) -> None:
        """Take note that there is one reason more (1) or less (-1)."""


@contextlib.contextmanager
def unready(owner: Withheld, reason: str) -> Iterator[None]:
    """Have *owner* be unready for *reason* around a block."""
    began = current_time()
    owner.withheld = (*owner.withheld, reason)
    owner.tell_unready(1, f"unready, but still serving: {reason}")
    try:
        yield
    finally:
        left = list(owner.withheld)
        left.remove(reason)
        owner.withheld = tuple(left)
        owner.tell_unready(-1, f"ready again after {current_time() - began:.3g} s: {reason}")
