"""Serves items over HTTP, and finishes what is in flight when it is stopped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import attrs
from attrs.validators import ge, le
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from kernel import Seconds, Serving, serve_asgi, service
from services._pool import Pool

MAX_BODY = 64 * 1024  # bytes of a request
MAX_NAME = 200  # characters


@attrs.frozen
class ApiConfig:
    """Where to listen, and for how long to drain.

    Args:
        host: The address, or a host name for all its addresses.
        port: The port; 0 takes any that is free.
        drain_timeout: Seconds that requests in flight get to finish; it should end before the app's deadline does.

    """

    host: str = "localhost"  # EXAMPLE_API_HOST
    port: int = attrs.field(default=8000, validator=[ge(0), le(65535)])  # EXAMPLE_API_PORT
    drain_timeout: Seconds = 5.0  # EXAMPLE_API_DRAIN_TIMEOUT


# example-database gives a value, as there is a parameter of its name; example-flaky is there for the order only.
@service(depends=["example-database", "example-flaky"])
async def example_api(example_database: Pool, config: ApiConfig, serving: Serving[None]) -> None:
    """Serve an ordinary ASGI app; ready once it listens, and ended once the requests in flight are answered.

    The pool is whole until then: a dependency is asked to stop only when its dependents have ended.
    """
    await serve_asgi(
        make_app(example_database),
        config.host,
        config.port,
        serving=serving,
        server="uvicorn",
        drain_timeout=config.drain_timeout,
        ws="none",  # it has no websockets
    )


def make_app(pool: Pool) -> Starlette:
    """An ordinary ASGI app: testable without a server, and movable to another one."""

    async def hint(_: Request) -> PlainTextResponse:
        return PlainTextResponse("""GET /items, or POST /items with {"name": "..."}\n""")

    async def list_items(_: Request) -> JSONResponse:
        select = "SELECT id, name, created_at FROM items ORDER BY id"
        with migrated():
            items = await pool.read(lambda db: db.execute(select).fetchall())
        return JSONResponse([as_json(item) for item in items])

    async def add_item(request: Request) -> JSONResponse:
        name = read_name(await request.body())
        insert = "INSERT INTO items (name) VALUES (?) RETURNING id, name, created_at"
        with migrated():
            item = await pool.write(lambda db: db.execute(insert, (name,)).fetchone())
        return JSONResponse(as_json(item), status_code=201)

    return Starlette(
        routes=[
            Route("/", hint),
            Route("/items", list_items),
            Route("/items", add_item, methods=["POST"]),
        ],
        exception_handlers={HTTPException: explain},
        max_body_size=MAX_BODY,
    )


@contextmanager
def migrated() -> Generator[None]:
    """Say what to do where the table is not there (yet): the migrator runs beside this service, and may fail.

    Raises:
        HTTPException: 503 for a missing table. Anything else comes through, is logged, and the answer is 500.

    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        what_to_do = f"{error}; run the migrations: app example-migrator up"
        raise HTTPException(503, what_to_do, {"Retry-After": "1"}) from error


def as_json(item: tuple[int, str, str]) -> dict[str, Any]:
    """A row of items as the object that clients see."""
    return dict(zip(("id", "name", "created_at"), item, strict=True))


def read_name(body: bytes) -> str:
    """The name in *body*, stripped.

    Raises:
        HTTPException: 400 for what is no JSON, 422 for JSON that is no item.

    """
    try:
        item = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, 'the body is not JSON; send {"name": "..."}') from error
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise HTTPException(422, 'the body has no name; send {"name": "..."}')
    name = name.strip()
    if len(name) > MAX_NAME or not name.isprintable():
        raise HTTPException(422, f"the name must have at most {MAX_NAME} characters, all printable")
    return name


async def explain(_: Request, error: Exception) -> JSONResponse:
    """Errors are JSON too."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
