"""docs/deployment.md: its commands are run, and what it adds to a unit or a manifest fits."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from kernel.plan.discovery import find_services
from tests.conformance.program import REPO, Process
from tests.scripts.projects import Project

PAGE = (REPO / "docs" / "deployment.md").read_text()
OPERATIONS = (REPO / "docs" / "operations.md").read_text()

REMOTE = """#!/bin/sh
# scp copies into the server's folder, ssh runs there; the server named in $DOWN cannot restart.
case "$0" in
*/scp) server=${2%%:*}; exec cp "$1" "$SERVERS/$server/${2#*:}" ;;
*/ssh) server=$1; cd "$SERVERS/$server" && SERVER=$server exec sh -c "$(echo "$2" | sed "s, /opt, ./opt,g")" ;;
*/systemctl) echo "$SERVER: $*" >> "$SERVERS/log"; [ "$SERVER" != "$DOWN" ] ;;
esac
"""


def section(title: str, language: str) -> str:
    """The first block of code below a heading."""
    text = PAGE[PAGE.index(f"## {title}\n") :]
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.minutes
def test_on_a_laptop(built: Project) -> None:
    """The file runs what is enabled, and Ctrl+C stops it gracefully."""
    build, run = section("A laptop", "sh").splitlines()
    assert build == "just build"
    env = {**built.machine.env, "ADMIN_ADDR": "127.0.0.1:0"}
    process = Process(["sh", "-c", run], built.root, env, start_new_session=True)
    try:
        process.wait_for("hello-world.*Hello|all ready")
        os.killpg(process.pid, signal.SIGINT)
        result = process.result()
    finally:
        process.kill()
    assert "exit 0: stopped by SIGINT" in result.stderr
    assert "example-api" not in result.stderr


@pytest.mark.parametrize(
    ("title", "down", "replaced"),
    [
        ("One server, with systemd", "", ["server"]),
        ("Several servers, with different subsets", "", ["one", "two", "three"]),
        ("Several servers, with different subsets", "two", ["one", "two"]),
    ],
)
def test_on_servers(tmp_path: Path, title: str, down: str, replaced: list[str]) -> None:
    """The new file is in place, as a whole, before the restart; the first server that does not come up ends it all."""
    block = next(text for text in re.findall(r"```sh\n(.*?)```", PAGE[PAGE.index(title) :], re.DOTALL) if "scp" in text)
    for name in ("scp", "ssh", "systemctl"):
        (tmp_path / name).write_text(REMOTE)
        (tmp_path / name).chmod(0o755)
    for server in ("server", "one", "two", "three"):
        (tmp_path / server / "opt/app").mkdir(parents=True)
        (tmp_path / server / "opt/app/app.pyz").write_text("old")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/app.pyz").write_text("new")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SERVERS": str(tmp_path), "DOWN": down}
    subprocess.run(["sh", "-c", block], cwd=tmp_path, env=env, check=False)
    assert (tmp_path / "log").read_text() == "".join(f"{server}: restart app\n" for server in replaced)
    new = [path.parts[-4] for path in tmp_path.glob("*/opt/app/app.pyz") if path.read_text() == "new"]
    assert sorted(new) == sorted(replaced)
    assert not [*tmp_path.glob("*/opt/app/*.new")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_the_unit_by_systemd(tmp_path: Path) -> None:
    """The unit of the page on operations takes the lines of this one, and systemd finds nothing wrong with it."""
    unit = next(block for block in re.findall(r"```ini\n(.*?)```", OPERATIONS, re.DOTALL) if "ExecStart=" in block)
    unit = re.sub(r"ExecStart=.*\n", section("One server, with systemd", "ini"), unit)
    assert unit.count("ExecStart=") == 1
    path = tmp_path / "app.service"
    path.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", unit))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert "app.service" not in done.stderr, done.stderr


def test_what_it_enables_exists() -> None:
    """Each name in a SERVICES_ENABLED of the page is an example's."""
    lines = yaml.safe_load(section("Kubernetes", "yaml"))
    assert {*lines} == {"image", "env"}
    named = re.findall(r"SERVICES_ENABLED=([^\s`]+)", PAGE) + [one["value"] for one in lines["env"]]
    names = {name.removeprefix("!") for names in named for name in names.split(",")}
    assert names <= {*find_services(str(REPO))}
    assert len(names) > 2


def test_the_links_lead_somewhere() -> None:
    """Each heading that the page points to is there."""
    targets = re.findall(r"\]\(operations\.md#([\w-]+)\)", PAGE)
    assert targets
    headings = {line.removeprefix("## ").lower() for line in OPERATIONS.splitlines() if line.startswith("## ")}
    assert {*targets} <= headings
