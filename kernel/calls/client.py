"""Call a service in another process: its stand-in here, and whether an instance of it can be reached."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any

from anyio import Event, current_effective_deadline, current_time, move_on_after, sleep, sleep_forever

from kernel.calls import wire
from kernel.calls.codec import write
from kernel.calls.contract import contract_of, digest, misfits
from kernel.calls.discovery import offered
from kernel.calls.nats import Callbacks, Link, NotConnected
from kernel.calls.outgoing import OutgoingCall
from kernel.calls.proxy import Call, Proxy, make_proxy, methods_of, named
from kernel.calls.shape import Misfit
from kernel.errors import BadRequest, CallError, ContractMismatch, Unavailable

if TYPE_CHECKING:
    from kernel.calls.interface import Interface, Method
    from kernel.calls.nats_client import Message
    from kernel.calls.telemetry import Telemetry
    from kernel.declare.serving import Serving

logger = logging.getLogger("kernel.calls")

FIRST, LONGEST = 0.05, 1.0  # seconds between two questions to instances, doubled from one to the next
LOOK = 5.0  # seconds between two checks whether something else listens on our subjects
ASK = 0.3  # seconds for instances to answer a question
WITHOUT = 5.0  # seconds after which consumers that do not require the service start without it
MISFIT = 60.0  # seconds for an instance with a compatible contract to start
SUSPECT = 0.1  # seconds without an answer after which a call checks whether there is an instance


class Client:
    """The callers' side of one service.

    Args:
        link: The connection.
        prefix: The prefix of all subjects.
        service: The service's name.
        interface: The interface that its callers were written for.
        telemetry: Spans and durations; None for none.

    """

    def __init__(
        self, link: Link, prefix: str, service: str, interface: Interface, telemetry: Telemetry | None = None
    ) -> None:
        self.link, self.prefix, self.service, self.interface = link, prefix, service, interface
        self.telemetry = telemetry
        self.contract = contract_of(interface)
        self.digest = digest(self.contract)
        self.calls = self.errors = self.in_flight = 0
        self.unavailable_since: float | None = None
        self.last_error = ""
        self.foreign = False  # whether something else answers on these subjects too, as a stream does
        self.pending: dict[OutgoingCall, None] = {}  # sent, and not answered for up to `SUSPECT`; oldest first
        self._watching = False
        self._looked = -math.inf
        self._waits_for = ""
        self._serves = False

    def proxy(self) -> Proxy:
        """Return what the callers get."""
        calls = {name: self._calling(method) for name, method in self.interface.methods.items()}
        return make_proxy(self.interface, calls, f"{self.service}, elsewhere")

    def around(self, value: object) -> Proxy:
        """Return what the callers get for *value*, which is in this process but called over NATS."""
        methods_of(self.interface, self.service, value)
        proxy = self.proxy()
        proxy._behind = value  # noqa: SLF001
        return proxy

    # -- the stand-in --------------------------------------------------------------------------------------------

    async def serve(self, serving: Serving[Any], *, optional: bool) -> None:
        """Run as a service with the other one's name: ready when an instance with a compatible contract answers.

        Args:
            serving: As in any service.
            optional: Whether no caller requires it; this then fails after 5 s (allowed).

        Raises:
            ContractMismatch: Instances answer, but for 60 s none had a compatible contract.
            Unavailable: No instance answers, and no caller requires one.

        """
        with move_on_after(WITHOUT if optional else math.inf):
            await self._found()
            self._serves = True
        if not self._serves:
            words = f"nobody answers after {WITHOUT:g} s; those who can do without it start"
            raise Unavailable(self.service, self.interface.name, words)
        async with serving(self.proxy()):
            await sleep_forever()

    def doing(self) -> str:
        """Return what it waits for, in words."""
        if self._serves:
            return f"running elsewhere, by way of NATS at {self.link.server or self.link.settings.shown}"
        if not self.link.server:
            return f"not connected to NATS at {self.link.settings.shown}"
        return self._waits_for or f"asking at {self.link.server}"

    async def _found(self) -> None:
        """Wait for an instance with a compatible contract."""
        pause, since = FIRST, None
        while True:
            await self.link.connected()
            contracts = await self.ask()
            wrong = [misfits(self.contract, contract) for contract in contracts]
            if any(not problems for problems in wrong):
                self.foreign = await self.tapped()
                logger.info("%s runs elsewhere: found at %s", self.service, self.link.server)
                return
            if wrong:
                since = since if since is not None else current_time()
                problems = "; ".join(wrong[0])
                self._waits_for = f"found {self.service} at {self.link.server}, whose contract does not fit: {problems}"
                if current_time() - since >= MISFIT:
                    raise ContractMismatch(self.service, self.interface.name, f"it does not fit what runs: {problems}")
            else:
                since = None
                self._waits_for = f"waiting for an instance of {self.service} to answer at {self.link.server}"
            await sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(2 * pause, LONGEST)

    async def ask(self) -> list[dict[str, Any]]:
        """Return the contracts of the instances that answer: up to the first compatible one, or all in time."""
        found: list[dict[str, Any]] = []
        done = Event()

        def receive(msg: Message) -> None:
            if msg.headers.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                done.set()
            contract = offered(msg.data, self.prefix)
            if contract is not None:
                found.append(contract)
                if not misfits(self.contract, contract):
                    done.set()

        subject = f"$SRV.INFO.{self.service}"
        token = self.link.token()
        reply = self.link.wait(token, Callbacks(subject, receive, lambda _: done.set()))
        try:
            await self.link.post(subject, b"", reply)
            with move_on_after(ASK):
                await done.wait()
        except NotConnected:
            pass
        finally:
            self.link.forget(token)
        if subject in self.link.denied:
            self._waits_for = self.link.denied[subject]
        return found

    async def tapped(self) -> bool:
        """Return whether something else listens on our subjects, as a stream or a tap on ``>`` does.

        The server then does not report that nothing serves, since there is a listener.
        """
        done = Event()
        subject = wire.subject(self.prefix, self.service, wire.NOBODY)
        token = self.link.token()

        def receive(msg: Message) -> None:
            if msg.headers.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                done.set()

        reply = self.link.wait(token, Callbacks(subject, receive, lambda _: done.set()))
        self._looked = current_time()
        try:
            await self.link.post(subject, b"", reply)
            with move_on_after(ASK):
                await done.wait()
        except NotConnected:
            return self.foreign
        finally:
            self.link.forget(token)
        return not done.is_set()

    async def present(self) -> bool:
        """Return whether an instance answers, if the server does not tell; note if a tap has gone."""
        if await self.ask():
            return True
        if current_time() - self._looked > LOOK:
            self.foreign = await self.tapped()
        return not self.foreign  # else the server tells

    # -- calls ---------------------------------------------------------------------------------------------------

    def _calling(self, method: Method) -> Call:
        service, name, timeout = self.service, method.name, self.interface.timeout
        subject = wire.subject(self.prefix, service, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                payload = write(lambda _: method.encode(args, kwargs), None)
            except Misfit as misfit:
                raise BadRequest(service, name, str(misfit)) from None
            deadline = current_effective_deadline()
            own = deadline == math.inf
            until = asyncio.get_running_loop().time() + timeout if own else deadline
            sent = OutgoingCall(self, method, subject, payload, until, own=own)
            self.calls += 1
            self.in_flight += 1
            try:
                if self.telemetry is None:
                    return await sent.run()
                with self.telemetry.client(service, name, self.link.server) as span:
                    span.inject(sent.headers)
                    return await sent.run()
            except CallError as error:
                self.errors += 1
                self.last_error = str(error)
                raise
            finally:
                self.in_flight -= 1

        return named(call, method)

    def watch(self, call: OutgoingCall) -> None:
        """Let *call*, which was just sent, take care of itself if it is not answered soon; one timer serves all."""
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
            logger.info("%s answers again", self.service)
            self.unavailable_since = None
        else:
            logger.warning("nobody serves %s at %s", self.service, self.link.server or self.link.settings.shown)
            self.unavailable_since = time.monotonic()

    def status(self) -> dict[str, Any]:
        """Return what is known of the other side."""
        away = self.unavailable_since
        return {
            "interface": self.interface.name,
            "contract": self.digest,
            "available": self._serves and away is None and bool(self.link.server),
            "unavailable_for": None if away is None else round(time.monotonic() - away, 3),
            "in_flight": self.in_flight,
            "calls": self.calls,
            "errors": self.errors,
            "last_error": self.last_error or None,
        }
