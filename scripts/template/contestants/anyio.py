"""By hand: what a careful author writes on plain anyio to start and stop services in order, each individually.

Each service has an event for its readiness. A scope around its work is cancelled when all its dependents have ended,
which is counted; clean-up after the work is not cancelled. There are no retries, no limits, and no logs, except with
`info`: then each step is logged to /dev/null, as by the kernel.
"""

from __future__ import annotations

import logging
import os
import sys

import anyio
from contestants.moments import Run

log = logging.getLogger("app")
if "info" in sys.argv:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    logging.basicConfig(format="%(asctime)s %(levelname)-8s %(name)s %(message)s", level=logging.INFO)


async def main() -> None:  # noqa: C901  (meant to be read in one piece)
    run = Run()
    ready: list[anyio.Event] = []
    scopes: list[anyio.CancelScope] = []
    users = [0] * len(run.nodes)
    unready = len(run.nodes)
    all_ready = anyio.Event()
    stopping = False

    async def service(place: int) -> None:
        nonlocal unready
        node = run.nodes[place]
        for needed in node.needs:
            await ready[needed].wait()
        run.launched(place)
        log.info("s%d starting", place)
        if node.opening:
            await anyio.sleep(node.opening)
        run.ready(place)
        log.info("s%d ready", place)
        ready[place].set()
        unready -= 1
        if not unready:
            all_ready.set()
        with scopes[place]:
            await anyio.Event().wait()  # costs less than sleep_forever, which has a timer
        run.asked(place)
        log.info("s%d stopping", place)
        if node.closing:
            await anyio.sleep(node.closing)
        run.ended(place)
        log.info("s%d stopped", place)
        for needed in node.needs:
            users[needed] -= 1
            if stopping and not users[needed]:
                scopes[needed].cancel()

    for node in run.nodes:
        for needed in node.needs:
            users[needed] += 1
    run.begins()
    async with anyio.create_task_group() as tasks:
        for place in run.places:
            ready.append(anyio.Event())
            scopes.append(anyio.CancelScope())
            tasks.start_soon(service, place)
        await all_ready.wait()  # waiting for each of them would cost a turn of the loop
        run.all_ready()
        stopping = True
        for place in run.places:
            if not users[place]:
                scopes[place].cancel()
    run.all_ended()


anyio.run(main)
