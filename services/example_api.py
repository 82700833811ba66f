"""Serves items over HTTP, and finishes requests in flight when it is stopped."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

import attrs
from attrs.validators import ge, le
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from kernel import DeadlineExceeded, Seconds, Serving, Unavailable, serve_asgi, service, tracing_enabled
from services._catalog import Catalog, NotMigrated

MAX_BODY = 64 * 1024  # bytes of a request
MAX_NAME = 200  # characters


@attrs.frozen
class ApiConfig:
    """Where to listen, and for how long to drain.

    Args:
        host: The address, or a host name for all its addresses.
        port: The port; 0 takes any that is free.
        drain_timeout: Seconds for requests in flight to finish; keep it shorter than the app's deadline.

    """

    host: str = "localhost"  # EXAMPLE_API_HOST
    port: int = attrs.field(default=8000, validator=[ge(0), le(65535)])  # EXAMPLE_API_PORT
    drain_timeout: Seconds = 5.0  # EXAMPLE_API_DRAIN_TIMEOUT


# example-catalog provides a value, since a parameter has its name; example-flaky is only for the order. The value
# is an interface: no line here depends on whether the catalog runs in this process or in another.
@service(depends=["example-catalog", "example-flaky"])
async def example_api(example_catalog: Catalog, config: ApiConfig, serving: Serving[None]) -> None:
    """Serve an ordinary ASGI app: ready when it listens, ended when the requests in flight are answered.

    The catalog stays available until then: a dependency is asked to stop only after its dependents have ended.
    """
    await serve_asgi(
        traced(make_app(example_catalog)),
        config.host,
        config.port,
        serving=serving,
        server="uvicorn",
        drain_timeout=config.drain_timeout,
        ws="none",  # it has no websockets
    )


def traced(app: ASGIApp) -> ASGIApp:
    """Return *app* with a span for each request, in the caller's trace if there is one.

    Without tracing, return it as it is, and import nothing.
    """
    if not tracing_enabled():
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(app, exclude_spans=["receive", "send"])


def make_app(catalog: Catalog) -> Starlette:
    """Return an ordinary ASGI app, which can be tested without a server, and run by another one."""

    async def hint(_: Request) -> PlainTextResponse:
        return PlainTextResponse("""GET /items, or POST /items with {"name": "..."}\n""")

    async def list_items(_: Request) -> JSONResponse:
        with answering():
            items = await catalog.items()
        return JSONResponse([attrs.asdict(item) for item in items])

    async def add_item(request: Request) -> JSONResponse:
        name = read_name(await request.body())
        with answering():
            item = await catalog.add(name)
        return JSONResponse(attrs.asdict(item), status_code=201)

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
def answering() -> Generator[None]:
    """Explain what to do if the catalog has no table, or cannot be reached.

    Raises:
        HTTPException: 503 in both cases. Other errors propagate, are logged, and become a 500.

    """
    try:
        yield
    except (NotMigrated, Unavailable, DeadlineExceeded) as error:
        raise HTTPException(503, str(error), {"Retry-After": "1"}) from error


def read_name(body: bytes) -> str:
    """Return the name in *body*, stripped.

    Raises:
        HTTPException: 400 if the body is not JSON, 422 if it is not an item.

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
    """Return errors as JSON too."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
