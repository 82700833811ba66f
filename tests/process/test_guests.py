"""Signals that libraries handle too."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kernel.process.guests import Guests, set_handler

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2
real_wakeup_fd = signal.set_wakeup_fd
FUNCTIONS = [(signal, "signal"), (signal, "raise_signal"), (signal, "pthread_kill"), (os, "kill"), (os, "killpg")]


class Kernel:
    """The kernel's side: its handler of SIGUSR1, its wake-up descriptor, and what it was told."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.to_itself: list[int] = []
        self.guests = Guests(self.handle, self.to_itself.append)
        self.read_fd, self.write_fd = pipe()

    def handle(self, number: int, frame: Any) -> None:
        self.caught.append(number)
        self.guests.call(number, frame)


def pipe() -> tuple[int, int]:
    """A pipe that blocks nobody."""
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    return ends


def read(fd: int) -> bytes:
    """What has come."""
    try:
        return os.read(fd, 100)
    except BlockingIOError:
        return b""


def fill(fd: int) -> None:
    """Leave no room."""
    for size in (65536, 1):
        try:
            while True:
                os.write(fd, bytes(size))
        except BlockingIOError:
            pass


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """It counts SIGUSR1, as it does SIGTERM in a run."""
    kernel = Kernel()
    before = [set_handler(number, signal.SIG_IGN) for number in (USR1, USR2)]
    fd = real_wakeup_fd(-1)
    set_handler(USR1, kernel.handle)
    kernel.guests.open({USR1: None}, kernel.write_fd)
    try:
        yield kernel
    finally:
        kernel.guests.close()
        for number, handler in zip((USR1, USR2), before, strict=True):
            set_handler(number, handler)
        real_wakeup_fd(fd)
        os.close(kernel.read_fd)
        os.close(kernel.write_fd)


@pytest.fixture
def library() -> Iterator[tuple[int, int]]:
    """The pipe of a library's event loop."""
    ends = pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_handler_of_a_library_is_called_beside_the_kernels(kernel: Kernel) -> None:
    """It gets the number, until it is taken away again; each call returns the handler before it, as Python does."""
    heard: list[int] = []

    def theirs(number: int, _: Any) -> None:
        heard.append(number)

    assert signal.signal(USR1, theirs) == kernel.handle
    assert signal.getsignal(USR1) == kernel.handle
    signal.raise_signal(USR1)
    assert (kernel.caught, heard) == ([USR1], [USR1])
    assert signal.signal(USR1, signal.SIG_DFL) is theirs
    signal.raise_signal(USR1)
    assert (kernel.caught, heard) == ([USR1, USR1], [USR1])


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_who_restores_a_default_takes_nothing_from_the_kernel(
    kernel: Kernel, handler: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As asyncio does when it removes a handler: the signal would kill the process, or be lost."""
    monkeypatch.setattr("kernel.process.contain._said", set())
    signal.signal(USR1, handler)
    signal.raise_signal(USR1)
    assert kernel.caught == [USR1]
    assert caplog.messages == []


def test_who_restores_the_kernels_handler_is_called_no_more(kernel: Kernel) -> None:
    """It is not called twice, either."""
    heard: list[int] = []
    before = signal.signal(USR1, lambda number, _: heard.append(number))
    assert signal.signal(USR1, before) is not before
    signal.raise_signal(USR1)
    assert (kernel.caught, heard) == ([USR1], [])


def test_other_signals_are_the_librarys_own(kernel: Kernel) -> None:
    """The kernel has no part in them."""
    heard: list[int] = []

    def theirs(number: int, _: Any) -> None:
        heard.append(number)

    assert signal.signal(USR2, theirs) is signal.SIG_IGN
    assert signal.getsignal(USR2) is theirs
    signal.raise_signal(USR2)
    assert (kernel.caught, kernel.to_itself, heard) == ([], [], [USR2])


def test_a_handler_that_is_none(kernel: Kernel) -> None:
    """Python's own error, and nothing has changed; the same outside of the main thread."""
    with pytest.raises(TypeError, match="signal handler must be"):
        signal.signal(USR1, "handler")  # type: ignore[arg-type]
    errors: list[Exception] = []

    def elsewhere() -> None:
        for call in (functools.partial(signal.signal, USR1, print), functools.partial(signal.set_wakeup_fd, -1)):
            try:
                call()
            except ValueError as error:
                errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(errors) == 2
    signal.raise_signal(USR1)
    assert kernel.caught == [USR1]
    assert read(kernel.read_fd) == bytes([USR1])


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_ends_the_program(
    kernel: Kernel, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel ends it in order, as the signal wants."""

    def theirs(*_: Any) -> None:
        raise error

    signal.signal(USR1, theirs)
    signal.raise_signal(USR1)
    assert kernel.caught == [USR1]
    assert not caplog.messages


def test_a_handler_that_fails(
    kernel: Kernel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named in the log, and costs nothing else."""
    monkeypatch.setattr("kernel.process.contain._said", set())

    def theirs(*_: Any) -> None:
        raise LookupError

    signal.signal(USR1, theirs)
    signal.raise_signal(USR1)
    assert kernel.caught == [USR1]
    assert "theirs" in caplog.text
    assert "SIGUSR1" in caplog.text


# -- the wake-up descriptor --------------------------------------------------------------------------------------


def test_a_descriptor_of_a_library_gets_what_the_kernel_reads(kernel: Kernel, library: tuple[int, int]) -> None:
    """The interpreter writes to the kernel's alone, and the library is told the descriptor before its own."""
    theirs, end = library
    assert signal.set_wakeup_fd(end) == -1
    signal.raise_signal(USR1)
    assert read(kernel.read_fd) == bytes([USR1])
    assert read(theirs) == b""
    kernel.guests.pass_on(bytes([USR1]))
    assert read(theirs) == bytes([USR1])
    assert not kernel.guests.retake()
    assert signal.set_wakeup_fd(-1) == end
    kernel.guests.pass_on(bytes([USR1]))
    assert read(theirs) == b""


def test_descriptor_one_is_a_descriptor(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only -1 stands for none."""
    written: list[tuple[int, bytes]] = []
    monkeypatch.setattr(os, "write", lambda fd, numbers: written.append((fd, numbers)))
    for fd in (0, 1, -1):
        kernel.guests._fd = fd
        kernel.guests.pass_on(b"x")
    kernel.guests._fd = -1
    assert written == [(0, b"x"), (1, b"x")]


def test_a_descriptor_that_was_set_behind_the_kernels_back(kernel: Kernel, library: tuple[int, int]) -> None:
    """By a library that has the original function: the kernel takes the signals again, and the library gets them."""
    theirs, end = library
    assert not kernel.guests.retake()
    real_wakeup_fd(end)
    assert kernel.guests.retake()
    assert not kernel.guests.retake()
    signal.raise_signal(USR1)
    assert read(kernel.read_fd) == bytes([USR1])
    kernel.guests.pass_on(bytes([USR1]))
    assert read(theirs) == bytes([USR1])


def test_a_pipe_of_a_library_that_is_full_or_closed(kernel: Kernel) -> None:
    """Nobody waits for it."""
    read_fd, write_fd = pipe()
    signal.set_wakeup_fd(write_fd)
    fill(write_fd)
    kernel.guests.pass_on(bytes([USR1]))
    os.close(read_fd)
    os.close(write_fd)
    kernel.guests.pass_on(bytes([USR1]))
    kernel.guests.close()
    assert real_wakeup_fd(-1) == -1


@pytest.mark.parametrize("after", ["open", "set", "retake"])
def test_a_pipe_of_the_kernels_that_is_full(kernel: Kernel, after: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The signals in it are enough: Python warns of no other."""
    if after == "set":
        signal.set_wakeup_fd(-1)
    elif after == "retake":
        real_wakeup_fd(-1)
        assert kernel.guests.retake()
    fill(kernel.write_fd)
    signal.raise_signal(USR1)
    assert capfd.readouterr().err == ""


# -- signals to itself -------------------------------------------------------------------------------------------


WHO = {"none": 0, "all": -1, "me": os.getpid(), "group": os.getpgrp(), "-group": -os.getpgrp(), "init": 1}


@pytest.mark.parametrize(
    ("name", "who", "noted"),
    [
        ("raise_signal", "", True),
        ("pthread_kill", "group", True),
        ("kill", "me", True),
        ("kill", "none", True),
        ("kill", "all", True),
        ("kill", "-group", True),
        ("kill", "init", False),
        ("killpg", "group", True),
        ("killpg", "none", True),
        ("killpg", "init", True),
        ("killpg", "all", False),
    ],
)
@pytest.mark.parametrize("number", [USR1, USR2])
def test_a_signal_that_the_process_sends_to_itself(
    kernel: Kernel, name: str, who: str, noted: bool, number: int
) -> None:
    """It is noted before it is sent, if it is one that the kernel counts. `killpg(1)` is `kill(-1)`, which is all."""
    kernel.guests.close()
    expected = [USR1] * (noted and number == USR1)
    sent: list[tuple[int, ...]] = []

    def real(*args: int) -> str:
        assert kernel.to_itself == expected
        sent.append(args)
        return "sent"

    with pytest.MonkeyPatch.context() as patch:
        module = next(module for module, function in FUNCTIONS if function == name)
        patch.setattr(module, name, real)
        kernel.guests.open([USR1], -1)
        args = [WHO[who], number] if who else [number]
        assert getattr(module, name)(*args) == "sent"
        assert sent == [(*args,)]
        assert kernel.to_itself == expected
        kernel.guests.close()


def test_a_call_that_is_wrong_is_the_original_functions_error(kernel: Kernel) -> None:
    """Such as one with too few arguments."""
    with pytest.raises(TypeError):
        os.kill(os.getpid())  # type: ignore[call-arg]
    assert kernel.to_itself == []


# -- the end -----------------------------------------------------------------------------------------------------


def test_the_functions_are_as_before(kernel: Kernel, library: tuple[int, int]) -> None:
    """The library keeps its descriptor; its handler was beside the kernel's, and goes with it."""
    heard: list[int] = []
    kernel.guests.close()
    before = [getattr(module, name) for module, name in (*FUNCTIONS, (signal, "set_wakeup_fd"))]
    kernel.guests.open([USR1], kernel.write_fd)
    signal.signal(USR1, lambda number, _: heard.append(number))
    kept, kept_fd = signal.signal, signal.set_wakeup_fd
    signal.set_wakeup_fd(library[1])
    kernel.guests.close()
    assert before == [getattr(module, name) for module, name in (*FUNCTIONS, (signal, "set_wakeup_fd"))]
    assert kept_fd(-1) == library[1]
    kept_fd(library[1])
    signal.raise_signal(USR1)
    assert (kernel.caught, heard) == ([USR1], [])
    assert read(library[0]) == bytes([USR1])
    kept(USR1, signal.SIG_IGN)
    assert signal.getsignal(USR1) is signal.SIG_IGN
    assert not kernel.guests.retake()


def test_what_was_replaced_once_more_is_left_alone(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else wraps ours, which still works; the others are restored."""
    ours = os.kill
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", functools.partial(ours))
        wrapped = os.kill
        kernel.guests.close()
        assert os.kill is wrapped
        assert signal.set_wakeup_fd is real_wakeup_fd
        os.kill(os.getpid(), 0)
    os.kill = ours.__wrapped__  # type: ignore[attr-defined]


def test_without_a_pipe_the_descriptor_is_the_librarys(kernel: Kernel) -> None:
    """As where the kernel has no thread to read one."""
    kernel.guests.close()
    kernel.guests.open([USR1], -1)
    assert signal.set_wakeup_fd is real_wakeup_fd
    assert not kernel.guests.retake()
