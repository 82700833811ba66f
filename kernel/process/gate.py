"""Makes a new version of the app under `just dev` wait until the current one has ended.

The new version has imported everything by then, so an error leaves the current one running, and a restart takes only
a stop and a start. The program that controls both is at the other end of a socket.
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
"""The variable with the socket's descriptor, for the process that `just dev` starts."""


class Gate:
    """The app's end of the socket."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._socket = socket.socket(fileno=int(environ.pop(GATE)))
        self._socket.set_inheritable(False)
        atexit.register(self._end)  # the first to be registered is the last to be called

    def _end(self) -> None:
        """Report that everything but the interpreter, which takes a while, has ended: the next version may start."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self, backend: str) -> None:
        """Report that everything is prepared, and wait until the app may run. If the watcher ends later, stop the app.

        Args:
            backend: The event loop's.

        Raises:
            SystemExit: There is a newer version, or the watcher has ended.

        """
        library = "trio" if backend == "trio" else "asyncio"
        importlib.import_module(f"anyio._backends._{library}")  # the slowest of what a start would import first
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
