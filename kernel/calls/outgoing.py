"""One call to another process, from its arguments to its result: sent again only if it certainly has not begun."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import attrs
from anyio import CancelScope, current_time, move_on_after, sleep

from kernel.calls import wire
from kernel.calls.codec import read
from kernel.calls.nats import NotConnected
from kernel.calls.nats_client import Message
from kernel.calls.shape import Misfit
from kernel.errors import BadRequest, CallError, CallFailed, DeadlineExceeded, Overloaded, Unavailable

if TYPE_CHECKING:
    from kernel.calls.instances import Instances
    from kernel.calls.interface import Method
    from kernel.calls.nats import Link

FIRST, LONGEST = 0.01, 1.0  # seconds between two attempts, doubled from one to the next
CHECK = 0.6  # seconds to find out that there is no instance, if something else listens on the subject
SOON = 0.3  # seconds; a deadline in less than this has a timer from the start
EARLY = 0.02  # seconds before the deadline, at which the caller may be cancelled

KINDS: dict[str, type[CallError]] = {
    wire.BAD_REQUEST: BadRequest,
    wire.OVERLOADED: Overloaded,
    wire.LATE: DeadlineExceeded,
}


@attrs.frozen
class Target:
    """What the calls of one method have in common.

    Args:
        link: The connection.
        instances: The instances of the service.
        service: The service's name.
        method: The method.
        subject: Where calls go.
        cancel: Where cancellations of calls go.
        digest: The hash of the contract that the caller was written for.

    """

    link: Link
    instances: Instances
    service: str
    method: Method
    subject: str
    cancel: str
    digest: str


class OutgoingCall:
    """One call, and the receiver of the answer to it.

    Args:
        target: What is called.
        payload: The arguments.
        deadline: When it ends, on the clock of the event loop.
        timeout: Seconds after which it ends itself, at its deadline; None if its caller is cancelled then.

    Attributes:
        headers: The headers in addition to those of each call: the trace.
        sent: When it was sent, on the clock of the event loop.
        subject: Where it goes.

    """

    __slots__ = (
        "_answer",
        "_deadline",
        "_foreign",
        "_instances",
        "_link",
        "_payload",
        "_target",
        "_timeout",
        "_timer",
        "headers",
        "sent",
        "subject",
    )

    def __init__(self, target: Target, payload: bytes, deadline: float, timeout: float | None) -> None:
        self._target, self._link, self._instances = target, target.link, target.instances
        self._payload, self._deadline, self._timeout = payload, deadline, timeout
        self._answer: asyncio.Future[Message | str | None]  # the answer; why the server refused it; None: too late
        self._timer: asyncio.TimerHandle | None = None
        self._foreign = False
        self.subject = target.subject
        self.sent: float
        self.headers: dict[str, str] = {}

    async def run(self) -> Any:
        """Return the result, or raise the call's error."""
        pause = FIRST
        while True:
            found = await self._send()
            if not isinstance(found, str):
                return self._result(found)
            pause_now = pause * random.uniform(0.5, 1.0)  # noqa: S311
            pause = min(2 * pause, LONGEST)
            if current_time() + pause_now >= self._deadline - (CHECK if self._instances.foreign else 0):
                raise self._error(Unavailable, found)
            await self._pause(pause_now)

    async def _pause(self, seconds: float) -> None:
        if self._link.server:
            await sleep(seconds)
        else:
            with move_on_after(max(self._deadline - current_time() - FIRST, seconds)):
                await self._link.connected()

    async def _send(self) -> Message | str:
        """Send it once; return the answer, or in words why it has not begun."""
        instances, link = self._instances, self._link
        if instances.foreign and not await instances.present():
            return f"nobody serves {self.subject}"
        token = link.token()
        self.sent = asyncio.get_running_loop().time()
        headers = {
            **self.headers,
            wire.TIMEOUT: f"{max(self._deadline - self.sent, 0):.6f}",
            wire.ID: f"{link.id}.{token}",
            wire.CONTRACT: self._target.digest,
        }
        excess = link.excess(self._payload, headers)
        if excess:
            raise self._error(BadRequest, f"the arguments are too large: {excess}")
        try:
            msg = await self._exchange(token, headers)
        except NotConnected:
            return f"there is no connection to NATS at {link.settings.shown}"
        if msg is None:
            raise await self._overdue()
        if isinstance(msg, str):
            raise self._error(Unavailable, msg)
        status = msg.headers.get(wire.STATUS)
        instances.reached(answered=status is not None)
        if status is None:
            return f"nobody serves {self.subject}"
        return msg.headers.get(wire.ERROR, status) if status == wire.NOT_BEGUN else msg

    async def _exchange(self, token: str, headers: dict[str, str]) -> Message | str | None:
        """Send it, and wait; return the answer, why the server refused it, or None at the deadline.

        Raises:
            NotConnected: It was not sent.

        """
        link = self._link
        self._answer = asyncio.get_running_loop().create_future()
        reply = link.wait(token, self)
        self._instances.watch(self)
        if self._deadline - self.sent < SOON:
            self._end_in_time()
        posted = False
        try:
            await link.post(self.subject, self._payload, reply, headers, until=self._deadline)
            posted = True
            return await self._answer
        except BaseException:
            if posted:
                self._tell_cancelled(headers[wire.ID])
            raise
        finally:
            link.forget(token)
            self._instances.pending.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # -- while it waits ------------------------------------------------------------------------------------------

    def receive(self, msg: Message) -> None:
        """Take the answer."""
        if wire.STATUS in msg.headers or msg.headers.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
            self._end(msg)
        else:
            self._foreign = self._instances.foreign = True  # from a stream, say, that stores what we have sent

    def refuse(self, words: str) -> None:
        """End it, since the server refuses to publish it."""
        self._end(words)

    def _end(self, found: Message | str | None = None) -> None:
        if not self._answer.done():
            self._answer.set_result(found)

    def _end_in_time(self) -> None:
        if self._timeout is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._deadline, self._end)

    def be_late(self) -> None:
        """Handle that there is no answer yet: most calls need neither a timer nor a look at the instances."""
        if not self._answer.done():
            self._end_in_time()
            self._link.spawn(self._look(self._answer))

    async def _look(self, answer: asyncio.Future[Any]) -> None:
        """End it at its deadline if there is no instance, and the server would not report that."""
        instances = self._instances
        if self._foreign or instances.foreign or not await instances.tapped():
            return  # known before it was sent: an instance was there, and has begun it
        instances.foreign = True
        if not await instances.contracts() and answer is self._answer:
            words = f"nobody serves {self.subject}"
            asyncio.get_running_loop().call_at(self._deadline - EARLY, self._end, words)

    async def _overdue(self) -> CallError:
        """Return the error of a call that was not answered in time."""
        if self._foreign:
            with CancelScope(deadline=current_time() + CHECK):
                if not await self._instances.contracts():
                    return self._error(Unavailable, f"nobody serves {self.subject}")
        return self._error(DeadlineExceeded, f"no answer after {self._timeout:g} s")

    def _tell_cancelled(self, name: str) -> None:
        """Let the instance that runs the call cancel it, unless it has ended by now."""
        if current_time() < self._deadline:
            self._link.post_soon(self._target.cancel, b"", {wire.ID: name})

    # -- its end -------------------------------------------------------------------------------------------------

    def _error(self, kind: type[CallError], words: str) -> CallError:
        return kind(self._target.service, self._target.method.name, words)

    def _result(self, msg: Message) -> Any:
        """Return the result in the answer *msg*, or raise the error in it."""
        target, status, words = self._target, msg.headers[wire.STATUS], msg.headers.get(wire.ERROR, "")
        try:
            if status == wire.OK:
                return read(target.method.result.decode, msg.data)
            if status == wire.RAISED:
                raise read(self._raised, msg.data)
        except Misfit as misfit:
            raise self._error(CallFailed, f"executed, but its answer does not fit: {misfit}") from None
        if status == wire.FAILED and msg.data:
            try:
                kind, message, trace_id = read(_failure, msg.data)
            except Misfit:
                kind, message, trace_id = "", words, ""
            raise CallFailed(target.service, target.method.name, message, kind, trace_id)
        raise self._error(KINDS.get(status, CallFailed), words or status)

    def _raised(self, data: Any) -> BaseException:
        if type(data) is not dict:
            raise Misfit("expected an error")
        name = str(data.get("type", ""))
        shape = self._target.method.raises.get(name)
        if shape is None:
            return CallFailed(self._target.service, self._target.method.name, str(data.get("message", "")), name)
        return shape.decode(data)


def _failure(data: Any) -> tuple[str, str, str]:
    if type(data) is not dict:
        raise Misfit("expected an object")
    return str(data.get("type", "")), str(data.get("message", "")), str(data.get("trace_id", ""))
