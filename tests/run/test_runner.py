"""The phases of a run, and commands as services."""

from __future__ import annotations

import logging
import signal
import weakref
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest

from kernel import Retry, Serving, service
from kernel.config.settings import Settings
from kernel.declare.signature import Edge, Needs
from kernel.identity import Identity
from kernel.lifecycle.events import AllReady, Event, Forced, Notice, State, StopBegan, Transition
from kernel.lifecycle.units import Unit
from kernel.observe.wiring import Outside
from kernel.run.command import Outcome
from kernel.run.runner import _LetGo, _Phases, command_unit, execute, provider_unit
from tests.harness import Lab


@pytest.mark.parametrize(
    ("event", "done"),
    [
        (AllReady(1.0, ()), ["usual"]),
        (StopBegan("SIGTERM", 10.0), [10.0, "patient"]),
        (Forced(("db",)), []),
        (Notice("db", "starts late"), []),
    ],
)
def test_the_phases_of_a_run(event: Event, done: list[object]) -> None:
    """Collection is as usual once all are ready; a stop sets the deadline that it has."""
    found: list[object] = []
    collector: Any = SimpleNamespace(usual=lambda: found.append("usual"), patient=lambda: found.append("patient"))
    watchdog: Any = SimpleNamespace(arm=found.append)
    _Phases(watchdog, collector)(event)
    assert found == done


def test_what_a_crash_held_is_let_go() -> None:
    """The variables of its frames, once the crash was told; the error itself stays."""

    class Memory:
        """What is held."""

    held: list[weakref.ref[Memory]] = []

    def crash() -> None:
        memory = Memory()
        held.append(weakref.ref(memory))
        raise ValueError("boom")

    try:
        crash()
    except ValueError as caught:
        error = caught
    _LetGo()(Transition("db", State.STARTING, State.FAILED, 1, 0.5, "why", None))
    _LetGo()(Notice("db", "odd", error))
    assert held[0]() is not None
    _LetGo()(Transition("db", State.STARTING, State.FAILED, 1, 0.5, "why", error))
    assert held[0]() is None
    assert str(error) == "boom"


def _run(units: list[Unit], settings: Settings, **options: Any) -> int:
    identity = Identity("shop", "1.0", "tree")
    return execute(settings, lambda: (units, []), Outside(settings, identity, serve=False), **options)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_within_a_process(
    backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with its services, tells its exit code once, and leaves nothing behind for the process's end."""
    left: list[object] = []
    monkeypatch.setattr("atexit.register", left.append)
    monkeypatch.setattr("kernel.observe.logs.only_last_line", lambda: left.append("silence"))
    caplog.set_level(logging.INFO)
    seen: list[Event] = []
    settings = Settings(backend=backend)

    async def well() -> None: ...

    async def badly() -> None:
        raise OSError("no disk")

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert _run([Unit(service(oneshot=True)(well))], settings, observers=[seen.append]) == 0
    assert isinstance(seen[0], Transition)
    assert [message for message in caplog.messages if message.startswith("exit ")] == [
        "exit 0: every service has ended"
    ]
    assert _run([Unit(service(oneshot=True)(badly))], settings) == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not left


@pytest.mark.parametrize(("outcome", "code"), [(None, 0), (Outcome(), 143)])
def test_a_signal_stops_a_run(outcome: Outcome | None, code: int) -> None:
    """That is no failure of services; of a command, it is in its exit code."""

    async def stops() -> None:
        signal.raise_signal(signal.SIGTERM)
        with anyio.fail_after(10):
            await anyio.sleep_forever()

    assert _run([Unit(service(stops))], Settings(), outcome=outcome) == code


class Watched(Outside):
    """One that tells what is asked of it, and could not send everything."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(Settings(), Identity("shop", "1.0", "tree"), serve=False)
        self._told = told

    def serve(self) -> None:
        """Tell it."""
        self._told.append("serve")
        super().serve()

    def close(self) -> str:
        """Tell it."""
        self._told.append("close")
        super().close()
        return "2 spans not sent"


def test_a_run_is_observed(caplog: pytest.LogCaptureFixture) -> None:
    """It is served once the units are known, and closed when all has ended; what was not sent is told."""
    told: list[str] = []
    caplog.set_level(logging.INFO)

    async def well() -> None:
        told.append("runs")

    def prepare() -> tuple[list[Unit], list[str]]:
        told.append("prepare")
        return [Unit(service(oneshot=True)(well))], ["odd"]

    assert execute(Settings(), prepare, Watched(told)) == 0
    assert told[:4] == ["prepare", "serve", "runs", "close"]
    assert caplog.messages[0] == "odd"
    assert "2 spans not sent" in caplog.messages[-1]


NEEDS = Needs(edges=(Edge("db", parameter="db"),))


@service
async def _db(serving: Serving[str]) -> None:
    """Hands over a value."""
    async with serving("pool"):
        await anyio.sleep_forever()


DB = Unit(_db.named("db"))


def _returns(db: str) -> int:
    assert db == "pool"
    return 7


async def _returns_later(db: str) -> int:
    await anyio.sleep(1000)
    return _returns(db)


def _exits(db: str) -> None:
    raise SystemExit(4)


async def _exits_later(db: str) -> None:
    raise SystemExit(5)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("call", "code"), [(_returns, 7), (_returns_later, 7), (_exits, 4), (_exits_later, 5), (lambda db: None, 0)]
)
async def test_a_command_is_a_service(lab: Lab, call: Any, code: int) -> None:
    """It runs once its providers are ready, for as long as it takes; what it returns or exits with is no failure."""
    outcome = Outcome()
    await lab.run(DB, command_unit("db ask", NEEDS, call, outcome))
    assert outcome.code == code
    assert lab.stop_began.reason == "the command has ended"
    assert lab.path("db ask") == "waiting starting done"
    assert lab.order("ready") == ["db"]
    assert lab.exit_code == 0


@pytest.mark.anyio
async def test_a_command_that_fails(lab: Lab) -> None:
    """It is not tried again, and nobody need ask what it returned."""
    runs: list[str] = []

    async def fails(db: str) -> None:
        runs.append(db)
        raise OSError("no disk")

    await lab.run(DB, command_unit("db ask", NEEDS, fails))
    assert runs == ["pool"]
    assert lab.ending("db ask").state is State.FAILED
    assert lab.exit_code == 1


def test_a_provider_of_a_command_is_not_tried_for_ever() -> None:
    """As often as its start_timeout allows, where it has no other limit."""

    def unit(retry: Retry, start_timeout: float | None) -> Unit:
        return attrs.evolve(DB, service=attrs.evolve(DB.service, retry=retry, start_timeout=start_timeout), config=3)

    endless = unit(Retry(times=None), 60)
    found = provider_unit(endless)
    assert found == attrs.evolve(endless, service=found.service)
    assert found.service.retry == Retry(times=5)
    assert (found.service.name, found.service.start_timeout) == ("db", 60)
    for same in (unit(Retry(times=None), None), unit(Retry(times=2), 60)):
        assert provider_unit(same) is same
