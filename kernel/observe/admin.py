"""The admin server: health, metrics and status over HTTP.

It runs from before the first service starts until after the last one has ended. It is not a service: it has its own
threads, so it answers while the event loop is blocked, never delays the exit, and does not affect the exit code.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from kernel.config.settings import Address
from kernel.errors import ConfigError
from kernel.masking import mask
from kernel.observe.http_connection import Answer, Later, Request, plain
from kernel.observe.http_server import Server
from kernel.observe.logs import logger
from kernel.observe.plain import jsonable
from kernel.observe.prometheus import UnreadableAccept
from kernel.observe.status import View
from kernel.process.sockets import address_of, listen

AS = {"service": "admin"}  # marks its records; no service can have this name
NEXT = 20  # ports to try if the default port is taken

Render = Callable[[str], tuple[bytes, str]]


def open_sockets(address: Address) -> list[socket.socket]:
    """Return sockets that listen on *address*.

    If a default address is taken, the ports after it are tried. If none is free, warn and return no sockets.

    Raises:
        ConfigError: The address is not available.

    """
    ports = range(address.port, address.port + (1 if address.asked_for else 1 + NEXT))
    why = ""
    for port in ports:
        try:
            found = listen(address.host, port)
        except (OSError, UnicodeError) as error:
            why = (getattr(error, "strerror", "") or str(error)).partition(" (")[0]  # Python adds the address
            continue
        if port != address.port:
            logger.info("port %d is taken, so the admin server takes %d", address.port, port, extra=AS)
        return found
    if address.asked_for:
        raise ConfigError(
            f"is {address}: cannot listen there: {why}",
            where="ADMIN_ADDR",
            hint="free the port, set another, or set `off` to run without it",
        )
    logger.warning(
        "no admin server: cannot listen on %s: %s; set ADMIN_ADDR to another address", address, why, extra=AS
    )
    return []


@attrs.frozen
class Admin:
    """The admin server's pages.

    Args:
        view: The state of the run.
        metrics: Renders the metrics for an Accept header; raises `UnreadableAccept` if the header is malformed.

    """

    view: View
    metrics: Render

    def serve(self, socks: Sequence[socket.socket]) -> Server:
        """Serve on *socks*, which are listening; the server closes them."""
        server = Server(socks, self.answer)
        where = (address_of(sock) for sock in socks)
        logger.info(
            "status and health at %s",
            " and ".join(f"http://{address}" if address[0] != "/" else address for address in where),
            extra=AS,
        )
        server.start()
        return server

    def answer(self, request: Request) -> Answer | Later:  # noqa: PLR0911  (one for each page)
        """Answer one request: short pages at once, slow ones later."""
        view, path = self.view, request.path.rstrip("/")
        match path:
            case "":
                return plain(OK, "\n".join(PAGES))
            case "/livez":  # ignores dependencies, since a restart would not fix them
                alive, page = view.liveness()
                return _json(OK if alive else UNAVAILABLE, page)
            case "/readyz":
                ready, page = view.readiness()
                return _json(OK if ready else UNAVAILABLE, page)
            case "/startupz":
                started = view.started
                return _json(OK if started else UNAVAILABLE, {"started": started})
            case "/status":
                return Later(path, lambda: _json(OK, view.snapshot(view.status)))
            case "/metrics":
                accept = request.headers.get("accept", "")
                return Later((path, accept), lambda: self._metrics(accept))
            case _:
                return _json(NOT_FOUND, {"error": f"unknown page {path[:SHOWN]}", "pages": list(PAGES)})

    def _metrics(self, accept: str) -> Answer:
        try:
            body, content_type = self.metrics(accept)
        except UnreadableAccept:
            return plain(NOT_ACCEPTABLE, "the Accept header cannot be read")
        return Answer(OK, body, content_type)


OK, NOT_FOUND, NOT_ACCEPTABLE, UNAVAILABLE = 200, 404, 406, 503
PAGES = ("/livez", "/readyz", "/startupz", "/status", "/metrics")
SHOWN = 200  # maximum characters of an unknown path that are shown


def _json(status: int, content: Mapping[str, Any]) -> Answer:
    text = json.dumps(jsonable(content), indent=1, allow_nan=False)
    return Answer(status, mask(text).encode() + b"\n", "application/json")
