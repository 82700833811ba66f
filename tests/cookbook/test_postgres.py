"""The pages on PostgreSQL, with a real one."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import alembic
import anyio
import asyncpg
import attrs
import httpx
import pytest
from sqlalchemy.exc import InvalidRequestError

from kernel.testing import RunFailed, State, running
from tests.conformance.program import App
from tests.cookbook.pages import ENOUGH, Page, code_of, needs, until
from tests.cookbook.postgres import BIN, USER, Postgres
from tests.ports import free_port
from tests.receiver import Receiver, receiving

pytestmark = [pytest.mark.anyio, needs(str(BIN / "postgres"))]

TABLE = "CREATE TABLE orders (id SERIAL PRIMARY KEY, item TEXT NOT NULL)"


async def ask(url: str, *statements: str) -> Any:
    """Run *statements*, and return what the last one gives."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            found = await connection.fetchval(statement)
    finally:
        await connection.close()
    return found


async def disconnect(url: str) -> int:
    """Close all connections to the database, as a restart does."""
    loop = asyncio.get_running_loop()
    if not isinstance(handler := loop.get_exception_handler(), ButAsyncpg):
        loop.set_exception_handler(ButAsyncpg(handler))
    return int(
        await ask(
            url,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    )


@attrs.frozen
class ButAsyncpg:
    """Handles what a loop reports, but for futures that asyncpg leaves alone when a connection dies."""

    handler: Any

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Pass it on."""
        if "connection_lost" not in str(context.get("exception")):
            (self.handler or asyncio.AbstractEventLoop.default_exception_handler)(loop, context)


async def at_least(url: str, count: int) -> None:
    """Wait until there are *count* orders."""
    with anyio.fail_after(ENOUGH):
        while await ask(url, "SELECT count(*) FROM orders") < count:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def none_connected(url: str) -> None:
    """Wait until nobody but us is connected: the server notices a moment later."""
    with anyio.fail_after(ENOUGH):
        while await ask(url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") > 1:  # noqa: ASYNC110
            await anyio.sleep(0.02)


def with_driver(url: str) -> str:
    """The address as SQLAlchemy writes it."""
    return url.replace("postgresql://", "postgresql+asyncpg://")


# -- asyncpg ---------------------------------------------------------------------------------------------------------


async def test_asyncpg(page: Callable[..., Page], postgres: Postgres) -> None:
    """Orders are taken, also after all connections have died, and nobody is restarted for that."""
    url = postgres.database()
    await ask(url, TABLE)
    read = page("postgresql", URL=url)
    async with running(read.database, read.orders, environ={"DATABASE_URL": url}) as run:
        await at_least(url, 1)
        assert await disconnect(url)
        await at_least(url, await ask(url, "SELECT count(*) FROM orders") + 3)
    for service in (read.database, read.orders):
        assert run.states(service).count(State.READY) == 1
    await none_connected(url)


async def test_asyncpg_says_in_many_ways_that_a_connection_has_died(
    page: Callable[..., Page], postgres: Postgres
) -> None:
    """At whatever moment the server closes a connection, the error is one that the consumer expects."""
    url = postgres.database()
    await ask(url, TABLE)
    read = page("postgresql", URL=url)
    met: set[type[BaseException]] = set()
    wanted = {asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError}

    async def order(pool: asyncpg.Pool) -> None:
        while not wanted <= met:
            try:
                await read.take(pool, "tea")
            except read.GONE as error:
                met.add(type(error))

    async with running(read.database, environ={"DATABASE_URL": url}) as run, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(order, run.value(read.database))
        with anyio.fail_after(ENOUGH):
            while not wanted <= met:
                await disconnect(url)


async def test_asyncpg_tries_again_only_what_may_get_better(page: Callable[..., Page], postgres: Postgres) -> None:
    """A database that does not exist is final at once; one that is away is not."""
    read = page("postgresql", URL="")
    url = postgres.url_of("nowhere")
    with pytest.raises(RunFailed) as caught:
        async with running(read.database, environ={"DATABASE_URL": url}):
            pass
    assert isinstance(caught.value.__cause__, asyncpg.InvalidCatalogNameError)
    assert State.BACKOFF not in caught.value.run.states(read.database)
    assert all(read.database.retry.covers(error()) for error in read.AWAY)
    assert not read.database.retry.covers(asyncpg.InvalidPasswordError())


async def test_asyncpg_naive(page: Callable[..., Page], postgres: Postgres) -> None:
    """Two cannot use one connection at a time, and once it is closed it stays so."""
    url = postgres.database()
    naive = page("postgresql", URL=url).naive
    async with running(naive) as run:
        connection = run.value(naive)
        with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
            await asyncio.gather(connection.fetchval("SELECT pg_sleep(0.1)"), connection.fetchval("SELECT 1"))
        await disconnect(url)
        await until(connection.is_closed)
        assert run.states(naive)[-1] is State.READY


# -- SQLAlchemy ------------------------------------------------------------------------------------------------------


async def test_sqlalchemy(page: Callable[..., Page], postgres: Postgres) -> None:
    """Orders are taken, also after all connections have died."""
    url = postgres.database()
    await ask(url, TABLE)
    read = page("sqlalchemy", URL=url)
    async with running(read.database, read.shop, environ={"DATABASE_URL": with_driver(url)}) as run:
        await at_least(url, 1)
        assert await disconnect(url)
        await at_least(url, await ask(url, "SELECT count(*) FROM orders") + 3)
        engine = run.value(read.database)
        await asyncio.gather(*(read.take(engine, "coffee") for _ in range(10)))
    assert await ask(url, "SELECT count(*) FROM orders WHERE item = 'coffee'") == 10
    assert run.states(read.database).count(State.READY) == 1
    await none_connected(url)


async def test_sqlalchemy_without_a_database(page: Callable[..., Page], postgres: Postgres) -> None:
    """Who connects is not ready, and tries again; who does not is ready."""
    url = f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/app"
    read = page("sqlalchemy", URL=url)
    once = attrs.evolve(read.database, retry=attrs.evolve(read.database.retry, times=1, delay=0.01))
    with pytest.raises(RunFailed) as caught:
        async with running(once, environ={"DATABASE_URL": url}):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    assert State.BACKOFF in caught.value.run.states(once)
    with pytest.raises(RunFailed) as caught:
        async with running(once, environ={"DATABASE_URL": with_driver(postgres.url_of("nowhere"))}):
            pass
    assert isinstance(caught.value.__cause__, read.DBAPIError)
    assert State.BACKOFF in caught.value.run.states(once)
    async with running(read.naive) as run:
        assert run.states(read.naive)[-1] is State.READY


async def test_sqlalchemy_naive(page: Callable[..., Page], postgres: Postgres) -> None:
    """A session is for one task."""
    read = page("sqlalchemy", URL=with_driver(postgres.database()))
    engine = read.create_async_engine(read.URL)
    read.naive.fn.__globals__["create_async_engine"] = lambda _: engine
    async with running(attrs.evolve(read.naive, allowed_failure=True)) as run:
        session = run.value(read.naive)
        tries = (session.execute(read.text("SELECT pg_sleep(0.1)")) for _ in range(2))
        found = await asyncio.gather(*tries, return_exceptions=True)
    assert any(isinstance(one, InvalidRequestError) for one in found)
    await engine.dispose()  # which nobody else does


# -- alembic ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """An app with a database and its schema."""
    app = App(tmp_path / "tree")
    app.write("services/database.py", code_of("sqlalchemy")["services/database.py"])
    for path, code in code_of("alembic").items():
        if path != "naive":
            app.write(path, code)
    yield app
    app.close()


def answer(url: str, *statements: str) -> Any:
    """Run *statements* outside of any loop."""
    return asyncio.run(ask(url, *statements))


def test_alembic(shop: App, postgres: Postgres) -> None:
    """The one-shot migrates; commands go down and up again, tell the revision, and make a new one."""
    url = postgres.database()
    env = {"DATABASE_URL": with_driver(url), "RUNNER_SHUTDOWNTIMEOUT": "10s"}
    shop.service("till", "@service(depends=['database', 'schema'])\nasync def till() -> None:\n    log.info('open')")
    result = shop.run(**env).stop()
    assert result.code == 0, result.stderr
    assert result.in_order("schema: done", "till: open")
    assert answer(url, "SELECT count(*) FROM orders") == 0
    assert shop.call("schema", "down", "base", **env).code == 0
    with pytest.raises(asyncpg.UndefinedTableError):
        answer(url, "SELECT count(*) FROM orders")
    shutil.copy(Path(alembic.__file__).parent / "templates/generic/script.py.mako", shop.root / "services/schema")
    result = shop.call("schema", "new", "add prices")
    assert result.code == 0, result.stderr
    (made,) = (shop.root / "services/schema/versions").glob("*_add_prices.py")
    assert "down_revision: Union[str, Sequence[str], None] = '0001'" in made.read_text()
    assert shop.call("schema", "up", **env).code == 0
    assert answer(url, "SELECT count(*) FROM orders") == 0
    assert shop.call("schema", "current", **env).stdout.strip() == made.name.partition("_")[0]


def test_alembic_at_once(shop: App, postgres: Postgres) -> None:
    """Of several instances one migrates, and all are well."""
    url = postgres.database()
    runs = [shop.open(("schema", "up"), {"DATABASE_URL": with_driver(url)}) for _ in range(2)]
    assert [run.result().code for run in runs] == [0, 0]


def test_a_migration_that_fails_changes_nothing(shop: App, postgres: Postgres) -> None:
    """All of a run is one transaction."""
    url = postgres.database()
    shop.write(
        "services/schema/versions/0002_wrong.py",
        """
        from alembic import op
        revision, down_revision = "0002", "0001"
        def upgrade(): op.execute("SELECT * FROM nowhere")
        """,
    )
    result = shop.call("schema", "up", DATABASE_URL=with_driver(url))
    assert result.code == 1
    assert result.said('relation "nowhere" does not exist')
    with pytest.raises(asyncpg.UndefinedTableError):
        answer(url, "SELECT count(*) FROM orders")


def test_alembic_naive(shop: App) -> None:
    """What `alembic init` makes runs a loop of its own, within one that runs."""
    shop.write("services/naive.py", code_of("alembic")["naive"])
    subprocess.run([sys.executable, "-m", "alembic", "init", "-t", "async", "migrations"], cwd=shop.root, check=True)
    result = shop.run("naive").result()
    assert result.code == 1
    assert result.said(r"asyncio\.run\(\) cannot be called from a running event loop")


# -- on a laptop -----------------------------------------------------------------------------------------------------


async def test_postgresql_on_a_laptop(
    page: Callable[..., Page], postgres_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It makes its database, runs beside the app, ends with it, and has its data the next time; others wait for it."""
    caplog.set_level(logging.INFO)
    port = free_port()
    data = postgres_folder / "laptop"
    local = page("postgresql-on-a-laptop", PORT=port, BIN=BIN, DATA=data, USER=USER).local_postgres
    database = page("postgresql", URL="").database
    url = f"postgresql://app@127.0.0.1:{port}/postgres"
    environ = {
        "LOCAL_POSTGRES_PORT": str(port),
        "LOCAL_POSTGRES_FOLDER": str(data),
        "LOCAL_POSTGRES_PROGRAMS": str(BIN),
        "DATABASE_URL": url,
    }
    async with running(local, database, environ=environ) as run:  # both start at once
        assert run.value(local) == url
        assert State.BACKOFF in run.states(database)
        await run.value(database).execute(TABLE)
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", port)
    async with running(local, environ=environ):
        assert await ask(url, "SELECT count(*) FROM orders") == 0
    assert "database system is shut down" in caplog.text
    assert "not properly shut down" not in caplog.text


async def test_postgresql_on_a_laptop_naive(
    page: Callable[..., Page], postgres_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a client that stays it is killed, and has to recover."""
    caplog.set_level(logging.INFO)
    port = free_port()
    data = postgres_folder / "naive"
    read = page("postgresql-on-a-laptop", PORT=port, BIN=BIN, DATA=data, USER=USER)
    await read.initialise(BIN / "initdb", data, USER)
    stays = None
    async with running(read.naive):
        with anyio.fail_after(ENOUGH):
            while stays is None:
                try:
                    stays = await asyncpg.connect(f"postgresql://app@127.0.0.1:{port}/postgres")
                except asyncpg.CannotConnectNowError:
                    await anyio.sleep(0.02)
    assert "did not end in time, and is killed" in caplog.text
    stays.terminate()
    async with running(read.naive):
        await until(lambda: "not properly shut down" in caplog.text)


# -- traces ----------------------------------------------------------------------------------------------------------


def traced(app: App, name: str, path: str, port: int, **env: str) -> Receiver:
    """Run service *name*, ask it for *path* in a trace of ours, and stop it; what was received."""
    with receiving() as collector:
        env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{collector.url}/v1/traces"
        run = app.run(name, "--with-dependencies", RUNNER_SHUTDOWNTIMEOUT="10s", **env)
        run.wait_for("all ready")
        headers = {"traceparent": "00-{}-{}-01".format(*CALLER)}
        answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False, timeout=ENOUGH)
        assert answer.json() == 42
        assert run.stop().code == 0
    return collector


CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # trace and span of whoever sends the request


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[App]:
    """An app with the services of the page on OpenTelemetry."""
    app = App(tmp_path / "tree")
    for path, code in code_of("opentelemetry").items():
        if path != "naive":
            app.write(path, code)
    yield app
    app.close()


def test_opentelemetry(tree: App, postgres: Postgres) -> None:
    """A request and its query are one trace, the caller's."""
    port = free_port()
    collector = traced(tree, "api", "/double/21", port, API_PORT=str(port), DATABASE_URL=postgres.database())
    request = collector.one("api GET /double/{number}")
    assert request.parent == tuple(bytes.fromhex(one) for one in CALLER)
    query = collector.one("api SELECT")
    assert query.parent == request.ids
    assert query.attributes["db.query.text"] == "SELECT 2 * $1::int"
    assert {one.ids for one in collector.spans if one.ids[0].hex() == CALLER[0]} == {request.ids, query.ids}


def test_opentelemetry_naive(tree: App) -> None:
    """Its span is of no service that the viewer knows."""
    port = free_port()
    with receiving() as own:
        places = {"PORT": str(port), "URL": repr(f"{own.url}/v1/traces")}
        naive = re.sub(r"\b(PORT|URL)\b", lambda found: places[found[0]], code_of("opentelemetry")["naive"])
        tree.write("services/naive.py", naive)
        collector = traced(tree, "naive", "/double/21", port)
    assert collector.one("naive start")
    assert not [one for one in collector.spans if one.ids[0].hex() == CALLER[0]]
    assert {one.service for one in own.spans if one.ids[0].hex() == CALLER[0]} == {"unknown_service:python"}
