"""The steps of `just jaeger` and `just jaeger-stop`, with a container runtime that is a few lines of this file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import jaeger
from recipe import Refusal

NOTHING = {"UI": "", "OTLP": ""}


class Bench:
    """A project, and what there is to run Jaeger with.

    Attributes:
        installed: The programs on PATH.
        fails: The commands of the runtimes that fail.
        container: The state of the container; empty if there is none.
        answers: Whether Jaeger answers.

    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.installed = {"podman"}
        self.fails: set[str] = set()
        self.container = ""
        self.answers = True
        self.calls: list[list[str]] = []
        self.asked: list[str] = []
        self.started: list[tuple[list[str], dict[str, Any]]] = []
        monkeypatch.setattr(jaeger, "ROOT", root)
        monkeypatch.setattr(jaeger, "_call", self.call)
        monkeypatch.setattr(jaeger, "_answers", self.answer)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in self.installed else None)
        instead = types.SimpleNamespace(run=subprocess.run, DEVNULL=subprocess.DEVNULL, Popen=self.popen)
        monkeypatch.setattr(jaeger, "subprocess", instead)
        ps = root / "bin" / "ps"
        ps.parent.mkdir()
        ps.write_text('#!/bin/sh\n[ "$*" = "-o args= -p $PS_PID" ] && printf %s "$PS_SAYS"\n')
        ps.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ps.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PS_PID", str(os.getpid()))
        monkeypatch.setenv("PS_SAYS", "/usr/bin/jaeger --config x")

    def call(self, runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Be podman or docker."""
        assert runtime in self.installed
        self.calls.append([runtime, *words])
        if words[0] in self.fails:
            return subprocess.CompletedProcess([], 1, "on stdout\n", f"first\nno {words[0]} today\n")
        code, out = 0, ""
        if words[0] == "container":
            code, out = int(not self.container), str(self.container == "running").lower()
        elif words[0] == "run":
            self.container = "running"
        elif words[0] == "rm":
            self.container = ""
        return subprocess.CompletedProcess([], code, f"{out}\n", "")

    def popen(self, command: list[str], **options: Any) -> object:
        """Start Jaeger as a program: it is this process."""
        self.started.append((command, options))
        return types.SimpleNamespace(pid=os.getpid())

    def answer(self, url: str) -> bool:
        """Answer, or not."""
        self.asked.append(url)
        return self.answers

    @property
    def state(self) -> str | None:
        """What is written down of the Jaeger that runs."""
        file = self.root / ".kernel" / "jaeger"
        return file.read_text() if file.exists() else None

    def write(self, text: str) -> None:
        """Write that down."""
        (self.root / ".kernel").mkdir(exist_ok=True)
        (self.root / ".kernel" / "jaeger").write_text(text)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A project without Jaeger, where podman is installed; signals are as they were afterwards."""
    before = {number: signal.getsignal(number) for number in jaeger.SIGNALS}
    monkeypatch.setattr(jaeger, "_refuse_taken", lambda *_: None)
    yield Bench(tmp_path, monkeypatch)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_in_a_container(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """On loopback alone; a container that somebody has stopped is removed first."""
    bench.container = "stopped"
    jaeger.start({"UI": "", "OTLP": "1"})
    assert bench.state == "http://127.0.0.1:1/v1/traces\npodman\nhttp://127.0.0.1:16686\n"
    assert bench.asked == ["http://127.0.0.1:16686"]
    removed, call = bench.calls[-2:]
    assert removed == ["podman", "rm", "--force", "kernel-jaeger"]
    assert call[:6] == ["podman", "run", "--detach", "--rm", "--name", "kernel-jaeger"]
    published = [call[at + 1] for at, word in enumerate(call) if word == "--publish"]
    assert published == ["127.0.0.1:16686:16686", "127.0.0.1:1:4318"]
    assert call[-3:] == [jaeger.IMAGE, "--config", "env:KERNEL_JAEGER"]
    config = json.loads(call[call.index("--env") + 1].removeprefix("KERNEL_JAEGER="))
    query = config["extensions"]["jaeger_query"]
    assert (query["http"]["endpoint"], query["grpc"]["endpoint"]) == ("0.0.0.0:16686", "/tmp/kernel-jaeger:0")  # noqa: S108
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "0.0.0.0:4318"
    told = capsys.readouterr()
    assert "with podman; the first time downloads the image" in told.err
    assert told.out.startswith("Jaeger is at http://127.0.0.1:16686; ")
    jaeger.stop({})
    assert bench.container == ""
    assert bench.state is None
    assert capsys.readouterr().out == "Jaeger is stopped, and its traces are gone.\n"


def test_as_a_program(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In its own session, with its output in a file; it is ended by its process id."""
    bench.installed = {"jaeger"}
    jaeger.start({"UI": "7", "OTLP": "8"})
    assert bench.state == f"http://127.0.0.1:8/v1/traces\njaeger {os.getpid()}\nhttp://127.0.0.1:7\n"
    ((command, options),) = bench.started
    assert command == ["jaeger", "--config", "env:KERNEL_JAEGER"]
    assert options["start_new_session"]
    assert options["cwd"] == bench.root
    query = json.loads(options["env"]["KERNEL_JAEGER"])["extensions"]["jaeger_query"]
    assert (query["http"]["endpoint"], query["grpc"]["endpoint"]) == ("127.0.0.1:7", ".kernel/jaeger-grpc:0")
    assert capsys.readouterr().err == "starting jaeger\n"
    ended: list[tuple[int, int]] = []
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number)) if number else kill(pid, 0))
    jaeger.stop({})
    assert ended == [(os.getpid(), signal.SIGTERM)]
    assert bench.state is None
    assert capsys.readouterr().out == "Jaeger is stopped, and its traces are gone.\n"


@pytest.mark.parametrize("how", ["container", "program", "elsewhere"])
def test_it_runs_already(bench: Bench, how: str) -> None:
    """In a container or as a program, from here or from another clone."""
    if how == "program":
        bench.write(f"x\njaeger {os.getpid()}\nhttp://127.0.0.1:7\n")
    else:
        bench.container = "running"
    if how == "container":
        bench.write("x\npodman\nhttp://127.0.0.1:7\n")
    where = "in another clone" if how == "elsewhere" else "http://127.0.0.1:7"
    with pytest.raises(Refusal, match=f"^it is running already: {where}; `just jaeger-stop` stops it$"):
        jaeger.start(NOTHING)
    assert not [call for call in bench.calls if call[1] in {"run", "rm"}]


@pytest.mark.parametrize(
    ("installed", "more"), [("podman", "run this again."), ("jaeger", "Its output is in .kernel/jaeger.log.")]
)
def test_it_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch, installed: str, more: str) -> None:
    """Then nothing of it is left."""
    monkeypatch.setenv("PS_SAYS", "another program")  # it has ended
    bench.installed, bench.answers = {installed}, False
    with pytest.raises(Refusal, match=r"^Jaeger did not answer at http://127\.0\.0\.1:16686 within 30 s") as refused:
        jaeger.start(NOTHING)
    assert str(refused.value).endswith(more)
    assert (bench.container, bench.state) == ("", None)


def test_it_cannot_be_started(bench: Bench) -> None:
    """The reason is the runtime's own, the last line that it has said."""
    bench.fails = {"run"}
    with pytest.raises(Refusal, match=r"^podman could not start .*: no run today; fix that, and run this again$"):
        jaeger.start(NOTHING)
    assert bench.state is None
    assert not bench.asked


def test_a_signal_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further signals are ignored, so that all is cleaned up."""
    handlers: list[object] = []

    def answer(_: str) -> bool:
        handlers.extend(signal.getsignal(number) for number in jaeger.SIGNALS)
        jaeger._leave(signal.SIGTERM, None)
        raise AssertionError

    monkeypatch.setattr(jaeger, "_answers", answer)
    with pytest.raises(SystemExit) as ended:
        jaeger.start(NOTHING)
    assert ended.value.code == 128 + signal.SIGTERM
    assert handlers == [jaeger._leave] * 3
    assert {signal.getsignal(number) for number in jaeger.SIGNALS} == {signal.SIG_IGN}
    assert (bench.container, bench.state) == ("", None)


def test_there_is_nothing_to_stop(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written down of it is removed all the same."""
    bench.write("http://127.0.0.1:8/v1/traces\npodman\nhttp://127.0.0.1:7\n")
    jaeger.stop({})
    assert bench.state is None
    assert capsys.readouterr().out == "Jaeger is not running; nothing is sent to it.\n"
    assert not [call for call in bench.calls if call[1] == "rm"]


def test_a_stopped_container_is_removed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the name of the next one."""
    bench.container = "stopped"
    jaeger.stop({})
    assert bench.container == ""
    assert capsys.readouterr().out == "Jaeger is stopped, and its traces are gone.\n"


def test_it_cannot_be_stopped(bench: Bench) -> None:
    """The reason is told."""
    bench.container, bench.fails = "running", {"rm"}
    with pytest.raises(Refusal, match=r"^podman could not stop it: no rm today; fix that, and run this again$"):
        jaeger.stop({})


@pytest.mark.parametrize(
    ("state", "installed", "runtime"),
    [
        ("x\ndocker\ny\n", {"podman", "docker"}, "docker"),
        ("x\ndocker\ny\n", {"podman"}, "podman"),
        ("x\njaeger 5\ny\n", {"podman"}, "jaeger"),
        ("x\nsh\ny\n", {"podman", "sh"}, "podman"),
        ("x\n", {"podman"}, "podman"),
        ("x\n\n", {"podman"}, "podman"),
        ("", {"docker"}, "docker"),
    ],
    ids=["docker", "gone", "program", "strange", "cut", "empty", "nothing"],
)
def test_what_it_was_started_with(bench: Bench, state: str, installed: set[str], runtime: str) -> None:
    """As it is written down, if that is still here, and is one of the three."""
    bench.installed = installed
    bench.write(state)
    assert jaeger._started_by() == runtime


@pytest.mark.parametrize(
    ("state", "says", "there"),
    [
        ("x\njaeger {pid}\ny\n", "/usr/bin/jaeger --config x", True),
        ("x\njaeger {pid}\ny\n", "", True),
        ("x\njaeger {pid}\ny\n", "vim", False),
        ("x\njaeger\ny\n", "jaeger", False),
        ("x\njaeger x\ny\n", "jaeger", False),
        ("x\n", "jaeger", False),
        ("x\njaeger 999999999\ny\n", "jaeger", False),
    ],
    ids=["runs", "no name", "another program", "no number", "not a number", "cut", "ended"],
)
def test_whether_its_process_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: str, says: str, *, there: bool
) -> None:
    """The number may be another process's by now."""
    monkeypatch.setenv("PS_SAYS", says)
    bench.write(state.format(pid=os.getpid()))
    assert jaeger._pid() == (os.getpid() if there else None)


def test_which_runtime_it_is_started_with(bench: Bench) -> None:
    """The first that works; otherwise the reason of each is told."""
    for installed, runtime in (
        ({"docker"}, "docker"),
        ({"podman", "docker", "jaeger"}, "podman"),
        ({"jaeger"}, "jaeger"),
    ):
        bench.installed = installed
        assert jaeger._runtime() == runtime
    bench.fails, bench.installed = {"info"}, {"podman", "docker", "jaeger"}
    assert jaeger._runtime() == "jaeger"
    bench.installed = {"podman", "docker"}
    reasons = r"podman does not work \(no info today\); docker does not work \(no info today\)"
    with pytest.raises(Refusal, match=f"^{reasons}; fix that, or put a program `jaeger` on the PATH"):
        jaeger._runtime()
    bench.installed = set()
    with pytest.raises(Refusal, match=r"^there is neither podman nor docker, nor a program `jaeger` on the PATH"):
        jaeger._runtime()


@pytest.mark.parametrize(
    ("out", "err", "code", "reason"),
    [("a\n", "b\nc\n", 1, "c"), ("a\nb\n", " \n", 1, "b"), ("", "", 3, "exit code 3")],
    ids=["stderr", "stdout", "silent"],
)
def test_the_reason_that_a_program_gives(out: str, err: str, code: int, reason: str) -> None:
    """Its last line, or at least its exit code."""
    assert jaeger._reason(subprocess.CompletedProcess([], code, out, err)) == reason


@pytest.mark.parametrize(("text", "port"), [("", 16686), ("1", 1), ("65535", 65535)])
def test_ports(text: str, port: int) -> None:
    """Any of the machine's, or that of Jaeger."""
    assert jaeger._port("UI", text) == port


@pytest.mark.parametrize(
    "text",
    ["0", "65536", "x", "-1", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}"],
    ids=["zero", "too large", "a word", "negative", "superscript", "of another script"],
)
def test_what_is_no_port(text: str) -> None:
    """It is told how it is used."""
    with pytest.raises(Refusal, match=r"^UI=.* is not a valid port; usage: just jaeger"):
        jaeger._port("UI", text)


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is started, in the system's words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refusal, match=rf"^port {port} cannot be used: Address already in use; .*: UI=\.\.\.$"):
            jaeger._refuse_taken("UI", port)
    jaeger._refuse_taken("UI", port)

    def fail(*_: object) -> None:
        raise OSError("no sockets (here)")

    monkeypatch.setattr(socket, "create_server", fail)
    with pytest.raises(Refusal, match="cannot be used: no sockets; free it"):
        jaeger._refuse_taken("UI", port)
