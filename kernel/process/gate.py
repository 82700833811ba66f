"""Where `just dev` has a new version of the app wait until the present one has ended.

What a run needs is imported by then, so that an error leaves the present one running, and a restart takes no longer
than a stop and a start. The program that watches over both is at the other end of a socket.
"""

from __future__ import annotations

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

    def wait(self) -> None:
        """Tell that all is prepared, and wait until it may run. From then on a stop follows when the watcher is gone.

        Raises:
            SystemExit: A newer version came, or the watcher is gone.

        """
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
