"""A process between the kernel and a program: it ends the program and all its descendants if the kernel dies.

It is a separate program, run by the plain interpreter, and imports nothing of the kernel. Its standard input is a
socket to the kernel. It sends ``pid N`` or ``failed ERRNO``, then ``exit CODE``, then ``killed`` if it had to kill; it
closes the socket when no process is left. It receives a number of seconds within which to end the program. If the
kernel's end of the socket closes, the kernel has died.

    argv: number of the signal that requests the program to end, seconds until the program is then killed, its user
    (uid:gid:name; empty for the current one), the program, its arguments
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` takes 5 ms, a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL = 0  # the descriptor of the socket
AGAIN = 0.01  # seconds between two rounds of killing: a killed process may have started children meanwhile
ASK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SET_DEATH_SIGNAL, SET_SUBREAPER = 1, 36  # options of prctl


def main(stop_signal: int, seconds: float, user: str, command: list[str]) -> None:
    """Run *command* until it and all its descendants have ended."""
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (*ASK, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    prctl = _find_prctl()
    adopts = prctl(SET_SUBREAPER, 1, 0, 0, 0) == 0  # adopt orphaned descendants, instead of init
    prctl(SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    pid = _start(command, user, prctl)
    if pid:
        _Guard(pid, stop_signal, seconds, adopts).run(wake)


class _Guard:
    def __init__(self, pid: int, stop_signal: int, seconds: float, adopts: bool) -> None:  # noqa: FBT001
        self._pid = pid
        self._signal = stop_signal
        self._seconds = seconds
        self._adopts = adopts
        self._running = True
        self._asked = False
        self._killed = False
        self._deadline = float("inf")

    def run(self, wake: int) -> None:
        """Watch until no process is left."""
        ears = [KERNEL, wake]
        while self._running or self._is_any_left():
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._kill()
            timeout = AGAIN if left <= 0 or not self._running else None if left == float("inf") else left
            ready = select.select(ears, [], [], timeout)[0]
            if wake in ready and any(number in ASK for number in os.read(wake, 1024)):
                self._end(self._seconds)
            if KERNEL in ready:
                said = b""
                with contextlib.suppress(OSError):
                    said = os.read(KERNEL, 1024)
                if not said:
                    ears.remove(KERNEL)
                for word in said.split() or [b"%f" % self._seconds]:
                    self._end(float(word))
            self._reap()

    def _end(self, seconds: float) -> None:
        """End everything within *seconds*, or earlier if an earlier end was requested before."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        if not self._asked:
            self._asked = True
            self._send(self._signal)

    def _send(self, number: int) -> None:
        """Send a signal to the program's group, or to the processes it has left behind."""
        if self._running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)
            return
        for pid in self._descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            tell("killed")
        self._send(signal.SIGKILL)
        for pid in self._descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    tell(f"exit {os.waitstatus_to_exitcode(status)}")
                    self._running = False
                    self._asked = False
                    self._end(self._seconds)  # the processes it has left behind

    def _is_any_left(self) -> bool:
        if self._adopts:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                return True
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, 0)
            return True
        return False

    def _descendants(self) -> list[int]:
        """Return all descendants of this process; if the system does not list them, the program's group."""
        children: dict[int, list[int]] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib takes 5 ms)
                if name.isdigit():
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  (as above)
                            parent = int(file.read().rpartition(b")")[2].split()[1])
                        children.setdefault(parent, []).append(int(name))
        if not children:
            return [-self._pid]
        found = list(children.get(os.getpid(), ()))
        for pid in found:  # grows during the loop
            found += children.get(pid, ())
        return found


def tell(word: str) -> None:
    """Send *word* to the kernel, which may be gone."""
    with contextlib.suppress(OSError):
        os.write(KERNEL, f"{word}\n".encode())


def _start(command: list[str], user: str, prctl: Callable[..., int]) -> int:
    """Start the program in a new session; return 0 if there is no such program."""
    if user:
        os.get_exec_path()  # loads a module that `execvp` needs, which the other user may not be able to read
    error, failed = os.pipe()  # not inherited by the program: it closes when the program has started
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if user:
                uid, gid, name = user.split(":", 2)
                os.initgroups(name, int(gid))
                os.setgid(int(gid))
                os.setuid(int(uid))  # clears the parent-death signal
            prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvp(command[0], command)  # noqa: S606  (the purpose of the guard)
        except OSError as why:
            os.write(failed, str(why.errno).encode())
        finally:
            os._exit(127)
    os.close(failed)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(null, fd)  # closes the program's pipes, so that the kernel sees their end
    reason = os.read(error, 16)
    os.close(error)
    if reason:
        os.waitpid(pid, 0)
        tell(f"failed {reason.decode()}")
        return 0
    tell(f"pid {pid}")
    return pid


def _find_prctl() -> Callable[..., int]:
    """Return Linux's prctl; on other systems, a function that does nothing."""
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda *_: -1


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
