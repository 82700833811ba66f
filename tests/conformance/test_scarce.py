"""What runs out or goes away while the app runs: it goes on, stops in order, and says what it can."""

from __future__ import annotations

import shutil
import signal

import httpx
import pytest

from tests.conformance.program import App, Process
from tests.ports import free_port

BACKENDS = ("asyncio", "trio")

POOL = """
@service
async def pool(serving: Serving[int]) -> None:
    async with serving(1):
        await anyio.sleep_forever()
    await anyio.sleep(0.05)
    log.info("pool closed")
"""


def start_elsewhere(app: App, **env: str) -> Process:
    """Start it in a folder which is then removed, as by a deployment that deletes the old release."""
    release = app.root.with_name("release")
    release.mkdir(exist_ok=True)
    app.folder = release
    run = app.run(PYTHONPATH=str(app.root), **env)
    run.wait_for("starting")
    shutil.rmtree(release)
    return run


@pytest.mark.minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_working_directory_in_a_long_stop(app: App, backend: str) -> None:
    """A long stop, a loop that is blocked, another signal, and `/status`: all is told, and the end is right."""
    app.service("pool", POOL)
    app.service(
        "slow",
        """
        @service(depends=["pool"])
        async def slow(pool: int, serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep(0.3)
                time.sleep(1.6)
                log.info("goes on")
                await anyio.sleep_forever()
            await anyio.sleep(20)
        """,
    )
    port = free_port()
    run = start_elsewhere(app, KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="30s", ADMIN_ADDR=str(port))
    run.wait_for("goes on")
    assert httpx.get(f"http://127.0.0.1:{port}/status").json()["state"] == "ready"
    run.send(signal.SIGTERM)
    run.wait_for("still stopping after 2")
    assert httpx.get(f"http://127.0.0.1:{port}/status").json()["state"] == "stopping"
    run.send(signal.SIGINT)
    result = run.result()
    assert result.code == 130
    assert result.said("slow has been blocking the event loop")
    assert result.said("another signal cancelled pool and slow")
    assert "Traceback" not in result.stderr.replace("Traceback (most recent call last):\\n  Cancelled", "")


@pytest.mark.minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_working_directory_in_a_long_start(app: App, backend: str) -> None:
    """A start that takes long is explained, and one that takes too long ends as it does elsewhere."""
    app.service("pool", POOL)
    app.service(
        "slow",
        """
        @service(depends=["pool"], start_timeout=5.5)
        async def slow(pool: int, serving: Serving[None]) -> None:
            await anyio.sleep_forever()
        """,
    )
    run = start_elsewhere(app, KERNEL_BACKEND=backend)
    result = run.result()
    assert result.code == 1
    assert result.said("still starting after 5")
    assert result.said("slow was not ready after 5.5 s")
    assert result.said("pool closed")


def test_no_working_directory_from_the_beginning(app: App) -> None:
    """The app needs none."""
    app.service("once", "@service(oneshot=True)\nasync def once() -> None: ...")
    release = app.root.with_name("release")
    release.mkdir()
    app.folder = release
    env = {"PYTHONPATH": str(app.root)}
    for words, code in ((("run",), 0), (("list",), 0), (("check",), 0), (("nobody",), 2)):
        run = app.open(words, env, preexec_fn=lambda: shutil.rmtree(release, ignore_errors=True))
        result = run.result()
        assert result.code == code, result.stderr
        assert "Traceback" not in result.stderr
        release.mkdir()


SCARCE = {
    "descriptors": """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        """,
    "threads": """
        import resource
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + (2 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            threading.Thread(target=time.sleep, args=(0.1,)).start()
        except RuntimeError:
            log.info("no thread can be started")
        """,
}


@pytest.mark.many
@pytest.mark.parametrize("admin", [False, True], ids=["", "admin"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", SCARCE)
def test_something_has_run_out(app: App, what: str, backend: str, admin: bool) -> None:
    """A failure that is allowed is told, a crash is tried again, and one signal stops the app in order."""
    app.service("pool", POOL)
    body = SCARCE[what].partition("import resource\n")[2]
    app.service(
        "greedy",
        f"""
import contextlib, resource
@service(depends=["pool"])
async def greedy(pool: int, serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep(0.3)
{body}
        log.info("all is taken")
        await anyio.sleep_forever()
    log.info("greedy closed")
""",
    )
    app.service(
        "odd",
        """
        @service(allowed_failure=True)
        async def odd() -> None:
            await anyio.sleep(0.9)
            raise OSError("no route")
        """,
    )
    app.service(
        "flaky",
        """
        @service(retries=Retry(times=1, delay=0.1), allowed_failure=True)
        async def flaky() -> None:
            await anyio.sleep(0.9)
            raise OSError("no way")
        """,
    )
    env = {"ADMIN_ADDR": str(free_port())} if admin else {}
    run = app.run(KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="5s", **env)
    run.wait_for("all is taken")
    run.wait_for(r"failed \(allowed\): OSError: no route")
    run.wait_for("retry 1 of 1")
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0, result.stderr
    assert result.in_order("all is taken", "greedy closed", "pool closed")
    assert result.messages[-1] == "exit 0: stopped by SIGTERM"
    if what == "threads":
        assert result.said("no thread can be started")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crash_lets_go_of_what_it_held(app: App, backend: str) -> None:
    """Its memory and its sockets are free before it is tried again, though nobody collects garbage."""
    app.service(
        "web",
        """
        import gc, socket, weakref
        gc.disable()
        class Buffer(bytearray): ...

        @service(retries=Retry(times=1, delay=0.3))
        async def web(serving: Serving[None]) -> None:
            buffer = Buffer(1 << 20)
            weakref.finalize(buffer, log.info, "freed")
            listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
            async with serving():
                log.info("serves")
                try:
                    raise OSError("inner")
                except OSError as error:
                    raise ExceptionGroup("several", [RuntimeError("outer")]) from error
        """,
    )
    result = app.run(KERNEL_BACKEND=backend, PORT=str(free_port())).result()
    assert result.code == 1
    assert result.in_order("web: serves", "retry 1 of 1", "freed", "starting, attempt 2", "failed after 2 attempts")
    assert not result.said("Address already in use")
    assert sum("serves" in message for message in result.messages) == 2


@pytest.mark.parametrize("timeout", ["1000000s", "100000"])
def test_a_long_deadline(app: App, timeout: str) -> None:
    """However long it is, the app hears."""
    app.service("pool", POOL)
    result = app.run(RUNNER_SHUTDOWNTIMEOUT=timeout).stop()
    assert result.code == 0
    assert result.said("pool closed")


@pytest.mark.parametrize("name", ["RUNNER_SHUTDOWNTIMEOUT", "RUNNER_DRAINDELAY"])
def test_nanoseconds(app: App, name: str) -> None:
    """A number that can only be Go's nanoseconds is refused by name."""
    app.service("pool", POOL)
    result = app.call("run", **{name: "10000000000"})
    assert result.code == 2
    assert result.errors[0].startswith(f"{name} is '10000000000'; expected a duration")
