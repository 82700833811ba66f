"""Where `just dev` has a new version of the app wait until the present one has ended.

What a run needs is imported by then, so that an error leaves the present one running, and a restart takes no longer
than a stop and a start. The program that watches over both is at the other end of a socket.
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
"""Names the descriptor of the socket, for the process that `just dev` starts."""


class Gate:
    """The app's end of the socket."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._socket = socket.socket(fileno=int(environ.pop(GATE)))
        self._socket.set_inheritable(False)
        atexit.register(self._end)  # the first to be registered is the last to be called

    def _end(self) -> None:
        """Tell that all has ended but the interpreter, which takes a while: the next version may start."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self, backend: str) -> None:
        """Tell that all is prepared, and wait until it may run. From then on a stop follows when the watcher is gone.

        Args:
            backend: The event loop's.

        Raises:
            SystemExit: A newer version came, or the watcher is gone.

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
