"""The interface of example-catalog, wherever it runs: shared by both sides, and importing nothing of either."""

from __future__ import annotations

from typing import Protocol

import attrs

from kernel import interface


@attrs.frozen
class Item:
    """An item in the catalog.

    Args:
        id: Its number.
        name: Its name.
        created_at: When it was added: UTC, as SQLite writes it.

    """

    id: int
    name: str
    created_at: str


class NotMigrated(Exception):
    """Raised if the catalog's table does not exist (yet)."""


@interface(raises=[NotMigrated], timeout=5)
class Catalog(Protocol):
    """The items in the catalog."""

    async def items(self) -> list[Item]:
        """Return all items, in the order in which they were added."""
        ...

    async def add(self, name: str) -> Item:
        """Add an item."""
        ...
