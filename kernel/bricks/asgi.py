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

    It listens and runs the app's lifespan; then the service is ready. When a stop is requested, it accepts no new
    connections, closes websockets (1012), finishes the requests in flight, and ends the lifespan. Clients that do not
    read their answer, or do not go on sending a request, are not waited for.

    Args:
        app: The ASGI app.
        host: The address or host name to listen on; ``::`` means IPv4 and IPv6, a name means all of its addresses.
        port: The port; 0 takes any free one, and the log says which.
        serving: The service's own.
        value: What the service hands over to its consumers.
        server: "uvicorn" (asyncio only) or "hypercorn"; None takes uvicorn if it is installed and runs on the
            present event loop, else hypercorn.
        drain_timeout: Seconds that requests in flight, endless streams among them, may take once a stop is requested;
            then their connections are closed. None for as long as the service has, by its ``stop_timeout`` and the
            app's shutdown deadline, minus a second for the resources that close after it.
        max_connections: Connections at the same time. A new one replaces those that the server has waited for longest;
            if all wait for the server, it is refused. None for half of the file descriptors that the process may open,
            at most 10,000.
        client_timeout: Seconds in which a client must send some part of its request's body, or take some part of its
            answer; else its connection is closed. A request's head must come within 10 s. Clients that wait for the
            app, and websockets, may take as long as they like.
        options: For the server's own configuration: `uvicorn.Config` or `hypercorn.Config`.

    Raises:
        CannotListen: The address cannot be used; the message names the variables to change.
        ServerMissing: No server is installed that runs on the present event loop.
        ValueError: A limit is not positive.
        LifespanFailed: The app reports that its lifespan failed, without raising an error.
        Exception: What the app's lifespan raises.

    If cancelled, it closes all connections at once, and cancels the lifespan, too.

    """
    prepare, limits = _server(server), Limits.of(max_connections, client_timeout)
    block: Any = serving(value, drain=True)  # entered below; it knows the service's config

    def hint() -> str:
        return _hint(current_service.get(), getattr(block, "config", None), host, port)

    async with listening(host, port, hint) as sockets, lifespan(app) as wrapped:
        serve = prepare(wrapped, options, limits)
        held = HANDED_OVER.has(current_service.get())
        scheme = "https" if options.keys() & {"ssl_certfile", "certfile"} else "http"
        log.info("listening on %s", " and ".join(f"{scheme}://{address_of(one)}" for one in sockets))
        async with block as work:
            await serve(Drain(work, sockets, drain_timeout, held))


def _server(wanted: str | None) -> Prepare:
    """Return the server that is *wanted*, or the first that is installed and runs on this event loop.

    Raises:
        ServerMissing: There is none.

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
    """Return what to change, with the variables of *host* and *port* if they are fields of the config."""
    if config is None or not attrs.has(type(config)):
        return "free it, or listen on another port"
    fields = [field.name for field in attrs.fields(type(config)) if field.init]
    names = [_field_of(config, fields, value, word) for value, word in ((host, "host"), (port, "port"))]
    found = [variable(service, name) for name in names if name]
    return f"free it, or set {' or '.join(found)}" if found else "free it, or listen on another port"


def _field_of(config: Any, fields: Sequence[str], value: object, word: str) -> str:
    """Return the field that holds *value*; of several, the one whose name contains *word*."""
    same = [name for name in fields if type(getattr(config, name)) is type(value) and getattr(config, name) == value]
    return next((name for name in same if word in name), same[0] if len(same) == 1 else "")
