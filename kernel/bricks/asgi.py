"""`serve_asgi`: an ASGI app as the work of a service, on uvicorn or hypercorn."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import sniffio

from kernel.bricks.clients import Limits
from kernel.bricks.drain import Drain, Prepare
from kernel.bricks.lifespan import lifespan
from kernel.bricks.listen import listening
from kernel.config.values import variable
from kernel.context import current_service
from kernel.declare.serving import Serving
from kernel.errors import ServerMissing
from kernel.process.sockets import HANDED_OVER, address_of

log = logging.getLogger(__name__)


async def serve_asgi(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    serving: Serving[Any],
    value: object = None,
    server: Literal["uvicorn", "hypercorn"] | None = None,
    drain_timeout: float | None = None,
    max_connections: int | None = None,
    client_timeout: float = 30.0,
    **options: Any,
) -> None:
    """Serve an ASGI app (FastAPI, Starlette, Litestar) as the work of a service.

        @service
        async def api(config: ApiConfig, serving: Serving[None]) -> None:
            await serve_asgi(make_app(), config.host, config.port, serving=serving)

    The service is ready when it listens and the app's lifespan has started. When a stop is requested, it accepts no new
    connections, closes websockets (1012), finishes the requests in flight, and ends the lifespan. It does not wait
    for clients that do not read their answer, or stop sending in the middle of a request.

    Args:
        app: The ASGI app.
        host: The address or host name to listen on; ``::`` means IPv4 and IPv6, a name means all of its addresses.
        port: The port; 0 for any free port, which the log shows.
        serving: The `Serving` of the service.
        value: The value for the consumers of the service.
        server: "uvicorn" (asyncio only) or "hypercorn"; None for uvicorn if it is installed and supports the current
            event loop, otherwise hypercorn.
        drain_timeout: Seconds for requests in flight, including endless streams, after a stop is requested; then their
            connections are closed. None for as long as the ``stop_timeout`` and the app's shutdown deadline allow,
            minus a second for resources that close afterwards.
        max_connections: Maximum number of connections. A new one replaces the one that the server has waited for
            longest; if all of them wait for the server, the new one is refused. None for half of the process's file
            descriptors, at most 10,000.
        client_timeout: Seconds within which a client must send a part of its request's body, or receive a part of its
            answer; otherwise its connection is closed. The headers of a request must arrive within 10 s. There is no
            limit for clients that wait for the app, and for websockets.
        options: Options of the server: those of `uvicorn.Config` or `hypercorn.Config`.

    Raises:
        CannotListen: The address cannot be used; the message names the variables to change.
        ServerMissing: No installed server supports the current event loop.
        ValueError: A limit is not positive.
        LifespanFailed: The app reports that its lifespan failed, without raising an error.
        Exception: The error that the app's lifespan raises.

    If cancelled, it closes all connections at once, and cancels the lifespan too.

    """
    prepare, limits = _server(server), Limits.of(max_connections, client_timeout)
    block: Any = serving(value, drain=True)  # entered below; it provides the service's config

    def hint() -> str:
        return _hint(current_service.get(), getattr(block, "config", None), host, port)

    async with listening(host, port, hint) as sockets, lifespan(app) as wrapped:
        serve = prepare(wrapped, options, limits)
        held = HANDED_OVER.has(current_service.get())
        scheme = "https" if options.keys() & {"ssl_certfile", "certfile"} else "http"
        log.info("listening on %s", " and ".join(f"{scheme}://{address_of(sock)}" for sock in sockets))
        async with block as work:
            await serve(Drain(work, sockets, drain_timeout, held))


def _server(wanted: str | None) -> Prepare:
    """Return the *wanted* server, or the first one that is installed and supports this event loop.

    Raises:
        ServerMissing: There is no such server.

    """
    loop = sniffio.current_async_library()
    fit = ["hypercorn"] if loop == "trio" else ["uvicorn", "hypercorn"]
    if wanted is not None and wanted not in fit:
        raise ServerMissing(f"{wanted} does not run on {loop}; set KERNEL_BACKEND=asyncio, or use hypercorn")
    candidates = fit if wanted is None else [wanted]
    found = next((name for name in candidates if importlib.util.find_spec(name) is not None), None)
    if found is None:
        raise ServerMissing(
            f"serve_asgi needs {' or '.join(candidates)}, which is not installed; add it: just deps-add {candidates[0]}"
        )
    if found == "uvicorn":
        from kernel.bricks import uvicorn_server

        return uvicorn_server.prepare
    from kernel.bricks import hypercorn_server

    return hypercorn_server.prepare


def _hint(service: str, config: Any, host: str, port: int) -> str:
    """Say what to change, with the variables of *host* and *port* if they are fields of the config."""
    if config is None or not attrs.has(type(config)):
        return "free it, or listen on another port"
    fields = [field.name for field in attrs.fields(type(config)) if field.init]
    names = [_field_of(config, fields, value, word) for value, word in ((host, "host"), (port, "port"))]
    found = [variable(service, name) for name in names if name]
    return f"free it, or set {' or '.join(found)}" if found else "free it, or listen on another port"


def _field_of(config: Any, fields: Sequence[str], value: object, word: str) -> str:
    """Return the field that holds *value*; if there are several, the one whose name contains *word*."""
    same = [name for name in fields if type(getattr(config, name)) is type(value) and getattr(config, name) == value]
    return next((name for name in same if word in name), same[0] if len(same) == 1 else "")
