"""Serves items over HTTP, and finishes what is in flight when it is stopped."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import anyio
import attrs
import sniffio
import uvicorn
from attrs.validators import ge, le
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from kernel import Seconds, Serving, service
from services._pool import Pool

MAX_BODY = 64 * 1024  # bytes of a request
MAX_NAME = 200  # characters

log = logging.getLogger(__name__)


@attrs.frozen
class ApiConfig:
    """Where to listen, and for how long to drain.

    Args:
        host: The address or host name.
        port: The port; 0 takes any that is free.
        drain_timeout: Seconds that requests in flight get to finish; it should end before the app's deadline does.

    """

    host: str = "127.0.0.1"  # EXAMPLE_API_HOST
    port: int = attrs.field(default=8000, validator=[ge(0), le(65535)])  # EXAMPLE_API_PORT
    drain_timeout: Seconds = 5.0  # EXAMPLE_API_DRAIN_TIMEOUT


# example-database gives a value, as there is a parameter of its name; example-flaky is there for the order only.
@service(depends=["example-database", "example-flaky"])
async def example_api(example_database: Pool, config: ApiConfig, serving: Serving[None]) -> None:
    """Wrap a server that knows nothing of the kernel: listen, say that it is ready, hand it the request to stop.

    With `drain=True` the work is not cancelled but told, and leaves the block when the last request is answered. The
    pool is whole until then: a dependency is asked to stop only when its dependents have ended.
    """
    with listen(config) as listener:  # before `serving`: whoever connects from then on is answered
        host, port = listener.getsockname()[:2]
        log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        async with serving(drain=True) as work:
            await serve(make_app(example_database), listener, work.stop_requested, config.drain_timeout)


def listen(config: ApiConfig) -> socket.socket:
    """A socket that accepts connections.

    Raises:
        RuntimeError: The address cannot be had; the message names the variables to change.

    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        where = f"EXAMPLE_API_HOST={config.host}, EXAMPLE_API_PORT={config.port}"
        raise RuntimeError(f"{where}: cannot listen there: {error.strerror}") from error


async def serve(
    app: Any, listener: socket.socket, stop_requested: Callable[[], Awaitable[None]], drain_timeout: float
) -> None:
    """Run *app* on *listener* until *stop_requested* returns and all requests are answered.

    What takes longer than *drain_timeout* (seconds) is cancelled.

    Raises:
        RuntimeError: The event loop is trio's, on which uvicorn does not run.

    """
    if sniffio.current_async_library() != "asyncio":
        raise RuntimeError("example-api is served by uvicorn, which runs on asyncio alone: unset KERNEL_BACKEND")
    options: dict[str, Any] = {"lifespan": "off", "ws": "none", "access_log": False, "log_config": None}
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=drain_timeout, **options))  # type: ignore[arg-type]
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # they are the kernel's to hear
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # "Press CTRL+C to quit" is not its to say

    async def end() -> None:
        await stop_requested()
        server.should_exit = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        await server.serve([listener])
        tasks.cancel_scope.cancel()


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
def migrated() -> Iterator[None]:
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
