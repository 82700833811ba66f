"""Brings the schema up to date; its commands do so manually."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import attrs

from kernel import service
from services._pool import Pool

log = logging.getLogger(__name__)


@attrs.frozen
class Migration:
    """One step of the schema. Each direction is one statement, in one transaction with the record of it."""

    version: int
    name: str
    up: str
    down: str


MIGRATIONS = (
    Migration(
        1,
        "create items",
        """CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
        )""",
        "DROP TABLE items",
    ),
    Migration(
        2,
        "index items by name",
        "CREATE INDEX items_by_name ON items (name)",
        "DROP INDEX items_by_name",
    ),
)


# A one-shot is ready when it has returned. It may fail: the API does not wait for it, and reports what is missing.
@service(depends=["example-database"], oneshot=True, allowed_failure=True)
async def example_migrator(example_database: Pool) -> None:
    """Apply pending migrations. The parameter is named after the dependency, so it gets the value served there."""
    await repeat(upgrade, example_database, None, log.info)


# A command asks for values as a service does; the kernel starts their providers around it, and nothing else.
@example_migrator.command
async def up(example_database: Pool, *, steps: int | None = None) -> None:
    """Apply the migrations that are pending.

    Args:
        example_database: From the kernel; all other parameters are the command line's.
        steps: How many of them, from 1; all if it is not given.

    """
    await repeat(upgrade, example_database, steps, print)


@example_migrator.command
async def down(example_database: Pool, *, steps: int = 1) -> None:
    """Undo the migrations that were applied last.

    Args:
        example_database: From the kernel.
        steps: How many of them, from 1.

    """
    await repeat(downgrade, example_database, steps, print)


@example_migrator.command
async def status(example_database: Pool) -> None:
    """Print each migration, and when it was applied."""
    done = await example_database.read(applied)
    names = {migration.version: migration.name for migration in MIGRATIONS}
    for version in sorted(names.keys() | done.keys()):
        name, applied_at = done.get(version, (names.get(version, ""), "pending"))
        unknown = "" if version in names else "  (unknown here: a newer program's)"
        print(f"{version:3}  {name:24} {applied_at}{unknown}")
    print(f"{len(names.keys() - done.keys())} pending")


async def repeat(
    step: Callable[[sqlite3.Connection], str | None], pool: Pool, steps: int | None, say: Callable[[str], object]
) -> None:
    """Apply *step* in one transaction after another until nothing is left to do, or *steps* times.

    Raises:
        ValueError: *steps* is less than 1.

    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    taken = 0
    while taken != steps:
        did = await pool.write(step)
        if did is None:
            break
        say(did)
        taken += 1
    if not taken:
        say("nothing to do")


def upgrade(db: sqlite3.Connection) -> str | None:
    """Apply the first pending migration, and return what was done; None if there is none.

    Pending migrations are read in the same transaction: if two programs do this at once, the second one waits, and then
    sees what the first one did.
    """
    done = applied(db)
    migration = next((known for known in MIGRATIONS if known.version not in done), None)
    if migration is None:
        return None
    db.execute(
        """CREATE TABLE IF NOT EXISTS schema_migrations (
            version INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
        )"""
    )
    execute(db, migration, migration.up)
    db.execute("INSERT INTO schema_migrations (version, name) VALUES (?, ?)", (migration.version, migration.name))
    return f"applied {migration.version}, {migration.name}"


def downgrade(db: sqlite3.Connection) -> str | None:
    """Undo the last applied migration, and return what was done; None if there is none.

    Raises:
        LookupError: A newer program applied it.

    """
    done = applied(db)
    if not done:
        return None
    last = max(done)
    migration = next((known for known in MIGRATIONS if known.version == last), None)
    if migration is None:
        raise LookupError(f"migration {last}, {done[last][0]}, is a newer program's; only that one can undo it")
    execute(db, migration, migration.down)
    db.execute("DELETE FROM schema_migrations WHERE version = ?", (last,))
    return f"undid {migration.version}, {migration.name}"


def execute(db: sqlite3.Connection, migration: Migration, statement: str) -> None:
    """Run *statement*; an error names the migration that it belongs to."""
    try:
        db.execute(statement)
    except sqlite3.Error as error:
        raise type(error)(f"migration {migration.version}, {migration.name}: {error}") from error


def applied(db: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    """Return the applied migrations in the file: name and time (UTC) by version, even if not in `MIGRATIONS`."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").fetchone():
        return {}
    rows = db.execute("SELECT version, name, applied_at FROM schema_migrations")
    return {version: (name, applied_at) for version, name, applied_at in rows}
