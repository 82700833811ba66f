"""The callers' side of a service that runs elsewhere: how it looks for an instance, and what it tells of its calls."""

from __future__ import annotations

import itertools
import random
from typing import Any, Protocol

import anyio
import pytest

from kernel import CallError, ContractMismatch, DeadlineExceeded, Unavailable, interface
from kernel.calls.client import Client
from kernel.testing import FakeServing
from tests.calls.fake_link import IN_VIRTUAL_TIME, NOBODY, PREFIX, SERVER, Answer, FakeLink, Sent, found, info

pytestmark = pytest.mark.anyio

QUESTION, TAP = "$SRV.INFO.users", f"{PREFIX}.users._nobody"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Calls need asyncio."""
    return IN_VIRTUAL_TIME


@interface(timeout=2)
class Users(Protocol):
    async def name(self, id: int) -> str: ...  # noqa: A002


@interface
class Others(Protocol):
    async def name(self, id: str) -> str: ...  # noqa: A002
    async def more(self) -> str: ...


class Elsewhere:
    """What answers there: instances, or nobody; and calls, by the answer to them."""

    def __init__(self, *instances: Any) -> None:
        self.instances = instances
        self.calls: list[Answer] = [(b'"x"', {"rpc-status": "ok"})]
        self.link = FakeLink(self.answer)
        self.client = Client(self.link, PREFIX, "users", found(Users))

    def answer(self, sent: Sent) -> list[Answer]:
        if sent.subject == QUESTION:
            return [info(cls) for cls in self.instances] or [NOBODY]
        return [NOBODY] if sent.subject == TAP else self.calls

    async def serve(self, serving: FakeServing, *, optional: bool = False) -> None:
        await self.client.serve(serving, optional=optional)


async def test_it_asks_again_and_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a twentieth of a second to one, doubled, each longer or shorter by up to a fifth."""
    spans: set[tuple[float, float]] = set()

    def longest(low: float, high: float) -> float:
        spans.add((low, high))
        return high

    monkeypatch.setattr(random, "uniform", longest)
    there = Elsewhere()
    with anyio.move_on_after(10):
        await there.serve(FakeServing())
    times = [sent.at for sent in there.link.to(QUESTION)]
    pauses = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]
    assert pauses[:8] == [0.06, 0.12, 0.24, 0.48, 0.96, 1.2, 1.2, 1.2]
    assert spans == {(0.8, 1.2)}


async def test_it_asks_nothing_before_it_is_connected() -> None:
    """What it waits for is told at each step."""
    there, serving = Elsewhere(Users), FakeServing()
    there.link.lose()
    assert there.client.doing() == "not connected to NATS at nats://********@here:4222"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.serve, serving)
        await anyio.sleep(100)
        assert there.link.sent == []
        there.instances = ()
        there.link.find()
        assert there.client.doing() == f"looking for an instance at {SERVER}"
        await anyio.sleep(1)
        assert there.client.doing() == f"waiting for an instance of users to answer at {SERVER}"
        there.instances = (Users,)
        await serving.served()
        assert there.client.doing() == f"running elsewhere, called through NATS at {SERVER}"
        there.link.lose()
        assert there.client.doing() == "running elsewhere, called through NATS at nats://********@here:4222"
        tasks.cancel_scope.cancel()


async def test_a_contract_that_fits_is_waited_for_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when instances answer; the error and the tree of what waits name all that does not fit."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.1)  # so that it asks often
    there = Elsewhere()

    async def meanwhile() -> None:
        await anyio.sleep(100)
        there.instances = (Others,)
        await anyio.sleep(50)
        there.instances = ()  # which begins the minute anew
        await anyio.sleep(50)
        there.instances = (Others, Others)
        await anyio.sleep(2)
        assert there.client.doing().startswith(f"found users at {SERVER}, whose contract does not fit: name: ")

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        with anyio.fail_after(1000), pytest.raises(ContractMismatch) as caught:
            await there.serve(FakeServing())
    assert 260 <= anyio.current_time() - began < 261
    assert str(caught.value) == (
        "users.Users: it does not fit what runs: name: parameter 'id' is int here, and str there"
    )


async def test_one_instance_that_fits_is_enough() -> None:
    """Whoever answers besides."""
    there, serving = Elsewhere(Others, Users), FakeServing()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.serve, serving)
        with anyio.fail_after(1):
            await serving.served()
        tasks.cancel_scope.cancel()


async def test_who_can_do_without_waits_for_five_seconds() -> None:
    """And not at all if it is there; who cannot waits for ever."""
    there, serving = Elsewhere(), FakeServing()
    with pytest.raises(Unavailable, match="nobody answers after 5 s; services that do not require it start without it"):
        await there.serve(serving, optional=True)
    assert anyio.current_time() == 5
    with anyio.move_on_after(100) as scope:
        await there.serve(serving)
    assert scope.cancelled_caught
    there.instances = (Users,)
    with anyio.move_on_after(100) as scope:
        await there.serve(serving, optional=True)
    assert scope.cancelled_caught
    assert serving.value is not None


async def test_what_it_tells_of_its_calls() -> None:
    """How many there were, how many go on, how many failed, and the last error."""
    there, serving = Elsewhere(Users), FakeServing()
    client, link = there.client, there.link
    started = {"interface": "Users", "contract": client.digest, "in_flight": 0, "calls": 0, "errors": 0}
    assert client.status() == {**started, "available": False, "unavailable_for": None, "last_error": None}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.serve, serving)
        users = await serving.served()
        assert client.status()["available"] is True
        for _ in range(2):
            assert await users.name(1) == "x"
        there.calls = []
        async with anyio.create_task_group() as callers:
            for _ in range(2):
                callers.start_soon(_fails, users)
            await anyio.sleep(1)
            assert client.status()["in_flight"] == 2
        there.calls = [(b"", {"rpc-status": "overloaded", "Nats-Service-Error": "too many"})]
        with pytest.raises(CallError):
            await users.name(1)
        told = client.status()
        assert (told["in_flight"], told["calls"], told["errors"]) == (0, 5, 3)
        assert told["last_error"] == "users.name: too many"
        link.lose()
        assert client.status()["available"] is False
        tasks.cancel_scope.cancel()


async def _fails(users: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        await users.name(1)


async def test_the_callers_deadline_or_the_usual_one() -> None:
    """The time that is left is sent; a call beyond the caller's own deadline is the caller's cancellation."""
    there = Elsewhere(Users)
    there.calls = []
    users: Any = there.client.proxy()
    with pytest.raises(DeadlineExceeded, match="no answer after 2 s"):
        await users.name(1)
    assert anyio.current_time() == 2
    with anyio.move_on_after(7) as scope:
        await users.name(1)
    assert scope.cancelled_caught
    assert anyio.current_time() == 9
    assert [float(sent.headers["rpc-timeout"]) for sent in there.link.to(f"{PREFIX}.users.name")] == [2, 7]


async def test_since_when_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, until somebody answers."""
    there = Elsewhere(Users)
    there.calls = [NOBODY]
    users: Any = there.client.proxy()
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with pytest.raises(Unavailable):
        await users.name(1)
    now[0] += 12.3456
    assert there.client.status()["unavailable_for"] == pytest.approx(12.346, abs=1e-9)
    there.calls = [(b'"x"', {"rpc-status": "ok"})]
    await users.name(1)
    assert there.client.status()["unavailable_for"] is None


def test_around_a_value_that_is_here() -> None:
    """The proxy knows the object, so an export finds it; an object without the methods is refused."""
    from kernel.calls.proxy import behind
    from kernel.errors import DeclarationError

    class Here:
        async def name(self, id: int) -> str: ...  # type: ignore[empty-body]  # noqa: A002

    client, here = Elsewhere().client, Here()
    proxy = client.around(here)
    assert behind(proxy) is here
    assert repr(proxy) == "<Users of users, elsewhere>"
    with pytest.raises(DeclarationError, match="whose 'name' has no such method"):
        client.around(3)
