"""Starves the real program of descriptors, threads, memory or disk at a random moment, and then stops it: `just fuzz`.

Services that need nothing of it must start, run and stop in order all the same, and the exit code must tell the truth.
What they do is read from stdout, a pipe, since stderr may be what is full.
"""

from __future__ import annotations

import random
import signal
import time

import attrs

from kernel.testing import BACKENDS
from tests.conformance.program import App, Result

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KINDS = ("descriptors", "threads", "memory", "disk", "folder")
LATEST = 2.5  # seconds after which it is stopped at the latest

SERVICES = {
    "pool": """
        @service
        async def pool(serving: Serving[str]) -> None:
            async with serving("pool"):
                await anyio.sleep_forever()
            await anyio.sleep(0.02)
            os.write(1, b"pool closed\\n")
        """,
    "api": """
        @service(depends=["pool"])
        async def api(pool: str, serving: Serving[None]) -> None:
            async with serving(drain=True) as work:
                os.write(1, b"api ready\\n")
                await work.stop_requested()
                await anyio.sleep(0.02)
            os.write(1, b"api closed\\n")
        """,
    "worker": """
        @service(depends=["pool"], retries=Retry(times=None, delay=0.05, max_delay=0.1), allowed_failure=True)
        async def worker(pool: str, serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep(0.05)
                raise ConnectionError("worker" * 100)
        """,
    "helper": """
        @service(depends=["pool"], allowed_failure=True, retries=Retry(times=None, delay=0.05, max_delay=0.1))
        async def helper(pool: str, serving: Serving[None]) -> None:
            async with await anyio.create_tcp_listener(local_host="127.0.0.1"), serving():
                while True:
                    await anyio.to_thread.run_sync(time.sleep, 0.01)
        """,
    "blocks": """
        @service(allowed_failure=True)
        async def blocks() -> None:
            while True:
                await anyio.sleep(0.3)
                time.sleep(1.1 if os.environ["KIND"] == "folder" else 0.01)
        """,
    "greedy": """
        import resource

        def take(kind: str) -> None:
            if kind == "descriptors":
                resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
                try:
                    while True:
                        os.open(os.devnull, os.O_RDONLY)
                except OSError:
                    pass
            elif kind in {"threads", "memory"}:
                with open("/proc/self/statm") as statm:
                    limit = int(statm.read().split()[0]) * resource.getpagesize() + int(os.environ["ROOM"])
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            elif kind == "disk":
                os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
            else:
                os.rmdir(os.getcwd())

        @service(allowed_failure=True)
        async def greedy(serving: Serving[None]) -> None:
            await anyio.sleep(float(os.environ["MOMENT"]))
            take(os.environ["KIND"])
            os.write(1, b"taken\\n")
            async with serving():
                await anyio.sleep_forever()
        """,
}


@attrs.frozen
class Plan:
    """What runs out, when, and when the signal comes. Times are in seconds."""

    backend: str
    kind: str
    moment: float
    room: int
    pause: float
    number: signal.Signals

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan that comes of a seed."""
        rand = random.Random(seed)  # noqa: S311  (the same seed, the same plan)
        return cls(
            rand.choice(BACKENDS),
            rand.choice(KINDS),
            rand.choice([0.0, rand.uniform(0, 0.5)]),
            rand.choice([1, 2, 4]) << 20,
            rand.uniform(0, LATEST),
            rand.choice(SIGNALS),
        )


def prepare(tree: App) -> None:
    """Write the services."""
    for name, source in SERVICES.items():
        tree.service(name, source)


def starve(tree: App, seed: int) -> None:
    """Start the program, take something from it, stop it, and judge how it ends."""
    plan = Plan.of(seed)
    folder = tree.root.with_name(f"folder{seed}")
    folder.mkdir()
    env = {
        "KERNEL_BACKEND": plan.backend,
        "RUNNER_SHUTDOWNTIMEOUT": "20s",
        "PYTHONPATH": str(tree.root),
        "KIND": plan.kind,
        "MOMENT": str(plan.moment),
        "ROOM": str(plan.room),
    }
    run = tree.open(("run",), env, start_new_session=True, cwd=folder, preexec_fn=heed_signals)
    try:
        run.wait_for("^api ready")
        run.wait_for("^taken")
        time.sleep(plan.pause)
        run.send(plan.number)
        judge(plan, run.result())
    except AssertionError as error:
        raise AssertionError(f"STARVED=1 SEED={seed}: {plan}\n{error}\n{run.output}") from None
    finally:
        run.kill()
        if folder.exists():
            folder.rmdir()


def heed_signals() -> None:
    """What nohup, or a shell that starts us in the background, has ignored would stay ignored."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def judge(plan: Plan, result: Result) -> None:
    """Complain of a wrong code, of services that stopped in the wrong order, and of words past the log."""
    if plan.kind in {"memory", "threads"} and result.code == 1:
        # A service that must run, or the event loop itself, may have met it; whoever says so tells the truth.
        assert "MemoryError" in result.stderr, "nobody ran out of memory"
        return
    assert result.code == 0, f"exit code {result.code}"
    said = [line for line in result.stdout.splitlines() if line.endswith("closed")]
    assert said == ["api closed", "pool closed"], f"closed: {said}"
    if plan.kind != "disk":
        assert result.messages[-1].startswith("exit 0: "), "the last line does not say how it ended"
        strange = [line for line in result.lines if not line.startswith("{")]
        assert not strange, f"somebody wrote past the log: {strange}"
