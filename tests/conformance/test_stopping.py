"""Start and stop in order: dependents end first, resources close whole, and the app's lifespans surround it all."""

from __future__ import annotations

import signal

import pytest

from tests.conformance.program import App, NewApp

BACKENDS = ["asyncio", "trio"]

POOL = """
class Pool:
    async def __aenter__(self) -> "Pool":
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        self.tasks.start_soon(self.keep_alive)
        self.beats = 0
        return self

    async def keep_alive(self) -> None:
        try:
            while True:
                await anyio.sleep(0.01)
                self.beats += 1
        finally:
            log.info("keep-alive ends")

    async def __aexit__(self, *error: object) -> None:
        beats = self.beats
        await anyio.sleep(0.1)
        log.info("said goodbye, and the heart %s", "still beat" if self.beats > beats else "had stopped")
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(None, None, None)

    async def ask(self) -> str:
        await anyio.sleep(0)
        return "an answer"

@service
async def pool(serving: Serving[Pool]) -> None:
    async with Pool() as opened:
        async with serving(opened):
            await anyio.sleep_forever()
"""


@pytest.mark.core
@pytest.mark.parametrize("backend", BACKENDS)
def test_resources_close_whole(app: App, backend: str) -> None:
    """A pool closes calmly, its own background task alive, after the consumer's clean-up has used it."""
    app.service("pool", POOL)
    app.service(
        "user",
        """
        @service(depends=["pool"])
        async def user(pool: Any, serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep_forever()
            log.info("got %s", await pool.ask())
        """,
    )
    result = app.run(KERNEL_BACKEND=backend).stop()
    assert result.code == 0
    assert result.said("pool: said goodbye, and the heart still beat")
    assert result.in_order(
        "user: got an answer", "user: stopped", "pool: stopping", "pool: keep-alive", "pool: stopped"
    )


def test_stop_takes_the_critical_path(app: App) -> None:
    """Services that do not depend on each other close at the same time; one outlives those that depend on it."""
    for name, depends in {"a": "", "b": "a", "c": "a", "d": "b", "e": ""}.items():
        app.service(
            name,
            f"""
            @service(depends={[depends] if depends else []})
            async def {name}(serving: Serving[None]) -> None:
                async with serving():
                    await anyio.sleep_forever()
                await anyio.sleep(0.2)
            """,
        )
    result = app.run(RUNNER_SHUTDOWNTIMEOUT="5s").stop()
    assert result.code == 0
    assert result.seconds >= 0.6
    assert result.own_seconds < 0.95
    assert result.in_order("^d: stopped", "^b: stopping", "^b: stopped", "^a: stopping", "^a: stopped")
    assert result.in_order("^e: stopped", "^b: stopping")


@pytest.mark.core
@pytest.mark.parametrize("backend", BACKENDS)
def test_drain(app: App, backend: str) -> None:
    """A service that drains is told, finishes what is in flight, and is cut only when it overruns."""
    source = """
    @service(stop_timeout={limit})
    async def drainer(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            await work.stop_requested()
            log.info("draining")
            await anyio.sleep(0.3)
            log.info("drained")
    """
    app.service("drainer", source.format(limit=30))
    result = app.run(KERNEL_BACKEND=backend).stop()
    assert result.code == 0
    assert result.said("drainer: drained")
    app.service("drainer", source.format(limit=0.1))
    result = app.run(KERNEL_BACKEND=backend).stop()
    assert result.code == 1
    assert result.said(
        r"drainer: failed: did not stop in time: cancelled 0\.1\d* s after the request, at services/drainer.py:1\d"
    )
    assert not result.said("drainer: drained")


@pytest.mark.core
def test_overrunning_costs_nobody_else(app: App) -> None:
    """One that overruns is cut early enough that each level below it still closes before the deadline."""
    app.service("a", "@service\nasync def a(serving: Serving[None]) -> None:\n" + _closing("log.info('closed')"))
    app.service(
        "b",
        "@service(depends=['a'])\nasync def b(serving: Serving[None]) -> None:\n"
        + _closing("await anyio.sleep(0.01)\n    log.info('closed')"),
    )
    app.service(
        "c",
        "@service(depends=['b'])\nasync def c(serving: Serving[None]) -> None:\n" + _closing("await anyio.sleep(20)"),
    )
    result = app.run().stop()
    assert result.code == 1
    assert result.own_seconds < 1.1
    assert result.in_order("c: failed: did not stop in time", "b: closed", "a: closed")
    assert result.messages[-1].startswith("exit 1: c failed: did not stop in time: cancelled")


def _closing(then: str) -> str:
    return f"    async with serving():\n        await anyio.sleep_forever()\n    {then}\n"


LIFESPANS = """
@lifespan
async def outer() -> AsyncGenerator[None, None]:
    log.info("outer opens")
    {before}
    yield
    {after}
    await anyio.sleep(0.01)
    log.info("outer closes")

@lifespan
async def inner() -> AsyncGenerator[None, None]:
    log.info("inner opens")
    yield
    log.info("inner closes")
"""
WORKER = """
@service
async def worker(serving: Serving[None]) -> None:
    log.info("worker opens")
    async with serving():
        {work}
    log.info("worker closes")
"""
ORDER = ("outer opens", "inner opens", "worker opens", "worker closes", "inner closes", "outer closes")


@pytest.mark.core
@pytest.mark.parametrize("backend", BACKENDS)
def test_lifespans_surround_the_services(new_app: NewApp, backend: str) -> None:
    """They are entered in order and left in reverse when all services have ended: asked to, done, or failed."""
    ways = {
        "await anyio.sleep_forever()": (0, ORDER),
        "pass": (0, ORDER),
        "raise OSError('no route')": (1, tuple(step for step in ORDER if step != "worker closes")),
    }
    runs = []
    for work in ways:
        app = new_app()
        app.init(LIFESPANS.format(before="", after=""))
        app.service("worker", WORKER.format(work=work))
        runs.append(app.run(KERNEL_BACKEND=backend))
    runs[0].wait_for("all ready")
    runs[0].send(signal.SIGTERM)
    for run, (code, steps) in zip(runs, ways.values(), strict=True):
        result = run.result()
        assert result.code == code, result.stderr
        assert result.in_order(*steps)
        assert "outer" not in str(result.messages[-2]), "a lifespan is no service of the user's"


def test_lifespan_that_fails(new_app: NewApp) -> None:
    """Before its `yield`: nothing starts, and what was open is closed; after it: the exit code is 1 all the same."""
    early, late = new_app(), new_app()
    early.init(LIFESPANS.format(before="", after="").replace('log.info("inner opens")', "raise OSError('no disk')"))
    late.init(LIFESPANS.format(before="", after="raise OSError('no disk')"))
    for app in (early, late):
        app.service("worker", WORKER.format(work="await anyio.sleep_forever()"))
    first, second = early.run(), late.run()
    second.wait_for("all ready")
    second.send(signal.SIGTERM)
    before, after = first.result(), second.result()
    assert before.code == after.code == 1
    assert before.ending("worker") == "stopped"
    assert not before.said("worker opens")
    assert before.in_order("outer opens", "outer closes")
    assert before.messages[-1] == "exit 1: app/init.py:inner failed: OSError: no disk"
    assert after.in_order("worker closes", "inner closes")
    assert after.messages[-1] == "exit 1: app/init.py:outer failed while the app was stopping: OSError: no disk"


def test_signal_while_a_lifespan_starts_or_ends(new_app: NewApp) -> None:
    """While it starts: no service does, what is open is closed, exit 0. While it ends: it is let end."""
    early, late = new_app(), new_app()
    early.init(
        LIFESPANS.format(before="", after="").replace('"inner opens")', '"inner opens")\n    await anyio.sleep(20)')
    )
    late.init(LIFESPANS.format(before="", after="log.info('outer is closing')\n    await anyio.sleep(0.3)"))
    for app in (early, late):
        app.service("worker", WORKER.format(work="await anyio.sleep_forever()"))
    first, second = early.run(RUNNER_SHUTDOWNTIMEOUT="3s"), late.run()
    second.wait_for("all ready")
    second.send(signal.SIGTERM)
    second.wait_for("outer is closing")
    second.send(signal.SIGTERM)
    before, after = first.stop(after="inner opens"), second.result()
    assert before.code == 0, before.stderr
    assert not before.said("worker opens")
    assert before.said("outer closes")
    assert after.code == 0
    assert after.said("outer closes")


def test_lifespan_that_hangs(app: App) -> None:
    """One that does not end in time is cut: exit 1, and it is named with the line where it stood."""
    app.init(LIFESPANS.format(before="", after="await anyio.sleep(20)"))
    app.service("worker", WORKER.format(work="await anyio.sleep_forever()"))
    result = app.run().stop()
    assert result.code == 1
    assert result.own_seconds < 1.5
    assert result.said(
        r"exit 1: app/init.py:outer failed: did not stop in time: cancelled .* at app/init.py:1\d in outer"
    )
