"""Looks for what the tests have not found: `just fuzz MINUTES=60`.

Generated apps in virtual time, on both backends in turns, for as long as wanted; and beside them the real program,
which gets signals at random moments. The first find ends it with exit code 1, and with what reproduces it: the
smallest app that hypothesis could make of it, or the seed of the run. `tests/starve.py` takes things from the program.
`tests/fuzz_http.py` sends its HTTP servers what no client should; HTTP=0 goes without. APPS=0 leaves out the generated
apps: `just fuzz MINUTES=20 APPS=0 SIGNALS=0 STARVED=0` is HTTP alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

import attrs
from hypothesis import HealthCheck, Phase, example, given, seed, settings

from kernel.testing import BACKENDS
from tests import fuzz_http, starve
from tests.conformance.program import App as Tree
from tests.conformance.program import Process, Result
from tests.generated import App, apps, reduced
from tests.lifecycle.test_generated import play

QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
BATCH = 250  # apps between two looks at the clock
LOOK = 60.0  # seconds between two looks where no apps are generated
AT_ONCE = 2  # real programs at a time: on a busy machine, moments come late
START = 1.5  # seconds in which the real program has long been up, at leisure
LOADED = 1.0  # seconds after which it has begun to speak
NUMBERS = {
    "MINUTES": r"\d+(\.\d+)?",
    "SIGNALS": r"\d+",
    "STARVED": r"\d+",
    "SEED": r"\d+",
    "HTTP": "[01]",
    "APPS": "[01]",
}
USE = "use: just fuzz [MINUTES=5] [SIGNALS=200] [STARVED=100] [HTTP=1] [APPS=1] [SEED=a number]"


class Find(Exception):
    """Something is wrong."""


# -- generated apps --------------------------------------------------------------------------------------------------


def batch(backend: str, number: int, size: int) -> None:
    """Run *size* generated apps."""
    tried: list[App] = []

    @seed(number)
    @settings(QUIET, max_examples=size, phases=[Phase.generate])
    @given(apps())
    def run(app: App) -> None:
        tried.append(app)
        play(backend, app)

    try:
        run()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is a find)
        app = reduced(tried[-1], lambda app: breaks(backend, app))
        told = traceback.format_exception_only(error)[0]
        raise Find(
            f"seed {number} on {backend}: {told}in tests/lifecycle/test_generated.py, add\n\n    @example({app!r})\n"
        ) from None


def breaks(backend: str, app: App) -> bool:
    """Whether *app* breaks the contract, with the same luck in trio's scheduler as in a test."""

    @settings(QUIET, phases=[Phase.explicit])
    @example(app)
    @given(apps())
    def run(app: App) -> None:
        play(backend, app)

    try:
        run()
    except Exception:  # noqa: BLE001  (whatever it is, it is a find)
        return True
    return False


# -- signals at random moments ---------------------------------------------------------------------------------------

SERVICES = {
    "pool": """
        @service
        async def pool(serving: Serving[list[str]]) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await anyio.sleep(0.1)
                async with serving(["open"]):
                    await anyio.sleep_forever()
                await anyio.sleep(0.05)
                log.info("closed whole")
                tasks.cancel_scope.cancel()
        """,
    "migrate": """
        @service(depends=["pool"], oneshot=True)
        async def migrate(pool: list[str]) -> None:
            await anyio.to_thread.run_sync(time.sleep, 0.05)
        """,
    "api": """
        @service(depends=["pool", "migrate"])
        async def api(pool: list[str], serving: Serving[str]) -> None:
            async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
                async with serving("api", drain=True) as work:
                    work.start_soon(listener.serve, anyio.sleep)
                    await work.stop_requested()
                    await anyio.sleep(0.05)
        """,
    "worker": """
        @service(depends=["api"], retries=Retry(times=None, delay=0.05), allowed_failure=True)
        async def worker(api: str, serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep(0.1)
                raise ConnectionError("worker")
        """,
    "child": """
        @service(depends=["pool"])
        async def child(pool: list[str], serving: Serving[None]) -> None:
            async with await anyio.open_process([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
                try:
                    async with serving():
                        await process.wait()
                finally:
                    process.terminate()
        """,
    "slow": """
        @service(depends=["pool"])
        async def slow(pool: list[str], serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep_forever()
            await anyio.sleep(0.3)
        """,
}
EDGES = {
    "pool": (),
    "migrate": ("pool",),
    "api": ("pool", "migrate"),
    "worker": ("api",),
    "child": ("pool",),
    "slow": ("pool",),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INIT = """
@lifespan
async def around() -> AsyncGenerator[None]:
    await anyio.sleep(0.05)
    yield
    log.info("the lifespan is over")
"""


@attrs.frozen
class Plan:
    """Which signals the program gets, and when. Times are in seconds."""

    backend: str
    moment: float
    signals: tuple[tuple[signal.Signals, float], ...]  # and how long after each the next one comes

    @classmethod
    def of(cls, number: int) -> Plan:
        """The plan that comes of a seed."""
        rand = random.Random(number)  # noqa: S311  (the same seed, the same plan)
        signals = [
            (rand.choice(SIGNALS), rand.choice([0.0, 0.02, 0.1, 0.3, 0.6])) for _ in range(rand.choice([1, 1, 1, 2, 3]))
        ]
        return cls(rand.choice(BACKENDS), rand.uniform(0, START), tuple(signals))


def strike(tree: Tree, number: int) -> None:
    """Start the program, send it signals at some moment, and judge how it ends."""
    plan = Plan.of(number)
    env = {"KERNEL_BACKEND": plan.backend, "RUNNER_SHUTDOWNTIMEOUT": "5s"}
    run = tree.open(("run",), env, start_new_session=True, preexec_fn=starve.heed_signals)
    try:
        time.sleep(plan.moment)
        for which, pause in plan.signals:
            run.send(which)
            time.sleep(pause)
        judge(plan, run.result(), orphans(run))
    except AssertionError as error:
        raise Find(f"SEED={number} SIGNALS=1: {plan}\n{error}\n{run.output}") from None
    finally:
        run.kill()


def starved_of(tree: Tree, number: int) -> None:
    """Take something from the program, and judge how it ends."""
    try:
        starve.starve(tree, number)
    except AssertionError as error:
        raise Find(str(error)) from None


def judge(plan: Plan, result: Result, left: list[int]) -> None:
    """Complain of a wrong code, of services that stopped in the wrong order, and of processes left behind."""
    loaded = LOADED if os.getloadavg()[0] < (os.cpu_count() or 1) else START  # on a busy machine it begins late
    if plan.moment < loaded and not re.search(r"^\{|/(kernel|app)/", result.stderr, re.MULTILINE):
        assert result.code <= 0 or "KeyboardInterrupt" in result.stderr, f"exit code {result.code}"
        return  # Python was still being loaded, and had the signal for itself
    assert result.code in ({0} if len(plan.signals) == 1 else {0, 130}), f"exit code {result.code}"
    assert result.messages[-1].startswith(f"exit {result.code}: "), "the last line does not say how it ended"
    strange = [line for line in result.lines if not line.startswith("{")]
    crashes = {one["service"] for one in result.records if "exception" in one}
    assert not strange, f"somebody wrote past the log: {strange}"
    assert crashes <= {"worker"}, f"{crashes} crashed"
    assert len(plan.signals) > 2 or not left, f"processes are left: {left}"  # the third signal waits for nobody
    if result.code == 0:
        assert result.said("the lifespan is over") or not result.said("around: ready"), "the lifespan was not left"
        check_order(result)


def check_order(result: Result) -> None:
    """Each service was asked to stop only when all that depend on it had ended."""
    moves = [(one["service"], one["state"]) for one in result.records if "previous" in one]
    for name, above in EDGES.items():
        for provider in above:
            asked = [place for place, move in enumerate(moves) if move == (provider, "stopping")]
            ended = [place for place, (who, state) in enumerate(moves) if who == name and state in {"stopped", "done"}]
            assert not asked or not ended or ended[-1] < asked[-1], f"{provider} stopped before {name} had ended"


def orphans(run: Process) -> list[int]:
    """The processes of its session that are still there, a moment after it has ended."""
    for _ in range(20):
        left = list(session(run.pid))
        if not left:
            break
        time.sleep(0.05)
    return left


def session(leader: int) -> Iterator[int]:
    """The processes of the session of *leader*, without itself; none where there is no /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if int(entry.name) != leader and os.getsid(int(entry.name)) == leader:
                yield int(entry.name)


def sent_to(folder: Path, backend: str, number: int, seconds: float, ended: threading.Event) -> None:
    """Send the program's HTTP servers what no client should."""
    try:
        count = fuzz_http.fuzz(folder, backend, number, seconds, ended)
        print(f"{count} conversations over HTTP on {backend}", flush=True)
    except fuzz_http.Broken as error:
        raise Find(str(error)) from None


# -- both ------------------------------------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    """Fuzz for as long as *words* say."""
    if not {"--help", "-h"}.isdisjoint(words):
        print(USE.replace("use:", "Usage:", 1))
        return 0
    options = {"MINUTES": "5", "SIGNALS": "200", "STARVED": "100", "HTTP": "1", "APPS": "1"}
    options["SEED"] = str(random.SystemRandom().randrange(10**6))
    for word in words:
        name, _, value = word.rpartition("=")
        if (name or "MINUTES") not in options or not re.fullmatch(NUMBERS[name or "MINUTES"], value):
            print(f"error: {word!r} is not understood; {USE}", file=sys.stderr)
            return 2
        options[name or "MINUTES"] = value
    end = time.monotonic() + 60 * float(options["MINUTES"])
    first, strikes, starved = (int(options[name]) for name in ("SEED", "SIGNALS", "STARVED"))
    print(f"fuzzing for {options['MINUTES']} minutes, with SEED={first}", flush=True)
    ended = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
        ThreadPoolExecutor(len(BACKENDS)) as all_along,
    ):
        tree = Tree(Path(folder))
        tree.init(INIT)
        for name, source in SERVICES.items():
            tree.service(name, source)
        poor = Tree(Path(folder) / "poor")
        starve.prepare(poor)
        runs = [pool.submit(starved_of, poor, first + i) for i in range(starved)]
        runs += [pool.submit(strike, tree, first + i) for i in range(strikes)]
        if options["HTTP"] == "1":
            seconds = end - time.monotonic()
            runs += [all_along.submit(sent_to, Path(folder), one, first, seconds, ended) for one in BACKENDS]
        try:
            return fuzz(first, end, runs, apps=options["APPS"] == "1")
        except Find as find:
            print(f"\nFOUND: {find}", flush=True)
            return 1
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
            tree.close()
            poor.close()


def fuzz(number: int, end: float, runs: list[Future[None]], *, apps: bool = True) -> int:
    """Run generated *apps* until *end*, and look after the *runs* of the real program beside them."""
    tried = dict.fromkeys(BACKENDS, 0)
    while True:
        for backend in BACKENDS:
            if apps and time.monotonic() < end:
                batch(backend, number, BATCH)
                tried[backend] += BATCH
        number += 1
        if not apps:
            wait(runs, timeout=min(max(end - time.monotonic(), 0), LOOK), return_when=FIRST_EXCEPTION)
        for run in runs:
            if run.done():
                run.result()
        done = sum(run.done() for run in runs)
        told = ", ".join(f"{count} apps on {backend}" for backend, count in tried.items())
        print(f"{told}; {done} of {len(runs)} programs were put to the test: nothing found", flush=True)
        if time.monotonic() >= end:
            break
    for run in runs:
        run.result()
    print("nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
