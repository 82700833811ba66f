"""The instances of a service that runs elsewhere: which contracts they have, and whether there is one at all."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from anyio import Event, current_time, move_on_after

from kernel.calls import wire
from kernel.calls.contract import misfits
from kernel.calls.discovery import offered
from kernel.calls.nats import Callbacks, Link, NotConnected

if TYPE_CHECKING:
    from kernel.calls.nats_client import Message

logger = logging.getLogger("kernel.calls")

ANSWER = 0.3  # seconds for instances to answer a question
AGAIN = 5.0  # seconds between two checks whether something else listens on our subjects
SUSPECT = 0.1  # seconds without an answer after which a call is late


class Pending(Protocol):
    """A call that was sent."""

    sent: float  # on the clock of the event loop

    def be_late(self) -> None:
        """Handle that there is no answer yet."""


class Instances:
    """What is known of the instances of a service.

    Args:
        link: The connection.
        prefix: The prefix of all subjects.
        service: The service's name.
        contract: The contract that its callers were written for.

    Attributes:
        foreign: Whether something else receives our calls too, as a stream or a tap does.
        pending: Calls that were sent, and were not answered for up to 0.1 s; oldest first.
        refused: Why the server refuses our questions; empty if it does not.
        unavailable_since: When a call was first not received by any instance; None if the last one was.

    """

    def __init__(self, link: Link, prefix: str, service: str, contract: dict[str, Any]) -> None:
        self._link, self._prefix, self._service, self._contract = link, prefix, service, contract
        self._nobody = wire.subject(prefix, service, wire.NOBODY)
        self.foreign = False
        self.pending: dict[Pending, None] = {}
        self.refused = ""
        self.unavailable_since: float | None = None
        self._checked = -math.inf
        self._watching = False

    async def contracts(self) -> list[dict[str, Any]]:
        """Return the contracts of the instances that answer: up to the first compatible one, or all in time."""
        found: list[dict[str, Any]] = []

        def enough(msg: Message) -> bool:
            contract = offered(msg.data, self._prefix)
            if contract is None:
                return False
            found.append(contract)
            return not misfits(self._contract, contract)

        subject = f"$SRV.INFO.{self._service}"
        await self._question(subject, enough)
        self.refused = self._link.denied.get(subject, "")
        return found

    async def tapped(self) -> bool:
        """Return whether something else listens on our subjects, as a stream or a tap on ``>`` does.

        The server then does not report that nothing serves, since there is a listener.
        """
        self._checked = current_time()
        reported = await self._question(self._nobody, lambda _: False)
        return self.foreign if reported is None else not reported

    async def _question(self, subject: str, enough: Callable[[Message], bool]) -> bool | None:
        """Publish a question, and wait until *enough* of the answers or the server ends this.

        Returns:
            Whether it ended before its time; None if there is no connection.

        """
        done = Event()

        def receive(msg: Message) -> None:
            if enough(msg) or msg.headers.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                done.set()

        token = self._link.token()
        reply = self._link.wait(token, Callbacks(subject, receive, lambda _: done.set()))
        try:
            await self._link.post(subject, b"", reply)
            with move_on_after(ANSWER):
                await done.wait()
        except NotConnected:
            return None
        finally:
            self._link.forget(token)
        return done.is_set()

    async def present(self) -> bool:
        """Return whether an instance answers, if the server does not tell; note if a tap has gone."""
        if await self.contracts():
            return True
        if current_time() - self._checked > AGAIN:
            self.foreign = await self.tapped()
        return not self.foreign  # else the server tells

    def watch(self, call: Pending) -> None:
        """Tell *call*, which was just sent, if it is not answered soon; one timer serves all calls."""
        self.pending[call] = None
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(SUSPECT, self._look_after)

    def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - SUSPECT
        for call in list(self.pending):
            if call.sent > late:
                break
            del self.pending[call]
            call.be_late()
        self._watching = bool(self.pending)
        if self._watching:
            loop.call_later(SUSPECT, self._look_after)

    def reached(self, *, answered: bool) -> None:
        """Note whether an instance serves, and log changes."""
        if answered == (self.unavailable_since is None):
            return
        if answered:
            logger.info("%s answers again", self._service)
            self.unavailable_since = None
        else:
            logger.warning("nobody serves %s at %s", self._service, self._link.server or self._link.settings.shown)
            self.unavailable_since = time.monotonic()
