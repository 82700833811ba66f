"""`app call`, and what `app graph` and `app check` tell of interfaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls.test_processes import SHARED, USERS, WEB
from tests.conformance.program import App
from tests.ports import free_port


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A service and one that calls it."""
    made = App(tmp_path / "tree")
    made.write("services/_users.py", SHARED)
    made.service("users", USERS)
    made.service("web", WEB)
    yield made
    made.close()


def test_a_call_from_the_terminal(app: App, nats: str, prefix: str) -> None:
    """The result is JSON on stdout; an error is one line, and exit code 1."""
    env = {"NATS_URL": nats, "NATS_PREFIX": prefix}
    app.run("users", **env).wait_for("all ready")
    done = app.call("call", "users.get", '{"id": 1}', **env)
    assert (done.code, json.loads(done.stdout)) == (0, {"id": 1, "name": "user 1"})
    for words, told in [
        (["users.get", '{"id": 0}'], "error: users.get: NoSuchUser: no user 0"),
        (["users.get", '{"id": "1"}'], "error: users.get: id: expected int, got str"),
        (["users.gat"], "error: users.gat: users has no method 'gat'; did you mean 'get'?"),
        (["user.get"], f"error: user.get: nobody serves user below {prefix!r} at "),
        (["users.slow", '{"seconds": 30, "name": ""}', "--timeout", "0.2"], "error: users.slow: "),
    ]:
        done = app.call("call", *words, **env)
        assert done.code == 1, done.stderr
        assert told in done.stderr


def test_what_no_call_can_be_made_of(app: App, nats: str) -> None:
    """Nothing is started, and what was expected is shown."""
    for words in (["users"], ["users.get", "{"], ["users.get", "[]"], ["us ers.get"]):
        done = app.call("call", *words, NATS_URL=nats, LOG_FORMAT="text")
        assert done.code == 2
        assert """as in: app call users.get '{"id": 1}'""" in done.stderr
    assert "NATS_URL is not set" in app.call("call", "users.get").stderr
    done = app.call("call", "users.get", "--timeout", "1", NATS_URL=f"nats://me:hidden@127.0.0.1:{free_port()}")
    assert done.code == 1
    assert "cannot connect to NATS: nats://********@127.0.0.1" in done.stderr
    assert "hidden" not in done.stderr


def test_the_graph_names_interfaces(app: App) -> None:
    """On the edge, and with what can run apart."""
    told = app.call("graph").stdout
    assert "web    <- users (Users)  [one-shot]" in told
    assert told.endswith("can run apart: users | web\n")
    assert json.loads(app.call("graph", "--format", "json").stdout)["web"]["interfaces"] == {"users": "Users"}
    assert "users -- Users --> web" in app.call("graph", "--format", "mermaid").stdout
    assert 'label="Users"' in app.call("graph", "--format", "dot").stdout


def test_the_check_reads_interfaces(app: App) -> None:
    """What does not fit is told with file and line, and so is what one side changed alone."""
    assert app.call("check").stdout.endswith("; can run apart: users | web\n")
    app.write("services/_users.py", SHARED.replace("async def get(self, id: int)", "def get(self, id: object)"))
    done = app.call("check")
    assert done.code == 2
    assert "interface Users: get is not async; write `async def`" in done.errors[0]
    assert "services/_users.py:20" in done.errors[0]
    app.write("services/_users.py", SHARED)
    app.write("services/_mine.py", SHARED.replace("id: int) -> User", "id: str) -> User"))
    app.service("web", WEB.replace("services._users", "services._mine"))
    done = app.call("check")
    assert done.code == 2
    assert (
        "web takes Users, which users does not serve: get: parameter 'id' is str here, and int there" in done.errors[0]
    )
