"""All services: graphs deeper than the stack."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import ONCE, crash_later, named

pytestmark = pytest.mark.anyio


@pytest.mark.minutes
async def test_a_chain_longer_than_the_stack(lab: Lab) -> None:
    """A chain of 5,000 services starts, restarts, and stops, without recursion."""

    async def first(serving: Serving[int]) -> None:
        async with serving(0):
            if lab.now < 4:
                await crash_after(5, ValueError())
            await anyio.sleep_forever()

    consumers = [named(f"s{i}", service(depends=[f"s{i - 1}"])(_consumer(f"s{i - 1}"))) for i in range(1, 5000)]
    await lab.stop_at(20).run(named("s0", service(retries=ONCE)(first)), *consumers)
    assert lab.order("stopped") == [f"s{i}" for i in reversed(range(5000))]
    assert lab.ending("s4999").attempts == 2
    assert len(lab.all_ready[0].chain) == 5000
    assert lab.exit_code == 0


def _consumer(parameter: str) -> Any:
    scope: dict[str, Any] = {"Serving": Serving, "anyio": anyio}
    exec(  # noqa: S102  (a parameter's name is part of the contract)
        f"async def hold({parameter}: int, serving: Serving[int]):\n"
        f"    async with serving({parameter} + 1):\n"
        "        await anyio.sleep_forever()\n",
        scope,
    )
    return scope["hold"]


async def test_a_chain_of_lost_values(lab: Lab) -> None:
    """A value that is lost is lost for 2,000 consumers above, without recursion."""
    consumers = [
        named(f"s{i}", service(depends=[f"s{i - 1}"], allowed_failure=True)(_consumer(f"s{i - 1}")))
        for i in range(1, 2000)
    ]
    await lab.run(named("s0", service(allowed_failure=True)(crash_later)), *consumers)
    assert {lab.path(one.name) for one in consumers} == {"waiting failed"}
