"""nats-py's client with faster parsing of headers, and its options for TLS and keys."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client

from kernel.config.nats import Nats


class FastClient(Client):
    """The library's client with faster handling of headers, which take half of its time for a message."""

    async def send(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Send a message, as `publish` does."""
        if headers:
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            head = f"NATS/1.0\r\n{lines}\r\n".encode()
            size = len(head) + len(payload)
            command = f"HPUB {subject} {reply} {len(head)} {size}\r\n".encode()
        else:
            head, command = b"", f"PUB {subject} {reply} {len(payload)}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        await self._send_command(b"".join((command, head, payload, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        found = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                found[name.strip()] = value.strip()
        return found


def words(error: BaseException | None) -> str:
    """Return what *error* says, without the library's prefixes."""
    text = str(error).removeprefix("nats: ").strip("'\" ")
    return text or type(error).__name__


def tls_context(settings: Nats, url: str) -> ssl.SSLContext | None:
    """Return the client's TLS option; None if the server decides."""
    if not (settings.ca or settings.cert or url.startswith(("tls://", "wss://"))):
        return None
    context = ssl.create_default_context(cafile=settings.ca or None)
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key)
    return context


def nkey_options(given: str) -> dict[str, Any]:
    """Return the client's options for a seed, given as itself or as the path of its file."""
    if not given:
        return {}
    return {"nkeys_seed_str": given} if given.startswith("SU") else {"nkeys_seed": given}
