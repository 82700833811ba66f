"""Calls between real processes: what is split works, and what is stopped, killed or frozen costs what it must."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.artifacts import Artifact
from tests.calls import scene
from tests.calls.conftest import Server
from tests.conformance.program import App, Process
from tests.ports import free_port

pytestmark = pytest.mark.minutes

SHARED = '''
"""What both sides share."""
from __future__ import annotations
from typing import Protocol
import attrs
from kernel import interface

@attrs.frozen
class User:
    id: int
    name: str

class NoSuchUser(Exception):
    def __init__(self, id: int) -> None:
        super().__init__(f"no user {id}")
        self.id = id

@interface(raises=[NoSuchUser], timeout=20)
class Users(Protocol):
    """Everything about users."""
    async def get(self, id: int) -> User: ...
    async def slow(self, seconds: float, name: str) -> str: ...
'''

USERS = """
from services._users import NoSuchUser, User, Users

class Here:
    async def get(self, id: int) -> User:
        if not id:
            raise NoSuchUser(id)
        return User(id, f"user {id}")

    async def slow(self, seconds: float, name: str) -> str:
        log.info("begun %.20s", name)
        await anyio.sleep(seconds)
        log.info("done %.20s", name)
        return name

@service(stop_timeout=60, concurrency=1000)
async def users(serving: Serving[Users]) -> None:
    async with serving(Here()):
        await anyio.sleep_forever()
"""

WEB = """
from services._users import NoSuchUser, User, Users

@service(depends=["users"], oneshot=True)
async def web(users: Users) -> None:
    print(await users.get(3))
    try:
        await users.get(0)
    except NoSuchUser as error:
        print(repr(error), error.id)
"""

LOAD = """
import json, time
from services._users import Users

@attrs.frozen
class LoadConfig:
    calls: int = 300
    at_once: int = 30
    seconds: float = 0.15
    size: int = 0
    gate: str = ""

@service(depends=["users"], oneshot=True, stop_timeout=60)
async def load(users: Users, config: LoadConfig) -> None:
    answers, errors, todo = [], [], iter(range(config.calls))

    async def work() -> None:
        for number in todo:
            try:
                answers.append(await users.slow(config.seconds, f"c{number}".ljust(config.size, ".")))
            except Exception as error:
                errors.append([f"c{number}", type(error).__name__, str(error)])

    log.info("load begins")
    while config.gate and not os.path.exists(config.gate):
        await anyio.sleep(0.01)
    async with anyio.create_task_group() as tasks:
        for _ in range(config.at_once):
            tasks.start_soon(work)
    print(json.dumps({"answers": len(set(answers)), "errors": errors}))
"""


@pytest.fixture
def app(tmp_path: Path, artifact: Artifact | None) -> Iterator[App]:
    """A tree with a service, and two that call it."""
    made = App(tmp_path / "tree", artifact)
    made.write("services/_users.py", SHARED)
    made.service("users", USERS)
    made.service("web", WEB)
    made.service("load", LOAD)
    yield made
    made.close()


def loaded(process: Process) -> tuple[int, list[list[str]]]:
    """What the load ended with: the answers that came, and the errors."""
    told = json.loads(process.result().stdout)
    return told["answers"], told["errors"]


PLAYS = """
from services._scene import Users, play

@service(depends=["scene"], oneshot=True)
async def plays(scene: Users) -> None:
    for number, end in enumerate(await play(scene)):
        print(number, end)
"""

SCENE = """
from services._scene import Users, UsersHere

@service
async def scene(serving: Serving[Users]) -> None:
    async with serving(UsersHere()):
        await anyio.sleep_forever()
"""


@pytest.mark.core
def test_in_one_process_in_two_and_in_three(app: App, nats: str, prefix: str) -> None:
    """The whole script ends alike, whatever runs where; no line of the services tells. On trio, in one process."""
    app.write("services/_scene.py", Path(scene.__file__).read_text())
    app.service("scene", SCENE)
    app.service("plays", PLAYS)

    def together(**env: str) -> list[str]:
        run = app.run("scene", "plays", **env)
        run.wait_for("plays: done|done")
        return run.stop().stdout.splitlines()

    split = {"NATS_URL": nats, "NATS_PREFIX": prefix}
    wanted = together(ENV="dev", ADMIN_ADDR="off")
    assert wanted[2] == """2 ('NoSuchUser', 'there is no user 0', {'id': 0})"""
    assert len(wanted) == len(scene.SCRIPT)
    for instances in (1, 2):
        others = [app.run("scene", **split) for _ in range(instances)]
        for other in others:
            other.wait_for("all ready")
        caller = app.run("plays", **split).result()
        assert (caller.stdout.splitlines(), caller.code) == (wanted, 0)
        assert [other.stop().code for other in others] == [0] * instances
    thin = together()
    assert [line for index, line in enumerate(thin) if index not in scene.BY_REFERENCE] == [
        line for index, line in enumerate(wanted) if index not in scene.BY_REFERENCE
    ]
    if app.artifact is None:  # which has no trio
        on_trio = together(ENV="dev", ADMIN_ADDR="off", KERNEL_BACKEND="trio")
        differs = {12}  # asyncio's own cancellation, which is any other error there
        assert [line for index, line in enumerate(on_trio) if index not in differs] == [
            line for index, line in enumerate(wanted) if index not in differs
        ]


def test_without_a_server_the_remedies_are_named(app: App) -> None:
    """That it may be called elsewhere is the fourth."""
    done = app.call("run", "web")
    assert done.code == 2
    assert "or set NATS_URL, since Users can be called in another process" in done.errors[0]


def test_trio_has_one_clear_error(app: App, nats: str) -> None:
    """Nothing is started."""
    done = app.call("run", "web", NATS_URL=nats, KERNEL_BACKEND="trio")
    assert done.code == 2
    assert "KERNEL_BACKEND is trio, and calls between processes need asyncio" in done.errors[0]
    local = app.run("users", "web", KERNEL_BACKEND="trio")
    assert local.stop().stdout.startswith("User(id=3")


def test_a_server_that_cannot_be_reached_and_a_signal(app: App) -> None:
    """It says so, and ends at once with 0."""
    web = app.run("web", NATS_URL=f"nats://127.0.0.1:{free_port()}")
    web.wait_for("cannot connect to NATS")
    web.send(signal.SIGTERM)
    done = web.result()
    assert done.code == 0, done.stderr
    assert done.in_order("cannot connect to NATS", "exit 0")


def test_the_tree_of_what_waits_names_server_and_service(app: App, nats: str, prefix: str) -> None:
    """After five seconds, as for any dependency."""
    web = app.run("web", NATS_URL=nats, NATS_PREFIX=prefix)
    web.wait_for("still starting")
    done = web.stop(after="still starting")
    assert done.said(rf"waiting for an instance of users to answer at {nats.removeprefix('nats://')}"), done.stderr


def test_a_call_in_flight_at_sigterm(app: App, nats: str, prefix: str) -> None:
    """One that ends in time is answered; one that does not is cancelled and answered, and the exit code is 0."""
    env = {"NATS_URL": nats, "NATS_PREFIX": prefix, "RUNNER_SHUTDOWNTIMEOUT": "3s"}
    users = app.run("users", **env)
    short = app.run("load", LOAD_CALLS="1", LOAD_SECONDS="1", **env)
    long = app.run("load", LOAD_CALLS="1", LOAD_SECONDS="30", **env)
    users.wait_for("begun", times=2)
    users.send(signal.SIGTERM)
    assert users.result().code == 0, users.output
    assert loaded(short) == (1, [])
    answers, errors = loaded(long)
    assert answers == 0
    assert errors[0][1] == "CallFailed"
    assert "stopped together with its service" in errors[0][2]


def test_a_rolling_restart_loses_no_call(app: App, nats: str, prefix: str) -> None:
    """Three instances are replaced one after the other, under load; ROLLING_CALLS makes it more than a test."""
    env = {"NATS_URL": nats, "NATS_PREFIX": prefix, "RUNNER_SHUTDOWNTIMEOUT": "30s"}
    calls = int(os.environ.get("ROLLING_CALLS", "600"))
    instances = [app.run("users", **env) for _ in range(3)]
    for one in instances:
        one.wait_for("all ready")
    load = app.run("load", LOAD_CALLS=str(calls), LOAD_AT_ONCE="40", **env)
    load.wait_for("load begins")
    for old in instances:
        old.wait_for("begun")
        new = app.run("users", **env)
        new.wait_for("all ready")
        done = old.stop()
        assert done.code == 0, done.stderr
    load._process.wait(60 + calls * 0.15 / 40 * 3)
    assert loaded(load) == (calls, [])


def test_a_kill_costs_what_was_begun(app: App, nats: str, prefix: str) -> None:
    """What the killed instance had got ends at its deadline; all other calls are answered."""
    env = {"NATS_URL": nats, "NATS_PREFIX": prefix, "RUNNER_SHUTDOWNTIMEOUT": "30s"}
    first, second = app.run("users", **env), app.run("users", **env)
    first.wait_for("all ready")
    second.wait_for("all ready")
    load = app.run("load", LOAD_CALLS="200", LOAD_AT_ONCE="20", LOAD_SECONDS="0.1", **env)
    first.wait_for("begun", times=10)
    first.send(signal.SIGKILL)
    first.kill()
    load._process.wait(60)
    answers, errors = loaded(load)
    assert answers + len(errors) == 200
    assert len(errors) <= 20  # what it had begun, and what the server had sent it
    assert all(kind == "DeadlineExceeded" for _, kind, _ in errors)


def test_a_frozen_instance(app: App, nats: str, prefix: str) -> None:
    """Its callers have their deadline; thawed, it goes on."""
    env = {"NATS_URL": nats, "NATS_PREFIX": prefix}
    users = app.run("users", **env)
    users.wait_for("all ready")
    app.write("services/_users.py", SHARED.replace("timeout=20", "timeout=1"))
    users.send(signal.SIGSTOP)
    users.send(signal.SIGCONT)
    load = app.run("load", LOAD_CALLS="8", LOAD_AT_ONCE="1", LOAD_SECONDS="0.5", **env)
    users.wait_for("begun")
    users.send(signal.SIGSTOP)
    load._process.wait(60)
    answers, errors = loaded(load)
    users.send(signal.SIGCONT)
    assert errors
    assert all(kind == "DeadlineExceeded" for _, kind, _ in errors), errors
    assert answers + len(errors) == 8
    assert app.call("run", "web", **env).code == 0
    assert users.stop().code == 0


def test_an_instance_that_is_dropped_as_a_slow_consumer(
    app: App, own_nats: Callable[..., Server], prefix: str, tmp_path: Path
) -> None:
    """It is frozen, messages pile up, and the server closes its connection; thawed, it connects again."""
    settings, gate = tmp_path / "server.conf", tmp_path / "gate"
    settings.write_text('write_deadline: "500ms"\n')
    server = own_nats("-c", str(settings))
    env = {"NATS_URL": server.url, "NATS_PREFIX": prefix}
    users = app.run("users", **env)
    users.wait_for("all ready")
    app.write("services/_users.py", SHARED.replace("timeout=20", "timeout=3"))
    load = app.run("load", LOAD_CALLS="40", LOAD_AT_ONCE="40", LOAD_SIZE="500000", LOAD_GATE=str(gate), **env)
    load.wait_for("load begins")
    users.send(signal.SIGSTOP)
    gate.touch()
    load._process.wait(60)
    answers, errors = loaded(load)
    users.send(signal.SIGCONT)
    users.wait_for("connected to NATS again")
    assert "Slow Consumer" in "".join(log.read_text() for log in tmp_path.glob("log-*"))
    assert (answers, len(errors)) == (0, 40)
    assert {kind for _, kind, _ in errors} <= {"DeadlineExceeded", "Unavailable"}
    assert app.call("run", "web", **env).code == 0
    assert users.stop().code == 0


ALONE = """
import sys
from kernel import service

def told() -> None:
    parts = {name.removeprefix("kernel.calls.") for name in sys.modules if name.startswith("kernel.calls.")}
    print(*sorted(parts), "nats" in sys.modules)

@service(oneshot=True)
async def alone() -> None:
    told()
"""

LOCAL = "codec containers failures interface proxy raised records scalars shape wiring"
"""What a call within the process takes."""


def test_nothing_is_imported_where_nothing_is_called(app: App, nats: str, prefix: str) -> None:
    """NATS_URL alone makes no connection, and an interface within one process needs no client."""
    app.write("services/alone.py", ALONE)
    assert app.call("run", "alone", NATS_URL=nats).stdout == "False\n"
    also = "@service(depends=['users'], oneshot=True)\nasync def also(users: object) -> None:\n    told()"
    app.service("also", f"from services.alone import told\n{also}")
    local = app.run("users", "also")
    local.wait_for("also: done|done")
    assert local.stop().stdout == f"{LOCAL} False\n"
