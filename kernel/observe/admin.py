"""The admin server: health, metrics and status over HTTP, as a service of the kernel's own.

It is the first to start and the last to stop, and nothing depends on it: what goes wrong in it is logged, it is tried
again, and the app runs on. The server is anycorn's, which runs on asyncio and trio; it is imported with the first run
that has an ADMIN_ADDR, since that takes 0.1 s.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from anyio import to_thread

from kernel.config.settings import Address
from kernel.declare.retry import Retry
from kernel.declare.service import Service
from kernel.declare.serving import Serving
from kernel.errors import ConfigError
from kernel.observe.logs import logger
from kernel.observe.status import View

NAME = "admin"
NEXT = 20  # ports that are tried after a default one that is taken
DRAIN = 0.5  # seconds that requests in flight get at the end

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Render = Callable[[str], tuple[bytes, str]]


def listen(address: Address) -> socket.socket:
    """A socket that listens at *address*; at a later port, where that was nobody's wish and is taken.

    Raises:
        ConfigError: The address cannot be had.

    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    ports = range(address.port, address.port + (1 if address.asked_for else 1 + NEXT))
    for port in ports:
        try:
            found = socket.create_server((address.host, port), family=family)
        except OSError as error:
            if port < ports[-1]:
                continue
            why = (error.strerror or str(error)).partition(" (")[0]  # Python adds the address, which is told already
            raise ConfigError(
                f"is {address}, and cannot be listened at: {why}",
                where="ADMIN_ADDR",
                hint="free the port or name another; `off` goes without",
            ) from error
        if port != address.port:
            logger.info("port %d is taken, so the admin server takes %d", address.port, port)
        return found
    raise AssertionError  # the last port either was had or raised


@attrs.frozen
class Admin:
    """What is served, and where.

    Args:
        view: What there is to see.
        metrics: Renders the metrics, for the value of an Accept header, in a thread.
        sock: A socket that listens; it is the server's to close.

    """

    view: View
    metrics: Render
    sock: socket.socket

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self.sock.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def service(self) -> Service[..., Any]:
        """The service to run; it may fail, and is tried again for as long as the app runs."""
        retry = Retry(times=None, delay=1.0)
        return Service(self._serve, NAME, retry=retry, allowed_failure=True, start_timeout=None, stop_timeout=2 * DRAIN)

    async def _serve(self, serving: Serving[None]) -> None:
        from anycorn import Config, serve

        config = Config()
        config.bind = [f"fd://{self.sock.dup().detach()}"]  # the server closes it, and may be started again
        config.graceful_timeout = DRAIN
        config.errorlog = logging.getLogger("anycorn.error")
        config.errorlog.setLevel(logging.WARNING)  # its "CTRL + C to quit" is the kernel's to say
        logger.info("status and health at %s", self.url)
        async with serving(drain=True) as work:
            app: Any = self.answer  # its own names for the types of ASGI differ
            await serve(app, config, shutdown_trigger=work.stop_requested)

    async def answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request: an ASGI application."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            return
        status, body, content_type = await self._page(scope)
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
        headers.append((b"content-length", str(len(body)).encode()))
        if status == NOT_ALLOWED:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _page(self, scope: Mapping[str, Any]) -> tuple[int, bytes, str]:
        """The status, the body and its type."""
        if scope["method"] not in {"GET", "HEAD"}:
            return _json(NOT_ALLOWED, {"error": f"{scope['method']} is not allowed: the admin server is read-only"})
        view, path = self.view, scope["path"].rstrip("/")
        if path == "":
            return OK, "".join(f"{one}\n" for one in PAGES).encode(), "text/plain; charset=utf-8"
        if path == "/metrics":
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            return OK, *await to_thread.run_sync(self.metrics, accept)
        page: tuple[int, Mapping[str, Any]]
        match path:
            case "/livez":  # that it answers is the answer; it knows of no dependency, which a restart would not mend
                page = OK, {"alive": True}
            case "/readyz":
                page = OK if view.ready else UNAVAILABLE, view.readiness()
            case "/startupz":
                page = OK if view.started else UNAVAILABLE, {"started": view.started}
            case "/status":
                page = OK, view.status()
            case _:
                page = NOT_FOUND, {"error": f"there is no {path}", "pages": list(PAGES)}
        return _json(*page)


OK, NOT_FOUND, NOT_ALLOWED, UNAVAILABLE = 200, 404, 405, 503
PAGES = ("/livez", "/readyz", "/startupz", "/status", "/metrics")


def _json(status: int, content: Mapping[str, Any]) -> tuple[int, bytes, str]:
    return status, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n", "application/json"
