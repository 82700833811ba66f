"""The units of docs/operations.md as they are, on a real systemd: sandbox, watchdog, journal, sockets, restarts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.conformance.booted import HOME, PYTHON, Booted, cannot
from tests.conformance.program import PATIENCE, REPO

pytestmark = pytest.mark.minutes

PAGE = (REPO / "docs" / "operations.md").read_text()
SHOP, ADMIN_SOCKET, API_SOCKET = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
(REQUIRES,) = re.findall(r"`(Requires=shop-admin.socket shop-api.socket)`", PAGE)
SHOP_WITH_SOCKETS = SHOP.replace("[Unit]\n", f"[Unit]\n{REQUIRES}\n")
WATCHDOG = 2  # seconds, in place of the page's

CLIENTS = (REPO / "tests" / "conformance" / "restart_clients.py").read_text()

BLOCKS = """
@service
async def blocks() -> None:
    await anyio.sleep(1)
    time.sleep(600)
"""
FAILS = """
@service(retries=0)
async def fails() -> None:
    await anyio.sleep(0.5)
    raise OSError("the disk is gone")
"""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A booted copy of this machine with the app installed, which the tests of a module share."""
    if reason := cannot():
        pytest.skip(reason)
    host = Booted(tmp_path_factory.mktemp("booted") / "root")
    try:
        host.boot()
        host.install()
        yield host
    finally:
        host.end()


@pytest.fixture
def host(booted: Booted) -> Iterator[Booted]:
    """The booted machine without units and services of other tests."""
    yield booted
    booted.systemctl("stop", "shop.service", "shop-admin.socket", "shop-api.socket", check=False)
    booted.systemctl("reset-failed", check=False)
    booted.call("sh", "-c", "rm -rf /etc/systemd/system/shop* /opt/shop/services/test_*")
    booted.systemctl("daemon-reload")
    booted.journal("--rotate", "--vacuum-time=1us")


def alone(service: str, **settings: str) -> str:
    """The page's unit, with one service and other settings in its environment."""
    lines = [f"Environment={name}={value}" for name, value in {"SERVICES_ENABLED": service, **settings}.items()]
    return str(SHOP.replace("[Service]\n", "\n".join(["[Service]", *lines, ""])))


# -- the sandbox -----------------------------------------------------------------------------------------------------


def test_the_unit_runs_the_examples(host: Booted) -> None:
    """All of them, in the whole sandbox, of which systemd ignores no line; a stop ends it well."""
    host.unit("shop.service", SHOP)
    host.systemctl("start", "shop.service")
    assert host.show("shop.service", "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert re.fullmatch(r"\d of \d services ready.*", host.show("shop.service", "StatusText")["StatusText"])
    pid = host.show("shop.service", "MainPID")["MainPID"]
    status = dict(re.findall(r"^(\w+):\s+(.*)$", host.call("cat", f"/proc/{pid}/status"), re.MULTILINE))
    assert status["Uid"].split()[0] not in {"0", "65534"}
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "app.db" in host.call("ls", "/var/lib/private/shop")
    answer = host.call(f"{PYTHON}/bin/python3", "-c", ADD_ONE)
    assert json.loads(answer)["name"] == "a shirt"
    host.systemctl("stop", "shop.service")
    assert host.show("shop.service", "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    of_systemd = host.journal("_PID=1", "--priority=warning")
    assert "shop" not in of_systemd


ADD_ONE = """
from urllib.request import Request, urlopen
print(urlopen(Request("http://localhost:8000/items", b'{"name": "a shirt"}')).read().decode())
"""


def test_the_sandbox_holds(host: Booted) -> None:
    """A service sees no homes, writes nowhere but where it may, and becomes nobody else."""
    host.service("test_tries", TRIES)
    host.unit("shop.service", alone("test-tries"))
    host.systemctl("start", "shop.service")
    assert host.journal("--unit=shop", "--grep=refused: ").count("refused: ") == 5
    assert host.journal("--unit=shop", "--priority=warning") == ""


TRIES = """
import socket

@service
async def test_tries(serving: Serving[None]) -> None:
    for one in (
        lambda: open("/opt/shop/x", "w"),
        lambda: open("/etc/x", "w"),
        lambda: os.listdir("/root"),
        lambda: os.setuid(0),
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    ):
        try:
            one()
        except OSError as error:
            log.info("refused: %s", error)
    open("here", "w").close()
    open("/tmp/there", "w").close()
    async with serving():
        await anyio.sleep_forever()
"""


def test_a_blocked_loop_is_restarted(host: Booted) -> None:
    """The journal says who blocked it, and where."""
    host.service("test_blocks", BLOCKS.replace("blocks", "test_blocks"))
    host.unit("shop.service", alone("test-blocks").replace("WatchdogSec=30", f"WatchdogSec={WATCHDOG}"))
    host.systemctl("start", "shop.service")
    host.until(lambda: int(host.show("shop.service", "NRestarts")["NRestarts"]) > 0)
    host.until(lambda: "shop.service: Watchdog timeout" in host.journal("_PID=1"))  # the journal may be a moment late
    told = r"test-blocks +has been blocking the event loop for [\d.]+ s at .*test_blocks\.py:\d+"
    host.until(lambda: re.search(told, host.journal("--unit=shop")) is not None)


def test_what_a_restart_does_not_mend(host: Booted) -> None:
    """A wrong variable ends it with 2, and systemd leaves it so."""
    host.unit("shop.service", SHOP.replace("RUNNER_SHUTDOWNTIMEOUT=20s", "RUNNER_SHUTDOWNTIMEOUT=soon"))
    host.systemctl("start", "shop.service", check=False)
    shown = host.show("shop.service", "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}
    assert "RUNNER_SHUTDOWNTIMEOUT" in host.journal("--unit=shop", "--priority=err")


# -- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_has_priorities(host: Booted) -> None:
    """Errors are found as such, with their tracebacks; no line tells the time; systemd restarts after the failure."""
    host.service("test_fails", FAILS.replace("fails", "test_fails"))
    host.unit("shop.service", alone("test-fails"))
    host.systemctl("start", "shop.service")
    host.until(lambda: int(host.show("shop.service", "NRestarts")["NRestarts"]) > 0)
    host.systemctl("stop", "shop.service")
    errors = host.journal("--unit=shop", "--priority=err", "_COMM=app")
    assert re.search(r"^ERROR +test-fails +.*OSError: the disk is gone$", errors, re.MULTILINE)
    assert re.search(r"^    Traceback \(most recent call last\):$", errors, re.MULTILINE)
    assert not re.search(r"^<\d>|^INFO|^\d\d", errors, re.MULTILINE)
    everything = host.journal("--unit=shop", "_COMM=app")
    assert re.search(r"^INFO +test-fails +starting$", everything, re.MULTILINE)
    assert len(everything.splitlines()) > len(errors.splitlines())


def test_a_line_of_json_is_one_entry(host: Booted) -> None:
    """It is left as it is."""
    host.unit("shop.service", alone("hello-world", LOG_FORMAT="json"))
    host.systemctl("start", "shop.service")
    host.systemctl("stop", "shop.service")
    lines = host.journal("--unit=shop", "_COMM=app").splitlines()
    assert any(json.loads(line)["message"] == "hello, world" for line in lines)


# -- sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_ten_thousand_requests_and_five_restarts(host: Booted, backend: str) -> None:
    """None is refused and none is lost: on new connections and kept ones, to the example API and the admin server."""
    if backend == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    host.unit("shop-admin.socket", ADMIN_SOCKET)
    host.unit("shop-api.socket", API_SOCKET)
    unit = SHOP_WITH_SOCKETS.replace("[Service]\n", f"[Service]\nEnvironment=KERNEL_BACKEND={backend}\n")
    host.unit("shop.service", unit)
    host.systemctl("start", "shop-admin.socket", "shop-api.socket", "shop.service")
    host.write(f"{HOME}/clients.py", CLIENTS)
    told = json.loads(host.call(f"{PYTHON}/bin/python3", f"{HOME}/clients.py", patience=PATIENCE * 10))
    print(told)
    assert told["failures"] == []
    for server in ("api", "admin"):
        assert {*told["answers"][server]} <= {"200", "201"}
        assert sum(told["answers"][server].values()) >= 10_000
    assert told["restarts"] == 5
    assert told["items"] == told["answers"]["api"]["201"]
    stops = re.findall(r"the stop took ([\d.]+) (ms|s)", host.journal("--unit=shop"))
    assert len(stops) == 5


def test_a_socket_that_nobody_takes(host: Booted) -> None:
    """The log names it."""
    host.unit("shop-api.socket", API_SOCKET.replace("example-api", "exmaple-api"))
    host.unit("shop.service", alone("hello-world").replace("[Unit]\n", "[Unit]\nRequires=shop-api.socket\n"))
    host.systemctl("start", "shop-api.socket", "shop.service")
    assert "the socket 'exmaple-api' from systemd" in host.journal("--unit=shop", "--priority=warning")
