"""docs/operations.md: its manifests are read, their numbers fit, and the real program keeps to them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from kernel.config.settings import KERNEL_VARIABLES, read_settings
from kernel.config.values import parse_duration
from kernel.observe.admin import PAGES
from kernel.observe.exporters import LAST
from kernel.observe.wiring import ADMIN
from tests.conformance.program import CALM, REPO, App

PAGE = (REPO / "docs" / "operations.md").read_text()
KUBERNETES, COMPOSE = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
POD = KUBERNETES["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
PROBES = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}


def unit() -> dict[str, Any]:
    """The section [Service] of the unit; what may stand there several times, as a list."""
    found: dict[str, Any] = {"Environment": []}
    text, *_ = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    configparser.ConfigParser(strict=False, interpolation=None).read_string(text)  # it is well-formed
    for line in text.partition("[Service]")[2].partition("[Install]")[0].splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            if key == "Environment":
                found[key].append(value)
            else:
                found[key] = value
    return found


SYSTEMD = unit()
ENVIRONMENTS = {
    "kubernetes": {one["name"]: one["value"] for one in CONTAINER["env"]},
    "systemd": dict(one.split("=", 1) for one in SYSTEMD["Environment"]),
    "compose": COMPOSE["services"]["shop"]["environment"],
}
GRACE = {
    "kubernetes": float(POD["terminationGracePeriodSeconds"]),
    "systemd": float(SYSTEMD["TimeoutStopSec"]),
    "compose": parse_duration(COMPOSE["services"]["shop"]["stop_grace_period"]),
}


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_the_variables(place: str) -> None:
    """They are the kernel's, and right; whoever kills waits longer than the app may take."""
    env = ENVIRONMENTS[place]
    assert {*env} - {"XDG_CACHE_HOME"} <= {*KERNEL_VARIABLES}
    settings, errors = read_settings(env)
    assert errors == []
    assert settings.shutdown_timeout + LAST + 1 < GRACE[place]
    assert settings.admin is not None
    assert settings.admin.port == 9090


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_the_unit_may_do_little(tmp_path: Path) -> None:
    """As systemd itself judges: at most 1.5, where 10 is a unit without any such line."""
    text, *_ = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "shop.service"
    file.write_text(text)
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = re.findall(r"Overall exposure level for shop.service: ([0-9.]+)", done.stdout)
    assert f"rates it {told} of 10" in PAGE


def test_the_probes() -> None:
    """Each asks for a page that is there; unready is noticed within the drain delay; the start has its time."""
    assert {probe["httpGet"]["path"] for probe in PROBES.values()} <= {*PAGES}
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {"admin"}
    assert CONTAINER["ports"] == [{"name": "admin", "containerPort": 9090}]
    drain = parse_duration(ENVIRONMENTS["kubernetes"]["RUNNER_DRAINDELAY"])
    readiness = PROBES["readiness"]
    assert readiness["periodSeconds"] * (readiness["failureThreshold"] + 1) < drain
    startup = PROBES["startup"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == float(SYSTEMD["TimeoutStartSec"]) == 120
    assert parse_duration(COMPOSE["services"]["shop"]["healthcheck"]["start_period"]) == 120
    assert not POD["enableServiceLinks"]


def test_the_file_system_is_read_only() -> None:
    """But for /tmp, which allows programs: a .pyz and a binary need that, and docker's default forbids it."""
    (volume,) = POD["volumes"]
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert CONTAINER["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]  # noqa: S108
    assert volume["emptyDir"] == {}
    shop = COMPOSE["services"]["shop"]
    assert (shop["read_only"], shop["tmpfs"]) == (True, "/tmp:exec")  # noqa: S108


def test_the_unit() -> None:
    """Type=notify, signs of life, and no restart of what a restart does not mend."""
    assert (SYSTEMD["Type"], SYSTEMD["NotifyAccess"]) == ("notify", "main")
    assert SYSTEMD["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_the_unit_by_systemd(tmp_path: Path) -> None:
    """Systemd itself finds nothing wrong with it."""
    text, *_ = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "shop.service"
    path.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert "shop.service" not in done.stderr, done.stderr


def test_the_sockets_have_names_that_are_known() -> None:
    """Of the admin server, and of a service that takes sockets."""
    _, *sockets = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    names = [re.findall("FileDescriptorName=(.*)", text) for text in sockets]
    assert names == [[ADMIN], ["example-api"]]


# -- the real program ------------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app with one service."""
    app = App(tmp_path / "tree")
    app.service("calm", CALM)
    yield app
    app.close()


def in_time(env: dict[str, str], factor: float) -> dict[str, str]:
    """The environment of a manifest with all durations by *factor*, and a free port."""
    short = {name: f"{parse_duration(text) * factor:g}" for name, text in env.items() if name.startswith("RUNNER_")}
    return {**env, **short, "ADMIN_ADDR": "0"}


def test_a_pod_that_is_deleted(app: App) -> None:
    """A quarter of all times: probed as the kubelet does, it is out of rotation before it stops, and ends in time."""
    quarter = 0.25
    run = app.run(**in_time(ENVIRONMENTS["kubernetes"], quarter))
    run.wait_for("status and health at")
    (url,) = re.findall(r"at (http://[\d.:]+)", run.output)
    run.wait_for("all ready")
    readiness = PROBES["readiness"]
    with httpx.Client(trust_env=False) as client:
        for probe in PROBES.values():
            assert client.get(url + probe["httpGet"]["path"]).status_code == 200
        run.send(signal.SIGTERM)
        begun, failures = time.monotonic(), 0
        while failures < readiness["failureThreshold"]:
            time.sleep(readiness["periodSeconds"] * quarter)
            failures += client.get(url + readiness["httpGet"]["path"]).status_code == 503
            assert client.get(url + PROBES["liveness"]["httpGet"]["path"]).status_code == 200
        drain = parse_duration(ENVIRONMENTS["kubernetes"]["RUNNER_DRAINDELAY"]) * quarter
        assert time.monotonic() - begun < drain
    result = run.result()
    assert result.code == 0
    assert drain <= result.seconds
    assert result.own_seconds < GRACE["kubernetes"] * quarter


def test_a_unit_that_is_stopped(app: App, tmp_path: Path) -> None:
    """Systemd hears of ready, of life, and of the stop."""
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        reader = threading.Thread(target=lambda: [*iter(lambda: take(listener, told), "")], daemon=True)
        reader.start()
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        run = app.run(**in_time(ENVIRONMENTS["systemd"], 0.1), **env)
        run.wait_for("all ready")
        end = time.monotonic() + 10
        while told.count("WATCHDOG=1") < 2 and time.monotonic() < end:
            time.sleep(0.05)
        run.send(signal.SIGTERM)
        assert run.result().code == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(tmp_path / "notify"))
        reader.join(5)
    assert told.count("WATCHDOG=1") >= 2
    assert [one for one in told if one.startswith(("READY", "STOPPING"))] == [
        "READY=1\nSTATUS=1 of 1 services ready",
        "STOPPING=1\nSTATUS=stopping: SIGTERM",
    ]


def take(listener: socket.socket, told: list[str]) -> str:
    """The next message."""
    message = listener.recv(4096).decode()
    if message:
        told.append(message)
    return message


def test_the_health_check_of_compose(app: App) -> None:
    """The command itself, against the real program."""
    run = app.run(**in_time(ENVIRONMENTS["compose"], 0.1))
    run.wait_for("status and health at")
    (port,) = re.findall(r"at http://[\d.]+:(\d+)", run.output)
    run.wait_for("all ready")
    kind, _, *words = COMPOSE["services"]["shop"]["healthcheck"]["test"]
    assert kind == "CMD"
    words[-1] = words[-1].replace(":9090", f":{port}")
    env = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # where nobody is
    assert subprocess.run([sys.executable, *words], check=False, env=env).returncode == 0
    run.send(signal.SIGTERM)
    assert run.result().code == 0
    done = subprocess.run([sys.executable, *words], check=False, env=env, capture_output=True)
    assert done.returncode == 1
