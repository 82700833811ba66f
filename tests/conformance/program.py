r"""Starts the real program as a user would: services in files, real signals, what it says, and how it ends.

    app.service("api", "@service\nasync def api() -> None:\n    await anyio.sleep_forever()")
    run = app.run("api")
    run.wait_for("all ready")
    run.send(signal.SIGTERM)
    assert run.result().code == 0

A test waits for a line, or for the end; none sleeps but where somebody at a prompt takes his time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from tests.artifacts import SHIPPED, Artifact
from tests.stopwatch import waited_for_a_core

REPO = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds after which something that does not come is a failure; far more than a loaded machine needs
ONE = 0.9  # seconds in which signals that mean the same count as one, and a little
OURS = re.compile(
    r"(SERVICES|RUNNER|ADMIN|LOG|KERNEL|OTEL|NATS)_\w+|ENV|NO_COLOR|FORCE_COLOR|PYTHON(PATH|UNBUFFERED|WARNINGS|DONTWRITEBYTECODE)"
)
"""Variables that would change what a run does; those that `coverage` passes to its children stay."""

PREAMBLE = """\
import logging, os, signal, sys, threading, time
from collections.abc import AsyncGenerator
from typing import Any
import anyio, anyio.to_thread, attrs
from kernel import *
log = logging.getLogger("test")
"""

CALM = """
@service
async def calm(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
"""
"""A service that serves until it is stopped."""


@attrs.frozen
class Result:
    """How a run ended.

    Args:
        code: The exit code; negative for a signal that killed it.
        stdout: All of it.
        stderr: All of it.
        seconds: From the first signal that was sent, or from the start where none was, to the end.
        own_seconds: Of those, the ones in which it did not wait for a core: what it takes on a machine that has nothing
            else to do. Upper bounds hold for these.

    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    own_seconds: float

    @property
    def lines(self) -> list[str]:
        """The lines of stderr."""
        return self.stderr.splitlines()

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records on stderr; other lines are left out."""
        found = (json.loads(line) for line in self.lines if line.startswith("{"))
        return [one for one in found if "message" in one]  # the others are spans, where they go to the console

    @property
    def messages(self) -> list[str]:
        """Every record as "service: message", or the message alone where it is of no service."""
        return [f"{one['service']}: {one['message']}" if one.get("service") else one["message"] for one in self.records]

    def said(self, pattern: str) -> bool:
        """Whether any message matches *pattern*."""
        return any(re.search(pattern, message) for message in self.messages)

    def position(self, pattern: str) -> int:
        """The place of the first message that matches *pattern*."""
        for place, message in enumerate(self.messages):
            if re.search(pattern, message):
                return place
        raise AssertionError(f"nobody said {pattern!r}:\n{self.stderr}")

    def in_order(self, *patterns: str) -> bool:
        """Whether the first messages that match *patterns* came in that order."""
        places = [self.position(pattern) for pattern in patterns]
        assert places == sorted(places), f"{patterns} came as {places}:\n{self.stderr}"
        return True

    def ending(self, service: str) -> str:
        """The state in which *service* ended."""
        last = [one["services"] for one in self.records if "services" in one]
        assert last, f"there is no final report:\n{self.stderr}"
        return str(last[-1][service])

    @property
    def errors(self) -> list[str]:
        """The lines that report problems, as text or as records, without their prefix."""
        text = [line.removeprefix("error: ") for line in self.lines if line.startswith("error: ")]
        return text or [one["message"] for one in self.records if one["level"] in {"error", "critical"}]


class Process:
    """A running program. Whoever waits for something gets it or an `AssertionError` with all that was said."""

    def __init__(self, argv: list[str], cwd: Path, env: dict[str, str], **options: Any) -> None:
        self._started = time.monotonic()
        self._signalled: float | None = None
        self._sent = 0.0
        self._ended = 0.0
        self._waited = 0.0  # for a core, until the signal; from then on, when it has ended
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._news = threading.Condition()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            argv, cwd=cwd, env=env, **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **options}
        )
        streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in streams.items()
            if stream is not None
        ]
        self._readers.append(threading.Thread(target=self._reap, daemon=True))
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self._lines[name].append(SHIPPED.sub("", line.decode(errors="replace")))
                    self._news.notify_all()

    def _reap(self) -> None:
        ours = waited_for_a_core(os.getpid(), threading.get_native_id())
        with contextlib.suppress(ChildProcessError):  # a signal that came too late has reaped it
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._ended = time.monotonic()
        ours = waited_for_a_core(os.getpid(), threading.get_native_id()) - ours  # which was after its end
        self._waited = waited_for_a_core(self.pid, self.pid) - self._waited + ours
        self._process.wait()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe into it, where it was started with one."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> str:
        """All lines so far."""
        return "".join(self._lines["stdout"] + self._lines["stderr"])

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until *pattern* is found in a line of either stream, *times* over."""

        def found() -> bool:
            lines = (line for stream in self._lines.values() for line in stream)
            return sum(re.search(pattern, line) is not None for line in lines) >= times

        end = time.monotonic() + PATIENCE
        with self._news:
            while not found():
                ended = self._process.returncode is not None and not any(one.is_alive() for one in self._readers)
                assert not ended, f"it ended with {self._process.returncode} without saying {pattern!r}:\n{self.output}"
                assert time.monotonic() < end, f"{PATIENCE:g} s without {pattern!r}:\n{self.output}"
                self._news.wait(0.1)

    def send(self, number: signal.Signals, *, further: bool = False) -> None:
        """Send it a signal; *further* waits until it does not count with the one before."""
        if self._signalled is None:
            self._signalled = time.monotonic()
            self._waited = waited_for_a_core(self.pid, self.pid)
        elif further:
            time.sleep(max(self._sent + ONE - time.monotonic(), 0))
        self._sent = time.monotonic()
        self._process.send_signal(number)

    def result(self) -> Result:
        """Wait for its end."""
        for reader in self._readers:
            reader.join(PATIENCE)
        assert self._process.returncode is not None, f"it did not end:\n{self.output}"
        result = Result(
            self._process.returncode,
            "".join(self._lines["stdout"]),
            "".join(self._lines["stderr"]),
            seconds := self._ended - (self._signalled or self._started),
            seconds - self._waited,
        )
        told = [one["exit_code"] for one in result.records if "exit_code" in one]
        assert {*told} <= {result.code}, f"it ended with {result.code}, and told {told}:\n{self.output}"
        ends = [message for message in result.messages if re.match(r"exit \d+: ", message)]
        assert len(ends) < 2, f"it told its end more than once: {ends}"
        return result

    def stop(self, number: signal.Signals = signal.SIGTERM, after: str = "all ready") -> Result:
        """Send a signal once *after* was said, and wait for the end."""
        self.wait_for(after)
        self.send(number)
        return self.result()

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        for reader in self._readers:
            reader.join(PATIENCE)
        if self._process.stdin is not None:
            self._process.stdin.close()


LOOP = os.environ.get("CONFORMANCE_LOOP", "asyncio")
"""Where runs on asyncio really run: on uvloop, test_uvloop.py has these tests test that."""


class Program:
    """Something that can be started: a folder in which `python -m app` is found.

    Its runs log JSON and have one second to stop, unless the test says otherwise.
    """

    def __init__(self, root: Path, **env: str) -> None:
        self.root = root
        self.folder = root  # in which it runs
        self._argv = [sys.executable, "-m", "app"]
        self._runs: list[Process] = []
        self._env = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}
        self._env |= {"LOG_FORMAT": "json", "RUNNER_SHUTDOWNTIMEOUT": "1s", **env}

    def open(self, words: Sequence[str], env: Mapping[str, str], **options: Any) -> Process:
        """Start it with *words*, with *env* over the usual environment, and *options* of `Popen`."""
        env = {**self._env, **env}
        if self._argv[1:] == ["-m", "app"] and env.get("KERNEL_BACKEND", "asyncio") == "asyncio":  # no artifact has it
            env["KERNEL_BACKEND"] = LOOP
        process = Process([*self._argv, *words], options.pop("cwd", self.folder), env, **options)
        self._runs.append(process)
        return process

    def start(self, *words: str, **env: str) -> Process:
        """Start it with *words*."""
        return self.open(words, env)

    def run(self, *services: str, **env: str) -> Process:
        """Start `app run`."""
        return self.open(("run", *services), env)

    def call(self, *words: str, **env: str) -> Result:
        """Start a command and wait for its end."""
        return self.open(words, env).result()

    def close(self) -> None:
        """End every run that is left."""
        for run in self._runs:
            run.kill()


class App(Program):
    """A tree with the repository's kernel, the app's package, and the services that a test writes.

    Args:
        root: Where it is.
        artifact: What is run in place of the tree, with the tree's services in it; None: the tree itself.

    """

    def __init__(self, root: Path, artifact: Artifact | None = None) -> None:
        super().__init__(root)
        self.artifact = artifact
        self._held: dict[str, bytes] | None = None
        self._archives: list[Program] = []
        (root / "services").mkdir(parents=True)
        (root / "app").mkdir()
        # Links, since coverage counts a file where it really is; a run takes them as parts of this tree.
        for name in ("kernel", "pyproject.toml", "app/__init__.py", "app/__main__.py"):
            (root / name).symlink_to(REPO / name)

    def open(self, words: Sequence[str], env: Mapping[str, str], **options: Any) -> Process:
        """Start it, or its artifact in a folder where there is nothing else."""
        if self.artifact is not None:
            files = [path for top in ("app", "services") for path in sorted((self.root / top).rglob("*.*"))]
            code = {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files if path.is_file()}
            if code != self._held:
                self._held = code
                self.folder = self.root.with_name(f"{self.root.name}-bare{len(self._runs)}")
                self._argv = self.artifact.holding(code, self.folder)
                self._env["XDG_CACHE_HOME"] = str(self.artifact.cache)
        return super().open(words, env, **options)

    def write(self, path: str, source: str) -> None:
        """Write a file of the tree, as it is."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source).lstrip("\n"))

    def service(self, name: str, source: str) -> None:
        """Write `services/<name>.py`: a docstring, the usual imports, and from line 7 on *source*."""
        self._write_below(f'"""Looks after {name}."""; {PREAMBLE}', f"services/{name}.py", source)

    def init(self, source: str) -> None:
        """Write `app/init.py`, below the usual imports."""
        self._write_below(PREAMBLE, "app/init.py", source)

    def commands(self, source: str) -> None:
        """Write `app/commands.py`, below the usual imports."""
        self._write_below(PREAMBLE, "app/commands.py", source)

    def _write_below(self, head: str, path: str, source: str) -> None:
        self.write(path, head + textwrap.dedent(source).lstrip("\n"))

    def archive(self, *, folders: bool) -> Program:
        """The same app as one zip file and nothing else; with entries for its *folders*, or without."""
        bare = self.root.with_name(f"{self.root.name}-archive")
        bare.mkdir()
        with zipfile.ZipFile(bare / "app.zip", "w") as archive:
            for path in sorted(self.root.rglob("*")) + sorted((self.root / "kernel").rglob("*.py")):
                if "__pycache__" not in path.parts and (folders or path.is_file()):
                    archive.write(path, path.relative_to(self.root))
        self._archives.append(Program(bare, PYTHONPATH="app.zip"))
        return self._archives[-1]

    def close(self) -> None:
        """End every run that is left, also of the archive."""
        for one in self._archives:
            one.close()
        super().close()
        if self.artifact is not None:
            for folder in self.root.parent.glob(f"{self.root.name}-bare*"):
                shutil.rmtree(folder)  # some 40 MB each


NewApp = Callable[[], App]
