"""A service that crashes at once, again and again: restarts per second, and memory growth per restart.

    python -m contestants.storm kernel 100000     retried without delay; `kernel-quiet`: with LOG_LEVEL=critical
    python -m contestants.storm anyio 100000      by hand: a loop around try and except

Each crash is logged as a warning with its traceback, to /dev/null; by hand, as one line.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from time import perf_counter

import anyio
from contestants.moments import memory

from kernel import Retry
from kernel.config.settings import Settings
from kernel.declare.service import Service
from kernel.identity import Identity
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.units import Unit
from kernel.observe import lifecycle_log, logs
from kernel.process import event_loop

KIND, TIMES = sys.argv[1], int(sys.argv[2])
SETTLED = TIMES // 10  # restarts after which memory must not grow

crashes = 0
memories: list[float] = []


async def crash() -> None:
    global crashes  # noqa: PLW0603
    crashes += 1
    if crashes in {SETTLED, TIMES}:
        gc.collect()
        memories.append(memory("VmRSS"))
    raise ConnectionError("refused")


async def by_kernel(_: event_loop.Wake) -> None:
    retry = Retry(times=TIMES - 1, delay=0)
    await Orchestrator([Unit(Service(crash, "s", retry=retry))], observers=[lifecycle_log.LogObserver()]).run()


async def by_hand(_: event_loop.Wake) -> None:
    for attempt in range(1, TIMES + 1):
        try:
            await crash()
        except ConnectionError as error:
            logging.warning("crashed in attempt %d: %s", attempt, error)  # noqa: LOG015
        await anyio.lowlevel.checkpoint()


sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
logs.configure(Settings(log_level="CRITICAL" if KIND == "kernel-quiet" else "WARNING"), Identity("app", "0", ""))
begun = perf_counter()
event_loop.run(by_hand if KIND == "anyio" else by_kernel, "asyncio")
seconds = perf_counter() - begun
assert crashes == TIMES, f"it crashed {crashes} times"
growth = (memories[1] - memories[0]) / (TIMES - SETTLED)
found = {"restarts / s": TIMES / seconds, "growth, bytes / restart": growth, "MB at the end": memories[1] / 1e6}
print(json.dumps(found))
