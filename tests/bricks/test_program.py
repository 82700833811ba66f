"""`program`, with real programs, in real time."""

from __future__ import annotations

import logging
import os
import pwd
import select
import signal
import socket
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import wait_readable

from kernel import Program, Serving, program, service
from kernel.bricks import output as outputs
from kernel.bricks import program_run
from kernel.bricks.ready import http, output, tcp
from kernel.errors import ProgramError
from kernel.process.programs import programs_of
from kernel.testing import RunFailed, State, running
from tests.ports import free_port

pytestmark = pytest.mark.anyio

ENOUGH = 20.0  # seconds within which all that is waited for comes, also on a loaded machine


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend, in real time: processes know no other."""
    return str(request.param)


def python(source: str) -> tuple[str, ...]:
    """A program that runs *source*, with the usual imports."""
    head = "import json, os, signal, subprocess, sys, threading, time\n"
    return (sys.executable, "-IuSc", head + textwrap.dedent(source))


async def is_gone(pid: int) -> None:
    """Wait until there is no such process."""
    with anyio.fail_after(ENOUGH):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240
            await anyio.sleep(0.01)


def with_mark(mark: str) -> list[int]:
    """The processes that have *mark* in their command line or environment, and are no zombies."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(int(path.name))
    return found


async def none_left(mark: str) -> None:
    """Wait until no process has the mark."""
    with anyio.fail_after(ENOUGH):
        while with_mark(mark):  # noqa: ASYNC110
            await anyio.sleep(0.02)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A word that no other process has in its environment."""
    return f"mark-{tmp_path.parent.parent.name}-{tmp_path.name}-{time.monotonic_ns()}"


SERVES = """
    import socket
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        print("listening")
        while True:
            server.accept()[0].close()
"""


async def test_it_runs_around_a_block(mark: str) -> None:
    """Ready when it listens, there while the block runs, with its children gone after it."""
    port = free_port()
    async with program(*python(SERVES), str(port), ready=tcp(port), env={"MARK": mark}) as run:
        assert run.returncode is None
        assert run.pid in with_mark(mark)
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.aclose()
    assert run.returncode == -signal.SIGTERM
    await none_left(mark)


@pytest.mark.parametrize("kind", ["http", "output", "function"])
async def test_it_is_ready_when_it_says_so(kind: str) -> None:
    """By an answer to a GET, by a line on either stream, or by a function of the user's own."""
    port = free_port()
    serves = python("""
        import http.server
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(204 if self.path == "/up?now" else 503)
                self.end_headers()
        server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
        print("a line\\nready now", file=sys.stderr)
        server.serve_forever()
    """)

    async def mine(run: Program) -> None:
        await tcp(port)(run)

    ready = {"http": http(f"http://127.0.0.1:{port}/up?now"), "output": output(r"^ready \w+"), "function": mine}[kind]
    async with program(*serves, str(port), ready=ready):
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.aclose()


async def test_a_port_that_somebody_else_has() -> None:
    """A left-over server would be taken for the program: it is not started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ProgramError, match=f"python3.* is not started: something is already listening on 127.0.0.1:{port}"
        ):
            async with program(*python(SERVES), str(port), ready=tcp(port), name="python3"):
                pass


@pytest.mark.parametrize(
    ("command", "cwd", "words"),
    [
        (["no-such-program-here"], None, "no-such-program-here cannot be started: it is not installed, or not on PATH"),
        (["/nowhere/to/be/found"], None, "found cannot be started: there is no such file"),
        (["/"], None, "permission denied"),
        (["true"], "/nowhere", "true cannot be started: .*/nowhere"),
        (["true", "a\0b"], None, "null byte"),
    ],
)
async def test_one_that_cannot_be_started(command: list[str], cwd: str | None, words: str) -> None:
    """The error says which, and why."""
    with pytest.raises(ProgramError, match=words):
        async with program(*command, cwd=cwd):
            pass


async def test_its_end_is_a_crash() -> None:
    """The block is cancelled; the error has the code, and the last lines; it comes alone, in no group."""
    source = "print('first'); print('no space left', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ProgramError) as caught:
        async with program(*python(source), name="db", ready=output("never")):
            await anyio.sleep(ENOUGH)
    assert caught.value.code == 3
    assert set(caught.value.lines) == {"first", "no space left"}
    assert "db exited with code 3" in str(caught.value)
    assert "before it was ready" in str(caught.value)
    assert "no space left" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (["FATAL: no port", "LOG: is shut down"], 1, "; its error: FATAL: no port"),
        (["FATAL: no port", "an error", "bye"], 1, "; its error: FATAL: no port"),
        (["ValueError: x", "bye"], 2, "; its error: ValueError: x"),
        (["first", "last"], 1, "; its last line: last"),
        (["ERROR: of a query", "last"], -9, "; its last line: last"),
        ([], 1, ""),
    ],
)
def test_which_line_tells_why(lines: list[str], code: int, said: str) -> None:
    """The last one is often only a farewell; one that was killed had no reason of its own."""
    assert str(ProgramError("db", "has ended", code, tuple(lines))) == f"db has ended{said}"


async def test_its_end_is_told_without_the_cancellation() -> None:
    """That the block was cancelled is how, not why."""
    with pytest.raises(ProgramError) as caught:
        async with program(*python("sys.exit(1)")):
            await anyio.sleep(ENOUGH)
    assert "Cancelled" not in "".join(traceback.format_exception(caught.value))


async def test_it_is_killed() -> None:
    """By whom, nobody knows; the signal is told."""
    with pytest.raises(ProgramError, match="was killed by SIGKILL"):
        async with program(*python("time.sleep(99)"), ready=kill_it):
            await anyio.sleep(ENOUGH)


async def test_it_explains_the_errors_of_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection is noticed before the end of the program, which is the reason."""
    monkeypatch.setattr("kernel.bricks.program_run.BLAME", ENOUGH)
    with pytest.raises(ProgramError) as caught:
        async with program(*python("sys.stdin.read(); time.sleep(0.02); sys.exit(1)")):
            raise ConnectionResetError
    assert type(caught.value.__cause__) is ConnectionResetError


async def test_an_error_of_the_block_is_its_own() -> None:
    """It comes out as it is, in no group, and the program has ended by then."""
    with pytest.raises(LookupError):
        async with program(*python("time.sleep(99)")) as run:
            raise LookupError
    await is_gone(run.pid)


async def test_an_end_that_is_awaited() -> None:
    """Whoever waits for it gets the code, and it is no crash."""
    async with program(*python("sys.exit(7)")) as run:
        assert await run.wait() == 7
    async with program(*python("pass")) as run:
        assert await run.wait() == 0


async def test_an_end_that_is_awaited_and_should_be_good() -> None:
    """A code other than 0 is an error with all that the program said last."""
    async with program(*python("pass")) as run:
        assert await run.wait(check=True) == 0
    says = python("print('tried'); print('no such table', file=sys.stderr); sys.exit(7)")
    with pytest.raises(ProgramError, match="migrate exited with code 7 after") as caught:
        async with program(*says, name="migrate") as run:
            await run.wait(check=True)
    assert sorted(caught.value.lines) == ["no such table", "tried"]


async def test_the_end_may_be_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever awaits it first of all gets it, also when it comes in one message with the beginning."""
    real, told = wait_readable, threading.Event()

    async def late(thing: Any) -> None:
        await real(thing)
        if not told.is_set():  # the guard has said that it runs; wait until it has said all
            told.set()
            await anyio.to_thread.run_sync(_until_closed, thing)

    monkeypatch.setattr(program_run, "wait_readable", late)
    async with program(*python("sys.exit(3)")) as run:
        assert await run.wait() == 3


def _until_closed(guard: socket.socket) -> None:
    """Wait until the other end is closed, without reading what it has sent."""
    poll = select.poll()
    poll.register(guard, select.POLLRDHUP)
    assert poll.poll(ENOUGH * 1000)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
WHO = ("sh", "-c", "trap 'exit 5' TERM; id -u; id -G; echo $USER $LOGNAME $HOME; while sleep 0.1; do :; done")


@needs_root
async def test_another_user(mark: str) -> None:
    """It has his ids, none of root's groups, and his HOME; and is ended as any other."""
    nobody = pwd.getpwnam("nobody")
    async with program(*WHO, user="nobody", env={"MARK": mark}, ready=output("^nobody")) as run:
        assert run.lines == (f"{nobody.pw_uid}", f"{nobody.pw_gid}", f"nobody nobody {nobody.pw_dir}")
        assert f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}" in await anyio.Path(f"/proc/{run.pid}/status").read_text()
    assert run.returncode == 5
    await none_left(mark)


@needs_root
async def test_another_users_program_whose_guard_is_killed(mark: str) -> None:
    """The system ends it: the signal of its parent's death is set after it has become that user."""

    async def run() -> None:
        async with program("sleep", "99", user="nobody", env={"MARK": mark}) as run:
            await kill_its_guard(run)
            await anyio.sleep_forever()

    with pytest.raises(ProgramError, match="was killed by SIGKILL"):
        await run()
    await none_left(mark)


@needs_root
async def test_what_another_user_may_not_run(tmp_path: Path) -> None:
    """The error names the user."""
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o700)
    with pytest.raises(ProgramError, match="own cannot be started as the user nobody: permission denied"):
        async with program(own, user="nobody"):
            pass


async def test_a_user_that_it_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody of that name, or a process that is not root; one's own name is always right."""
    with pytest.raises(ProgramError, match="true cannot be started: there is no user no-such-user-here"):
        async with program("true", user="no-such-user-here"):
            pass
    me = pwd.getpwuid(os.geteuid()).pw_name
    async with program("true", user=me) as run:
        await run.wait(check=True)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ProgramError, match="cannot be started as the user nobody: this process is not root"):
        async with program("true", user="nobody"):
            pass


async def test_what_users_see_of_it() -> None:
    """Nothing that only `program` needs."""
    async with program(*python("time.sleep(99)")) as run:
        names = {name for name in dir(run) if not name.startswith("_")}
    assert names == {"command", "line_found", "lines", "name", "pid", "returncode", "wait"}


FORKS = """
    # A child, one in a session of its own, and one that has been left by its parent.
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=own)
                for own in (False, True)]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("forked")
            time.sleep(99)
        os._exit(0)
    time.sleep(99 if len(sys.argv) < 2 else 0.1)
    sys.exit(5)
"""


async def test_all_that_came_of_it_is_ended(mark: str) -> None:
    """Children, those in sessions of their own, and daemons that ignore SIGTERM."""
    async with program(*python(FORKS), ready=output("forked"), env={"MARK": mark}, stop_timeout=0.3):
        assert len(with_mark(mark)) >= 4
    assert with_mark(mark) == []


async def test_what_it_leaves_behind_when_it_ends_by_itself(mark: str) -> None:
    """The same, when it has crashed."""
    with pytest.raises(ProgramError, match="exited with code 5"):
        async with program(*python(FORKS), "crash", env={"MARK": mark}, stop_timeout=0.3):
            await anyio.sleep(ENOUGH)
    assert with_mark(mark) == []


async def test_one_that_ignores_the_request(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is killed after stop_timeout, which the log says."""
    source = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(99)"
    async with program(*python(source), ready=output("up"), env={"MARK": mark}, stop_timeout=0.2, name="deaf") as run:
        pass
    assert run.returncode == -signal.SIGKILL
    assert with_mark(mark) == []
    assert "did not end in time, and is killed" in caplog.messages


async def test_the_signal_that_asks() -> None:
    """PostgreSQL, say, wants SIGINT; and what it says then is still heard."""
    source = """
        def told(*_):
            print("bye")
            sys.exit(0)
        signal.signal(signal.SIGINT, told)
        print("up")
        time.sleep(99)
    """
    async with program(*python(source), ready=output("up"), stop_signal=signal.SIGINT) as run:
        pass
    assert run.returncode == 0
    assert run.lines == ("up", "bye")


async def test_cancelled_it_does_not_take_long(mark: str) -> None:
    """Who is cancelled as a whole has no time: 0.2 s, and it is killed."""
    source = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(99)"
    with anyio.CancelScope() as scope:
        async with program(*python(source), ready=output("up"), env={"MARK": mark}, stop_timeout=60):
            scope.cancel()
            await anyio.sleep(ENOUGH)
    assert scope.cancelled_caught
    assert with_mark(mark) == []


async def test_cancelled_while_it_starts(mark: str) -> None:
    """It may not be ready for long, and goes when nobody waits any more."""
    with anyio.move_on_after(0.2):
        async with program(*python("time.sleep(99)"), ready=output("never"), env={"MARK": mark}):
            raise AssertionError
    await none_left(mark)


async def test_output_becomes_records(caplog: pytest.LogCaptureFixture) -> None:
    """Levels by stream; JSON by its own; no colours, no returns; fields that logging has get an underscore."""
    caplog.set_level(logging.DEBUG)
    source = r"""
        print("\x1b[32mgreen\x1b[0m")
        print("50%\r100%")
        print(json.dumps({"level": "error", "msg": "lost", "name": "x", "shard": 3, "args": [1]}))
        print(json.dumps({"level": 40, "message": "pino"}))
        print("{not json}")
        print("[1]")
        print("\xff broken".encode("latin-1").decode("latin-1"))
        print()
        print("oh", file=sys.stderr)
        sys.stdout.write("no end")
    """
    async with program(*python(source), name="tool", stdout=logging.DEBUG, stderr=logging.ERROR) as run:
        await run.wait()
    found = {record.getMessage(): record for record in caplog.records if record.name == "program.tool"}
    assert found.keys() == {"green", "100%", "lost", "pino", "{not json}", "[1]", "ÿ broken", "oh", "no end"}
    assert found["green"].levelno == logging.DEBUG
    assert found["oh"].levelno == logging.ERROR
    assert found["lost"].levelno == logging.ERROR
    assert found["pino"].levelno == logging.WARNING
    assert (found["lost"].__dict__["name_"], found["lost"].__dict__["shard"]) == ("x", 3)
    assert found["lost"].__dict__["args_"] == [1]


async def test_a_long_line_comes_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it is lost, and memory does not grow with it."""
    caplog.set_level(logging.INFO)
    async with program(*python("sys.stdout.write('x' * 1_000_000 + 'end')")) as run:
        await run.wait()
    pieces = [record.getMessage() for record in caplog.records if record.name.startswith("program.")]
    assert "".join(pieces) == "x" * 1_000_000 + "end"
    assert max(map(len, pieces)) <= outputs.LONGEST


async def test_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    """Of 100 MB the first and the last lines are logged, the rest is counted, and others have their turn meanwhile."""
    caplog.set_level(logging.INFO)
    source = """
        block = ("x" * 49 + "\\n") * 20000
        for _ in range(100):
            sys.stdout.write(block)
        print("the very last")
        sys.exit(9)
    """
    late: list[float] = []

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await anyio.sleep(0.01)
            late.append(time.monotonic() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        with pytest.raises(ProgramError) as caught:
            async with program(*python(source), name="flood"):
                await anyio.sleep(60)
        tasks.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if record.name == "program.flood"]
    assert lines[-1] == caught.value.lines[-1] == "the very last"
    left_out = sum(int(line.split()[0]) for line in lines if "left out" in line)
    assert left_out + sum("left out" not in line for line in lines) == 2_000_001
    assert len(lines) < 50_000
    assert len(late) > 10


async def test_what_never_ends_is_stopped_at_once() -> None:
    """A flood is no reason to be late."""
    async with program(*python("while True: sys.stdout.write('y\\n' * 1000)")):
        await anyio.sleep(0.1)


async def test_its_guard_is_killed(mark: str) -> None:
    """Then the program goes with it, and it is told as a crash."""
    with pytest.raises(ProgramError, match="was killed by SIGKILL"):
        async with program(*python("time.sleep(99)"), env={"MARK": mark}, ready=kill_its_guard):
            await anyio.sleep(ENOUGH)
    await none_left(mark)


async def kill_its_guard(run: Program) -> None:
    """Kill the parent of the program, which is not the kernel."""
    stat = await anyio.Path(f"/proc/{run.pid}/stat").read_text()
    parent = int(stat.rpartition(")")[2].split()[1])
    assert parent != os.getpid()
    os.kill(parent, signal.SIGKILL)


async def kill_it(run: Program) -> None:
    """Kill the program."""
    os.kill(run.pid, signal.SIGKILL)


async def test_nothing_is_inherited() -> None:
    """No descriptor, no ignored signal, no mask; a session of its own, and no variables of systemd's."""
    source = """
        print(sorted(os.listdir("/proc/self/fd"))[:-1], os.getsid(0) == os.getpid(),
              signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.environ.get("NOTIFY_SOCKET"), os.environ["MINE"])
        for line in open("/proc/self/status"):
            if line.startswith("SigIgn"):
                print(line.split()[1])
    """
    os.environ["NOTIFY_SOCKET"] = "/x"
    try:
        async with program(*python(source), env={"MINE": "1"}) as run:
            await run.wait()
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert run.lines[0] == "['0', '1', '2'] True set() None 1"
    assert int(run.lines[1], 16) & 1 << (signal.SIGTERM - 1) == 0
    assert int(run.lines[1], 16) & 1 << (signal.SIGHUP - 1) == 0


# -- as a service ------------------------------------------------------------------------------------------------


async def test_a_service_of_a_program() -> None:
    """Ready when the program is, its pid in what `/status` shows, tried again after a crash, ended with the stop."""
    port = free_port()

    @service(retries=1)
    async def redis(serving: Serving[int]) -> None:
        async with program(*python(SERVES), str(port), ready=tcp(port), name="redis") as run, serving(run.pid):
            await anyio.sleep_forever()

    async with running(redis) as run:
        first = run.value(redis)
        assert programs_of("redis") == [{"name": "redis", "pid": first}]
        os.kill(first, signal.SIGKILL)
        await run.wait_for(redis, State.BACKOFF)
        await run.wait_for(redis, State.READY)
        second = run.value(redis)
        assert second != first
    assert run.states(redis)[-1] is State.STOPPED
    assert programs_of("redis") == []
    await is_gone(second)


async def test_one_that_is_never_ready() -> None:
    """The service's start_timeout is its limit, and ends it."""
    pids: list[int] = []

    async def seen(run: Program) -> None:
        pids.append(run.pid)
        await anyio.sleep_forever()

    @service(start_timeout=0.5)
    async def slow(serving: Serving[None]) -> None:
        async with program(*python("time.sleep(99)"), ready=seen), serving():
            await anyio.sleep_forever()

    with pytest.raises(RunFailed, match=r"was not ready after 0\.5 s"):
        async with running(slow):
            pass
    await is_gone(pids[0])
