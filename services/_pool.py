"""The connection pool that example-database opens, and that its consumers use.

It is in a separate file because both sides need the type: a service that imported another service's file would need
that service's packages too, even on machines where only one of them runs.
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

INSTRUCTIONS = 10_000  # of SQLite's virtual machine between two checks for cancellation: under 1 ms

log = logging.getLogger(__name__)


class Pool:
    """A few SQLite connections, each lent to one piece of work at a time.

    A piece of work is a plain function of a connection. It runs in a thread, as a whole and in one transaction: SQLite
    blocks, and a transaction with awaits inside could be left incomplete.
    """

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._threads = CapacityLimiter(len(connections))
        for connection in connections:
            # A thread cannot be cancelled, so SQLite calls back; an error in the callback interrupts the statement.
            connection.set_progress_handler(from_thread.check_cancelled, INSTRUCTIONS)
            self._idle.put(connection)

    async def read(self, work: Work[T]) -> T:
        """Run *work* on one consistent state of the file.

        Cancellation interrupts it within about a millisecond, and rolls it back.

        Raises:
            sqlite3.Error: SQLite failed, also because the pool is closed. Errors of *work* propagate.

        """
        return await self._run("BEGIN", work)

    async def write(self, work: Work[T]) -> T:
        """Run *work*, which may write: all of it is committed, or nothing.

        It takes the write lock before it reads: if it read first, and another writer came between, it would fail
        immediately instead of waiting. The wait for the lock (the busy timeout) cannot be interrupted.

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
            from_thread.check_cancelled()  # if so, "interrupted" means cancelled
            raise
        finally:
            self._idle.put(connection)


@asynccontextmanager
async def open_pool(connect: Callable[[], sqlite3.Connection], size: int) -> AsyncGenerator[Pool]:
    """Open *size* connections, and close them when the block ends.

    Raises:
        Exception: *connect* failed; connections opened before that are closed again.

    """
    connections, opened = await to_thread.run_sync(_open, connect, size)
    try:
        yield Pool(connections)
    finally:
        # A normal stop needs no shield here. The shield is for the case that this service is cancelled by force.
        with CancelScope(shield=True):
            await to_thread.run_sync(opened.close)
        log.info("closed %d connections", size)


def _open(connect: Callable[[], sqlite3.Connection], size: int) -> tuple[list[sqlite3.Connection], ExitStack]:
    with ExitStack() as stack:
        return [stack.enter_context(closing(connect())) for _ in range(size)], stack.pop_all()
