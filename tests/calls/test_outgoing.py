"""One call, sent again only if it certainly has not begun, and what is learned of the instances by the way."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from types import SimpleNamespace
from typing import Any, Protocol

import anyio
import pytest

from kernel import BadRequest, CallError, CallFailed, DeadlineExceeded, Overloaded, Unavailable, interface
from kernel.calls.client import Client
from kernel.calls.nats import NotConnected
from kernel.calls.outgoing import OutgoingCall, Target
from tests.calls.fake_link import IN_VIRTUAL_TIME, NOBODY, PREFIX, STORED, Answer, FakeLink, Sent, found, info

pytestmark = pytest.mark.anyio

CALL, CANCEL, TAP = (f"{PREFIX}.users.{name}" for name in ("name", "_cancel", "_nobody"))
QUESTION = "$SRV.INFO.users"
OK = b'"x"', {"rpc-status": "ok"}
NOT_BEGUN = b"", {"rpc-status": "not-begun", "Nats-Service-Error": "the service stops"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Calls need asyncio."""
    return IN_VIRTUAL_TIME


class NoSuchUser(Exception):
    def __init__(self, id: int) -> None:  # noqa: A002
        super().__init__(f"there is no user {id}")
        self.id = id


@interface(raises=[NoSuchUser], timeout=2)
class Users(Protocol):
    async def name(self, id: int) -> str: ...  # noqa: A002


class There:
    """What answers: calls one after the other by *calls*, the last of them again and again."""

    def __init__(self, *calls: list[Answer], tapped: bool = False, instances: int = 1) -> None:
        self.calls = list(calls)
        self.tapped = tapped
        self.instances = instances
        self.link = FakeLink(self.answer)
        self.client = Client(self.link, PREFIX, "users", found(Users))
        self.users: Any = self.client.proxy()

    def answer(self, sent: Sent) -> list[Answer]:
        if sent.subject == TAP:
            return [] if self.tapped else [NOBODY]
        if sent.subject == QUESTION:
            return [info(Users)] * self.instances or ([] if self.tapped else [NOBODY])
        if sent.subject == CALL:
            return self.calls.pop(0) if len(self.calls) > 1 else self.calls[0]
        return []


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is shortened."""

    def high(low: float, high: float) -> float:
        assert (low, high) == (0.5, 1.0)
        return high

    monkeypatch.setattr(random, "uniform", high)


# -- again, or not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [NOBODY, NOT_BEGUN], ids=["nobody", "not begun"])
async def test_what_has_not_begun_is_sent_again(answer: Answer) -> None:
    """After pauses that double from a hundredth of a second to one, with a new id each time."""
    there = There(*[[answer]] * 9, [OK])
    with anyio.fail_after(20):
        assert await there.users.name(1) == "x"
    sent = there.link.to(CALL)
    pauses = [round(later.at - earlier.at, 6) for earlier, later in itertools.pairwise(sent)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert len({one.headers["rpc-id"] for one in sent}) == 10
    assert [float(one.headers["rpc-timeout"]) for one in sent][:3] == [20, 19.99, 19.97]
    assert {one.headers["rpc-contract"] for one in sent} == {there.client.digest}
    assert there.link._waiting == {}
    assert there.client.instances.pending == {}


@pytest.mark.parametrize(("answer", "words"), [(NOBODY, f"nobody serves {CALL}"), (NOT_BEGUN, "the service stops")])
async def test_it_is_unavailable_before_its_deadline(answer: Answer, words: str) -> None:
    """When no time is left for another attempt: the caller gets the reason, and no timeout."""
    there = There([answer])
    with pytest.raises(Unavailable) as caught:
        await there.users.name(1)
    assert str(caught.value) == f"users.name: {words}"
    assert 1 < anyio.current_time() < 2
    with anyio.fail_after(0.5), pytest.raises(Unavailable):
        await there.users.name(1)


async def test_a_status_without_words_is_the_reason() -> None:
    """From a service that is not ours, say."""
    there = There([(b"", {"rpc-status": "not-begun"})])
    with pytest.raises(Unavailable, match="not-begun"):
        await there.users.name(1)


async def test_it_waits_for_the_connection() -> None:
    """And goes on as soon as it is back; without it, the error names the server and shows no secret."""
    there = There([OK])
    there.link.lose()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_find_later, there.link)
        assert await there.users.name(1) == "x"
    assert anyio.current_time() == 1
    there.link.lose()
    with pytest.raises(Unavailable) as caught:
        await there.users.name(1)
    assert str(caught.value) == "users.name: there is no connection to NATS at nats://********@here:4222"
    assert 2.9 < anyio.current_time() < 3
    assert len(there.link.to(CALL)) == 1


async def test_a_connection_that_takes_nothing() -> None:
    """Is waited for until the deadline, and nothing was sent then."""
    there = There([OK])
    there.link.full = True
    there.link._client = SimpleNamespace(is_connected=True, max_payload=math.inf)  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="there is no connection to NATS"):
        await there.users.name(1)
    assert anyio.current_time() == pytest.approx(2, abs=0.01)
    assert there.link.sent == []


async def _find_later(link: FakeLink) -> None:
    await anyio.sleep(1)
    link.find()


# -- the end of it -----------------------------------------------------------------------------------------------


def told(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((b"", {"rpc-status": "bad-request", "Nats-Service-Error": "no"}), BadRequest, "users.name: no"),
        ((b"", {"rpc-status": "overloaded"}), Overloaded, "users.name: overloaded"),
        (
            (told(type="X", message="y"), {"rpc-status": "overloaded", "Nats-Service-Error": "z"}),
            Overloaded,
            "users.name: z",
        ),
        ((b"", {"rpc-status": "deadline-exceeded", "Nats-Service-Error": "late"}), DeadlineExceeded, "late"),
        ((b"", {"rpc-status": "failed", "Nats-Service-Error": "it broke"}), CallFailed, "users.name: it broke"),
        ((b"", {"rpc-status": "of the future"}), CallFailed, "users.name: of the future"),
        ((b"1", {"rpc-status": "ok"}), CallFailed, "executed, but its answer does not fit: expected str, got int"),
        ((b"", {"rpc-status": "ok"}), CallFailed, "executed, but its answer does not fit: expected JSON"),
        ((told(type="NoSuchUser", message="gone", fields={"id": 3}), {"rpc-status": "error"}), NoSuchUser, "gone"),
        ((told(type="NoSuchUser", message="m"), {"rpc-status": "error"}), CallFailed, "expected NoSuchUser, got None"),
        ((told(type="New", message="of a newer version"), {"rpc-status": "error"}), CallFailed, "of a newer version"),
        ((b"[]", {"rpc-status": "error"}), CallFailed, "its answer does not fit: expected an error"),
        ((told(), {"rpc-status": "error"}), CallFailed, "users.name: "),
    ],
    ids=range(13),
)
async def test_each_answer(answer: Answer, error: type[Exception], words: str) -> None:
    """Is a result, or an error of its kind; whatever it is, the call is not sent again."""
    there = There([answer])
    with pytest.raises(error) as caught:
        await there.users.name(1)
    assert words in str(caught.value)
    assert type(caught.value) is error
    assert len(there.link.to(CALL)) == 1
    if isinstance(caught.value, CallError):
        assert (caught.value.service, caught.value.method) == ("users", "name")


@pytest.mark.parametrize(
    ("payload", "kind", "message", "trace_id"),
    [
        (told(type="ValueError", message="bad", trace_id="1f"), "ValueError", "bad", "1f"),
        (told(), "", "", ""),
        (b"[]", "", "in words", ""),
        (b"\xff", "", "in words", ""),
    ],
    ids=range(4),
)
async def test_a_failure_has_its_kind_and_its_trace(payload: bytes, kind: str, message: str, trace_id: str) -> None:
    """As the service told them; what cannot be read leaves the message of the header."""
    there = There([(payload, {"rpc-status": "failed", "Nats-Service-Error": "in words"})])
    with pytest.raises(CallFailed) as caught:
        await there.users.name(1)
    assert (caught.value.type, caught.value.message, caught.value.trace_id) == (kind, message, trace_id)


async def test_an_error_that_is_not_declared_here_keeps_its_kind() -> None:
    """A newer version may declare one more."""
    there = There([(told(type="New", message="m"), {"rpc-status": "error"})])
    with pytest.raises(CallFailed) as caught:
        await there.users.name(1)
    assert (caught.value.type, caught.value.message) == ("New", "m")


async def test_only_the_first_answer_counts(caplog: Any) -> None:
    """Where several come."""
    there = There([OK, (b"1", {"rpc-status": "ok"}), NOBODY])
    assert await there.users.name(1) == "x"
    await anyio.sleep(1)
    assert caplog.messages == []
    link = there.link
    target = Target(link, there.client.instances, "users", found(Users).methods["name"], CALL, CANCEL, "")
    answered = OutgoingCall(target, b"", 2, 2)
    answered._answer = asyncio.get_running_loop().create_future()
    answered.refuse("the first")
    answered.refuse("the second")
    answered.be_late()  # in the turn in which the answer has come
    assert answered._answer.result() == "the first"
    assert (answered._timer, link._sending) == (None, set())


async def test_arguments_that_are_too_large_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are those that do not fit."""
    there = There([OK])
    with pytest.raises(BadRequest, match="id: expected int, got str"):
        await there.users.name("1")
    monkeypatch.setattr(there.link, "excess", lambda *_: "9 bytes, but the server accepts at most 8")
    with pytest.raises(BadRequest, match="the arguments are too large: 9 bytes"):
        await there.users.name(1)
    assert there.link.sent == []


async def test_a_refusal_of_the_server_ends_it() -> None:
    """With the server's reason, at once."""
    there = There([])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_refused, there)
        await anyio.sleep(0.01)
        error = Exception(f'nats: permissions violation for publish to "{CALL}"')
        there.link._failed(error)
    assert anyio.current_time() == 0.01


async def _refused(there: There) -> None:
    with pytest.raises(Unavailable, match=f"does not allow to publish to {CALL}"):
        await there.users.name(1)


# -- deadlines and cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.05, 0.2, 1.0])
async def test_the_usual_timeout_holds_exactly(seconds: float) -> None:
    """Whether it is short or not, an answer that comes in time counts, and one that is late does not."""

    @interface(timeout=seconds)
    class Quick(Protocol):
        async def name(self, id: int) -> str: ...  # noqa: A002

    there = There([])
    users: Any = Client(there.link, PREFIX, "users", found(Quick)).proxy()
    with pytest.raises(DeadlineExceeded) as caught:
        await users.name(1)
    assert str(caught.value) == f"users.name: no answer after {seconds:g} s"
    assert anyio.current_time() == pytest.approx(seconds)
    assert there.link.to(CANCEL) == []  # the service has the same deadline


async def test_a_cancelled_caller_tells_the_service() -> None:
    """By the id of the call; but not once its deadline has passed, nor if nothing was sent."""
    there = There([])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.users.name, 1)
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    (call,), (cancel,) = there.link.to(CALL), there.link.to(CANCEL)
    assert cancel.headers == {"rpc-id": call.headers["rpc-id"]}
    assert (cancel.payload, cancel.reply) == (b"", "")
    with anyio.move_on_after(0.5):
        await there.users.name(1)
    assert len(there.link.to(CANCEL)) == 1
    there.link.lose()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.users.name, 1)
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    assert len(there.link.to(CANCEL)) == 1
    assert there.link._waiting == {}


# -- whoever else listens ----------------------------------------------------------------------------------------


async def test_an_acknowledgement_of_a_stream_is_no_answer() -> None:
    """The answer that comes after it counts; from then on it is asked whether an instance is there."""
    there = There([STORED, OK], tapped=True)
    assert await there.users.name(1) == "x"
    assert there.client.instances.foreign
    assert await there.users.name(1) == "x"
    assert len(there.link.to(QUESTION)) == 1
    there.tapped = False  # which is found out when nobody answers
    there.instances = 0
    there.calls = [[NOBODY]]
    with pytest.raises(Unavailable):
        await there.users.name(1)


async def test_nobody_serves_and_a_stream_stores_the_call() -> None:
    """It is Unavailable at the deadline, since it cannot have begun; with an instance there it may have."""
    there = There([STORED], tapped=True, instances=0)
    with pytest.raises(Unavailable, match=f"nobody serves {CALL}"):
        await there.users.name(1)
    assert anyio.current_time() == pytest.approx(2, abs=0.6)
    other = There([STORED], tapped=True)
    with pytest.raises(DeadlineExceeded):
        await other.users.name(1)
    assert there.link.to(TAP) == other.link.to(TAP) == []  # what it would tell is known


async def test_nobody_serves_and_a_tap_hides_it() -> None:
    """It is Unavailable shortly before the caller's deadline, which would be a cancellation."""
    there = There([], tapped=True, instances=0)
    with anyio.fail_after(1), pytest.raises(Unavailable, match=f"nobody serves {CALL}"):
        await there.users.name(1)
    assert anyio.current_time() == pytest.approx(0.98)
    assert there.client.instances.foreign
    before = len(there.link.to(CALL))
    with anyio.fail_after(3), pytest.raises(Unavailable, match=f"nobody serves {CALL}"):
        await there.users.name(1)  # it is known now, and nothing is sent
    assert len(there.link.to(CALL)) == before
    # Six questions of 0.3 s, and the pauses between them; there would be no time for another.
    assert anyio.current_time() == pytest.approx(0.98 + 2.11)


async def test_a_late_answer_with_a_tap_is_waited_for() -> None:
    """An instance is there, and may be slow."""
    there = There([], tapped=True)
    with anyio.move_on_after(1) as scope:
        await there.users.name(1)
    assert scope.cancelled_caught
    assert anyio.current_time() == 1
    assert len(there.link.to(CANCEL)) == 0


async def test_without_a_tap_the_instances_are_not_asked() -> None:
    """The server would have told that nobody is there."""
    there = There([])
    with pytest.raises(DeadlineExceeded):
        await there.users.name(1)
    assert len(there.link.to(TAP)) == 1
    assert there.link.to(QUESTION) == []
    assert not there.client.instances.foreign


async def test_a_message_that_cannot_be_sent() -> None:
    """Is an error for whoever waits, and lost for whoever does not."""
    link = FakeLink()
    link.lose()
    with pytest.raises(NotConnected):
        await link.post("x", b"")
    link.post_soon("x", b"")
    await anyio.sleep(1)
    assert link.sent == []
