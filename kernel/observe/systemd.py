"""Send notifications to systemd, as in sd_notify(3): ready, stopping, status, and watchdog messages."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from kernel.lifecycle.events import BROKEN, AllReady, Event, State, StopBegan, Transition
from kernel.masking import mask


class Notifier:
    """An observer that notifies systemd. Send errors are ignored, since the receiver may be gone.

    Args:
        send: Sends one message.
        every: Seconds between two watchdog messages; None for no watchdog.

    """

    def __init__(self, send: Callable[[str], object], every: float | None) -> None:
        self._send = send
        self._every = every
        self._next = 0.0
        self._states: dict[str, State] = {}
        self._ready = self._stopping = False

    def __call__(self, event: Event) -> None:
        """Notify systemd of *event*."""
        match event:
            case AllReady():
                self._ready = True
                self._send(f"READY=1\nSTATUS={self._summary()}")
            case StopBegan(reason=reason):
                self._stopping = True
                self._send(f"STOPPING=1\nSTATUS=stopping: {_line(reason)}")
            case Transition() if not event.internal:
                self._states[event.service] = event.state
                if event.state in BROKEN or event.state is State.BACKOFF or (self._ready and not self._stopping):
                    self._send(f"STATUS={self._summary()}")
            case _:
                pass

    def alive(self) -> None:
        """Send a watchdog message if one is due, since the event loop responds. Thread-safe."""
        now = time.monotonic()
        if self._every is not None and now >= self._next:
            self._next = now + self._every
            self._send("WATCHDOG=1")

    def _summary(self) -> str:
        """Say in one line which services are not ready."""
        states = {State.READY, State.DONE}
        others = [f"{name} {state.value}" for name, state in self._states.items() if state not in states]
        ready = len(self._states) - len(others)
        return f"{ready} of {len(self._states)} services ready" + (f"; {', '.join(others)}" if others else "")


def _line(text: str) -> str:
    return text.replace("\n", " ")


def notifier(environ: MutableMapping[str, str]) -> Notifier | None:
    """Return the observer if systemd expects notifications, otherwise None.

    The variables are removed from *environ*, since programs started by services must not notify systemd.
    """
    path, micros, whose = (environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    if not path.startswith(("/", "@")):
        return None
    address = "\0" + path[1:] if path[0] == "@" else path  # a leading zero byte marks an abstract socket address

    def send(message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(0.1)  # the receiver reads immediately
                to.sendto(mask(message).encode(), address)
        except OSError:
            pass

    wanted = micros.isdigit() and int(micros) > 0 and whose in {"", str(os.getpid())}
    return Notifier(send, int(micros) / 2e6 if wanted else None)
