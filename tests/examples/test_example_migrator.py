"""The migrations on a real file: forwards, backwards, again, at once, and in the company of a newer program."""

from __future__ import annotations

import logging
import sqlite3
from functools import partial
from pathlib import Path

import anyio
import pytest

from services._pool import Pool, open_pool
from services.example_database import connect
from services.example_migrator import down, example_migrator, status, up

pytestmark = pytest.mark.anyio

Output = pytest.CaptureFixture[str]
NEWER = "INSERT INTO schema_migrations (version, name) VALUES (99, 'colour items')"


async def schema(pool: Pool) -> set[str]:
    """The names of the tables and indexes that are the migrations'."""
    names = await pool.read(lambda db: db.execute("SELECT name FROM sqlite_master").fetchall())
    return {name for (name,) in names} - {"schema_migrations"}


async def states(pool: Pool, capsys: Output) -> list[str]:
    """What `status` prints, with times as *."""
    capsys.readouterr()
    await status(pool)
    lines = capsys.readouterr().out.splitlines()
    return [" ".join("*" if word[:2] == "20" else word for word in line.split()) for line in lines]


async def test_up_and_down(pool: Pool, capsys: Output) -> None:
    """Each command does its work, says so on stdout, and has nothing to do the second time."""
    assert await states(pool, capsys) == ["1 create items pending", "2 index items by name pending", "2 pending"]
    await up(pool)
    assert capsys.readouterr().out == "applied 1, create items\napplied 2, index items by name\n"
    assert await schema(pool) == {"items", "items_by_name"}
    assert await states(pool, capsys) == ["1 create items *", "2 index items by name *", "0 pending"]
    await up(pool)
    assert capsys.readouterr().out == "nothing to do\n"
    await down(pool)
    assert capsys.readouterr().out == "undid 2, index items by name\n"
    assert await schema(pool) == {"items"}
    await down(pool, steps=9)
    assert capsys.readouterr().out == "undid 1, create items\n"
    assert await schema(pool) == set()
    await down(pool)
    assert capsys.readouterr().out == "nothing to do\n"


async def test_up_by_steps(pool: Pool, capsys: Output) -> None:
    """Only as many as asked for."""
    await up(pool, steps=1)
    assert await states(pool, capsys) == ["1 create items *", "2 index items by name pending", "1 pending"]


@pytest.mark.parametrize("steps", [0, -1])
async def test_less_than_one_step_is_refused(pool: Pool, steps: int) -> None:
    """And nothing is done."""
    for command in (up, down):
        with pytest.raises(ValueError, match=f"steps is {steps}; it must be at least 1"):
            await command(pool, steps=steps)
    assert await schema(pool) == set()


async def test_the_service_applies_what_is_pending(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """It is the same as `up`, and logs instead of printing."""
    caplog.set_level(logging.INFO)
    await example_migrator(pool)
    assert caplog.messages == ["applied 1, create items", "applied 2, index items by name"]


async def test_a_migration_that_fails_leaves_nothing(pool: Pool, capsys: Output) -> None:
    """The error says which it was; the ones before it stay, and it can be tried again."""
    await up(pool, steps=1)
    await pool.write(lambda db: db.execute("CREATE INDEX items_by_name ON items (id)"))
    with pytest.raises(sqlite3.OperationalError, match=r"migration 2, index items by name: .* already exists"):
        await up(pool)
    assert await states(pool, capsys) == ["1 create items *", "2 index items by name pending", "1 pending"]
    await pool.write(lambda db: db.execute("DROP INDEX items_by_name"))
    await up(pool)
    assert (await states(pool, capsys))[-1] == "0 pending"


async def test_two_programs_at_once(path: Path, capsys: Output) -> None:
    """Each migration is applied once, and the second program fails over none of them."""
    for _ in range(5):
        async with (
            open_pool(partial(connect, path), 1) as one,
            open_pool(partial(connect, path), 1) as other,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(up, one)
            tasks.start_soon(up, other)
        # Who applied 1 may come to print it only after the other one has applied 2.
        applied = sorted(line for line in capsys.readouterr().out.splitlines() if line != "nothing to do")
        assert applied == ["applied 1, create items", "applied 2, index items by name"]
        for file in path.parent.iterdir():
            file.unlink()


async def test_a_file_of_a_newer_program(pool: Pool, capsys: Output) -> None:
    """`status` shows what it does not know, `up` leaves it alone, and `down` refuses to guess."""
    await up(pool)
    await pool.write(lambda db: db.execute(NEWER))
    assert await states(pool, capsys) == [
        "1 create items *",
        "2 index items by name *",
        "99 colour items * (unknown here: a newer program's)",
        "0 pending",
    ]
    await up(pool)
    assert capsys.readouterr().out == "nothing to do\n"
    with pytest.raises(LookupError, match="migration 99, colour items, is a newer program's"):
        await down(pool)
    assert await schema(pool) == {"items", "items_by_name"}
