"""What `/status` tells of a service, at each moment of its life; in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.identity import Identity
from kernel.observe.status import View
from tests.harness import Lab, crash_after, resource

pytestmark = pytest.mark.anyio


class VirtualView(View):
    """Asked in the loop, whose clock is not the machine's."""

    def now(self) -> float:
        """Return the loop's time."""
        return anyio.current_time()


async def test_the_numbers_of_a_service_through_its_life(lab: Lab) -> None:
    """Time in a state counts from its begin, uptime adds up over the attempts, the last start, stop and error are kept.

    The next step is the retry, the end of the patience with a start, or the cut.
    """
    view = VirtualView(Identity("app", "1", ""))
    seen: dict[float, dict[str, Any]] = {}
    attempts = iter([1, 2])

    @service(retries=Retry(times=1, delay=3, jitter=0))
    async def api(serving: Serving[None]) -> None:
        async with resource(lab, "pool", opening=2, closing=1), serving():
            await crash_after(5 if next(attempts) == 1 else 1000, ValueError("boom"))

    def look() -> None:
        view.orchestrator = lab.orchestrator
        seen[lab.now] = view.status()["services"]["api"]

    for moment in (1, 4, 7.25, 9, 12, 15, 20.5):
        lab.at(moment, look)
    await lab.stop_at(20).run(api, observers=[view.stats])
    told = ("state", "seconds_in_state", "attempt", "uptime", "last_start", "last_stop", "next_step_in", "last_error")
    assert {moment: tuple(one[name] for name in told) for moment, one in seen.items()} == {
        1: ("starting", 1, 1, 0, None, None, 59, None),
        4: ("ready", 2, 1, 2, 2, None, None, None),
        7.25: ("stopping", 0.25, 1, 5, 2, None, 29.75, None),
        9: ("backoff", 1, 1, 5, 2, 1, 2, "ValueError: boom"),
        12: ("starting", 1, 2, 5, 2, 1, 59, "ValueError: boom"),
        15: ("ready", 2, 2, 7, 2, 1, None, "ValueError: boom"),
        20.5: ("stopping", 0.5, 2, 12, 2, 1, 9, "ValueError: boom"),
    }
