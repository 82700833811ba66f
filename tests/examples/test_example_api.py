"""The API over real HTTP: what it answers, and how it stops."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
import pytest

from kernel import KernelError
from services._pool import Pool
from services.example_api import MAX_BODY, MAX_NAME, ApiConfig, example_api
from services.example_catalog import CatalogInDatabase
from services.example_migrator import down, up
from tests.examples.fakes import FakeServing, running, until
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What uvicorn runs on."""
    return "asyncio"


@asynccontextmanager
async def api(pool: Pool, config: ApiConfig) -> AsyncIterator[tuple[httpx.AsyncClient, FakeServing]]:
    """A client of the running service."""
    async with (
        running(lambda serving: example_api(CatalogInDatabase(pool), config, serving)) as serving,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.port}") as client,
    ):
        yield client, serving


@pytest.fixture
async def client(pool: Pool, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, with its tables in place."""
    await up(pool)
    async with api(pool, ApiConfig(port=port)) as (client, _):
        yield client


async def test_items_are_added_and_listed(client: httpx.AsyncClient) -> None:
    """POST gives 201 and the item, and GET gives all of them, in their order."""
    assert (await client.get("/items")).json() == []
    added = [await client.post("/items", json={"name": name}) for name in (" tea ", "Käse", "'); DROP TABLE items")]
    assert [(one.status_code, one.json()["id"], one.json()["name"]) for one in added] == [
        (201, 1, "tea"),
        (201, 2, "Käse"),
        (201, 3, "'); DROP TABLE items"),
    ]
    listed = await client.get("/items")
    assert listed.status_code == 200
    assert listed.json() == [one.json() for one in added]
    assert listed.json()[0].keys() == {"id", "name", "created_at"}


async def test_many_at_once(client: httpx.AsyncClient) -> None:
    """More requests than connections: none is lost, none fails."""
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(partial(client.post, "/items", json={"name": f"item {number}"}))
    names = {item["name"] for item in (await client.get("/items")).json()}
    assert names == {f"item {number}" for number in range(50)}


async def test_the_root_says_what_there_is(client: httpx.AsyncClient) -> None:
    """A hint for those who open it in a browser."""
    assert "/items" in (await client.get("/")).text


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        (b"[" * 60_000, 400, "not JSON"),
        (b"[]", 422, "no name"),
        (b"{}", 422, "no name"),
        (b'{"name": 7}', 422, "no name"),
        (b'{"name": "  "}', 422, "no name"),
        (b'{"name": "%s"}' % (b"x" * (MAX_NAME + 1)), 422, "at most 200 characters"),
        (rb'{"name": "a\nb"}', 422, "printable"),
        (rb'{"name": "\ud800"}', 422, "printable"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_bad_input_is_explained(client: httpx.AsyncClient, body: bytes, code: int, error: str) -> None:
    """A client's mistake is the client's to know, in JSON, and adds nothing."""
    answer = await client.post("/items", content=body)
    assert (answer.status_code, list(answer.json())) == (code, ["error"])
    assert error in answer.json()["error"]
    assert (await client.get("/items")).json() == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_a_limit(client: httpx.AsyncClient, *, chunked: bool) -> None:
    """Whether its length is announced or not."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * (MAX_BODY // 2)

    answer = await client.post("/items", content=chunks() if chunked else b" " * (MAX_BODY + 1))
    assert answer.status_code == 413


async def test_other_errors_are_json_too(client: httpx.AsyncClient) -> None:
    """A path that is not there, and a method that is not."""
    assert (await client.get("/nothing")).json() == {"error": "Not Found"}
    wrong = await client.delete("/items")
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed"})


async def test_without_its_table_it_says_what_to_do(client: httpx.AsyncClient, pool: Pool) -> None:
    """The migrator may fail, or run later: until then the answer is 503, and afterwards it works."""
    await down(pool, steps=2)
    for answer in (await client.get("/items"), await client.post("/items", json={"name": "tea"})):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "no such table: items; run the migrations: app example-migrator up"}
    await up(pool)
    assert (await client.get("/items")).status_code == 200


async def test_a_bug_is_a_500_and_is_logged(
    client: httpx.AsyncClient, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Through standard logging, with its traceback; the server goes on."""
    await pool.write(lambda db: db.execute("DROP INDEX items_by_name"))
    await pool.write(lambda db: db.execute("ALTER TABLE items RENAME COLUMN name TO title"))
    assert (await client.get("/items")).status_code == 500
    await until(lambda: "no such column: name" in caplog.text)
    assert (await client.get("/")).status_code == 200


async def test_it_listens_before_it_is_ready(pool: Pool, port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits for ready gets a connection; the only line about it is the service's own."""
    caplog.set_level(logging.INFO)
    async with running(lambda serving: example_api(CatalogInDatabase(pool), ApiConfig(port=port), serving)):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    assert caplog.messages == [f"listening on http://127.0.0.1:{port}"]


async def test_a_port_in_use_is_one_error(pool: Pool) -> None:
    """It names the variable; and the end of the service frees the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KernelError, match=f"localhost:{port}.*address already in use"):
            await example_api(CatalogInDatabase(pool), ApiConfig(port=port), FakeServing())
    for _ in range(2):
        async with api(pool, ApiConfig(port=port)) as (client, _):
            assert (await client.get("/")).status_code == 200


async def test_requests_in_flight_are_drained(pool: Pool, port: int) -> None:
    """Asked to stop, it accepts no more, drops idle connections, and answers what it had begun to read."""
    await up(pool)
    rest = anyio.Event()
    sent = anyio.Event()
    answers: list[httpx.Response] = []

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name":'
        sent.set()
        await rest.wait()
        yield b'"tea"}'

    async with anyio.create_task_group() as tasks:
        async with api(pool, ApiConfig(port=port, drain_timeout=30)) as (client, serving):
            await client.get("/")  # leaves an idle connection behind

            async def post() -> None:
                async with httpx.AsyncClient() as slow:
                    answers.append(await slow.post(f"http://127.0.0.1:{port}/items", content=body()))

            tasks.start_soon(post)
            await sent.wait()
            await anyio.sleep(0.05)  # until the server has read it
            serving.stop()
            await until(lambda: not accepts(port))
            assert not answers
            rest.set()
            watch = Stopwatch()
        assert watch.own_seconds < 2  # and not the drain_timeout
    assert [answer.status_code for answer in answers] == [201]
    assert await pool.read(lambda db: db.execute("SELECT name FROM items").fetchall()) == [("tea",)]


def accepts(port: int) -> bool:
    """Whether anybody listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_a_request_that_never_ends_is_cut(pool: Pool, port: int) -> None:
    """It gets the drain_timeout, and no more."""
    async with api(pool, ApiConfig(port=port, drain_timeout=0.3)):
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.send(b"POST /items HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{")
        await anyio.sleep(0.1)
        watch = Stopwatch()
    assert watch.seconds > 0.2
    assert watch.own_seconds < 2
    await stream.aclose()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_it_is_one_error(pool: Pool, port: int, anyio_backend: str) -> None:
    """Uvicorn runs on asyncio alone, and the error says what to change."""
    with pytest.raises(KernelError, match="uvicorn does not run on trio; set KERNEL_BACKEND=asyncio"):
        await example_api(CatalogInDatabase(pool), ApiConfig(port=port), FakeServing())
