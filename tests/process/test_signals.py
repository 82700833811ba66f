"""Signals: which one counts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kernel.process import signals as module
from kernel.process.signals import Signals, ignore

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Left(BaseException):
    """The process would be gone."""


@pytest.mark.parametrize(
    ("came", "counts"),
    [
        ([(INT, 0), (INT, 0.49)], [1]),
        ([(INT, 0), (INT, 0.51)], [1, 2]),
        ([(INT, 0), (INT, 0.3), (INT, 0.6)], [1, 2]),  # whoever holds the key down means it
        ([(INT, 0), (TERM, 0.1)], [1]),
        ([(TERM, 0), (INT, 0.1)], [1]),
        ([(TERM, 0), (HUP, 0.1)], [1]),
        ([(HUP, 0), (TERM, 0.1)], [1]),
        ([(INT, 0), (TERM, 0.6), (TERM, 0.7)], [1, 2]),
        ([(INT, 0), (HUP, 0.1)], [1, 2]),  # a terminal that is closed sends it to those who did not heed Ctrl+C
        ([(INT, 0), (HUP, 0.1), (TERM, 0.2)], [1, 2]),
        ([(INT, 0), (TERM, 0.6), (HUP, 1.2)], [1, 2, 130]),
        ([(INT, 0), (INT, 1), (INT, 2)], [1, 2, 130]),
    ],
)
def test_which_signals_are_one_within_half_a_second(
    monkeypatch: pytest.MonkeyPatch, came: list[tuple[signal.Signals, float]], counts: list[int]
) -> None:
    """The same twice, and SIGTERM with any; each other one counts, and the third ends the process."""
    told: list[int] = []

    def leave(code: int) -> None:
        told.append(code)
        raise Left

    signals = Signals(told.append, lambda *_: None)
    signals.listen(lambda _: None)
    monkeypatch.setattr(os, "_exit", leave)
    for number, when in came:
        monkeypatch.setattr("kernel.process.signals.time", SimpleNamespace(monotonic=lambda when=when: 100 + when))
        try:
            signals._handle(number)
        except Left:
            break
    assert told == counts


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done about the end of the process: who is given how long, and the code."""
    exits: list[Any] = []

    def leave(code: int) -> None:
        exits.append(code)
        raise Left

    def in_time(seconds: float, call: Callable[[], Any]) -> None:
        exits.append(seconds)
        call()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(module, "within", in_time)
    monkeypatch.setattr(module, "SAME", 0.0)
    return exits


def test_before_anybody_listens_the_second_signal_ends_the_process(exits: list[Any]) -> None:
    """There is nothing that could stop in order; a tenth of a second is for the message."""
    signals = Signals(lambda _: None, lambda code, name: exits.append((code, name)))
    signals._handle(INT)
    assert exits == []
    with pytest.raises(Left):
        signals._handle(TERM)
    assert exits == [0.1, (130, "SIGTERM"), 130]


def test_what_was_reported_is_not_said_again(exits: list[Any]) -> None:
    """A further signal ends an exit handler that hangs, with the code of the report."""
    signals = Signals(lambda _: None, lambda code, name: exits.append((code, name)))
    signals.told(3)
    signals._handle(INT)
    with pytest.raises(Left):
        signals._handle(INT)
    assert exits == [3]


def test_who_listens_is_told_of_all_signals(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that came before; whoever fails keeps nobody else from it."""
    monkeypatch.setattr("kernel.process.contain._said", set())
    monkeypatch.setattr(module, "SAME", 0.0)
    told: list[str] = []

    def fails(count: int) -> None:
        told.append(f"listener {count}")
        raise LookupError

    signals = Signals(lambda count: told.append(f"observer {count}"), lambda *_: None)
    signals.listen(lambda _: told.append("too early"))
    signals.listen(None)
    signals._handle(TERM)
    assert told == ["observer 1"]
    signals.listen(lambda count: told.append(f"listener {count}"))
    assert told.pop() == "listener 1"
    signals.listen(None)
    assert told == ["observer 1"]
    signals._listener = fails
    signals._handle(INT)
    assert told == ["observer 1", "listener 2", "observer 2"]
    assert caplog.messages == ["a signal's listener failed; continuing"]
    assert (signals.count, signals.first) == (2, "SIGTERM")


# -- real ones -------------------------------------------------------------------------------------------------------


class Counted:
    """What has come, and whether so many have."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._news = threading.Condition()

    def __call__(self, count: int) -> None:
        with self._news:
            self.counts.append(count)
            self._news.notify()

    def have_come(self, number: int) -> bool:
        """Wait for them."""
        with self._news:
            return self._news.wait_for(lambda: len(self.counts) >= number, 20)


@pytest.fixture
def counted() -> Iterator[Counted]:
    """Counts; and afterwards the handlers are as before."""
    numbers = (INT, TERM, HUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield Counted()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


@pytest.mark.parametrize("thread", ["thread", "no thread"])
def test_signals_count_while_it_is_entered(
    counted: Counted, thread: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each that stops the app, and no other; where there can be no thread, in the handler."""
    monkeypatch.setattr("kernel.process.contain._said", set())
    monkeypatch.setattr(module, "SAME", 0.0)
    before = descriptors()
    handlers = [signal.getsignal(number) for number in (INT, TERM, HUP)]
    signal.signal(signal.SIGUSR1, lambda *_: None)
    with monkeypatch.context() as patch:
        if thread == "no thread":
            patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no thread")))
        signals = Signals(counted, lambda *_: None)
        with signals:
            assert signals.came() == ("", float("inf"))
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), TERM)
            assert counted.have_come(1)
            name, since = signals.came()
            assert name == "SIGTERM"
            assert 0 <= since < 20
            signals.listen(lambda _: None)
            os.kill(os.getpid(), INT)
            assert counted.have_come(2)
            assert signals.first == "SIGTERM"
    assert [signal.getsignal(number) for number in (INT, TERM, HUP)] == handlers
    for one in threading.enumerate():
        if one.name == "kernel signals":
            one.join(20)
            assert not one.is_alive()
    assert descriptors() == before
    assert caplog.messages == ["the thread that counts signals failed; continuing"] * (thread == "no thread")


def test_a_descriptor_set_behind_its_back_costs_one_signal_at_most(counted: Counted) -> None:
    """Python's handler tells the thread what the interpreter has told somebody else, who gets it too."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    real = signal.set_wakeup_fd
    with Signals(counted, lambda *_: None):
        real(write_fd)
        os.kill(os.getpid(), TERM)
        assert counted.have_come(1)
        assert {*os.read(read_fd, 10)} == {TERM}
    assert real(-1) == write_fd
    os.close(read_fd)
    os.close(write_fd)


def test_what_is_ignored_on_purpose(counted: Counted) -> None:
    """SIGHUP, as with nohup; SIGINT is what a shell ignores in the background, and counts if somebody sends it."""
    signal.signal(HUP, signal.SIG_IGN)
    signal.signal(INT, signal.SIG_IGN)
    with Signals(counted, lambda *_: None):
        assert signal.getsignal(HUP) is signal.SIG_IGN
        os.kill(os.getpid(), INT)
        assert counted.have_come(1)
    assert signal.getsignal(HUP) is signal.SIG_IGN
    assert signal.getsignal(INT) is signal.SIG_IGN


def test_one_that_a_library_raises_again_is_the_same(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uvicorn does at the end of a stop, however long that took."""
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    with Signals(counted, lambda *_: None) as signals:
        signals._sent_to_itself(TERM)
        assert signals._last == {}  # the first that a process sends to itself counts
        signals._handle(TERM)
        now += 9
        signals._sent_to_itself(TERM)
        signals._handle(TERM)
        now += 0.6
        signals.listen(lambda _: None)
        signals._handle(TERM)
    assert counted.counts == [1, 2]


def test_the_name_is_known_before_the_thread_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's handler comes first where the thread does not get the interpreter; only the first signal has a name."""
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    signals = Signals(lambda _: None, lambda *_: None)
    signals._write_fd = 99  # as with a thread, to which the interpreter has written
    signals._caught(TERM, None)
    now += 3
    signals._caught(INT, None)
    now += 2
    assert signals.count == 0
    assert signals.came() == ("SIGTERM", 5.0)


def test_elsewhere_than_in_the_main_thread_it_does_nothing(counted: Counted) -> None:
    """Only the main thread may set handlers."""
    before = [signal.getsignal(number) for number in (INT, TERM, HUP)]
    found: list[Any] = []

    def elsewhere() -> None:
        with Signals(counted, lambda *_: None):
            found.extend(signal.getsignal(number) for number in (INT, TERM, HUP))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize("entered", [True, False])
def test_a_child_that_is_forked_has_signals_of_its_own(counted: Counted, entered: bool) -> None:
    """The defaults, whatever the parent has; in the parent nothing changes."""
    signals = Signals(counted, lambda *_: None)
    if entered:
        signals.__enter__()
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signals._forks()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert blocked == (mask | {INT, TERM, HUP} if entered else mask)
        signals._forked()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        signals._forks()
        signals._in_child()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        if entered:
            assert [signal.getsignal(number) for number in (INT, TERM, HUP)] == [
                signal.default_int_handler,
                signal.SIG_DFL,
                signal.SIG_DFL,
            ]
            os.close(signals._write_fd)
        else:
            assert signal.getsignal(TERM) is signal.SIG_DFL
    finally:
        signal.signal(TERM, signal.SIG_DFL)


def test_at_the_very_end_signals_are_ignored(counted: Counted) -> None:
    """The interpreter restores defaults, which would kill."""
    ignore()
    assert {signal.getsignal(number) for number in (INT, TERM, HUP)} == {signal.SIG_IGN}
    assert counted.counts == []
