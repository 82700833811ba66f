"""Which parts of the observability of a run there are, and when they begin and end."""

from __future__ import annotations

import functools
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kernel.config.otel import Exports, Otel
from kernel.config.settings import Address, Settings
from kernel.declare.service import service
from kernel.identity import Identity
from kernel.lifecycle.events import AllReady, StopBegan
from kernel.observe import admin, exporters, guard, logs, metrics, prometheus, wiring
from kernel.observe.spans import SpanObserver
from kernel.observe.status import Stats
from kernel.observe.systemd import Notifier
from kernel.observe.wiring import Outside
from kernel.process.sockets import HandedOver
from tests.harness import Lab
from tests.observe.spans import Spans
from tests.observe.untouched import logging_untouched

HERE = Address("127.0.0.1", 9090)
ON = Exports(console=True)


class Telemetry:
    """What is exported, to nowhere."""

    def __init__(self, done: list[str], otel: Otel, _: Identity) -> None:
        self._done = done
        self.make_metric_readers = lambda: ["exporting"] if otel.metrics else []
        self.log_handler = logging.NullHandler() if otel.logs else None
        self.spans = Spans()
        self.dispatcher = self.spans.dispatcher if otel.traces else None

    def start(self) -> None:
        """Say so."""
        self._done.append("telemetry starts")

    def end(self) -> str:
        """Say so, and that something is left."""
        self._done.append("telemetry ends")
        return "1 span"


class Prometheus:
    """A reader of metrics."""

    render = str

    def __init__(self, provide: Callable[..., object]) -> None:
        self._provide = provide

    def start(self) -> None:
        """Want metrics."""
        self._provide("scraping")


class Server:
    """The admin server, which answers nobody."""

    def __init__(self, done: list[str], *_: object) -> None:
        self._done = done

    def serve(self, socks: Sequence[object]) -> Server:
        """Say where."""
        self._done.append(f"serves on {', '.join(map(str, socks))}")
        return self

    def close(self, *, wait: bool = True) -> None:
        """Say how."""
        self._done.append("server closes" if wait else "server is told to close")


class Parts:
    """Stands in for what is heavy, or belongs to the whole process, and remembers what is done with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.handed_over = HandedOver()
        monkeypatch.setattr(wiring, "HANDED_OVER", self.handed_over)
        monkeypatch.setattr(exporters, "Telemetry", functools.partial(Telemetry, self.done))
        monkeypatch.setattr(prometheus, "Prometheus", Prometheus)
        monkeypatch.setattr(metrics, "provide", self._provide)
        monkeypatch.setattr(admin, "Admin", functools.partial(Server, self.done))
        monkeypatch.setattr(admin, "open_sockets", lambda address: [f"{address}"])
        for name in ("phase_of", "left_by"):
            monkeypatch.setattr(logs, name, getattr(logs, name))
        for name in ("ADMIN_ADDR", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            monkeypatch.delenv(name, raising=False)

    def _provide(self, _view: object, _resource: object, readers: Sequence[object]) -> None:
        self.done.append(f"metrics for {' and '.join(map(str, readers))}")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Nothing was done yet."""
    return Parts(monkeypatch)


def outside(*, serve: bool = True, **settings: Any) -> Outside:
    """The outside of a run."""
    return Outside(Settings(**settings), Identity("app", "1", ""), serve=serve)


def kinds(made: Outside) -> list[str]:
    """Its observers."""
    return [getattr(one, "__name__", type(one).__name__) for one in made.observers()]


@pytest.mark.parametrize(
    ("settings", "done", "observers"),
    [
        ({}, [], []),
        ({"admin": HERE}, ["metrics for scraping", "serves on 127.0.0.1:9090"], ["Stats"]),
        ({"admin": Address("127.0.0.1", 9090, asked_for=False)}, ["serves on 127.0.0.1:9090"], ["Stats"]),
        ({"admin": HERE, "serve": False}, [], []),
        ({"otel": Otel(traces=ON)}, ["telemetry starts"], ["SpanObserver"]),
        ({"otel": Otel(metrics=ON)}, ["telemetry starts", "metrics for exporting"], ["Stats"]),
        ({"otel": Otel(metrics=ON), "serve": False}, ["telemetry starts", "metrics for exporting"], ["Stats"]),
        (
            {"otel": Otel(metrics=ON), "admin": Address("127.0.0.1", 9090, asked_for=False)},
            ["telemetry starts", "metrics for scraping and exporting", "serves on 127.0.0.1:9090"],
            ["Stats"],
        ),
    ],
    ids=["nothing", "admin", "by default", "command", "traces", "metrics", "a command's", "both"],
)
def test_only_what_is_wanted_is_there(parts: Parts, settings: Any, done: list[str], observers: list[str]) -> None:
    """Metrics are collected from the start if somebody has asked for them, else when they are first read."""
    with outside(**settings) as made:
        made.serve()
        assert parts.done == done
        assert kinds(made) == observers
        assert made.exports is ("otel" in settings)
        made.tells("calls", list)  # goes nowhere without a status


@pytest.mark.parametrize(
    ("variable", "address", "serve", "taken"),
    [
        (None, None, True, True),
        ("off", None, True, False),
        ("9090", HERE, True, True),
        (None, None, False, False),
    ],
    ids=["not set", "off", "an address", "a command"],
)
def test_a_socket_from_systemd(
    parts: Parts,
    variable: str | None,
    address: Address | None,
    *,
    serve: bool,
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes before an address, unless `off` was said; of those that nobody took there is a warning."""
    ours, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    given = {"admin": [ours], "web": [other]}
    monkeypatch.setattr(parts.handed_over, "read", lambda _: parts.handed_over._socks.update(given))
    if variable is not None:
        monkeypatch.setenv("ADMIN_ADDR", variable)
    try:
        with outside(serve=serve, admin=address) as made:
            made.serve()
            served = [one for one in parts.done if one.startswith("serves on")]
            assert ["laddr=" in one for one in served] == [True] * taken
            assert kinds(made) == (["Stats"] * taken + ["_say_untaken"]) * serve
            for observer in made.observers():
                observer(AllReady(1.0, ()))
            for sock in made._handed_over:
                sock.close()
    finally:
        ours.close()
        other.close()
    said = [record.getMessage().partition(" from systemd")[0] for record in caplog.records]
    assert said == ([*["the socket 'admin'"] * (not taken), "the socket 'web'"] if serve else [])


@pytest.mark.parametrize("serve", [True, False])
def test_systemd_is_told_of_a_run(parts: Parts, serve: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a command, which is another program in the same unit."""
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    alive: list[int] = []
    monkeypatch.setattr(Notifier, "alive", lambda _: alive.append(1))
    with outside(serve=serve) as made:
        made.alive()
        assert kinds(made) == ["Notifier"] * serve
    assert len(alive) == serve
    assert not parts.done


def test_it_is_closed_once(parts: Parts) -> None:
    """By whoever asks what was not sent, or else at the end; the server goes on until then."""
    settings: Any = {"admin": HERE, "otel": Otel(traces=ON)}
    ends = ["telemetry ends", "server closes"]
    with outside(**settings) as made:
        made.serve()
        del parts.done[:]
        assert made.close() == "1 span"
        assert parts.done == ends
    assert parts.done == ends
    with outside(**settings) as made:
        made.serve()
        del parts.done[:]
    assert parts.done == ends
    with outside() as made:
        assert made.close() == ""


@pytest.mark.anyio
async def test_from_its_beginning_to_its_end(parts: Parts, lab: Lab) -> None:
    """While the loop runs the status comes from there; then nothing looks at it, and nobody waits for the server."""
    made = outside(admin=HERE)
    watch: Any = SimpleNamespace(delay=0.25, silent=0.0)
    calls: list[Callable[[], object]] = []
    seen: list[Any] = []

    @service
    async def calm() -> None:
        await anyio.sleep_forever()

    def begin() -> None:
        made.runs(lab.orchestrator, watch, calls.append, lambda: ("calm", "calm.py:7"))
        seen.extend(thread for thread in threading.enumerate() if thread.name == "kernel loop shares")

    with made:
        made.serve()
        view = made._view
        assert view is not None
        assert isinstance(made.observers()[0], Stats)
        made.tells("calls", lambda: [1])
        await lab.at(1, begin).stop_at(2).run(calm)
        assert (view.delay(), view.runner()) == (0.25, ("calm", "calm.py:7"))
        watch.silent = 3.0
        assert view.silent() == 3.0
        assert view.status()["calls"] == [1]
        assert view.orchestrator is lab.orchestrator
        (thread,) = seen
        assert thread.is_alive()
        del parts.done[:]
        made.ended(lab.report)
        thread.join(10)
        assert not thread.is_alive()
        assert parts.done == ["server is told to close"]
        watch.silent = 0.0
        assert view.snapshot(lambda: 7) == 7
        assert not calls  # the loop is not asked any more


def test_nothing_ends_what_never_began(parts: Parts) -> None:
    """A run that failed before its loop ran ends all the same."""
    with outside() as made:
        made.ended(SimpleNamespace(reason="", exit_code=2))  # type: ignore[arg-type]
        made.alive()
    assert not parts.done


def test_records_are_exported_until_the_end(parts: Parts) -> None:
    """Whatever a library does to logging meanwhile."""
    with logging_untouched() as root, outside(otel=Otel(logs=ON)) as made:
        (handler,) = (one for one in root.handlers if type(one) is logging.NullHandler)
        assert handler in guard.kept
        assert [type(one).__name__ for one in handler.filters] == ["Context"]
        made.close()
        assert handler not in guard.kept
        assert handler not in root.handlers
    assert parts.done == ["telemetry starts", "telemetry ends"]


@pytest.mark.anyio
@pytest.mark.usefixtures("parts")
async def test_the_lifecycle_is_traced(lab: Lab) -> None:
    """Records know its spans, which need nothing else; what is open at the end is ended with the exit code."""

    @service
    async def calm() -> None:
        await anyio.sleep_forever()

    def begin() -> None:
        watch: Any = SimpleNamespace(delay=0.25, silent=0.0)
        made.runs(lab.orchestrator, watch, lambda call: call, lambda: ("", ""))

    with outside(otel=Otel(traces=ON)) as made:
        telemetry: Any = made._telemetry
        (observer,) = made.observers()
        assert isinstance(observer, SpanObserver)
        assert (logs.phase_of, logs.left_by) == (telemetry.dispatcher.phase_of, telemetry.dispatcher.left_by)
        await lab.at(1, begin).stop_at(100).run(calm)
        assert telemetry.spans.one("app start").attributes["kernel.outcome"] == "unfinished"  # after a minute
        observer(StopBegan("SIGTERM", 10.0))
        made.ended(SimpleNamespace(reason="SIGTERM", exit_code=3))  # type: ignore[arg-type]
        assert telemetry.spans.one("app stop").status.description == "exit 3"
