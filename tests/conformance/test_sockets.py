"""Sockets that systemd hands over, as it does: they are there before the program, between two runs, and after it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.conformance.program import CALM, App, Process
from tests.conformance.test_health import url_of

HAND_OVER = 'export LISTEN_PID=$$; exec "$@"'

API = """
async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

@service
async def api(serving: Serving[None]) -> None:
    await serve_asgi(answer, "127.0.0.1", 1, serving=serving)
"""


@pytest.fixture
def held() -> Iterator[list[socket.socket]]:
    """Two sockets that are held all along."""
    made = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
    yield made
    for sock in made:
        sock.close()


def start(app: App, held: list[socket.socket], names: str) -> Process:
    """Run the app as systemd would, with *held* as descriptors 3 and 4."""

    def hand_over() -> None:
        high = [os.dup2(sock.fileno(), 200 + number) for number, sock in enumerate(held)]
        for number, fd in enumerate(high):
            os.dup2(fd, 3 + number)

    argv = app._argv
    app._argv = ["sh", "-c", HAND_OVER, "sh", *argv]
    try:
        env = {"LISTEN_FDS": str(len(held)), "LISTEN_FDNAMES": names, "RUNNER_SHUTDOWNTIMEOUT": "10s"}
        return app.open(("run",), env, preexec_fn=hand_over, close_fds=False)
    finally:
        app._argv = argv


def url(sock: socket.socket) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_the_admin_server_takes_its_socket(app: App, held: list[socket.socket]) -> None:
    """It goes before the address; one that nobody takes is warned about; programs that are started know of neither."""
    app.service("calm", CALM)
    run = start(app, held, "admin:shop.socket")
    assert url_of(run) == url(held[0])
    run.wait_for("all ready")
    assert httpx.get(f"{url(held[0])}/readyz", trust_env=False).status_code == 200
    result = run.stop()
    assert result.code == 0
    assert result.said("the socket 'shop.socket' from systemd is not used")


@pytest.mark.minutes
def test_a_restart_refuses_and_loses_no_request(app: App, held: list[socket.socket]) -> None:
    """Each request comes by a connection of its own, all the while; five times the program starts anew."""
    app.service("api", API)
    target, ended = url(held[1]), threading.Event()
    answers: list[int] = []
    failures: list[Exception] = []

    def ask() -> None:
        while not ended.is_set():
            try:
                answers.append(httpx.get(target, trust_env=False, timeout=30).status_code)
            except Exception as error:  # noqa: BLE001  (each is one too many)
                failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for number in range(5):
        run = start(app, held, "admin:api")
        run.wait_for("all ready")
        if not number:
            for client in clients:
                client.start()
        before = len(answers)
        while len(answers) < before + 40 and not failures:
            ended.wait(0.01)
        if number == 4:
            ended.set()
            for client in clients:
                client.join(30)
        assert run.stop().code == 0
    assert not failures
    assert {*answers} == {200}
