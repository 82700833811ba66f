"""hello-world, the smallest service there is."""

from __future__ import annotations

import logging

import anyio
import pytest

from kernel.testing import State, running
from services.hello_world import hello_world


@pytest.mark.anyio
async def test_it_runs_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """It says hello, and would go on for ever; an hour costs nothing in virtual time."""
    caplog.set_level(logging.INFO)
    async with running(hello_world) as run:
        await anyio.sleep(3600)
        assert caplog.messages == ["hello, world"]
        assert run.states(hello_world)[-1] is State.READY
    assert run.states(hello_world)[-1] is State.STOPPED
    assert run.report.exit_code == 0
