"""What can be called of example-catalog, wherever it runs: shared by both sides, and importing nothing of either."""

from __future__ import annotations

from typing import Protocol

import attrs

from kernel import interface


@attrs.frozen
class Item:
    """Something in the catalog.

    Args:
        id: Its number.
        name: What it is called.
        created_at: When it was added: UTC, as SQLite writes it.

    """

    id: int
    name: str
    created_at: str


class NotMigrated(Exception):
    """The catalog's table is not there (yet)."""


@interface(raises=[NotMigrated], timeout=5)
class Catalog(Protocol):
    """The items that there are."""

    async def items(self) -> list[Item]:
        """All of them, in the order in which they were added."""
        ...

    async def add(self, name: str) -> Item:
        """Add one."""
        ...
