"""Calls between apps over a real server: the same answers and errors as in one process, deadlines, cancellation."""

from __future__ import annotations

import time
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from kernel import (
    BadRequest,
    CallFailed,
    ContractMismatch,
    DeadlineExceeded,
    Overloaded,
    Serving,
    Unavailable,
    interface,
    service,
)
from kernel.calls import client as client_module
from kernel.errors import ConfigError
from kernel.lifecycle.events import State
from kernel.testing import running
from tests.calls.conftest import App, apps, until
from tests.calls.scene import BY_REFERENCE, Users, UsersHere, hops, outcome, play, users_of, web_of

pytestmark = pytest.mark.anyio


@interface
class Other(Protocol):
    async def get(self, id: str) -> None: ...  # noqa: A002


@interface(timeout=0.2)
class Quick(Protocol):
    async def slow(self, seconds: float, name: str = "") -> str: ...


async def test_the_same_answers_in_one_process_and_in_several(nats: str, prefix: str) -> None:
    """In one process by reference and checked, over a server, split in two, and in three with two instances."""
    played = {}
    for how in ("local", "checked", "nats"):
        async with running(users_of(UsersHere()), web_of(), calls=how) as run:
            played[how] = await play(run.value("web"))
    for how, instances in (("two", 1), ("three", 2)):
        web = App((web_of(),), nats, f"{prefix}-{how}")
        async with apps(web, *(App((users_of(UsersHere()),), nats, f"{prefix}-{how}") for _ in range(instances))):
            played[how] = await play(web.value("web"))
    for how in ("nats", "two", "three"):
        assert played[how] == played["checked"], how
    for index, (local, checked) in enumerate(zip(played["local"], played["checked"], strict=True)):
        assert local == checked or index in BY_REFERENCE


async def test_a_caller_waits_for_an_instance(nats: str, prefix: str) -> None:
    """It is not ready before, and says for what it waits; then it starts."""
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(web, wait=False):
        stand_in = web.wiring.clients["users"]
        await until(lambda: "waiting for an instance of users" in stand_in.doing())
        assert not web.orchestrator.ready
        assert nats.removeprefix("nats://") in stand_in.doing()
        async with apps(users):
            with anyio.fail_after(30):
                await web.ready.wait()
            assert (await web.value("web").get(3)).id == 3


async def test_who_can_do_without_starts_without(nats: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 5 s with nobody there, a parameter takes its default."""
    monkeypatch.setattr(client_module, "WITHOUT", 0.3)
    got: list[Any] = []

    @service(depends=["users"], oneshot=True)
    async def web(users: Users | None = None) -> None:
        got.append(users)

    app = App((web,), nats, prefix)
    async with apps(app):
        pass
    assert got == [None]
    assert app.report is not None
    assert app.report.exit_code == 0


async def test_who_can_do_without_starts_beside_one_who_cannot(
    nats: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits as its own parameter says; when the service is there, the one that requires it starts."""
    monkeypatch.setattr(client_module, "WITHOUT", 0.3)
    got: list[Any] = []

    @service(depends=["users"])
    async def lenient(users: Users | None = None) -> None:
        got.append(users)
        await anyio.sleep_forever()

    app = App((web_of(), lenient), nats, prefix)
    async with apps(app, wait=False):
        await until(lambda: bool(got))
        assert got == [None]
        assert app.orchestrator.supervisors["web"].state is State.WAITING
        assert app.orchestrator.supervisors["users"].state is State.STARTING
        async with apps(App((users_of(UsersHere()),), nats, prefix)):
            with anyio.fail_after(30):
                await app.ready.wait()
            assert (await app.value("web").get(3)).id == 3
    assert got == [None]
    assert app.report is not None
    assert app.report.exit_code == 0


async def test_a_contract_that_does_not_fit(nats: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 60 s the caller fails, by the name of the field."""
    monkeypatch.setattr(client_module, "MISFIT", 0.3)

    @service(depends=["users"])
    async def web(users: Other) -> None: ...

    app = App((web,), nats, prefix)
    async with apps(App((users_of(UsersHere()),), nats, prefix)), apps(app, wait=False):
        with anyio.fail_after(30):
            await app.ready.wait()
    assert app.report is not None
    assert app.report.exit_code == 1
    error = app.orchestrator.supervisors["users"].error
    assert isinstance(error, ContractMismatch)
    assert "get: parameter 'id' is str here, and int there" in str(error)


# -- deadlines and cancellation ----------------------------------------------------------------------------------


async def test_the_callers_deadline_cancels_the_callee(nats: str, prefix: str) -> None:
    """Its rest of the time travels."""
    here = UsersHere()
    web = App((web_of(),), nats, prefix)
    async with apps(web, App((users_of(here),), nats, prefix)):
        with pytest.raises(TimeoutError), anyio.fail_after(0.3):
            await web.value("web").slow(30, "a")
        await here.until(lambda: here.cancelled == ["a"])


async def test_the_usual_deadline(nats: str, prefix: str) -> None:
    """Where the caller has none, that of the interface holds."""
    here = UsersHere()

    @service
    async def users(serving: Serving[Quick]) -> None:
        async with serving(here):
            await anyio.sleep_forever()

    @service(depends=["users"])
    async def web(users: Quick, serving: Serving[Any]) -> None:
        async with serving(users):
            await anyio.sleep_forever()

    caller = App((web,), nats, prefix)
    async with apps(caller, App((users,), nats, prefix)):
        with pytest.raises(DeadlineExceeded) as caught:
            await caller.value("web").slow(30, "a")
        assert isinstance(caught.value, TimeoutError)
        await here.until(lambda: here.cancelled == ["a"])


async def test_a_cancelled_caller_cancels_over_two_hops(nats: str, prefix: str) -> None:
    """Who waits in the middle is cancelled, and so is the last one."""
    here = UsersHere()

    web, middle = hops()
    caller = App((web,), nats, prefix)
    async with apps(caller, App((middle,), nats, prefix), App((users_of(here),), nats, prefix)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller.value("web").slow, 30, "a")
            await here.until(lambda: here.begun == ["a"])
            tasks.cancel_scope.cancel()
        await here.until(lambda: here.cancelled == ["a"])
        with pytest.raises(TimeoutError), anyio.fail_after(0.3):
            await caller.value("web").slow(30, "b")
        await here.until(lambda: here.cancelled == ["a", "b"])


async def test_a_cancel_that_overtakes_its_call(nats: str, prefix: str) -> None:
    """It is remembered, and the call never begins."""
    from nats import connect

    here = UsersHere()
    async with apps(App((users_of(here),), nats, prefix)):
        raw = await connect(nats)
        await raw.publish(f"{prefix}.users._cancel", b"", headers={"rpc-id": "x1"})
        await raw.flush()
        await raw.publish(
            f"{prefix}.users.slow", b'{"seconds": 0.0, "name": "a"}', raw.new_inbox(), headers={"rpc-id": "x1"}
        )
        answer = await raw.request(f"{prefix}.users.slow", b'{"seconds": 0.0, "name": "b"}', timeout=30)
        assert (answer.headers or {})["rpc-status"] == "ok"
        assert here.begun == ["b"]
        await raw.close()


# -- load --------------------------------------------------------------------------------------------------------


async def test_a_thousand_at_once(nats: str, prefix: str) -> None:
    """So many run, the others wait, and each gets its own answer."""
    here = UsersHere()
    web = App((web_of(),), nats, prefix)
    async with apps(web, App((users_of(here, concurrency=50),), nats, prefix)):
        found: list[int] = []

        async def one(number: int) -> None:
            found.append((await web.value("web").get(number)).id)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(1, 1001):
                    tasks.start_soon(one, number)
        assert sorted(found) == list(range(1, 1001))


async def test_too_many_at_once(nats: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes beyond those that wait is answered at once."""
    monkeypatch.setattr("kernel.calls.exporter.WAITING", 1)
    here = UsersHere()
    web = App((web_of(),), nats, prefix)
    provider = App((users_of(here, concurrency=1),), nats, prefix)
    async with apps(web, provider), anyio.create_task_group() as tasks:
        tasks.start_soon(web.value("web").slow, 30, "a")
        await here.until(lambda: here.begun == ["a"])
        tasks.start_soon(web.value("web").slow, 30, "b")
        await until(lambda: len(provider.wiring.exporters["users"].waiting) == 1)
        with pytest.raises(Overloaded):
            await web.value("web").get(1)
        tasks.cancel_scope.cancel()


# -- limits ------------------------------------------------------------------------------------------------------


async def test_payloads_at_the_limit(nats: str, prefix: str) -> None:
    """What the server does not take is an error of the call, and the connection lives on."""
    web = App((web_of(),), nats, prefix)
    async with apps(web, App((users_of(UsersHere()),), nats, prefix)):
        users = web.value("web")
        assert await users.size("x" * 1_000_000) == 1_000_000
        assert len(await users.grow(1_000_000)) == 1_000_000
        with pytest.raises(BadRequest, match="too large: 10"):
            await users.size("x" * (1 << 20))
        with pytest.raises(CallFailed, match="executed, but its result is too large"):
            await users.grow(1 << 20)
        assert web.wiring.link is not None
        assert web.wiring.link.reconnects == 0
        ends = [await outcome(users.size("x" * size)) for size in range((1 << 20) - 300, (1 << 20) + 10, 7)]
        fits = [end for end in ends if isinstance(end, int)]
        assert 10 < len(fits) < len(ends)
        assert ends[: len(fits)] == list(range((1 << 20) - 300, (1 << 20) + 10, 7))[: len(fits)]
        assert all(end[0] == "BadRequest" and "too large" in end[1] for end in ends[len(fits) :])
        assert web.wiring.link.reconnects == 0


async def test_another_prefix_is_not_ours(nats: str, prefix: str) -> None:
    """A service of the same name in another app is neither found nor called."""
    web, other = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, f"{prefix}-other")
    async with apps(other), apps(web, wait=False):
        client = web.wiring.clients["users"]
        await until(lambda: "waiting for an instance" in client.doing())
        assert not web.orchestrator.ready


async def test_nobody_serves_any_more(nats: str, prefix: str) -> None:
    """Calls are tried again until their deadline, and are Unavailable; those who call are not restarted."""
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(users), apps(web):
        users.stop()
        await until(lambda: users.report is not None)
        with pytest.raises(Unavailable, match="nobody serves"), anyio.fail_after(1):
            await web.value("web").get(1)
        assert web.wiring.status()["calls"]["users"]["available"] is False
        assert web.orchestrator.supervisors["web"].attempt == 1
        again = App((users_of(UsersHere()),), nats, prefix)
        async with apps(again, wait=False):
            assert (await web.value("web").get(1)).id == 1
        assert web.wiring.status()["calls"]["users"]["available"] is True


async def test_a_crash_of_the_provider(nats: str, prefix: str) -> None:
    """Its export drains, and callers wait for its return."""
    crash = anyio.Event()
    attempts = 0

    @service(retries=3)
    async def users(serving: Serving[Users]) -> None:
        nonlocal attempts
        attempts += 1
        async with serving(UsersHere()):
            if attempts == 1:
                await crash.wait()
                raise OSError("gone")
            await anyio.sleep_forever()

    web, provider = App((web_of(),), nats, prefix), App((users,), nats, prefix)
    async with apps(web, provider):
        crash.set()
        with anyio.fail_after(30):
            while provider.orchestrator.supervisors["users"].state is not State.BACKOFF:
                await anyio.lowlevel.checkpoint()
        assert (await web.value("web").get(1)).id == 1
    assert provider.report is not None
    assert provider.report.exit_code == 0


async def test_calls_in_flight_are_finished_by_a_stop(nats: str, prefix: str) -> None:
    """The export ends first, and the service is whole until the last answer is given."""
    here = UsersHere()
    web, provider = App((web_of(),), nats, prefix), App((users_of(here),), nats, prefix)
    found: list[str] = []

    async def one() -> None:
        found.append(await web.value("web").slow(0.5, "a"))

    async with apps(web, provider), anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await here.until(lambda: here.begun == ["a"])
        provider.stop()
    assert found == ["a"]
    assert provider.report is not None
    assert provider.report.exit_code == 0


async def test_calls_that_outlive_a_stop_are_answered(nats: str, prefix: str) -> None:
    """They are cancelled in time, their callers are told at once, and the stop is a clean one."""
    here = UsersHere()
    web = App((web_of(),), nats, prefix)
    provider = App((users_of(here),), nats, prefix, shutdown_timeout=2.0)
    found: list[Any] = []

    async def one() -> None:
        with anyio.fail_after(60):
            found.append(await outcome(web.value("web").slow(30, "a")))

    async with apps(web, provider), anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await here.until(lambda: here.begun == ["a"])
        began = time.monotonic()
        provider.stop()
    assert found[0][0] == "CallFailed"
    assert "stopped together with its service" in found[0][1]
    assert time.monotonic() - began < 10
    assert here.cancelled == ["a"]
    assert provider.report is not None
    assert provider.report.exit_code == 0, provider.report


async def test_trio_is_refused(nats: str, prefix: str) -> None:
    """Calls between processes need asyncio, and one error says so."""
    with pytest.raises(ConfigError, match="KERNEL_BACKEND is trio, and calls between processes need asyncio"):
        App((web_of(),), nats, prefix, backend="trio")


async def test_no_connection_where_nothing_is_called(nats: str, prefix: str) -> None:
    """NATS_URL alone makes none."""

    @service(oneshot=True)
    async def alone() -> None: ...

    assert App((alone,), nats, prefix).wiring.link is None
