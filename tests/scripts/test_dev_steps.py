"""What `just dev` does when, with stand-ins for the processes of the app, and for what watches the files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import dev

# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("services/x.py", True),
        ("x.py", True),
        (".env", True),
        ("services/x.html", True),
        ("x.html", False),
        ("services/x.db", False),
        ("services/.x.py", False),
        (".venv/x.py", False),
        ("tests/x.py", False),
        ("app/build/x.py", False),
        ("../elsewhere/x.py", False),
        ("services/.env", False),
    ],
)
def test_which_files_are_the_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, *, ours: bool) -> None:
    """Code wherever it is, and what lies beside it in a folder; neither tests nor what tools and the app write."""
    monkeypatch.setattr(dev, "ROOT", tmp_path / "root")
    place = tmp_path / "elsewhere" / "x.py" if path.startswith("..") else tmp_path / "root" / path
    assert dev.is_of_the_app(place) is ours


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with folders of all kinds."""
    for path in (
        "app/",
        "services/",
        "mine/x.py",
        "data/x.json",
        "tests/x.py",
        ".hidden/x.py",
        "both/a.txt",
        "both/x.py",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).mkdir() if path.endswith("/") else (tmp_path / path).touch()
    (tmp_path / "x.py").touch()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    return tmp_path


def test_which_folders_are_the_apps(root: Path) -> None:
    """Those with code, and the two that are always watched."""
    assert {path.name for path in dev.folders()} == {"app", "services", "mine", "both"}


class Notify:
    """What tells of saved files, a set of changes at a time."""

    def __init__(self, paths: Sequence[str], *options: object) -> None:
        self.paths, self.recursive = paths, options[3]
        self.changes: list[object] = []

    def watch(self, *options: Any) -> object:
        """Return the next changes; after the last ones it is over."""
        if not self.changes:
            options[-1].set()
            return "stop"
        found = self.changes.pop(0)
        return found() if callable(found) else found


def test_what_is_saved_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once; a folder that is new is watched from then on, and the old watch ends."""
    started: list[tuple[Notify, threading.Event, bool]] = []

    def thread(*, target: object, args: tuple[Notify, threading.Event, bool], daemon: bool) -> object:
        started.append(args)
        return types.SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(dev, "threading", types.SimpleNamespace(Event=threading.Event, Thread=thread))
    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", Notify)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    watch = dev.Watch(woken)
    (top, top_end, top_recursive), (below, below_end, below_recursive) = started
    assert (top.paths, top_recursive, top.recursive) == ([str(root)], False, False)
    names = [Path(path).name for path in below.paths]
    assert (names, below_recursive, below.recursive) == (["app", "both", "mine", "services"], True, True)
    below.changes = ["timeout", {(1, str(root / "app" / "x.db"))}]
    watch._read(below, threading.Event(), recursive=True)
    assert not watch.take()
    below.changes = [{(1, str(root / "app" / "x.db")), (1, str(root / "app" / "x.py"))}]
    watch._read(below, threading.Event(), recursive=True)
    assert [watch.take(), watch.take()] == [True, False]
    assert os.read(wake, 10) == b"\0"
    top.changes = [{(1, str(root / "data" / "x.db"))}]
    watch._read(top, top_end, recursive=False)
    assert not watch.take()
    assert len(started) == 2
    (root / "data" / "x.py").touch()
    top.changes = [{(1, str(root / "data"))}]
    top_end.clear()
    watch._read(top, top_end, recursive=False)
    assert watch.take()
    assert below_end.is_set()
    assert [Path(path).name for path in started[2][0].paths] == ["app", "both", "data", "mine", "services"]
    assert not started[2][1].is_set()
    os.close(wake)
    os.close(woken)


# -- one version ---------------------------------------------------------------------------------------------------


class Process:
    """A process of the app."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options = command, options
        self.gate = socket.socket(fileno=os.dup(options["pass_fds"][0]))
        self.sent: list[int] = []
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code."""
        return self.code

    def send_signal(self, number: int) -> None:
        """Note the signal."""
        if self.code is not None:
            raise ProcessLookupError
        self.sent.append(number)

    def kill(self) -> None:
        """Note that it is killed."""
        self.sent.append(signal.SIGKILL)

    def wait(self) -> None:
        """It ends at once."""


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dev.Version, Process]]:
    """A version, and its process."""
    monkeypatch.setattr(dev, "subprocess", types.SimpleNamespace(Popen=Process))
    version = dev.Version(["a", "b"])
    process: Any = version.process
    yield version, process
    version.gate.close()
    process.gate.close()


def test_a_version_is_heard(version: tuple[dev.Version, Process]) -> None:
    """First that it is prepared; then it waits, is released, and closes its end."""
    one, process = version
    assert process.command[1:] == ["run", "a", "b"]
    assert process.options["env"]["KERNEL_DEV_GATE"] == str(process.options["pass_fds"][0])
    one.hear()
    assert (one.prepared, one.silent, one.ended()) == (False, False, None)
    process.gate.sendall(b"prepared\n")
    one.hear()
    assert (one.prepared, one.silent) == (True, False)
    one.release()
    assert process.gate.recv(10) == b"run\n"
    process.gate.close()
    one.hear()
    assert (one.prepared, one.silent) == (True, True)
    one.release()
    process.code = 3
    one.stop()
    assert (one.ended(), one.asked, process.sent) == (3, True, [])


def test_a_version_is_ended(version: tuple[dev.Version, Process]) -> None:
    """In order by a signal; by force before it has started to run."""
    one, process = version
    one.stop()
    one.stop(signal.SIGINT)
    one.discard()
    assert process.sent == [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
    assert process.gate.recv(10) == b""


# -- the versions --------------------------------------------------------------------------------------------------


class Version:
    """A version whose fate the test decides."""

    def __init__(self, _: list[str]) -> None:
        self.prepared = self.silent = self.asked = self.released = self.discarded = False
        self.stops: list[int] = []
        self.code: int | None = None
        self.gate, self.theirs = socket.socketpair()

    def ended(self) -> int | None:
        """Return the exit code."""
        return self.code

    def hear(self) -> None:
        """The test has set what it says."""

    def release(self) -> None:
        """Let it run; only one does."""
        assert self.prepared
        self.released = True

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Request it to stop."""
        self.asked = True
        self.stops.append(number)

    def discard(self) -> None:
        """End it before it runs."""
        assert not self.released
        self.discarded = True
        self.gate.close()

    def end(self, code: int) -> None:
        """Let it end."""
        self.silent, self.code = True, code


class Bench:
    """A `just dev`, step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions: list[Version] = []
        self.saved = False
        self.handlers: dict[int, Callable[[int, None], None]] = {}
        self.heard: list[set[int]] = []
        monkeypatch.setattr(dev, "Version", self._new)
        monkeypatch.setattr(dev, "Watch", self._watch)
        monkeypatch.setattr(signal, "signal", self.handlers.__setitem__)
        monkeypatch.setattr(signal, "set_wakeup_fd", lambda _, warn_on_full_buffer: None)
        self.dev = dev.Dev(["a"])
        self._patch = monkeypatch

    def _new(self, words: list[str]) -> Version:
        assert words == ["a"]
        self.versions.append(Version(words))
        return self.versions[-1]

    def _watch(self, woken: int) -> object:
        assert not os.get_blocking(woken), "a signal must not wait until it is read"
        self._woken = woken
        return types.SimpleNamespace(take=self._take)

    def _take(self) -> bool:
        saved, self.saved = self.saved, False
        return saved

    def save(self) -> None:
        """Save a file."""
        self.saved = True

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.handlers[number](number, None)

    def run(self, *steps: Callable[[], object]) -> int:
        """Run it; before each turn of its loop the next step is made."""
        left = [*steps]

        def select(read: list[int], *_: object) -> None:
            self.heard.append({*read[1:]})
            assert left, "it waits for something more"
            left.pop(0)()

        self._patch.setattr(dev, "select", types.SimpleNamespace(select=select))
        code = self.dev.run()
        assert not left
        for version in self.versions:
            assert version.gate.fileno() == -1, "all sockets are closed"
            version.theirs.close()
        os.close(self.dev._wake)
        os.close(self._woken)
        return code

    def prepare(self, number: int) -> Callable[[], object]:
        """A step: a version says that it is prepared."""
        return lambda: setattr(self.versions[number], "prepared", True)

    def silence(self, number: int) -> Callable[[], object]:
        """A step: a version closes its socket, since it has stopped."""
        return lambda: setattr(self.versions[number], "silent", True)

    def end(self, number: int, code: int = 0) -> Callable[[], object]:
        """A step: a version ends."""
        return lambda: self.versions[number].end(code)

    def states(self) -> list[str]:
        """What has become of each version."""
        return ["ran" if version.released else "discarded" if version.discarded else "-" for version in self.versions]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A `just dev` that has just started its first version."""
    return Bench(monkeypatch)


def nothing() -> None:
    """A step in which nothing has happened."""


def interrupt(bench: Bench) -> Callable[[], object]:
    """A step: Ctrl-C."""
    return lambda: bench.signal(signal.SIGINT)


def test_it_runs_until_a_signal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The app gets the signals in their order, and its exit code counts."""

    def twice() -> None:
        bench.signal(signal.SIGINT)
        bench.signal(signal.SIGTERM)

    assert bench.run(nothing, bench.prepare(0), nothing, twice, nothing, bench.end(0, 7)) == 7
    assert bench.versions[0].stops == [signal.SIGINT, signal.SIGTERM]
    assert bench.states() == ["ran"]
    assert capsys.readouterr().err == ""


def test_a_save_replaces_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The old one is asked to stop when the new one is prepared, which runs as soon as the old one has stopped."""
    first = bench.versions[0]

    def not_yet() -> None:
        assert not first.stops

    def waits() -> None:
        assert first.stops == [signal.SIGTERM]
        assert not bench.versions[1].released

    def runs() -> None:
        assert bench.versions[1].released, "though the interpreter of the old one has not ended"

    steps = [bench.prepare(0), bench.save, not_yet, bench.prepare(1), waits, bench.silence(0), runs]
    assert bench.run(*steps, interrupt(bench), bench.end(1, 3), bench.end(0, 5)) == 3
    assert bench.states() == ["ran", "ran"]
    assert capsys.readouterr().err == ""


def test_the_newest_version_counts(bench: Bench) -> None:
    """One that is importing is ended when another is saved, and so is one that waits for the end of the old one."""
    steps = [bench.save, bench.prepare(1), bench.save, bench.prepare(2), bench.save, bench.prepare(3), nothing]
    assert bench.run(*steps, bench.end(1), nothing, interrupt(bench), bench.end(3)) == 0
    assert bench.states() == ["discarded", "ran", "discarded", "ran"]
    assert bench.versions[1].stops == [signal.SIGTERM], "it is asked once"


def test_what_does_not_start(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The app goes on, or there is none until the next save."""
    steps = [bench.end(0, 1), nothing, bench.save, bench.prepare(1), bench.save, bench.end(2, 1), nothing]
    assert bench.run(*steps, interrupt(bench), bench.end(1)) == 0
    assert bench.states() == ["-", "ran", "-"]
    assert not bench.versions[1].stops[1:]
    assert capsys.readouterr().err == (
        "just dev: the app does not start; the next save tries again.\n"
        "just dev: the saved version does not start, so the app continues unchanged; the next save tries again.\n"
    )


def test_an_app_that_ends_by_itself(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told once, and the next save starts it again; a signal then ends at once, with its exit code."""
    steps = [bench.prepare(0), bench.end(0, 4), nothing, bench.save, bench.prepare(1), bench.end(1, 5)]
    assert bench.run(*steps, interrupt(bench)) == 5
    assert capsys.readouterr().err.splitlines() == [
        f"just dev: the app has ended by itself, with exit code {code}; the next save starts it again."
        for code in (4, 5)
    ]


def test_one_that_ends_while_the_next_is_prepared(bench: Bench) -> None:
    """The next one runs at once."""
    steps = [bench.prepare(0), bench.save, bench.prepare(1), bench.end(0), nothing, interrupt(bench), bench.end(1)]
    assert bench.run(*steps) == 0
    assert bench.states() == ["ran", "ran"]


@pytest.mark.parametrize("waiting", [False, True], ids=["importing", "waiting"])
def test_a_signal_ends_what_has_not_started(bench: Bench, *, waiting: bool) -> None:
    """No new version starts after it."""
    steps = [bench.prepare(0), bench.save, *([bench.prepare(1)] if waiting else []), interrupt(bench), bench.save]
    assert bench.run(*steps, bench.end(0)) == 0
    assert bench.states() == ["ran", "discarded"]


def test_a_version_is_not_heard_when_it_is_silent(bench: Bench) -> None:
    """Otherwise the loop would never rest."""
    first = bench.versions[0].gate.fileno()
    bench.run(bench.prepare(0), bench.silence(0), nothing, interrupt(bench), bench.end(0))
    assert [first in heard for heard in bench.heard] == [True, True, False, False, False]


# -- the recipe ----------------------------------------------------------------------------------------------------


def test_without_watchfiles(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told how to add it."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(SystemExit) as ended:
        dev.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "just dev: watchfiles is not installed; add it: just deps-add watchfiles GROUP=dev\n"
    )


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It starts nothing."""
    done = subprocess.CompletedProcess[bytes]([], 1, b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(SystemExit) as ended:
        dev.main(["a", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: just dev, or just dev example-api")
