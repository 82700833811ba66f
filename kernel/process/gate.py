"""Make a new version of the app under `just dev` wait until the current version has ended.

The new version imports everything before it waits, so an error leaves the current version running, and a restart takes
only a stop and a start. The program that controls both is at the other end of a socket.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import socket
import threading
from collections.abc import MutableMapping

GATE = "KERNEL_DEV_GATE"
"""The variable that contains the socket's descriptor, for the process that `just dev` starts."""


class Gate:
    """The app's end of the socket."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._socket = socket.socket(fileno=int(environ.pop(GATE)))
        self._socket.set_inheritable(False)
        atexit.register(self._end)  # exit handlers are called in reverse order, so this is the last

    def _end(self) -> None:
        """Report that only the interpreter, which takes a while, has not ended: the next version may start."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self, backend: str) -> None:
        """Report that everything is prepared, and wait until the app may run. If the watcher ends later, stop the app.

        Args:
            backend: The backend of the event loop.

        Raises:
            SystemExit: There is a newer version, or the watcher has ended.

        """
        library = "trio" if backend == "trio" else "asyncio"
        importlib.import_module(f"anyio._backends._{library}")  # the slowest import of a start
        try:
            self._socket.sendall(b"prepared\n")
            word = self._socket.recv(16)
        except OSError:
            word = b""
        if not word:
            raise SystemExit(0)
        threading.Thread(target=self._watch, name="just dev", daemon=True).start()

    def _watch(self) -> None:
        try:
            while self._socket.recv(16):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
