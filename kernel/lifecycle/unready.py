"""`work.unready`: mark a service as unready while it continues to serve."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from anyio import current_time


class Withheld(Protocol):
    """The part of a supervisor that `unready` uses."""

    withheld: tuple[str, ...]

    def tell_unready(self, change: int, message: str) -> None:
        """Record that a reason was added (1) or removed (-1)."""


@contextlib.contextmanager
def unready(owner: Withheld, reason: str) -> Iterator[None]:
    """Mark *owner* as unready for *reason* while the block runs."""
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
