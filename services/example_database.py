"""Opens an SQLite file and provides a pool of connections to its consumers."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import anyio
import attrs
from attrs.validators import ge, le

from kernel import Serving, service
from services._pool import Pool, open_pool

BUSY_TIMEOUT = 5.0  # seconds that one connection waits while another writes; less than stop_timeout, see `Pool.write`
OPTIMIZE_EVERY = 300.0  # seconds


@attrs.frozen
class DatabaseConfig:
    """The kernel reads each field from the variable beside it, and reports invalid values before anything starts.

    Args:
        path: The file; created if it does not exist.
        pool_size: Number of connections, and so the number of pieces of work at a time.

    """

    path: Path = Path("app.db")  # EXAMPLE_DATABASE_PATH
    pool_size: int = attrs.field(default=5, validator=[ge(1), le(64)])  # EXAMPLE_DATABASE_POOL_SIZE


@service(retries=2, stop_timeout=8)
async def example_database(config: DatabaseConfig, serving: Serving[Pool]) -> None:
    """Open resources outside `serving`, work inside: a stop cancels the work, then the resources close uncancelled.

    Consumers of the pool have ended by then, even after a crash in here: the kernel ensures that.
    """
    async with (
        open_pool(partial(connect, config.path), config.pool_size) as pool,
        serving(pool) as work,  # ready: dependents may start, and get `pool`
    ):
        work.start_soon(optimize, pool)  # an error in it is a crash of this service
        await anyio.sleep_forever()


async def optimize(pool: Pool) -> None:
    """Let SQLite update the statistics of its query planner; that is cheap unless the tables have changed much."""
    while True:
        await anyio.sleep(OPTIMIZE_EVERY)
        await pool.write(lambda db: db.execute("PRAGMA optimize"))


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at *path* for reading and writing, in threads.

    Raises:
        RuntimeError: The file cannot be opened; the message names the variable to change.

    """
    try:
        with ExitStack() as stack:
            connection = sqlite3.connect(
                path,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,  # the pool begins transactions explicitly
                check_same_thread=False,  # the pool lends a connection to one thread at a time
            )
            stack.enter_context(closing(connection))
            connection.execute("PRAGMA journal_mode = WAL")  # readers and the one writer do not block each other
            connection.execute("PRAGMA synchronous = NORMAL")  # with WAL this cannot corrupt the file
            connection.execute("PRAGMA foreign_keys = ON")  # off by default, and per connection
            if not os.access(path, os.W_OK):  # SQLite would open it anyway, and fail at the first write
                raise sqlite3.OperationalError("no permission to write")
            stack.pop_all()
            return connection
    except sqlite3.Error as error:
        folder = path.absolute().parent
        reason = str(error) if folder.is_dir() else f"there is no folder {folder}"
        raise RuntimeError(f"EXAMPLE_DATABASE_PATH: cannot open {path.absolute()}: {reason}") from error
