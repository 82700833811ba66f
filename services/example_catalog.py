"""Serves the catalog to its callers, in this process or in another."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from kernel import Serving, service
from services._catalog import Catalog, Item, NotMigrated
from services._pool import Pool


# It provides an interface, so its callers may run elsewhere. The pool is not an interface: the database runs here.
@service(depends=["example-database"])
async def example_catalog(example_database: Pool, serving: Serving[Catalog]) -> None:
    """Provide an ordinary object of any class that has the methods of the interface."""
    async with serving(CatalogInDatabase(example_database)):
        await anyio.sleep_forever()


class CatalogInDatabase:
    """The catalog, stored in the table of items."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def items(self) -> list[Item]:
        """Read all items."""
        select = "SELECT id, name, created_at FROM items ORDER BY id"
        with migrated():
            return [Item(*row) for row in await self._pool.read(lambda db: db.execute(select).fetchall())]

    async def add(self, name: str) -> Item:
        """Write an item."""
        insert = "INSERT INTO items (name) VALUES (?) RETURNING id, name, created_at"
        with migrated():
            return Item(*await self._pool.write(lambda db: db.execute(insert, (name,)).fetchone()))


@contextmanager
def migrated() -> Generator[None]:
    """Explain a missing table: the migrator runs beside this service, and may fail.

    Raises:
        NotMigrated: The table does not exist. Other errors propagate and are logged; the caller gets a CallFailed.

    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        raise NotMigrated(f"{error}; run the migrations: app example-migrator up") from error
