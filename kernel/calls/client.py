"""Call a service in another process: its stand-in here, and what happens between a call and its answer."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, Event, current_effective_deadline, current_time, move_on_after, sleep, sleep_forever

from kernel.calls import wire
from kernel.calls.codec import read, write
from kernel.calls.contract import contract_of, digest, misfits
from kernel.calls.discovery import offered
from kernel.calls.nats import Link, NotConnected, Waiter
from kernel.calls.proxy import Call, Proxy, make_proxy, methods_of, named
from kernel.calls.shape import Misfit
from kernel.errors import BadRequest, CallError, CallFailed, ContractMismatch, DeadlineExceeded, Overloaded, Unavailable

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from kernel.calls.interface import Interface, Method
    from kernel.calls.telemetry import Telemetry
    from kernel.declare.serving import Serving

logger = logging.getLogger("kernel.calls")

FIRST, LONGEST = 0.01, 1.0  # seconds between two attempts, doubled from one to the next
LOOK = 5.0  # seconds after which it is looked again whether somebody else listens
ASK = 0.3  # seconds in which instances answer what they are
WITHOUT = 5.0  # seconds after which those who can do without the service start without it
MISFIT = 60.0  # seconds in which an instance whose contract fits may still come
SUSPECT = 0.1  # seconds without an answer after which a call looks whether anybody is there
EARLY = 0.02  # seconds before its deadline at which it then ends: its caller may be cancelled at that
TIMED_OUT = object()


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
        self.pending: dict[asyncio.Future[Any], tuple[_Attempts, float]] = {}
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
        pause, since = 0.05, None
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

        def receive(msg: Msg) -> None:
            if (msg.headers or {}).get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                done.set()
            contract = offered(msg.data, self.prefix)
            if contract is not None:
                found.append(contract)
                if not misfits(self.contract, contract):
                    done.set()

        subject = f"$SRV.INFO.{self.service}"
        token = self.link.token()
        reply = self.link.wait(token, Waiter(subject, receive, lambda _: done.set()))
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

        def receive(msg: Msg) -> None:
            if (msg.headers or {}).get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                done.set()

        reply = self.link.wait(token, Waiter(subject, receive, lambda _: done.set()))
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

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                payload = write(lambda _: method.encode(args, kwargs), None)
            except Misfit as misfit:
                raise BadRequest(service, name, str(misfit)) from None
            deadline = current_effective_deadline()
            own = deadline == math.inf
            until = asyncio.get_running_loop().time() + timeout if own else deadline
            attempt = _Attempts(self, method, payload, until, own=own)
            self.calls += 1
            self.in_flight += 1
            try:
                if self.telemetry is None:
                    return await attempt.run()
                with self.telemetry.client(service, name, self.link.server) as span:
                    span.inject(attempt.headers)
                    return await attempt.run()
            except CallError as error:
                self.errors += 1
                self.last_error = str(error)
                raise
            finally:
                self.in_flight -= 1

        return named(call, method)

    def watch(self, answer: asyncio.Future[Any], attempt: _Attempts) -> None:
        """Let *attempt* check for instances if there is no answer for a while; one timer serves all calls."""
        loop = asyncio.get_running_loop()
        self.pending[answer] = attempt, loop.time()
        if not self._watching:
            self._watching = True
            loop.call_later(SUSPECT, self._look_after)

    def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - SUSPECT
        for answer, (attempt, since) in list(self.pending.items()):
            if since > late:
                break
            del self.pending[answer]
            if not answer.done():
                self.link.spawn(attempt.look(answer))
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


class _Attempts:
    """One call: sent, and sent again only if it certainly has not begun."""

    def __init__(self, client: Client, method: Method, payload: bytes, deadline: float, *, own: bool) -> None:
        self._client, self._link, self._method = client, client.link, method
        self._payload, self._deadline, self._own = payload, deadline, own
        self._subject = wire.subject(client.prefix, client.service, method.name)
        self._foreign = False
        self.headers: dict[str, str] = {}

    async def run(self) -> Any:
        """Return the result, or raise the call's error."""
        pause = FIRST
        while True:
            reason = await self._send()
            if not isinstance(reason, str):
                return self._result(reason[0])
            pause_now = pause * random.uniform(0.5, 1.0)  # noqa: S311
            pause = min(2 * pause, LONGEST)
            if current_time() + pause_now >= self._deadline - (2 * ASK if self._client.foreign else 0):
                raise self._error(Unavailable, reason)
            await self._pause(pause_now)

    async def _pause(self, seconds: float) -> None:
        if self._link.server:
            await sleep(seconds)
        else:
            with move_on_after(max(self._deadline - current_time() - FIRST, seconds)):
                await self._link.connected()

    async def _send(self) -> str | tuple[Any]:
        """Send it once; return the answering message, or why it has not begun."""
        client, link = self._client, self._link
        if client.foreign and not await client.present():
            return f"nobody serves {self._subject}"
        token = link.token()
        headers = {
            **self.headers,
            wire.TIMEOUT: f"{max(self._deadline - asyncio.get_running_loop().time(), 0):.6f}",
            wire.ID: f"{link.id}.{token}",
            wire.CONTRACT: client.digest,
        }
        excess = link.excess(self._payload, headers)
        if excess:
            raise self._error(BadRequest, f"the arguments are too large: {excess}")
        try:
            msg = await self._exchange(token, headers)
        except NotConnected:
            return f"there is no connection to NATS at {link.settings.shown}"
        if msg is TIMED_OUT:
            await self._overdue()
        if isinstance(msg, str):
            raise self._error(Unavailable, msg)
        status = msg.headers.get(wire.STATUS)
        client.reached(answered=status is not None)
        if status is None:
            return f"nobody serves {self._subject}"
        return str(msg.headers.get(wire.ERROR, status)) if status == wire.NOT_BEGUN else (msg,)

    async def _exchange(self, token: str, headers: dict[str, str]) -> Any:
        """Send it, and wait; return the answer, `TIMED_OUT`, or in words why the server does not accept it.

        Raises:
            NotConnected: It was not sent.

        """
        link, loop = self._link, asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def receive(msg: Msg) -> None:
            if answer.done():
                return
            given = msg.headers or {}
            if wire.STATUS in given or given.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
                answer.set_result(msg)
            else:
                self._foreign = self._client.foreign = True  # of a stream, say, that takes what we have sent

        reply = link.wait(token, Waiter(self._subject, receive, functools.partial(_end, answer)))
        timer = loop.call_at(self._deadline, _time_out, answer) if self._own else None
        self._client.watch(answer, self)
        sent = False
        try:
            await link.post(self._subject, self._payload, reply, headers, until=self._deadline)
            sent = True
            return await answer
        except BaseException:
            if sent:
                self._tell_cancelled(headers[wire.ID])
            raise
        finally:
            link.forget(token)
            self._client.pending.pop(answer, None)
            if timer is not None:
                timer.cancel()

    async def look(self, answer: asyncio.Future[Any]) -> None:
        """If there is no *answer* yet, check whether there is an instance, if the server would not report that."""
        client = self._client
        if self._foreign or client.foreign or not await client.tapped():
            return  # it was known before: somebody was there, and has begun the call
        client.foreign = True
        if not await client.ask() and not answer.done():
            words = f"nobody serves {self._subject}"
            asyncio.get_running_loop().call_at(self._deadline - EARLY, _end, answer, words)

    async def _overdue(self) -> None:
        """Raise the error of a call that was not answered in time."""
        if self._foreign:
            with CancelScope(deadline=current_time() + ASK):
                if not await self._client.ask():
                    raise self._error(Unavailable, f"nobody serves {self._subject}")
        raise self._error(DeadlineExceeded, f"no answer after {self._client.interface.timeout:g} s")

    def _tell_cancelled(self, name: str) -> None:
        """Let the instance that runs the call cancel it, unless it has ended by now."""
        if current_time() < self._deadline:
            subject = wire.subject(self._client.prefix, self._client.service, wire.CANCEL)
            self._link.post_soon(subject, b"", {wire.ID: name})

    def _error(self, kind: type[CallError], words: str) -> CallError:
        return kind(self._client.service, self._method.name, words)

    def _result(self, msg: Any) -> Any:
        """Return the result in the answer *msg*, or raise the error in it."""
        method, status, words = self._method, msg.headers[wire.STATUS], msg.headers.get(wire.ERROR, "")
        service = self._client.service
        try:
            if status == wire.OK:
                return read(method.result.decode, msg.data)
            if status == wire.RAISED:
                raise read(self._raised, msg.data)
        except Misfit as misfit:
            raise self._error(CallFailed, f"executed, but its answer does not fit: {misfit}") from None
        if status == wire.FAILED and msg.data:
            try:
                told = read(_told, msg.data)
            except Misfit:
                told = ("", words, "")
            raise CallFailed(service, method.name, told[1], told[0], told[2])
        kinds: dict[str, Callable[[str, str, str], CallError]] = {
            wire.BAD_REQUEST: BadRequest,
            wire.OVERLOADED: Overloaded,
            wire.LATE: DeadlineExceeded,
        }
        raise kinds.get(status, CallFailed)(service, method.name, words or status)

    def _raised(self, data: Any) -> BaseException:
        if type(data) is not dict:
            raise Misfit("expected an error")
        name = str(data.get("type", ""))
        shape = self._method.raises.get(name)
        if shape is None:
            return CallFailed(self._client.service, self._method.name, str(data.get("message", "")), name)
        return shape.decode(data)


def _end(answer: asyncio.Future[Any], words: str) -> None:
    if not answer.done():
        answer.set_result(words)


def _time_out(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_result(TIMED_OUT)


def _told(data: Any) -> tuple[str, str, str]:
    if type(data) is not dict:
        raise Misfit("expected an object")
    return str(data.get("type", "")), str(data.get("message", "")), str(data.get("trace_id", ""))
