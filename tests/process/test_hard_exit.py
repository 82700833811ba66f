"""The last resort: what it sets, and that it works without the interpreter."""

from __future__ import annotations

import ctypes
import faulthandler
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernel.process import hard_exit


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is set and cancelled, in order."""
    done: list[str] = []

    def dump(seconds: float, *, exit: bool, file: int) -> None:  # noqa: A002
        done.append(f"stacks in {seconds:.6g} to {file}" + ", and leave" * exit)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", dump)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: done.append("no stacks"))
    monkeypatch.setattr(hard_exit, "_start_timer", None)
    yield done
    hard_exit.disarm()
    assert not hard_exit._cancel_timer


@pytest.fixture
def timers(done: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Code to load, which only says what it does."""

    def start(seconds: float, code: int) -> Callable[[], object]:
        what = f"{code} in {seconds:.6g}"
        done.append(f"exit {what}")
        return lambda: done.append(f"not {what}")

    def load() -> Any:
        done.append("loads")
        return start

    monkeypatch.setattr(hard_exit, "_load_timers", load)
    return load


@pytest.mark.usefixtures("timers")
def test_the_stacks_come_before_the_end(done: list[str]) -> None:
    """Both are a while after the deadline, which the watchdog may still hold by itself; the latest call counts."""
    hard_exit.load()
    hard_exit.load()
    hard_exit.arm(2, 3)
    assert done == ["loads", "exit 3 in 3.5", "stacks in 3.25 to 2"]
    done.clear()
    hard_exit.arm(4, 130)
    assert done == ["exit 130 in 5.5", "stacks in 5.25 to 2", "not 3 in 3.5"]
    done.clear()
    hard_exit.disarm()
    assert done == ["no stacks", "not 130 in 5.5"]
    done.clear()
    hard_exit.disarm()
    assert done == ["no stacks"]


def test_before_anything_is_loaded_faulthandler_ends_the_process(done: list[str]) -> None:
    """With its own code, at the same time."""
    hard_exit.arm(2, 3)
    assert done == ["stacks in 3.5 to 2, and leave"]


@pytest.mark.parametrize(("seconds", "told"), [(-1.0, 1.5), (0.0, 1.5), (1e9, 1e6 + 1.5), (float("inf"), 1e6 + 1.5)])
def test_a_time_that_a_timer_knows(done: list[str], seconds: float, told: float) -> None:
    """One in the past is now; one that never comes is in eleven days."""
    hard_exit.arm(seconds, 3)
    assert done == [f"stacks in {told:.6g} to 2, and leave"]


@pytest.mark.parametrize("error", [ImportError, OSError, AttributeError, TypeError])
def test_a_system_without_such_timers(done: list[str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Faulthandler is what is left."""

    def load() -> Any:
        raise error

    monkeypatch.setattr(hard_exit, "_load_timers", load)
    hard_exit.load()
    hard_exit.arm(2, 3)
    assert done == ["stacks in 3.5 to 2, and leave"]


class Library:
    """The C library, of which one function *fails*."""

    def __init__(self, done: list[str], fails: str = "") -> None:
        self._done = done
        self._fails = fails
        self._exit = ctypes.CDLL(None)._exit

    def timer_create(self, clock: int, event: Any, _: Any) -> int:
        exits = event._obj.function == ctypes.cast(self._exit, ctypes.c_void_p).value
        self._done.append(f"creates {clock} {event._obj.notify} {event._obj.value}" + " to exit" * exits)
        return int(self._fails == "timer_create")

    def timer_settime(self, _: Any, flags: int, times: Any, __: None) -> int:
        self._done.append(f"sets {flags} {[getattr(times._obj, name) for name, _ in times._obj._fields_]}")
        return int(self._fails == "timer_settime")

    def timer_delete(self, _: Any) -> None:
        self._done.append("deletes")


@pytest.mark.parametrize("fails", ["timer_create", "timer_settime", "CDLL"])
def test_a_timer_that_the_system_does_not_give(done: list[str], monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """The same."""
    library = Library(done, fails)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object() if fails == "CDLL" else library)
    hard_exit.load()
    hard_exit.arm(2, 3)
    assert done[-1] == "stacks in 3.5 to 2, and leave"
    assert not hard_exit._cancel_timer


def test_what_the_system_is_asked_for(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that rings once, by a clock that nobody sets, in a thread, which needs a library if there is one."""
    libraries: list[str | None] = []
    library = Library(done)

    def load(name: str | None) -> Library:
        libraries.append(name)
        if name is not None:
            raise OSError(name)
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    hard_exit.load()
    assert libraries == ["libgcc_s.so.1", None]
    hard_exit.arm(2.25, 3)
    assert done == ["creates 1 2 3 to exit", "sets 0 [0, 0, 3, 750000000]", "stacks in 3.5 to 2"]
    hard_exit.disarm()
    assert done[-1] == "deletes"


def test_a_real_timer_is_set_and_cancelled(done: list[str]) -> None:
    """In this process, which goes on."""
    hard_exit.load()
    hard_exit.arm(60.5, 3)
    assert done == ["stacks in 61.75 to 2"]
    (cancel,) = hard_exit._cancel_timer
    assert cancel() == 0
    hard_exit._cancel_timer.clear()


LOCKED = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
import hard_exit
hard_exit.EXIT = 0.02
hard_exit.load()
hard_exit.arm(0, 42)
ctypes.PyDLL(None).sleep(5)  # keeps the interpreter's lock
"""


def test_it_ends_a_process_whose_interpreter_is_locked() -> None:
    """With the code that it was given."""
    folder = hard_exit.__file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-IS", "-c", LOCKED, folder], check=False, timeout=20)
    assert done.returncode == 42
