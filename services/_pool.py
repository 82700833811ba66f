"""The connection pool that example-database opens, and that its dependents hold.

It has a file of its own because both sides need the type: a service that imported another's file would need that
one's packages too, also on machines where only one of them runs.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from queue import SimpleQueue
from typing import TypeVar

from anyio import CancelScope, CapacityLimiter, from_thread, to_thread

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

INSTRUCTIONS = 10_000  # of SQLite's virtual machine between two looks at whether the caller was cancelled: under 1 ms

log = logging.getLogger(__name__)


class Pool:
    """A few SQLite connections, each lent to one piece of work at a time.

    A piece of work is a plain function of a connection. It runs in a thread, as a whole and in one transaction: SQLite
    blocks, and a transaction with awaits inside could be left half done.
    """

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._threads = CapacityLimiter(len(connections))
        for connection in connections:
            # A thread cannot be cancelled, so SQLite asks; an error in the answer interrupts the statement.
            connection.set_progress_handler(from_thread.check_cancelled, INSTRUCTIONS)
            self._idle.put(connection)

    async def read(self, work: Work[T]) -> T:
        """Run *work* on one consistent state of the file.

        Cancellation interrupts it within about a millisecond, and rolls it back.

        Raises:
            sqlite3.Error: SQLite refused something, also once the pool is closed. What *work* raises comes through.

        """
        return await self._run("BEGIN", work)

    async def write(self, work: Work[T]) -> T:
        """Run *work*, which may write: all of it is committed, or none.

        It takes the write lock before it reads: one that read first, and wrote when another had written meanwhile,
        would fail at once instead of waiting. The wait for the lock (the busy timeout) cannot be interrupted.

        Raises:
            sqlite3.Error: As for `read`; with "database is locked" after the busy timeout.

        """
        return await self._run("BEGIN IMMEDIATE", work)

    async def _run(self, begin: str, work: Work[T]) -> T:
        return await to_thread.run_sync(self._transact, begin, work, limiter=self._threads)

    def _transact(self, begin: str, work: Work[T]) -> T:
        connection = self._idle.get()
        try:
            with connection:  # commits, or rolls back
                connection.execute(begin)
                return work(connection)
        except sqlite3.OperationalError:
            from_thread.check_cancelled()  # then "interrupted" means cancelled
            raise
        finally:
            self._idle.put(connection)


@asynccontextmanager
async def open_pool(connect: Callable[[], sqlite3.Connection], size: int) -> AsyncGenerator[Pool]:
    """Open *size* connections, and close them afterwards, however the block ends.

    Raises:
        Exception: What *connect* raised; those that were open by then are closed again.

    """
    connections, opened = await to_thread.run_sync(_open, connect, size)
    try:
        yield Pool(connections)
    finally:
        # Work that is stopped calmly needs no shield here. It is for the day when this service has to be cut.
        with CancelScope(shield=True):
            await to_thread.run_sync(opened.close)
        log.info("closed %d connections", size)


def _open(connect: Callable[[], sqlite3.Connection], size: int) -> tuple[list[sqlite3.Connection], ExitStack]:
    with ExitStack() as stack:
        return [stack.enter_context(closing(connect())) for _ in range(size)], stack.pop_all()
