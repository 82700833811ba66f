"""The called side: which calls run, which wait, which are refused, how each is answered, and what a stop does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import attrs
import pytest

from kernel import CallFailed, DeadlineExceeded, interface, masking
from kernel.calls import exporter as exporter_module
from kernel.calls.discovery import Offer
from kernel.calls.exporter import Exporter
from kernel.context import current_service
from kernel.testing import FakeServing
from tests.calls.fake_link import IN_VIRTUAL_TIME, PREFIX, FakeLink, Sent, found

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Calls need asyncio."""
    return IN_VIRTUAL_TIME


@attrs.define
class Taken(Exception):
    name: str


@interface(raises=[Taken], timeout=5)
class Users(Protocol):
    async def wait(self, seconds: float, name: str = "") -> str: ...
    async def fail(self, how: str) -> int: ...


class Here:
    """What is called, and what became of it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []

    async def wait(self, seconds: float, name: str = "") -> str:
        self.begun.append(name)
        try:
            await anyio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.ended.append(name)
        return name

    async def fail(self, how: str) -> int:  # noqa: C901
        match how:
            case "value":
                raise ValueError("bad\n  value")
            case "silent":
                raise ValueError
            case "long":
                raise ValueError("x" * 2000)
            case "declared":
                raise Taken("a")
            case "odd":
                raise Taken(1)  # type: ignore[arg-type]
            case "result":
                return "x"  # type: ignore[return-value]
            case "inner":
                raise CallFailed("store", "get", "gone")
            case "exit":
                raise SystemExit(3)
            case "arguments":
                return self.fail()  # type: ignore[call-arg,return-value]
            case "early":
                raise DeadlineExceeded("store", "get", "no answer after 1 s")
            case "late":
                await anyio.sleep(4.96)
                raise DeadlineExceeded("store", "get", "no answer after 5 s")
        raise ValueError(f"no such way: {how}")


class Served:
    """A service that can be called, and those who call it."""

    def __init__(self, **options: Any) -> None:
        self.link = FakeLink()
        self.here = Here()
        self.exporter = Exporter(self.link, Offer(PREFIX, "users", found(Users), "1.2.3"), **options)
        self.serving = FakeServing()
        self.calls = 0

    async def run(self) -> None:
        await self.exporter.serve(self.here, self.serving)

    def call(self, method: str, reply: str = "", /, *, headers: dict[str, str] | None = None, **arguments: Any) -> None:
        """Let a call arrive, which is answered to *reply*."""
        more = {"rpc-id": f"id-{reply}", **(headers or {})}
        self.deliver(method, json.dumps(arguments).encode(), reply, **more)

    def cancel(self, reply: str) -> None:
        """Let the cancellation of a call arrive."""
        self.deliver("_cancel", b"", "", **{"rpc-id": f"id-{reply}"})

    def deliver(self, method: str, payload: bytes, reply: str = "", **headers: str) -> None:
        self.link.deliver(f"{PREFIX}.users.{method}", payload, reply, **headers)

    def answer(self, reply: str) -> Sent:
        """Return the one answer to a call."""
        (sent,) = self.link.to(reply)
        return sent

    def error(self, reply: str) -> tuple[str, str, str]:
        """Return status, code and message of the answer to a call."""
        headers = self.answer(reply).headers
        return headers["rpc-status"], headers["Nats-Service-Error-Code"], headers["Nats-Service-Error"]


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    """Serve for as long as the block lasts, and see to it that nothing is left."""
    made = Served(**options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        await made.serving.served()
        await anyio.lowlevel.checkpoint()
        yield made
        made.serving.stop()
    assert not made.exporter.running
    assert not made.exporter.waiting
    assert made.exporter._by_id == {}
    assert made.link._subscribed == {}


# -- how many run ------------------------------------------------------------------------------------------------


async def test_so_many_run_so_many_wait_and_the_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait begin in their order, as soon as there is room."""
    monkeypatch.setattr(exporter_module, "WAITING", 2)
    async with served(concurrency=2) as users:
        for name in "abcde":
            users.call("wait", name, seconds=1, name=name)
        assert (users.exporter.status()["running"], users.exporter.status()["waiting"]) == (2, 2)
        await anyio.sleep(0.5)
        assert users.here.begun == ["a", "b"]
        assert users.error("e") == ("overloaded", "429", "2 calls run, and 2 wait")
        await anyio.sleep(1)
        assert users.here.begun == ["a", "b", "c", "d"]
        await anyio.sleep(1)
        assert sorted(users.here.ended) == ["a", "b", "c", "d"]
        assert [users.answer(name).payload for name in "abcd"] == [b'"a"', b'"b"', b'"c"', b'"d"']
        assert users.answer("a").headers == {"rpc-status": "ok"}
        told = users.exporter.status()
        assert told.pop("contract") == users.exporter._contract
        assert told == {"interface": "Users", "running": 0, "waiting": 0, "calls": 5, "errors": 1}
        stats = users.exporter.stats["wait"]
        assert (stats.requests, stats.errors) == (5, 1)
        assert stats.last_error == "429:2 calls run, and 2 wait"
        assert users.exporter.stats["fail"].requests == 0


async def test_a_hundred_run_and_a_thousand_wait_if_nobody_says_otherwise() -> None:
    """The numbers that the documentation gives."""
    async with served() as users:
        for number in range(1101):
            users.call("wait", f"r{number}", seconds=3, headers={"rpc-timeout": "100"})
        assert (len(users.exporter.running), len(users.exporter.waiting)) == (100, 1000)
        await anyio.sleep(1)
        assert users.error("r1100") == ("overloaded", "429", "100 calls run, and 1000 wait")
        assert len(users.here.begun) == 100


async def test_who_waits_until_its_deadline_never_begins() -> None:
    """And is told so; the next one that has time left begins instead."""
    async with served(concurrency=1) as users:
        users.call("wait", "a", seconds=2, name="a")
        users.call("wait", "b", seconds=0, name="b", headers={"rpc-timeout": "1"})
        users.call("wait", "c", seconds=0, name="c", headers={"rpc-timeout": "3"})
        await anyio.sleep(2.5)
        assert users.here.begun == ["a", "c"]
        assert users.error("b") == ("deadline-exceeded", "504", "it waited for its turn until its deadline")


# -- deadlines and cancellation ----------------------------------------------------------------------------------


async def test_a_call_ends_at_its_deadline() -> None:
    """The one that it names, or the interface's; its caller is told, though it may know."""
    async with served() as users:
        users.call("wait", "a", seconds=60, name="a", headers={"rpc-timeout": "1.5"})
        users.call("wait", "b", seconds=60, name="b")
        await anyio.sleep(1.6)
        assert users.here.cancelled == ["a"]
        assert users.error("a") == ("deadline-exceeded", "504", "it did not end before its deadline")
        await anyio.sleep(3.3)
        assert users.here.cancelled == ["a"]
        await anyio.sleep(0.2)
        assert users.here.cancelled == ["a", "b"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", ""])
async def test_a_timeout_that_is_none(text: str) -> None:
    """Is the caller's mistake."""
    async with served() as users:
        users.call("wait", "a", seconds=0, headers={"rpc-timeout": text})
        await anyio.sleep(0.1)
        assert users.error("a") == ("bad-request", "400", "rpc-timeout is not a number of seconds")
        assert users.here.begun == []


async def test_no_time_at_all_is_a_timeout() -> None:
    """The call is too late already; it is no mistake."""
    async with served() as users:
        users.call("wait", "a", seconds=1, headers={"rpc-timeout": "0"})
        await anyio.sleep(0.1)
        assert users.error("a")[0] == "deadline-exceeded"


async def test_a_cancelled_call_is_not_answered() -> None:
    """Whether it runs, was just started, waits, or has not come yet; the others go on."""
    async with served(concurrency=2) as users:
        users.cancel("e")
        for name in "abcde":
            users.call("wait", name, seconds=1, name=name)
        users.cancel("b")  # its task has not begun
        users.cancel("c")  # it waits
        await anyio.sleep(0.5)
        assert users.here.begun == ["a", "d"]
        users.cancel("a")
        await anyio.sleep(0.1)
        assert users.here.cancelled == ["a"]
        await anyio.sleep(2)
        assert users.here.ended == ["d"]
        assert [name for name in "abcde" if users.link.to(name)] == ["d"]
        assert users.exporter._never == {}
        users.cancel("d")  # it has ended, so this is remembered as of one to come
        users.call("wait", "d", seconds=1, name="d")
        await anyio.sleep(0.1)
        assert users.here.begun == ["a", "d"]
        users.deliver("_cancel", b"")  # which names no call
        assert users.exporter._never == {}


async def test_only_the_latest_cancellations_are_remembered() -> None:
    """Of calls that have not come: ten thousand, so that they do not fill the memory."""
    async with served() as users:
        for number in range(10_001):
            users.cancel(f"{number}")
        users.call("wait", "0", seconds=0, name="0")
        users.call("wait", "1", seconds=0, name="1")
        await anyio.sleep(0.1)
        assert users.here.begun == ["0"]


async def test_a_message_without_a_reply_is_no_call() -> None:
    """Nobody waits for an answer. A call without an id is one, by its reply."""
    async with served() as users:
        users.call("wait", "", seconds=0, name="a")
        users.deliver("wait", b'{"seconds": 9, "name": "b"}', "r")
        await anyio.sleep(0.1)
        assert users.here.begun == ["b"]
        assert list(users.exporter._by_id) == ["r"]
        assert users.exporter.status()["calls"] == 1
        users.deliver("_cancel", b"", "", **{"rpc-id": "r"})
        await anyio.sleep(0.1)
        assert users.here.cancelled == ["b"]


# -- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "status", "code", "words"),
    [
        ("value", "failed", "500", "ValueError: bad value"),
        ("silent", "failed", "500", "ValueError:"),
        ("long", "failed", "500", f"ValueError: {'x' * 988}"),
        ("exit", "failed", "500", "SystemExit: 3"),
        ("inner", "failed", "500", "CallFailed: store.get: gone"),
        ("declared", "error", "422", "a"),
        ("odd", "failed", "500", "Taken: 1 (name: expected str, got int)"),
        ("result", "failed", "500", "executed, but its result does not fit: expected int, got str"),
        ("early", "failed", "500", "DeadlineExceeded: store.get: no answer after 1 s"),
        ("late", "deadline-exceeded", "504", "store.get: no answer after 5 s"),
    ],
)
async def test_each_end_of_a_call(how: str, status: str, code: str, words: str, caplog: Any) -> None:
    """Has its status and its code; what was raised goes in words, in one line of at most a thousand characters."""
    async with served() as users:
        users.call("fail", "a", how=how)
        await anyio.sleep(5)
        assert users.error("a") == (status, code, words)
        stats = users.exporter.stats["fail"]
        assert (stats.requests, stats.errors) == (1, 1)
        assert stats.last_error.startswith(f"{code}:")
        payload = users.answer("a").payload
        logged = [(record.name, record.getMessage(), vars(record).get("service")) for record in caplog.records]
        if how in {"declared", "result", "late"}:
            assert logged == []
        else:
            assert logged == [("kernel.calls", "a call of users.fail failed", "users")]
            told = json.loads(payload)
            assert f"{told['type']}: {told['message']}".split() == words.split() or how == "long"
            assert told["trace_id"] == ""
        if how == "declared":
            assert json.loads(payload) == {"type": "Taken", "message": "a", "fields": {"name": "a"}}
        elif how in {"result", "late"}:
            assert payload == b""


async def test_arguments_that_do_not_fit() -> None:
    """Are the caller's mistake; not if it was written for another contract, as another instance may have that one."""
    async with served() as users:
        own, other = users.exporter._contract, "0123456789abcdef"
        users.call("fail", "a", how=1)
        users.call("fail", "b", how=1, headers={"rpc-contract": own})
        users.call("fail", "c", how=1, headers={"rpc-contract": other})
        users.call("wait", "d", seconds=0, name="d", headers={"rpc-contract": other})
        await anyio.sleep(0.1)
        for reply in "ab":
            assert users.error(reply) == ("bad-request", "400", "how: expected str, got int")
        assert users.error("c") == ("not-begun", "503", "contract: how: expected str, got int")
        assert users.answer("d").headers["rpc-status"] == "ok"


class Narrow:
    """Takes other arguments than its interface says."""

    async def wait(self, seconds: float) -> str: ...  # type: ignore[empty-body]

    async def fail(self, how: str) -> int:
        return self.wait(how, 1)  # type: ignore[arg-type,call-arg,return-value]


async def test_a_method_that_does_not_take_its_arguments(caplog: Any) -> None:
    """Has not begun, so it is a bad request; an error of the same kind from within it is a failure."""
    async with anyio.create_task_group() as tasks:
        users = Served()
        users.here = Narrow()  # type: ignore[assignment]
        tasks.start_soon(users.run)
        await users.serving.served()
        await anyio.lowlevel.checkpoint()
        users.call("wait", "a", seconds=1, name="b")
        users.call("fail", "c", how="x")
        await anyio.sleep(0.1)
        users.serving.stop()
    status, code, words = users.error("a")
    assert (status, code) == ("bad-request", "400")
    assert words == "Narrow.wait() got an unexpected keyword argument 'name'"
    assert users.error("c")[:2] == ("failed", "500")
    assert caplog.messages == ["a call of users.fail failed"]


async def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error without a payload, since the call was executed."""
    async with served() as users:
        monkeypatch.setattr(users.link, "excess", lambda payload, _: "9 bytes, at most 8" if len(payload) > 3 else "")
        users.call("wait", "a", seconds=0, name="abc")
        users.call("wait", "b", seconds=0, name="b")
        await anyio.sleep(0.1)
        words = "executed, but its result is too large: 9 bytes, at most 8"
        assert users.error("a") == ("failed", "500", words)
        assert users.answer("a").payload == b""
        assert users.answer("b").payload == b'"b"'


async def test_an_answer_that_cannot_be_given(caplog: Any) -> None:
    """Is logged, by the method's name, and nothing else comes of it."""
    async with served() as users:
        users.call("wait", "a", seconds=1)
        await anyio.sleep(0.5)
        users.link.lose()
        await anyio.sleep(1)
        assert caplog.messages == ["an answer of users.wait could not be given: there is no connection to NATS"]
        users.link.find()
        users.call("wait", "b", seconds=0)
        await anyio.sleep(0.1)
        assert users.answer("b").headers["rpc-status"] == "ok"


async def test_secrets_do_not_leave_the_process() -> None:
    """Not in the words of an error, and not in the statistics."""
    masking.add("sesame-open")
    async with served() as users:
        users.call("fail", "a", how="sesame-open")
        await anyio.sleep(0.1)
        words = "ValueError: no such way: ********"
        assert users.error("a") == ("failed", "500", words)
        assert users.exporter.stats["fail"].last_error == f"500:{words}"


async def test_a_call_runs_as_its_service_and_with_nothing_of_another_call() -> None:
    """Each in a context of its own, in which the service's name is set."""
    names: list[str | None] = []

    async def method(seconds: float) -> str:
        names.append(current_service.get())
        current_service.set("changed")
        return ""

    async with served() as users:
        from kernel.calls.nats_client import Message

        receive = users.exporter._receiver("wait", method)
        for reply in "ab":
            receive(Message("", reply, b'{"seconds": 1}', {}))
        await anyio.sleep(0.1)
        assert names == ["users", "users"]
        assert users.exporter.stats["wait"].seconds > 0


# -- its life ----------------------------------------------------------------------------------------------------


async def test_it_is_ready_when_the_server_knows_it() -> None:
    """Not before there is a connection; a subject that the server refuses is an error with its name."""
    users = Served()
    users.link.lose()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(users.run)
        await anyio.sleep(10)
        assert not users.serving._served.is_set()
        users.link.find()
        await users.serving.served()
        assert users.serving.value is None  # it provides nothing
        subjects = [subscribed.subject for subscribed in users.link._subscribed]
        assert subjects[:3] == ["app.users.wait", "app.users.fail", "app.users._cancel"]
        queues = [subscribed.queue for subscribed in users.link._subscribed]
        assert queues == ["q", "q", *[""] * 10]  # each call goes to one instance, all else to each
        users.serving.stop()
    refused = Served()
    refused.link.denied = {"app.users.fail": "the server does not allow to subscribe to app.users.fail"}
    with pytest.raises(PermissionError, match=r"subscribe to app\.users\.fail"):
        await refused.run()
    assert refused.link._subscribed == {}


async def test_a_stop_finishes_what_runs_and_takes_no_more() -> None:
    """Without a limit, for as long as it takes; what waits is finished too."""
    users = Served(concurrency=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(users.run)
        await users.serving.served()
        users.call("wait", "a", seconds=4, name="a")
        users.call("wait", "b", seconds=0.5, name="b")
        await anyio.sleep(1)
        users.serving.stop()
        await anyio.sleep(1)
        users.call("wait", "c", seconds=0, name="c")
        users.cancel("b")
    assert anyio.current_time() == 4
    assert users.here.ended == ["a"]
    assert users.link.to("c") == []


async def test_a_stop_with_a_deadline_keeps_a_tenth_of_it_for_answers() -> None:
    """What runs is cancelled and answered, what waits has not begun, and may be sent to another instance."""
    users = Served(concurrency=1)
    users.serving.time_left = 3.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(users.run)
        await users.serving.served()
        users.call("wait", "a", seconds=60, name="a", headers={"rpc-timeout": "60"})
        users.call("wait", "b", seconds=60, name="b", headers={"rpc-timeout": "60"})
        await anyio.sleep(1)
        users.serving.stop()
    assert anyio.current_time() == pytest.approx(1 + 2.7)
    assert users.here.cancelled == ["a"]
    assert users.error("a") == ("failed", "500", "it was stopped together with its service")
    await anyio.lowlevel.checkpoint()
    assert users.error("b") == ("not-begun", "503", "the service stops")


async def test_a_cancelled_service_answers_its_calls() -> None:
    """At once. One whose task has not begun never does, and may be sent to another instance."""
    users = Served()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(users.run)
        await users.serving.served()
        users.call("wait", "a", seconds=60, name="a")
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert anyio.current_time() == 1
    assert users.here.cancelled == ["a"]
    assert users.error("a") == ("failed", "500", "it was stopped together with its service")
    async with served() as others:
        others.call("wait", "b", seconds=60, name="b")
        others.exporter._end_all()
        await anyio.sleep(0.1)
        assert others.here.begun == []
        assert others.error("b") == ("not-begun", "503", "the service stops")


async def test_a_call_that_ignores_its_end_holds_nothing_up() -> None:
    """After a second the export is left."""
    users = Served()

    class Stubborn(Here):
        async def wait(self, seconds: float, name: str = "") -> str:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
            return name

    users.here = Stubborn()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(users.run)
        await users.serving.served()
        users.call("wait", "a", seconds=30)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert anyio.current_time() == 2
    await anyio.sleep(30)


async def test_the_log_has_the_error_of_a_failed_call(caplog: Any) -> None:
    """With its traceback."""
    async with served() as users:
        users.call("fail", "a", how="value")
        await anyio.sleep(0.1)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert isinstance(record.exc_info[1], ValueError)
