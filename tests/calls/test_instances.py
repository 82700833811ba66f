"""What is known of the instances of a service that runs elsewhere."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Protocol

import anyio
import pytest

from kernel import interface
from kernel.calls.client import Client
from kernel.calls.instances import Instances
from tests.calls.fake_link import IN_VIRTUAL_TIME, NOBODY, PREFIX, SERVER, STORED, Answer, FakeLink, found, info

pytestmark = pytest.mark.anyio

QUESTION, TAP = "$SRV.INFO.users", f"{PREFIX}.users._nobody"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Calls need asyncio."""
    return IN_VIRTUAL_TIME


@interface
class Users(Protocol):
    async def name(self, id: int) -> str: ...  # noqa: A002


@interface
class Others(Protocol):
    async def name(self, id: str) -> str: ...  # noqa: A002


class Waits:
    """A call that was sent."""

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.late = math.nan

    def be_late(self) -> None:
        self.late = anyio.current_time()


def instances(link: FakeLink) -> Instances:
    return Client(link, PREFIX, "users", found(Users)).instances


async def test_a_call_is_late_after_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer looks after all of them, for as long as there are any; at the latest after two tenths."""
    timers: list[Any] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def counted(delay: float, callback: Any, *args: Any) -> Any:
        timers.append(callback)
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", counted)
    some = instances(FakeLink())
    calls = []
    for _ in range(4):
        calls.append(Waits(anyio.current_time()))
        some.watch(calls[-1])
        await anyio.sleep(0.06)
    answered = calls.pop(2)
    some.pending.pop(answered)
    await anyio.sleep(1)
    assert all(0.1 <= call.late - call.sent <= 0.2 + 1e-9 for call in calls)
    assert math.isnan(answered.late)
    assert some.pending == {}
    assert timers.count(some._look_after) == 3
    again = Waits(anyio.current_time())
    some.watch(again)
    await anyio.sleep(1)
    assert again.late - again.sent == pytest.approx(0.1)


async def test_the_contracts_of_those_who_answer() -> None:
    """Up to the first that fits; without one, all that come in time. Others' services are none."""
    link = FakeLink(lambda _: [(b"{}", {}), info(Others), info(Users), info(Users)])
    some, began = instances(link), anyio.current_time()
    assert len(await some.contracts()) >= 2
    assert anyio.current_time() == began
    link.answer = lambda _: [(b"{}", {}), info(Others)]
    assert len(await some.contracts()) == 1
    assert anyio.current_time() == pytest.approx(0.3)
    link.answer = lambda _: [NOBODY]
    assert await some.contracts() == []
    assert anyio.current_time() == pytest.approx(0.3)
    assert some.refused == ""
    link.denied = {QUESTION: "the server does not allow it"}
    await some.contracts()
    assert some.refused == "the server does not allow it"
    link.lose()
    assert await some.contracts() == []
    assert link._waiting == {}


async def test_a_refused_question_is_not_waited_for() -> None:
    """The server's refusal ends it."""
    some = instances(link := FakeLink())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(some.contracts)
        await anyio.sleep(0.1)
        link._failed(Exception(f'nats: permissions violation for publish to "{QUESTION}"'))
    assert anyio.current_time() == pytest.approx(0.1)
    assert "does not allow to publish" in some.refused


async def test_whether_something_else_listens() -> None:
    """Nobody answers, and the server does not report it; without a connection it stays as it was."""
    some = instances(link := FakeLink())
    assert await some.tapped() is True
    link.answer = lambda _: [STORED]
    assert await some.tapped() is True
    link.answer = lambda _: [NOBODY]
    assert await some.tapped() is False
    link.lose()
    for known in (True, False):
        some.foreign = known
        assert await some.tapped() is known


async def test_a_tap_that_has_gone_is_noticed_within_five_seconds() -> None:
    """Only where no instance answers is it asked, and not each time."""
    answers: dict[str, list[Answer]] = {QUESTION: [], TAP: []}
    link = FakeLink(lambda sent: answers[sent.subject])
    some = instances(link)
    some.foreign = await some.tapped()
    assert some.foreign
    answers[TAP] = [NOBODY]
    answers[QUESTION] = [info(Users)]
    await anyio.sleep(10)
    assert await some.present()
    assert len(link.to(TAP)) == 1
    answers[QUESTION] = []
    assert await some.present()  # no tap any more, so the server tells
    assert (some.foreign, len(link.to(TAP))) == (False, 2)
    some.foreign = True
    answers[TAP] = []
    await anyio.sleep(4)
    assert not await some.present()
    assert len(link.to(TAP)) == 2
    await anyio.sleep(2)
    assert not await some.present()
    assert len(link.to(TAP)) == 3


async def test_the_log_tells_when_nobody_serves_and_when_somebody_does_again(caplog: Any) -> None:
    """Once each."""
    caplog.set_level(logging.INFO)
    some = instances(link := FakeLink())
    some.reached(answered=True)
    assert caplog.messages == []
    some.reached(answered=False)
    since = some.unavailable_since
    assert since is not None
    some.reached(answered=False)
    assert some.unavailable_since == since
    some.reached(answered=True)
    some.reached(answered=True)
    assert some.unavailable_since is None
    link.lose()
    some.reached(answered=False)
    assert caplog.messages == [
        f"nobody serves users at {SERVER}",
        "users answers again",
        "nobody serves users at nats://********@here:4222",
    ]
