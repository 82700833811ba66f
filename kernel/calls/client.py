"""Call a service in another process: its stand-in here, and what its callers get."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any

from anyio import current_effective_deadline, current_time, move_on_after, sleep, sleep_forever

from kernel.calls import wire
from kernel.calls.codec import write
from kernel.calls.contract import contract_of, digest, misfits
from kernel.calls.instances import Instances
from kernel.calls.nats import Link
from kernel.calls.outgoing import OutgoingCall, Target
from kernel.calls.proxy import Call, Proxy, make_proxy, methods_of, named
from kernel.calls.shape import Misfit
from kernel.errors import BadRequest, CallError, ContractMismatch, Unavailable

if TYPE_CHECKING:
    from kernel.calls.interface import Interface, Method
    from kernel.calls.telemetry import Telemetry
    from kernel.declare.serving import Serving

logger = logging.getLogger("kernel.calls")

FIRST, LONGEST = 0.05, 1.0  # seconds between two questions to instances, doubled from one to the next
WITHOUT = 5.0  # seconds after which consumers that do not require the service start without it
MISFIT = 60.0  # seconds for an instance with a compatible contract to start


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
        self.instances = Instances(link, prefix, service, self.contract)
        self.calls = self.errors = self.in_flight = 0
        self.last_error = ""
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
        """Run as a service with the name of the remote one: ready when an instance with a compatible contract answers.

        Args:
            serving: As in any service.
            optional: Whether no caller requires it; this then fails after 5 s (allowed).

        Raises:
            ContractMismatch: Instances answer, but for 60 s none had a compatible contract.
            Unavailable: No instance answers, and no caller requires one.

        """
        with move_on_after(WITHOUT if optional else math.inf) as scope:
            await self._found()
            self._serves = True
        if scope.cancelled_caught:
            words = f"nobody answers after {WITHOUT:g} s; services that do not require it start without it"
            raise Unavailable(self.service, self.interface.name, words)
        async with serving(self.proxy()):
            await sleep_forever()

    def doing(self) -> str:
        """Return what it waits for, in words."""
        if self._serves:
            return f"running elsewhere, called through NATS at {self.link.server or self.link.settings.shown}"
        if not self.link.server:
            return f"not connected to NATS at {self.link.settings.shown}"
        return self.instances.refused or self._waits_for or f"looking for an instance at {self.link.server}"

    async def _found(self) -> None:
        """Wait for an instance with a compatible contract."""
        pause, since = FIRST, None
        while True:
            await self.link.connected()
            contracts = await self.instances.contracts()
            wrong = [misfits(self.contract, contract) for contract in contracts]
            if any(not problems for problems in wrong):
                self.instances.foreign = await self.instances.tapped()
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

    # -- calls ---------------------------------------------------------------------------------------------------

    def _calling(self, method: Method) -> Call:
        service, name, timeout = self.service, method.name, self.interface.timeout
        target = Target(
            self.link,
            self.instances,
            service,
            method,
            wire.subject(self.prefix, service, name),
            wire.subject(self.prefix, service, wire.CANCEL),
            self.digest,
        )

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> OutgoingCall:
            try:
                payload = write(lambda _: method.encode(args, kwargs), None)
            except Misfit as misfit:
                raise BadRequest(service, name, str(misfit)) from None
            deadline = current_effective_deadline()
            own = deadline == math.inf
            until = asyncio.get_running_loop().time() + timeout if own else deadline
            return OutgoingCall(target, payload, until, timeout if own else None)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.in_flight += 1
            try:
                if self.telemetry is None:
                    return await begin(args, kwargs).run()
                with self.telemetry.client(service, name, self.link.server) as span:
                    outgoing = begin(args, kwargs)
                    span.inject(outgoing.headers)
                    return await outgoing.run()
            except CallError as error:
                self.errors += 1
                self.last_error = str(error)
                raise
            finally:
                self.in_flight -= 1

        return named(call, method)

    def status(self) -> dict[str, Any]:
        """Return what is known of the other side."""
        away = self.instances.unavailable_since
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
