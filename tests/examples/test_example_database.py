"""The database: what it hands over, how it closes, and what it says when it cannot open."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import anyio
import pytest

from kernel.config.service_config import read_config
from services import example_database as module
from services._pool import Pool
from services.example_database import DatabaseConfig, connect, example_database, optimize
from tests.examples.fakes import running, until

pytestmark = pytest.mark.anyio


async def test_it_serves_a_pool_and_closes_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its value works while it serves; asked to stop, it closes calmly and says so."""
    caplog.set_level(logging.INFO)
    async with running(partial(example_database, DatabaseConfig(path, pool_size=3))) as serving:
        pool = serving.value
        assert isinstance(pool, Pool)
        assert await pool.read(lambda db: db.execute("SELECT 42").fetchone()) == (42,)
        assert "closed 3 connections" not in caplog.messages
    assert "closed 3 connections" in caplog.messages
    assert [file.name for file in path.parent.iterdir()] == ["app.db"]


def test_connections_are_set_up(path: Path) -> None:
    """Readers beside a writer, and foreign keys that hold: SQLite's defaults are neither."""
    connection = connect(path)
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 5000
    finally:
        connection.close()


async def test_the_background_task_optimizes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `start_soon` starts does its work again and again until it is cancelled with the block."""
    monkeypatch.setattr(module, "OPTIMIZE_EVERY", 0.001)
    statements: list[str] = []
    await pool.read(lambda db: db.set_trace_callback(statements.append))
    await pool.read(lambda db: db.set_trace_callback(statements.append))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(optimize, pool)
        await until(lambda: statements.count("PRAGMA optimize") > 2)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/app.db", "there is no folder"),
        ("folder", "unable to open database file"),
        ("text", "file is not a database"),
    ],
)
async def test_what_cannot_be_opened_names_the_variable(tmp_path: Path, place: str, reason: str) -> None:
    """One error that says which file, why, and which variable to change; nothing is served."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("not what SQLite writes, and longer than its header" * 10)
    config = DatabaseConfig(tmp_path / place)
    with pytest.raises(ExceptionGroup) as caught:
        async with running(partial(example_database, config)):
            pytest.fail("served")
    (error,) = caught.value.exceptions
    assert str(error).startswith(f"EXAMPLE_DATABASE_PATH: cannot open {config.path}: {reason}")


def test_a_file_without_permission_is_refused_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the first write. The answer of the system is made up, since root may write anything."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"EXAMPLE_DATABASE_PATH: .* no permission to write"):
        connect(path)


def test_its_config_comes_from_the_environment() -> None:
    """Unset, it has its defaults; a value that makes no sense is reported with its variable."""
    assert read_config("example-database", DatabaseConfig, {}) == (DatabaseConfig(Path("app.db"), 5), [])
    environ = {"EXAMPLE_DATABASE_PATH": "/data/x.db", "EXAMPLE_DATABASE_POOL_SIZE": "7"}
    assert read_config("example-database", DatabaseConfig, environ) == (DatabaseConfig(Path("/data/x.db"), 7), [])
    for wrong in ("0", "65", "many"):
        _, errors = read_config("example-database", DatabaseConfig, {"EXAMPLE_DATABASE_POOL_SIZE": wrong})
        assert [error.where for error in errors] == ["EXAMPLE_DATABASE_POOL_SIZE"]
