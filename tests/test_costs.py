"""What a service costs, counted exactly: a change that makes each one dearer should be seen, and wanted."""

from __future__ import annotations

import asyncio
import collections
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import attrs
import pytest
import sniffio
from anyio._backends._asyncio import CancelScope as AsyncioScope
from trio import CancelScope as TrioScope

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.lifecycle.clock import COMPACT
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.units import Unit
from tests.conformance.program import App

pytestmark = pytest.mark.anyio

FEW, MANY = 20, 120
ROOT = Path(__file__).parents[1]


async def idle() -> None:
    """Wait at no cost: `sleep_forever` has a scope or a timer of its own."""
    await anyio.Event().wait()


async def plain() -> None:
    """A service that asks for nothing."""
    await idle()


async def serves(serving: Serving[None]) -> None:
    """A service that serves."""
    async with serving():
        await idle()


async def starts(serving: Serving[None]) -> None:
    """A service that is never ready."""
    await idle()


@attrs.define
class Count:
    """What there is while an app of some services runs."""

    tasks: int = 0
    timers: int = 0
    scopes: int = 0
    objects: collections.Counter[str] = attrs.field(factory=collections.Counter)


async def count(fn: Callable[..., Any], services: int) -> Count:
    """Run so many services of *fn*, and count when all of them run."""
    found = Count()
    on_asyncio = sniffio.current_async_library() == "asyncio"
    units = [Unit(_declare(fn, f"s{i}")) for i in range(services)]
    for unit in units:
        assert unit.service.needs is not None  # read beforehand: it belongs to the declaration
    orchestrator = Orchestrator(units)
    tasks_before, scopes_before, objects_before = len(anyio.get_running_tasks()), _scopes(), _objects()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(orchestrator.run)
        await anyio.wait_all_tasks_blocked()
        found.scopes = _scopes() - scopes_before
        found.tasks = len(anyio.get_running_tasks()) - tasks_before
        found.timers = _asyncio_timers() if on_asyncio else _trio_timers()
        found.objects = _objects()
        found.objects.subtract(objects_before)
        orchestrator.request_stop("counted")
    return found


def _declare(fn: Callable[..., Any], name: str) -> Service[..., Any]:
    return attrs.evolve(service(fn), name=name)


def _objects() -> collections.Counter[str]:
    """The objects of the kernel's classes, by class."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return collections.Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("kernel."))


def _scopes() -> int:
    """The cancel scopes of the backend."""
    gc.collect()
    return sum(isinstance(one, AsyncioScope | TrioScope) for one in gc.get_objects())


def _asyncio_timers() -> int:
    return sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]


def _trio_timers() -> int:
    from trio._core._run import GLOBAL_RUN_CONTEXT

    return int(GLOBAL_RUN_CONTEXT.runner.deadlines._active)


async def per_service(fn: Callable[..., Any]) -> tuple[Count, Count]:
    """What each further service costs, and what there is for the app as a whole."""
    few, many = await count(fn, FEW), await count(fn, MANY)

    for found in (few, many):
        if fn is serves:
            assert found.objects.pop("Alarm") <= COMPACT  # cancelled ones, of which some are tolerated

    def each(of: Callable[[Count], int]) -> int:
        cost, rest = divmod(of(many) - of(few), MANY - FEW)
        assert not rest
        return cost

    one = Count(each(lambda c: c.tasks), each(lambda c: c.timers), each(lambda c: c.scopes))
    one.objects = collections.Counter({kind: each(lambda c, kind=kind: c.objects[kind]) for kind in many.objects})  # type: ignore[misc]
    app = Count(few.tasks - FEW * one.tasks, few.timers - FEW * one.timers, few.scopes - FEW * one.scopes)
    app.objects = collections.Counter({kind: few.objects[kind] - FEW * one.objects[kind] for kind in few.objects})
    return one, app


async def test_a_plain_service() -> None:
    """It costs its task, that task's scope, and one object; the app the task of the clock and one alarm."""
    one, app = await per_service(plain)
    assert (one.tasks, one.timers, one.scopes) == (1, 0, 1)
    assert +one.objects == {"Node": 1}
    assert app.tasks == 2  # the caller's own, and the clock
    assert app.timers == 1
    own = "_OnAsyncio" if sniffio.current_async_library() == "asyncio" else "_OnTrio"
    assert +app.objects == {"Alarm": 1, own: 1}  # the alarm explains a long start, and the other holds the tasks


async def test_a_service_that_serves() -> None:
    """It adds its block, with the scope of the work, and no timer."""
    one, app = await per_service(serves)
    assert (one.tasks, one.timers, one.scopes) == (1, 0, 2)
    assert +one.objects == {"Node": 1, "Block": 1}
    assert app.tasks == 2
    assert app.timers <= 1


async def test_a_service_that_starts() -> None:
    """Its timeout is an alarm on the kernel's heap, and there is one timer for all of them."""
    one, app = await per_service(starts)
    assert (one.tasks, one.timers, one.scopes) == (1, 0, 1)
    assert +one.objects == {"Node": 1, "Alarm": 1}
    assert app.timers == 1


async def test_a_service_that_waits() -> None:
    """One that waits for its dependencies or backs off has no task at all."""
    orchestrator = Orchestrator(
        [
            Unit(_declare(starts, "db")),
            *(Unit(attrs.evolve(service(depends=["db"])(plain), name=f"s{i}")) for i in range(MANY)),
        ]
    )
    before = len(anyio.get_running_tasks())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(orchestrator.run)
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) - before == 3  # the caller's own, the clock, and db
        orchestrator.request_stop("counted")


async def test_what_ended_leaves_nothing() -> None:
    """After the end no object of the kernel is kept alive by the loop, the clock, or an error."""

    async def once() -> None:
        units = [Unit(_declare(fn, name)) for name, fn in (("a", plain), ("b", serves), ("c", starts))]
        orchestrator = Orchestrator(units)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(orchestrator.run)
            await anyio.wait_all_tasks_blocked()
            orchestrator.request_stop("enough")

    await once()
    before = _objects()
    await once()
    after = _objects()
    after.subtract(before)
    assert +after == {}


async def test_a_crash_leaves_nothing_to_the_collector() -> None:
    """An error whose traceback held the frame that holds it would stay until the garbage collector comes by."""

    async def crash() -> None:
        raise ConnectionError("refused")

    async def left(times: int) -> int:
        storm = attrs.evolve(service(retries=Retry(times=times, delay=0))(crash), name="storm")
        await Orchestrator([Unit(storm)]).run()
        return gc.collect()

    gc.collect()
    gc.disable()
    try:
        few, many = await left(FEW), await left(MANY)
    finally:
        gc.enable()
    assert many - few < MANY - FEW  # what there is of the run as a whole varies


HEAVY = (
    "asyncio",  # the backend's, and only if it is chosen
    "trio",
    "cattrs",
    "cyclopts",
    "rich",
    "opentelemetry",
    "httpx",
    "structlog",
    "sqlite3",
    "ssl",
    "socket",
    "subprocess",
    "multiprocessing",
    "concurrent.futures",
    "logging",
    "json",
    "http",
    "email",
    "urllib.request",
    "difflib",
    "argparse",
    "importlib.metadata",
    "sysconfig",
    "unittest",
)


@pytest.mark.parametrize("module", ["kernel", "kernel.lifecycle.orchestrator"])
def test_imports(module: str) -> None:
    """To import the core imports nothing heavy."""
    assert loaded(f"import {module}", ROOT, HEAVY) == []


TRACES = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
"""
ASKS = """
from services.example_api import make_app, traced
app = make_app(None)
"""


def test_requests_are_instrumented_only_where_traces_are_made() -> None:
    """Without a tracer provider the example's app stays as it is, and nothing of OpenTelemetry is imported."""
    instrumentation = "opentelemetry.instrumentation.asgi"
    assert loaded(f"{ASKS}assert traced(app) is app", ROOT, ["opentelemetry", "asgiref", "wrapt"]) == []
    assert loaded(f"{TRACES}{ASKS}assert traced(app) is not app", ROOT, [instrumentation]) == [instrumentation]


def loaded(code: str, root: Path, unwanted: Sequence[str]) -> list[str]:
    """Those of the *unwanted* modules that a process has loaded in the end, which has run *code* in *root*."""
    told = f"print('loaded', *[name for name in {tuple(unwanted)!r} if name in sys.modules], file=sys.stderr)"
    # `coverage` measures children too, and the admin server loads what a plain run does not: both bring modules.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "ADMIN_ADDR"))}
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import atexit, sys\nsys.path.insert(0, {str(root)!r})\n{code}\n{told}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=env,
    )
    first, *found = done.stderr.splitlines()[-1].split()
    assert first == "loaded"
    return found


NO_COMMAND_NEEDS = ["trio", "cattrs", "tomllib", "rich.markdown", "importlib.metadata", "difflib", "ctypes", "uuid"]
ONLY_A_RUN_NEEDS = [
    "anyio",
    "asyncio",
    "ssl",
    "kernel.lifecycle.orchestrator",
    "kernel.run.runner",
    "kernel.lifecycle.events",
    "services.calm",
]
ONLY_HELP_NEEDS = ["rich", "cyclopts.help"]


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], ONLY_A_RUN_NEEDS),
        (["list"], [*ONLY_A_RUN_NEEDS, "cyclopts", "rich"]),
        (["version"], [*ONLY_A_RUN_NEEDS, "cyclopts", "rich"]),
        (["run"], ["cyclopts", "rich", "random", "kernel.config.otel", "kernel.config.nats", "kernel.plan.check"]),
        (["calm", "tell"], [*(set(ONLY_A_RUN_NEEDS) - {"services.calm"}), *ONLY_HELP_NEEDS, "kernel.plan.check"]),
    ],
    ids=["--help", "list", "version", "run", "calm tell"],
)
def test_a_command_loads_only_what_it_needs(tmp_path: Path, words: list[str], unwanted: list[str]) -> None:
    """What it does not need would cost each call some milliseconds."""
    app = App(tmp_path / "tree")
    app.write(
        "services/calm.py",
        """
        from kernel import service

        @service(oneshot=True)
        async def calm() -> None:
            pass

        @calm.command
        def tell() -> None:
            print("calm")
        """,
    )
    code = f"import app\nfrom kernel.cli import main\nassert main(app, {words!r}) == 0"
    assert loaded(code, app.root, [*NO_COMMAND_NEEDS, *unwanted]) == []


# -- complexity ------------------------------------------------------------------------------------------------------


def chain(services: int) -> list[Unit]:
    """Each depends on the one before."""
    return [Unit(_depending(f"s{i}", [f"s{i - 1}"] if i else [])) for i in range(services)]


def fan_in(services: int) -> list[Unit]:
    """The last depends on all others."""
    others = [f"s{i}" for i in range(services - 1)]
    return [*(Unit(_depending(name, [])) for name in others), Unit(_depending("last", others))]


def fan_out(services: int) -> list[Unit]:
    """All depend on the first."""
    return [Unit(_depending("first", [])), *(Unit(_depending(f"s{i}", ["first"])) for i in range(services - 1))]


def apart(services: int) -> list[Unit]:
    """None depends on any."""
    return [Unit(_depending(f"s{i}", [])) for i in range(services)]


def _depending(name: str, depends: list[str]) -> Service[..., Any]:
    return attrs.evolve(service(depends=depends)(serves), name=name)


async def lines_run(units: list[Unit]) -> int:
    """How many lines of the kernel run while *units* start and stop."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(str(ROOT / "kernel")):
            return None
        lines += event == "line"
        return trace

    orchestrator = Orchestrator(units)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(orchestrator.run)
            await anyio.wait_all_tasks_blocked()
            orchestrator.request_stop("counted")
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.no_cover  # it counts the lines itself
@pytest.mark.parametrize("shape", [chain, fan_in, fan_out, apart])
async def test_the_work_is_linear_in_services_and_edges(shape: Callable[[int], list[Unit]]) -> None:
    """Four times the services take four times the lines."""
    few, many = await lines_run(shape(50)), await lines_run(shape(200))
    assert many < 4.2 * few, f"{few} lines for 50 services, {many} for 200"
