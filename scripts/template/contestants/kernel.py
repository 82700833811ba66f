"""The kernel as `app run` runs it: on its own loop, with its log as an observer, and the event loop watch.

    python -m contestants.kernel noop 1000
    python -m contestants.kernel noop 1000 serving log watch

With `serving`, the no-op services take a `Serving` and report when they are ready. `log` and `watch` enable only these
observers, instead of both; `none` disables both, and with `info` each step is logged, to /dev/null. `traces` creates
spans and sends them to a collector; `stats` keeps the data for `/status` and metrics.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
from contestants.moments import Run

from kernel import Serving
from kernel.config.otel import Exports, Otel
from kernel.config.settings import Settings
from kernel.declare.service import Service
from kernel.identity import Identity
from kernel.lifecycle.events import AllReady, Event, Observer
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.units import Unit
from kernel.observe import lifecycle_log, logs
from kernel.observe.status import Stats
from kernel.process import event_loop
from kernel.process.collector import PatientCollector
from kernel.process.loop_watch import LoopWatch

OPTIONS = {*sys.argv[3:]}
OBSERVERS = OPTIONS & {"none", "log", "watch", "stats", "traces"} or {"log", "watch"}
IDENTITY = Identity("app", "0", "")


def declare(run: Run, place: int) -> Service[..., Any]:
    """Return the service at *place*, declared as in `services/`."""
    node = run.nodes[place]

    async def plain() -> None:
        run.launched(place)
        run.ready(place)
        try:
            await anyio.Event().wait()
        finally:
            run.asked(place)
            run.ended(place)

    async def serves(serving: Serving[None]) -> None:
        run.launched(place)
        if node.opening:
            await anyio.sleep(node.opening)
        run.ready(place)
        async with serving():
            await anyio.Event().wait()
        run.asked(place)
        if node.closing:
            await anyio.sleep(node.closing)
        run.ended(place)

    fn: Callable[..., Any] = serves if node.opening or "serving" in OPTIONS else plain
    service = Service(fn, f"s{place}", depends=tuple(f"s{needed}" for needed in node.needs))
    assert service.needs is not None  # computed now, as in the app's checks before the start
    return service


at_the_end: list[Callable[[], None]] = []


def traces() -> Observer:
    """Return an observer that creates spans and sends them to a collector in a separate process."""
    from kernel.observe.exporters import Telemetry
    from kernel.observe.spans import SpanObserver

    command = [sys.executable, "-m", "contestants.collector"]
    collector = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert collector.stdin is not None
    assert collector.stdout is not None
    atexit.register(collector.stdin.close)
    endpoint = f"http://127.0.0.1:{collector.stdout.readline().strip()}/v1/traces"
    telemetry = Telemetry(Otel(traces=Exports(otlp=True, endpoint=endpoint)), IDENTITY)
    telemetry.start()
    assert telemetry.dispatcher is not None
    # Not by atexit: Python 3.12 starts no thread so late. Output here would be an error.
    at_the_end.append(lambda: print(telemetry.end(), end="", file=sys.stderr))
    return SpanObserver(telemetry.dispatcher)


async def main(wake: event_loop.Wake) -> None:
    run = Run()
    units = [Unit(declare(run, place)) for place in run.places]
    all_ready = anyio.Event()

    def tell(event: Event) -> None:
        if isinstance(event, AllReady):
            all_ready.set()

    observers: list[Observer] = [tell]
    if "log" in OBSERVERS:
        observers.append(lifecycle_log.LogObserver())
    if "stats" in OBSERVERS:
        observers.append(Stats())
    if "traces" in OBSERVERS:
        observers.append(traces())
    run.begins()
    orchestrator = Orchestrator(units, observers=observers)
    watch = LoopWatch(wake, print, print) if "watch" in OBSERVERS else None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(orchestrator.run)
        await all_ready.wait()
        run.all_ready()
        wake(functools.partial(orchestrator.request_stop, "measured"))  # as a signal does
    run.all_ended()
    if watch is not None:
        watch.end()


level = "INFO" if "info" in OPTIONS else "WARNING"
if level == "INFO":
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
logs.configure(Settings(log_level=level), IDENTITY)
with PatientCollector(int(sys.argv[2]) if sys.argv[1] == "noop" else 60):
    event_loop.run(main, "asyncio")
for end in at_the_end:
    end()
