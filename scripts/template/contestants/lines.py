"""1,000 services that log: lines per second, through the kernel's pipeline, and through `logging` alone.

    python -m contestants.lines kernel json 100      100 lines of each service
    python -m contestants.lines plain text 100       one handler, with a hand-written formatter for the same lines

Each line is written to /dev/null by a separate write, or to the file in the fourth argument.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from kernel.config.settings import Settings
from kernel.declare.service import Service
from kernel.identity import Identity
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.units import Unit
from kernel.observe import logs
from kernel.process import event_loop

KIND, FORMAT, EACH = sys.argv[1], sys.argv[2], int(sys.argv[3])
NAMES = [f"service-{place}" for place in range(1000)]
IDENTITY = Identity("app", "0.1.0", "")

moments: list[float] = []


class ByHand(logging.Formatter):
    """The kernel's JSON format, for loggers that are named after services."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one object per line."""
        whole = int(record.created)
        micros = int((record.created - whole) * 1_000_000)
        fields = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "app": IDENTITY.name,
            "version": IDENTITY.version,
            "service": record.name,
        }
        return json.dumps(fields, ensure_ascii=False)


def service(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a service that logs, and yields to the others between its lines."""
    log = logging.getLogger(name)

    async def talk() -> None:
        moments.append(time.perf_counter())
        for number in range(EACH):
            log.info("line %d of %d", number, EACH)
            await anyio.lowlevel.checkpoint()
        moments.append(time.perf_counter())

    return talk


async def by_kernel(_: event_loop.Wake) -> None:
    await Orchestrator([Unit(Service(service(name), name, oneshot=True)) for name in NAMES]).run()


async def by_hand(_: event_loop.Wake) -> None:
    async with anyio.create_task_group() as tasks:
        for name in NAMES:
            tasks.start_soon(service(name))


sys.stderr = open((sys.argv[4:] or [os.devnull])[0], "w")  # noqa: PTH123, SIM115
if KIND == "kernel":
    logs.configure(Settings(log_json=FORMAT == "json"), IDENTITY, tuple(NAMES))
else:
    width = max(map(len, NAMES))
    text = logging.Formatter(f"%(asctime)s.%(msecs)03d %(levelname)-8s %(name)-{width}s  %(message)s", "%H:%M:%S")
    handler = logging.StreamHandler()
    handler.setFormatter(ByHand() if FORMAT == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
event_loop.run(by_kernel if KIND == "kernel" else by_hand, "asyncio")
print(json.dumps({"lines / s": len(NAMES) * EACH / (max(moments) - min(moments))}))
