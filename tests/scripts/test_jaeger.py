"""`just jaeger`, with a stand-in for podman that really listens: no image can be had in a test."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port
from tests.receiver import receiving
from tests.scripts.projects import Done, Project

pytestmark = pytest.mark.minutes

RUNTIME = """
    #!{python}
    import os, pathlib, signal, subprocess, sys
    words, here = sys.argv[1:], pathlib.Path({folder!r})
    with (here / "calls").open("a") as file:
        print(pathlib.Path(sys.argv[0]).name, *words, file=file)
    broken, pid = (here / "broken"), here / "pid"
    if broken.exists() and broken.read_text() == words[0]:
        sys.exit("Error: it is said\\nError: broken on purpose")
    if words[0] == "run":
        ports = [int(word.split(":")[1]) for word in words if word.startswith("127.0.0.1:")]
        answers = str(not (here / "silent").exists())
        child = subprocess.Popen([sys.executable, "-c", {server!r}, answers, *map(str, ports)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        (here / "new").write_text(str(child.pid))
        (here / "new").replace(pid)
    elif words[:2] == ["container", "inspect"]:
        if not pid.exists():
            sys.exit("Error: no such container")
        print("true")
    elif words[0] == "rm" and pid.exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)
        pid.unlink()
"""

SERVER = """
import http.server, socket, sys, threading
ports = [int(port) for port in sys.argv[2:]]
otlp = socket.create_server(("127.0.0.1", ports[1]))
if sys.argv[1] == "False":
    threading.Event().wait()
http.server.HTTPServer(("127.0.0.1", ports[0]), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Runtime:
    """A container runtime on PATH."""

    def __init__(self, project: Project, folder: Path, name: str = "podman") -> None:
        self._project, self._folder = project, folder
        self.ui, self.otlp = free_port(), free_port()
        self._others = folder / "others"  # what the machine has, but for its own runtimes
        self._others.mkdir()
        for found in (one for place in ("/usr/bin", "/bin") for one in Path(place).iterdir()):
            link = self._others / found.name
            if found.name not in {"podman", "docker", "jaeger"} and not link.is_symlink():
                link.symlink_to(found)
        program = folder / name
        program.write_text(
            textwrap.dedent(RUNTIME).strip().format(python=sys.executable, folder=str(folder), server=SERVER)
        )
        program.chmod(0o755)

    def just(self, *words: str, **env: str) -> Done:
        """A recipe, with this runtime found first and no other found at all."""
        return self._project.just(*words, PATH=self._path, **env)

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        project = self._project
        env = {**project.machine.env, "PATH": self._path}
        quiet = subprocess.DEVNULL
        program = project.root / "scripts" / "just"
        return subprocess.Popen([program, *words], env=env, stdout=quiet, stderr=quiet, start_new_session=True)

    @property
    def _path(self) -> str:
        return f"{self._folder}:{self._project.machine.bin}:{self._others}"

    def start(self) -> Done:
        """`just jaeger` on ports of the test's own."""
        return self.just("jaeger", f"UI={self.ui}", f"OTLP={self.otlp}")

    def breaks(self, word: str) -> None:
        """Have that command of it fail."""
        (self._folder / "broken").write_text(word)

    def silent(self) -> None:
        """Have what it starts never answer."""
        (self._folder / "silent").touch()

    @property
    def runs(self) -> bool:
        """Whether the container is there."""
        return (self._folder / "pid").exists()

    @property
    def calls(self) -> list[str]:
        """What it was called with."""
        file = self._folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def runtime(project: Project, tmp_path: Path) -> Iterator[Runtime]:
    """podman, as it were."""
    folder = tmp_path / "bin"
    folder.mkdir()
    one = Runtime(project, folder)
    yield one
    (folder / "broken").unlink(missing_ok=True)
    one.just("jaeger-stop")


def test_started_used_and_stopped(runtime: Runtime, project: Project) -> None:
    """On loopback, pinned; `just run` sends to it without a word of the user's; and no more when it is stopped."""
    done = runtime.start()
    assert done.code == 0, done.err
    assert f"Jaeger is at http://127.0.0.1:{runtime.ui}" in done.out
    (call,) = (call for call in runtime.calls if call.startswith("podman run"))
    assert f"--publish 127.0.0.1:{runtime.ui}:16686 --publish 127.0.0.1:{runtime.otlp}:4318" in call
    assert re.search(r"/jaeger:\d+\.\d+\.\d+@sha256:[0-9a-f]{64} --config env:KERNEL_JAEGER$", call)
    project.write("services/once.py", SHOWS)
    ours = f"http://127.0.0.1:{runtime.otlp}/v1/traces"
    assert shown(runtime) == ours
    assert shown(runtime, OTEL_TRACES_EXPORTER="none") == ""
    assert shown(runtime, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:1/x") == "http://127.0.0.1:1/x"
    assert "it is running already: http://127.0.0.1" in runtime.start().err
    assert runtime.just("jaeger-stop").out == "Jaeger is stopped, and its traces are gone.\n"
    assert shown(runtime) == ""
    assert runtime.just("jaeger-stop").out == "Jaeger is not running; nothing is sent to it.\n"


SHOWS = '''"""Shows where traces go."""

import os

from kernel import service


@service(oneshot=True)
async def once() -> None:
    print("to", os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""))
'''


def shown(runtime: Runtime, **env: str) -> str:
    """Where `just run` sends traces."""
    done = runtime.just("run", "once", ADMIN_ADDR="off", **env)
    assert done.code == 0, done.err
    return done.out.removeprefix("to").strip()


def test_nobody_is_there(runtime: Runtime, tmp_path: Path) -> None:
    """One sentence, and nothing was done."""
    (tmp_path / "bin" / "podman").unlink()
    done = runtime.start()
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("just jaeger: there is neither podman nor docker, nor a program `jaeger` on the PATH.")
    assert len([line for line in done.err.splitlines() if line.startswith("- ")]) == 3


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("info", "podman does not work (Error: broken on purpose); fix that"),
        ("run", "podman could not start cr.jaegertracing.io/jaegertracing/jaeger:"),
    ],
)
def test_what_does_not_work(runtime: Runtime, project: Project, word: str, said: str) -> None:
    """The runtime's own reason is told, and nothing is left behind."""
    runtime.breaks(word)
    done = runtime.start()
    assert done.code == 2
    assert said in done.err
    assert "broken on purpose" in done.err
    assert not (project.root / ".kernel" / "jaeger").exists()


def test_docker_where_podman_does_not_work(runtime: Runtime, project: Project, tmp_path: Path) -> None:
    """The one that works is taken."""
    other = tmp_path / "other"
    other.mkdir()
    Runtime(project, other, "docker")
    runtime.breaks("info")
    (tmp_path / "bin" / "docker").symlink_to(other / "docker")
    done = runtime.start()
    assert done.code == 0, done.err
    assert "with docker" in done.err
    assert runtime.just("jaeger-stop").out.startswith("Jaeger is stopped")


PROGRAM = """
    #!{python}
    import http.server, json, os, socket, sys
    assert sys.argv[1:] == ["--config", "env:KERNEL_JAEGER"]
    config = json.loads(os.environ["KERNEL_JAEGER"])
    ends = (config["extensions"]["jaeger_query"]["http"], config["receivers"]["otlp"]["protocols"]["http"])
    ui, otlp = (end["endpoint"].split(":") for end in ends)
    listening = socket.create_server((otlp[0], int(otlp[1])))
    http.server.HTTPServer((ui[0], int(ui[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_program_on_the_path(runtime: Runtime, project: Project, tmp_path: Path) -> None:
    """Where no container engine is, the program is started in the background, and ended by the recipe."""
    (tmp_path / "bin" / "podman").unlink()
    program = tmp_path / "bin" / "jaeger"
    program.write_text(textwrap.dedent(PROGRAM).strip().format(python=sys.executable))
    program.chmod(0o755)
    done = runtime.start()
    assert done.code == 0, done.err
    project.write("services/once.py", SHOWS)
    assert shown(runtime) == f"http://127.0.0.1:{runtime.otlp}/v1/traces"
    assert "it is running already" in runtime.start().err
    assert runtime.just("jaeger-stop").out == "Jaeger is stopped, and its traces are gone.\n"
    assert runtime.just("jaeger-stop").out == "Jaeger is not running; nothing is sent to it.\n"
    assert shown(runtime) == ""


@pytest.mark.skipif(shutil.which("jaeger") is None, reason="there is no `jaeger` on the PATH")
def test_a_real_one(runtime: Runtime, project: Project, tmp_path: Path) -> None:
    """It opens two ports and no more, and gives by its API what `just run` has sent."""
    (tmp_path / "bin" / "podman").unlink()
    real = shutil.which("jaeger")
    assert real is not None
    (tmp_path / "bin" / "jaeger").symlink_to(real)
    done = runtime.start()
    assert done.code == 0, done.err
    pid = (project.root / ".kernel" / "jaeger").read_text().splitlines()[1].split()[1]
    assert listening(int(pid)) == {runtime.ui, runtime.otlp}
    project.write("services/once.py", SHOWS)
    shown(runtime)
    now = dt.datetime.now(dt.UTC)
    times = [(now + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ") for hours in (-1, 1)]
    query = {"service_name": "once", "start_time_min": times[0], "start_time_max": times[1], "num_traces": "20"}
    params = {f"query.{name}": value for name, value in query.items()}
    url = f"http://127.0.0.1:{runtime.ui}/api/v3/traces"
    with httpx.Client(trust_env=False) as client:
        found = client.get(url, params=params).json()["result"]["resourceSpans"]
    spans = {
        (service_of(group), span["name"]): span
        for group in found
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    }
    assert spans.keys() == {("app", "start"), ("once", "start")}
    assert spans["once", "start"]["parentSpanId"] == spans["app", "start"]["spanId"]
    assert runtime.just("jaeger-stop").out == "Jaeger is stopped, and its traces are gone.\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def service_of(group: dict[str, Any]) -> str:
    """Whose spans they are, as Jaeger's API says."""
    (name,) = (one["value"]["stringValue"] for one in group["resource"]["attributes"] if one["key"] == "service.name")
    return str(name)


def listening(pid: int) -> set[int]:
    """The ports of TCP at which a process listens."""
    sockets = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(int(words[1].rpartition(":")[2], 16))
    return found


def test_a_port_that_is_taken(runtime: Runtime) -> None:
    """It is named, with the word that names another."""
    with socket.create_server(("127.0.0.1", runtime.otlp)):
        done = runtime.start()
    assert done.code == 2
    assert f"port {runtime.otlp} cannot be used: Address already in use; free it, or choose another: OTLP=" in done.err


@pytest.mark.parametrize("word", ["UI=0", "UI=http", "OTLP=70000", "PORT=1", "1 2", "UI=$(id)"])
def test_words_that_are_none(runtime: Runtime, word: str) -> None:
    """A wrong word is refused before anything is called."""
    done = runtime.just("jaeger", word)
    assert done.code == 2
    assert done.err.startswith("just jaeger: ")
    assert not runtime.calls


def test_a_container_that_is_gone(runtime: Runtime, project: Project, tmp_path: Path) -> None:
    """Where nobody listens any more, as after a reboot, nothing is sent, and a line says so; `jaeger` starts anew."""
    assert runtime.start().code == 0
    project.write("services/once.py", SHOWS)
    end(tmp_path)
    done = runtime.just("run", "once", ADMIN_ADDR="off")
    assert (done.code, done.out) == (0, "to \n"), done.err
    assert done.err.startswith("scripts/kernel/run: Jaeger does not respond any more, so no traces are sent to it;")
    assert runtime.start().code == 0
    assert shown(runtime).startswith("http://127.0.0.1")


def end(folder: Path) -> None:
    """End the container behind the recipes' back."""
    pid = folder / "bin" / "pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    pid.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_waits(runtime: Runtime, project: Project, number: signal.Signals) -> None:
    """The container that was begun is removed again."""
    runtime.silent()
    with runtime.popen("jaeger", f"UI={runtime.ui}", f"OTLP={runtime.otlp}") as begun:
        while not runtime.runs:
            assert begun.poll() is None
            time.sleep(0.02)
        os.killpg(begun.pid, number)  # as a terminal does
        assert begun.wait(20) == 128 + number
    until = time.monotonic() + 20  # just may be gone before what it has begun
    while runtime.runs:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not (project.root / ".kernel" / "jaeger").exists()


def test_a_protocol_for_another_collector(runtime: Runtime, project: Project) -> None:
    """What the user's collector speaks is no reason to refuse to run beside Jaeger."""
    project.write("services/once.py", SHOWS)
    assert runtime.start().code == 0
    assert shown(runtime, OTEL_EXPORTER_OTLP_PROTOCOL="grpc") == f"http://127.0.0.1:{runtime.otlp}/v1/traces"
    assert shown(runtime, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf") == ""


def test_a_proxy_is_not_asked(runtime: Runtime, project: Project) -> None:
    """Neither whether Jaeger answers, nor to bring it the traces: no proxy leads to loopback."""
    nobody = "http://127.0.0.1:9"
    done = runtime.just("jaeger", f"UI={runtime.ui}", f"OTLP={runtime.otlp}", http_proxy=nobody, HTTP_PROXY=nobody)
    assert done.code == 0, done.err
    project.write("services/once.py", SHOWS)
    with receiving() as collector:
        project.write(".kernel/jaeger", f"{collector.url}/v1/traces\n")
        shown(runtime, http_proxy=nobody, HTTP_PROXY=nobody)
    assert collector.one("once start")
