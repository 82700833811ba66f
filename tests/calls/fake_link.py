"""A link to a server that is not there: what is sent is kept, and the test answers, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from kernel.calls.discovery import Announcement, Offer
from kernel.calls.interface import Interface, interface_of
from kernel.calls.nats import Link
from kernel.calls.nats_client import Message
from kernel.config.nats import read_nats
from kernel.testing import backend_options

IN_VIRTUAL_TIME = "asyncio", backend_options("asyncio")
PREFIX, SERVER = "app", "here:4222"
NOBODY = b"", {"Status": "503"}  # what the server answers where nobody listens

Answer = tuple[bytes, Mapping[str, str]]
STORED: Answer = b'{"stream":"ALL"}', {}  # what a stream answers that stores what is sent


@attrs.frozen(eq=False)
class Sent:
    """A message that was sent, and when."""

    at: float
    subject: str
    payload: bytes
    reply: str
    headers: Mapping[str, str]


class FakeLink(Link):
    """A connection to nothing.

    Args:
        answer: Returns the answers to a message.

    """

    def __init__(self, answer: Callable[[Sent], Iterable[Answer]] = lambda _: ()) -> None:
        settings, errors = read_nats({"NATS_URL": f"nats://me:hidden@{SERVER}"})
        assert settings is not None, errors
        super().__init__(settings, "app")
        self.server = SERVER
        self.answer = answer
        self.sent: list[Sent] = []
        self.full = False  # whether the connection takes nothing more

    def lose(self) -> None:
        """Lose the connection."""
        self.server = ""
        self._tell()

    def find(self) -> None:
        """Be connected again."""
        self.server = SERVER
        self._tell()

    def _post(self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None) -> bool:
        if not self.server or self.full:
            return False
        loop = asyncio.get_running_loop()
        sent = Sent(loop.time(), subject, payload, reply, dict(headers or {}))
        self.sent.append(sent)
        for data, more in self.answer(sent):
            loop.call_soon(self._answered, Message(reply, "", data, dict(more)))
        return True

    async def fence(self) -> None:
        """Return at once: all that was sent has been processed."""

    def to(self, subject: str) -> list[Sent]:
        """Return what was sent to a subject."""
        return [sent for sent in self.sent if sent.subject == subject]

    def deliver(self, subject: str, payload: bytes = b"", reply: str = "", **headers: str) -> None:
        """Let a message arrive for whoever subscribed to its subject."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        for subscribed in list(self._subscribed):
            if subscribed.subject == subject:
                subscribed.receive(Message(subject, reply, payload, more))


def found(cls: Any) -> Interface:
    """Return the interface that *cls* is."""
    interface = interface_of(cls)
    assert interface is not None
    return interface


@functools.cache
def info(cls: Any, service: str = "users") -> Answer:
    """Return what an instance of *service* with this interface answers to INFO."""
    about = Announcement(FakeLink(), Offer(PREFIX, service, found(cls)), {})._info()
    return json.dumps(about).encode(), {}
