"""The admin server's pages and its port, without a run."""

from __future__ import annotations

import http.client
import json
import logging
import math
import socket
from typing import Any

import pytest

from kernel import masking
from kernel.config.settings import Address
from kernel.errors import ConfigError
from kernel.identity import Identity
from kernel.masking import MASK
from kernel.observe import admin
from kernel.observe.admin import Admin, open_sockets
from kernel.observe.http_connection import Answer, Later, Request
from kernel.observe.prometheus import UnreadableAccept
from kernel.observe.status import View


class Run:
    """What of an orchestrator the pages look at."""

    supervisors: dict[str, Any] = {}  # noqa: RUF012
    reason = "SIGTERM"

    def __init__(self, *, ready: bool = False, stopping: bool = False) -> None:
        self.ready, self.stopping = ready, stopping


def metrics(accept: str) -> tuple[bytes, str]:
    """Metrics in the format that is asked for; "odd" is none."""
    if accept == "odd":
        raise UnreadableAccept
    return f"in {accept}".encode(), f"of {accept}"


@pytest.fixture
def view() -> View:
    """That of an app whose run has not begun."""
    return View(Identity("app", "1", ""))


def get(view: View, path: str, accept: str = "") -> Answer:
    """Ask for a page, and wait for it."""
    found = Admin(view, metrics).answer(Request(path, {"accept": accept} if accept else {}))
    return found.make() if isinstance(found, Later) else found


@pytest.mark.parametrize(
    ("silent", "all_ready", "run", "expected"),
    [
        (0.0, None, None, (200, 503, 503, "starting")),
        (9.9, None, Run(), (200, 503, 503, "")),
        (10.0, 1.5, Run(ready=True), (503, 200, 200, "")),
        (0.0, 1.5, Run(), (200, 503, 200, "")),
        (0.0, 1.5, Run(stopping=True), (200, 503, 200, "stopping: SIGTERM")),
    ],
    ids=["before the run", "starts", "blocked", "degraded", "stopping"],
)
def test_the_probes(
    view: View, silent: float, all_ready: float | None, run: Any, expected: tuple[int, int, int, str]
) -> None:
    """Each has a status and says why, as JSON on lines of its own."""
    *statuses, reason = expected
    view.silent, view.stats.all_ready, view.orchestrator = lambda: silent, all_ready, run
    view.runner = lambda: ("db", "db.py:7")
    answers = [get(view, path) for path in ("/livez", "/readyz", "/startupz")]
    assert [answer.status for answer in answers] == statuses
    assert {answer.content_type for answer in answers} == {"application/json"}
    live, ready, started = (json.loads(answer.body) for answer in answers)
    blocked = "db has been blocking the event loop for 10 s at db.py:7"
    assert live == ({"alive": True} if statuses[0] == 200 else {"alive": False, "reason": blocked})
    assert ready == {"ready": statuses[1] == 200, "reason": reason, "services": {}}
    assert started == {"started": statuses[2] == 200}
    assert answers[2].body.count(b"\n") == 3


def test_the_other_pages(view: View) -> None:
    """Those that take time are made later, the metrics for each format; there is a list, and an error that has it."""
    names = ["/livez", "/readyz", "/startupz", "/status", "/metrics"]
    listed = get(view, "/")
    assert (listed.status, listed.body.decode().split()) == (200, names)
    missing = get(view, f"/health{'h' * 1000}")
    assert missing.status == 404
    assert json.loads(missing.body) == {"error": f"unknown page /health{'h' * 193}", "pages": names}
    assert get(view, "/metrics/", "text") == Answer(200, b"in text", "of text")
    assert get(view, "/metrics") == Answer(200, b"in ", "of ")
    assert get(view, "/metrics", "odd") == Answer(
        406, b"the Accept header cannot be read\n", "text/plain; charset=utf-8"
    )
    pages = [Admin(view, metrics).answer(Request("/metrics", {"accept": accept})) for accept in ("a", "a", "b")]
    keys = [page.key for page in pages if isinstance(page, Later)]
    assert [key == keys[0] for key in keys] == [True, True, False]
    assert isinstance(Admin(view, metrics).answer(Request("/status", {})), Later)


def test_a_status_is_strict_json_without_secrets(view: View) -> None:
    """Whatever a part of it holds."""
    masking.add("hunter22")
    view.more["parts"] = lambda: {"n": math.nan, "text": "so hunter22 is"}
    answer = get(view, "/status")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body, parse_constant=pytest.fail)["parts"] == {"n": "nan", "text": f"so {MASK} is"}


def test_it_serves_and_says_where(view: View, caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    """At each of its sockets."""
    caplog.set_level(logging.INFO, logger="kernel")
    here, there = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    there.bind(str(tmp_path / "admin"))
    there.listen()
    server = Admin(view, metrics).serve([here, there])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", here.getsockname()[1], timeout=10)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        port = here.getsockname()[1]
        server.close()
    (record,) = caplog.records
    assert record.getMessage() == f"status and health at http://127.0.0.1:{port} and {tmp_path / 'admin'}"
    assert record.__dict__["service"] == "admin"


def opened(host: str, port: int, *, asked_for: bool = True) -> Any:
    """Open sockets on a machine."""
    return open_sockets(Address(host, port, asked_for))


class Machine:
    """Whose ports are free or taken."""

    def __init__(self, *free: int, error: Exception | None = None) -> None:
        self.free = free
        self.error = error or OSError(98, "Address already in use (while attempting to bind)")
        self.asked: list[int] = []

    def listen(self, host: str, port: int) -> Any:
        """Listen, if possible."""
        self.asked.append(port)
        if port not in self.free:
            raise self.error
        return [f"{host}:{port}"]


@pytest.mark.parametrize(("free", "said"), [(9090, []), (9092, ["port 9090 is taken, so the admin server takes 9092"])])
def test_the_next_free_port(
    free: int, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said which, if it is not the usual one."""
    caplog.set_level(logging.INFO, logger="kernel")
    monkeypatch.setattr(admin, "listen", Machine(free, 9110).listen)
    assert opened("127.0.0.1", 9090, asked_for=False) == [f"127.0.0.1:{free}"]
    assert [record.getMessage() for record in caplog.records] == said


def test_no_port_is_free(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After twenty more tries there is no admin server, and a warning; the app runs all the same."""
    machine = Machine()
    monkeypatch.setattr(admin, "listen", machine.listen)
    assert opened("127.0.0.1", 9090, asked_for=False) == []
    assert machine.asked == [*range(9090, 9111)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "no admin server: cannot listen on 127.0.0.1:9090: Address already in use; set ADMIN_ADDR to another address"
    )


@pytest.mark.parametrize(
    ("error", "why"),
    [(None, "Address already in use"), (UnicodeError("label too long"), "label too long"), (OSError("odd"), "odd")],
    ids=["taken", "no name", "without words"],
)
def test_a_port_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, error: Exception | None, why: str) -> None:
    """It is that one, or an error that says why not."""
    machine = Machine(9090, error=error)
    monkeypatch.setattr(admin, "listen", machine.listen)
    assert opened("127.0.0.1", 9090) == ["127.0.0.1:9090"]
    with pytest.raises(ConfigError, match=f"127.0.0.1:9091: cannot listen there: {why}; free the port") as raised:
        opened("127.0.0.1", 9091)
    assert raised.value.where == "ADMIN_ADDR"
    assert machine.asked == [9090, 9091]
