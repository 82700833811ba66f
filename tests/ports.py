"""Ports for tests: another run of the tests, or the app itself, may be going on beside them."""

from __future__ import annotations

import socket

ANY_PORT = {"ADMIN_ADDR": "127.0.0.1:0", "EXAMPLE_API_PORT": "0"}
"""Settings by which the examples listen on ports that the system chooses."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that nobody gets who asks for any port.

    It is left in TIME_WAIT: for a minute the system gives it only to a server that names it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()[:2]):
        listener.accept()[0].close()
        return int(listener.getsockname()[1])
