"""Serve calls from other processes on the value that a service in this process hands over."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from anyio import CancelScope, Event, current_time, move_on_after

from kernel.calls import wire
from kernel.calls.codec import read, write
from kernel.calls.contract import contract_of, digest
from kernel.calls.discovery import Announcement, Offer, Stats
from kernel.calls.failures import failure_of, overdue, trace_id
from kernel.calls.nats import Link, NotConnected
from kernel.calls.proxy import behind, methods_of
from kernel.calls.shape import Misfit
from kernel.context import current_service
from kernel.errors import BadRequest, CallFailed, text_of
from kernel.masking import mask

if TYPE_CHECKING:
    from kernel.calls.interface import Method
    from kernel.calls.nats_client import Message
    from kernel.calls.telemetry import Telemetry

logger = logging.getLogger("kernel.calls")

CONCURRENCY = 100  # calls that run at once
WAITING = 1000  # calls that wait beyond that
REMEMBERED = 10_000  # cancelled calls that have not come yet
MARGIN = 0.1  # part of the time that a stop has, which is kept for answers
STOPS = "the service stops"
STOPPED = "it was stopped together with its service"


@attrs.define(eq=False)
class _Call:
    """One incoming call."""

    method: Method
    fn: Callable[..., Any]
    stats: Stats
    reply: str
    headers: dict[str, str]
    payload: bytes
    id: str
    deadline: float
    scope: CancelScope | None = None
    cancelled: bool = False
    stopped: bool = False


@attrs.frozen
class _Answer:
    """What a call ended with: its status, the payload of the answer, its error in words, and the error itself."""

    status: str
    payload: bytes = b""
    words: str = ""
    error: BaseException | None = None


class Exporter:
    """Receive calls, run them, and answer.

    Args:
        link: The connection.
        offer: The service.
        concurrency: How many calls run at once.
        telemetry: Spans and durations; None for none.

    """

    def __init__(
        self, link: Link, offer: Offer, *, concurrency: int = CONCURRENCY, telemetry: Telemetry | None = None
    ) -> None:
        self._link, self._concurrency, self._telemetry = link, concurrency, telemetry
        self._prefix, self._service, self._interface = offer.prefix, offer.service, offer.interface
        self._contract = digest(contract_of(offer.interface))
        self.stats = {name: Stats() for name in offer.interface.methods}
        self.running: set[_Call] = set()
        self.waiting: deque[_Call] = deque()
        self._by_id: dict[str, _Call] = {}
        self._never: dict[str, None] = {}  # ids that were cancelled before they came
        self._idle: Event | None = None
        self._announcement = Announcement(link, offer, self.stats)
        self._context = contextvars.copy_context()

    # -- its life ------------------------------------------------------------------------------------------------

    async def serve(self, value: object, serving: Callable[..., Any]) -> None:
        """Run as a service: ready when the server knows it, and ended when all calls are answered."""
        link = self._link
        self._context = contextvars.copy_context()
        self._context.run(current_service.set, self._service)
        subscriptions = [
            link.subscribe(wire.subject(self._prefix, self._service, name), self._receiver(name, fn), wire.QUEUE)
            for name, fn in methods_of(self._interface, self._service, behind(value)).items()
        ]
        cancels = link.subscribe(wire.subject(self._prefix, self._service, wire.CANCEL), self._cancel)
        others = [cancels, *self._announcement.subscriptions()]
        try:
            await link.connected()
            await link.begin([cancels])  # before the calls, so that no cancel goes unheard
            await link.begin([*subscriptions, *others[1:]])
            async with serving(None, drain=True) as work:
                await work.stop_requested()
                await self._drain(work, subscriptions)
        finally:
            with CancelScope(shield=True), move_on_after(1.0):
                self._end_all()
                await self._finished()
                await link.leave([*subscriptions, *others])

    async def _drain(self, work: Any, subscriptions: list[Any]) -> None:
        """Accept no more calls, and finish those in progress while there is time."""
        left = work.time_left() or math.inf
        with move_on_after(left * (1 - MARGIN)):
            await self._link.leave(subscriptions)
            await self._finished()
        self._end_all()
        await self._finished()

    async def _finished(self) -> None:
        while self.running or self.waiting:
            self._idle = Event()
            await self._idle.wait()

    def _end_all(self) -> None:
        """Cancel the calls that still run; each of them answers."""
        for call in list(self.waiting):
            self._answer_soon(call, wire.NOT_BEGUN, STOPS)
        self.waiting.clear()
        for call in list(self.running):
            call.stopped = True
            if call.scope is not None:
                call.scope.cancel()

    # -- what comes ----------------------------------------------------------------------------------------------

    def _receiver(self, name: str, fn: Callable[..., Any]) -> Any:
        method, stats, default = self._interface.methods[name], self.stats[name], self._interface.timeout

        now = asyncio.get_running_loop().time  # a quarter of what anyio's takes, for each call

        def receive(msg: Message) -> None:
            if not msg.reply:
                return  # nobody waits for an answer, so it is no call
            headers = msg.headers
            timeout = _seconds(headers.get(wire.TIMEOUT), default)
            call = _Call(
                method,
                fn,
                stats,
                msg.reply,
                headers,
                msg.data,
                headers.get(wire.ID) or msg.reply,
                now() + timeout,
            )
            stats.requests += 1
            if math.isnan(timeout):
                self._answer_soon(call, wire.BAD_REQUEST, f"{wire.TIMEOUT} is not a number of seconds")
            elif call.id in self._never:
                del self._never[call.id]
            elif len(self.running) < self._concurrency:
                self._start(call)
            elif len(self.waiting) < WAITING:
                self._by_id[call.id] = call
                self.waiting.append(call)
            else:
                words = f"{len(self.running)} calls run, and {WAITING} wait"
                self._answer_soon(call, wire.OVERLOADED, words)

        return receive

    def _cancel(self, msg: Message) -> None:
        """Handle the cancellation of a call, which may be ours, or may not have arrived yet."""
        name = msg.headers.get(wire.ID, "")
        call = self._by_id.get(name)
        if call is None:
            if name:
                self._never[name] = None
                if len(self._never) > REMEMBERED:
                    del self._never[next(iter(self._never))]
            return
        call.cancelled = True
        if call.scope is not None:
            call.scope.cancel()
        elif call not in self.running:
            self.waiting.remove(call)
            self._forget(call)

    def _start(self, call: _Call) -> None:
        self.running.add(call)
        self._by_id[call.id] = call
        task = asyncio.get_running_loop().create_task(self._run(call), context=self._context.copy())
        task.add_done_callback(lambda _: self._ended(call))

    def _ended(self, call: _Call) -> None:
        self.running.discard(call)
        self._forget(call)
        while self.waiting and len(self.running) < self._concurrency:
            following = self.waiting.popleft()
            if current_time() < following.deadline:
                self._start(following)
            else:
                self._forget(following)
                self._answer_soon(following, wire.LATE, "it waited for its turn until its deadline")
        if self._idle is not None and not self.running and not self.waiting:
            self._idle.set()

    def _forget(self, call: _Call) -> None:
        if self._by_id.get(call.id) is call:
            del self._by_id[call.id]

    # -- one call ------------------------------------------------------------------------------------------------

    async def _run(self, call: _Call) -> None:
        began = time.perf_counter()
        try:
            if self._telemetry is None:
                answer = await self._execute(call)
            else:
                with self._telemetry.server(self._service, call.method.name, call.headers) as span:
                    answer = await self._execute(call)
                    span.ended(answer.status, answer.words, answer.error)
        except BaseException as error:  # noqa: ASYNC103, BLE001  (a call never ends its service)
            answer = _Answer(wire.FAILED, words=f"{type(error).__name__}: {text_of(error)}", error=error)
        call.stats.seconds += time.perf_counter() - began
        if call.cancelled:
            return  # nobody waits for it
        await self._answer(call, answer)  # in a task of its own, which nobody cancels

    async def _execute(self, call: _Call) -> _Answer:  # noqa: PLR0911
        """Run it, and return its end."""
        if call.cancelled or call.stopped:
            return _Answer(wire.NOT_BEGUN, words=STOPS)
        try:
            given = read(call.method.decode, call.payload)
        except Misfit as misfit:
            if call.headers.get(wire.CONTRACT, self._contract) == self._contract:
                return _Answer(wire.BAD_REQUEST, words=str(misfit))
            return _Answer(wire.NOT_BEGUN, words=f"contract: {misfit}")
        with CancelScope(deadline=call.deadline) as scope:
            call.scope = scope
            try:
                value = await call.fn(**given)
            except BaseException as error:  # noqa: ASYNC103  (the caller gets a failure; a cancellation goes on)
                found = self._understand(call, error)
                if found is None:
                    raise
                return found  # noqa: ASYNC104
            try:
                return _Answer(wire.OK, write(call.method.result.encode, value))
            except Misfit as misfit:
                return _Answer(wire.FAILED, words=f"executed, but its result does not fit: {misfit}")
        if call.stopped:
            return _Answer(wire.FAILED, words=STOPPED)
        return _Answer(wire.LATE, words="it did not end before its deadline")

    def _understand(self, call: _Call, error: BaseException) -> _Answer | None:
        """Return what the caller gets for *error*; None if the call was cancelled."""
        method, service = call.method, self._service
        if overdue(error, call.deadline, current_time()):
            return _Answer(wire.LATE, words=text_of(error), error=error)
        failure = failure_of(error, service, method.name, method.declared)
        if isinstance(failure, BadRequest):
            return _Answer(wire.BAD_REQUEST, words=failure.message, error=error)
        assert failure is None or isinstance(failure, CallFailed)
        if failure is None:
            shape = method.raises.get(type(error).__name__)
            if shape is None or shape.cls is not type(error):
                return None
            try:
                return _Answer(wire.RAISED, write(shape.encode, error), text_of(error), error)
            except Misfit as misfit:
                failure = CallFailed(
                    service, method.name, f"{text_of(error)} ({misfit})", type(error).__name__, trace_id()
                )
        logger.error("a call of %s.%s failed", service, method.name, exc_info=error, extra={"service": service})
        fields = {"type": failure.type, "message": failure.message, "trace_id": failure.trace_id}
        return _Answer(wire.FAILED, write(_same, fields), f"{failure.type}: {failure.message}", error)

    # -- answers -------------------------------------------------------------------------------------------------

    async def _answer(self, call: _Call, answer: _Answer) -> None:
        payload, headers = answer.payload, self._headers(call, answer.status, answer.words)
        excess = self._link.excess(payload, headers)
        if excess:
            words = f"executed, but its result is too large: {excess}"
            payload, headers = b"", self._headers(call, wire.FAILED, words)
        try:
            await self._link.post(call.reply, payload, "", headers)
        except NotConnected:
            name = f"{self._service}.{call.method.name}"
            logger.warning("an answer of %s could not be given: there is no connection to NATS", name)

    def _answer_soon(self, call: _Call, status: str, words: str) -> None:
        self._link.spawn(self._answer(call, _Answer(status, words=words)))

    def _headers(self, call: _Call, status: str, words: str) -> dict[str, str]:
        if status == wire.OK:
            return {wire.STATUS: status}
        words = mask(words)  # it leaves the process
        call.stats.errors += 1
        call.stats.last_error = f"{wire.CODES[status]}:{words}"
        one_line = " ".join(words.encode("utf-8", "replace").decode().split())[:1000]
        return {wire.STATUS: status, wire.ERROR: one_line or status, wire.CODE: wire.CODES[status]}

    def status(self) -> dict[str, Any]:
        """Return its current calls and counts."""
        return {
            "interface": self._interface.name,
            "contract": self._contract,
            "running": len(self.running),
            "waiting": len(self.waiting),
            "calls": sum(stats.requests for stats in self.stats.values()),
            "errors": sum(stats.errors for stats in self.stats.values()),
        }


def _same(data: Any) -> Any:
    return data


def _seconds(text: str | None, default: float) -> float:
    """Return the seconds in *text*; NaN if there are none."""
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        return math.nan
    return seconds if seconds >= 0 else math.nan
