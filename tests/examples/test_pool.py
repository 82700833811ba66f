"""The connection pool: transactions, cancellation, and who waits for whom."""

from __future__ import annotations

import sqlite3
import threading
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from services._pool import Pool, open_pool
from services.example_database import connect
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.anyio

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
async def numbers(pool: Pool) -> Pool:
    """A pool with a table of one row, n = 0."""
    await pool.write(lambda db: db.execute("CREATE TABLE numbers (n INTEGER)"))
    await pool.write(lambda db: db.execute("INSERT INTO numbers VALUES (0)"))
    return pool


def increment(db: sqlite3.Connection) -> None:
    """Read, take some time, write: loses an update unless it has the file for itself."""
    (n,) = db.execute("SELECT n FROM numbers").fetchone()
    time.sleep(0.002)
    db.execute("UPDATE numbers SET n = ?", (n + 1,))


async def value(pool: Pool) -> int:
    return await pool.read(lambda db: int(db.execute("SELECT n FROM numbers").fetchone()[0]))


async def test_a_write_that_raises_leaves_nothing(numbers: Pool) -> None:
    """All of a piece of work is committed, or none of it; the connection is as good as before."""

    def half(db: sqlite3.Connection) -> None:
        increment(db)
        raise LookupError("the other half")

    for _ in range(5):
        with pytest.raises(LookupError, match="the other half"):
            await numbers.write(half)
    assert await value(numbers) == 0
    await numbers.write(increment)
    assert await value(numbers) == 1


async def test_cancellation_interrupts_and_rolls_back(numbers: Pool) -> None:
    """A statement that would run for ever ends when its caller is cancelled, and what it wrote is gone."""

    def endless(db: sqlite3.Connection) -> None:
        increment(db)
        db.execute(FOR_EVER).fetchone()

    watch = Stopwatch()
    with anyio.move_on_after(0.1) as scope:
        await numbers.write(endless)
    assert scope.cancelled_caught
    assert watch.own_seconds < 1
    assert await value(numbers) == 0


async def test_writers_take_turns(numbers: Pool, path: Path) -> None:
    """Also those of another pool, as of another process: no update is lost, none fails because it came second."""
    async with open_pool(partial(connect, path), 3) as other, anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon((numbers, other)[number % 2].write, increment)
    assert await value(numbers) == 40


async def test_no_more_work_at_a_time_than_connections(pool: Pool) -> None:
    """The third piece of work waits until one of two connections is back."""
    lock, running, peaks = threading.Lock(), set[int](), list[int]()

    def work(_: sqlite3.Connection, number: int) -> None:
        with lock:
            running.add(number)
            peaks.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(number)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(pool.read, partial(work, number=number))
    assert max(peaks) == 2


async def test_its_end_closes_every_connection(path: Path) -> None:
    """Afterwards the file stands alone, the write-ahead log is in it, and the pool says what is wrong."""
    async with open_pool(partial(connect, path), 3) as pool:
        await pool.write(lambda db: db.execute("CREATE TABLE t (a)"))
        assert path.with_name("app.db-wal").exists()
    assert [file.name for file in path.parent.iterdir()] == ["app.db"]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await pool.read(lambda db: db.execute("SELECT 1"))


async def test_one_connection_that_fails_closes_the_others(path: Path) -> None:
    """Nothing stays open where the pool could not be opened as a whole."""
    opened: list[sqlite3.Connection] = []

    def connect_twice() -> sqlite3.Connection:
        if len(opened) == 2:
            raise OSError("too many")
        opened.append(connect(path))
        return opened[-1]

    with pytest.raises(OSError, match="too many"):
        async with open_pool(connect_twice, 5):
            pytest.fail("opened")
    assert len(opened) == 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
