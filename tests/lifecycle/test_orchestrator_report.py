"""All services: the report of a run."""

from __future__ import annotations

import functools
import sys
from typing import Any

import anyio
import attrs
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.lifecycle.events import Ending, State
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit
from tests.harness import Lab, block_the_loop, marking
from tests.lifecycle.parts import named, sleeper, stubborn

pytestmark = pytest.mark.anyio


def ending(state: State, *, allowed: bool = False, internal: bool = False) -> Ending:
    """The end of some service."""
    return Ending("x", state, 1, 0.0, "", None, allowed, internal)


GOOD = ending(State.STOPPED)


@pytest.mark.parametrize(
    ("code", "endings", "flags"),
    [
        pytest.param(0, [], {}, id="nothing"),
        pytest.param(0, [GOOD, ending(State.DONE)], {}, id="well"),
        pytest.param(0, [GOOD, ending(State.FAILED, allowed=True)], {}, id="allowed"),
        pytest.param(1, [GOOD, ending(State.FAILED)], {}, id="failed"),
        pytest.param(1, [ending(State.FAILED, allowed=True)] * 2, {}, id="all failed"),
        pytest.param(
            1,
            [ending(State.FAILED, allowed=True), ending(State.STOPPED, internal=True)],
            {},
            id="all but our own failed",
        ),
        pytest.param(1, [GOOD, ending(State.FAILED, internal=True)], {}, id="hook failed"),
        pytest.param(3, [GOOD, ending(State.ABANDONED)], {}, id="abandoned"),
        pytest.param(3, [GOOD, ending(State.ABANDONED, allowed=True)], {}, id="abandoned with permission"),
        pytest.param(3, [ending(State.FAILED), ending(State.ABANDONED)], {}, id="abandoned and failed"),
        pytest.param(3, [GOOD], {"late": True}, id="late"),
        pytest.param(130, [GOOD], {"forced": True}, id="forced"),
        pytest.param(130, [ending(State.ABANDONED), ending(State.FAILED)], {"forced": True}, id="forced and all else"),
    ],
)
def test_exit_codes(code: int, endings: list[Ending], flags: dict[str, bool]) -> None:
    """The first that fits, of the table in the contract."""
    report = Report("", tuple(endings), None, 0.0, 0.0, **{"forced": False, **flags})
    assert report.exit_code == code


async def test_the_report_is_made_before_the_tasks_are_left(lab: Lab) -> None:
    """`at_end` gets the report while what was abandoned still runs: the place to leave the process from."""
    orchestrator = Orchestrator([Unit(stubborn("a", seconds=30))], shutdown_timeout=2)
    reports: list[tuple[Any, Report]] = []
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            await anyio.sleep(5)
            orchestrator.request_stop("asked")

        tasks.start_soon(stop)
        report = await orchestrator.run(lambda report: reports.append((anyio.current_time() - began, report)))
    assert reports == [(pytest.approx(7), report)]
    assert anyio.current_time() - began == pytest.approx(30)
    assert report.exit_code == 3


async def test_cancelled_from_outside() -> None:
    """Whoever cancels the task that runs the orchestrator ends every service."""
    lab = Lab()

    async def work(serving: Serving[None]) -> None:
        with marking(lab, "work"):
            async with serving():
                await anyio.sleep_forever()

    with anyio.move_on_after(5):
        await lab.run(named("a", service(work)))
    assert lab.marked == ["work begins", "work ends"]


async def test_a_blocked_loop_is_late(lab: Lab) -> None:
    """A service that blocks the loop beyond the deadline makes exit code 3."""

    @service
    async def blocking(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        block_the_loop(12)

    await lab.stop_at(5).run(blocking, sleeper("a"))
    assert lab.report.late
    assert lab.exit_code == 3


async def test_the_service_whose_code_runs(lab: Lab) -> None:
    """From a frame of the loop's thread the service can be told, by its function, or by its file if it is its alone."""
    seen: list[str] = []

    def helper() -> None:
        seen.append(lab.orchestrator.running(sys._getframe()))

    @service
    async def one() -> None:
        helper()

    @service
    async def two() -> None:
        helper()

    await lab.run(one, two)
    assert sorted(seen) == ["one", "two"]
    assert lab.orchestrator.running(sys._getframe()) == ""  # both are written in this file
    assert lab.orchestrator.running(None) == ""

    other = Lab()
    await other.run(two)
    assert other.orchestrator.running(sys._getframe()) == "two"
    assert other.orchestrator.live == 0

    without_code = Lab()
    await without_code.run(attrs.evolve(two, fn=functools.partial(two.fn)))
    assert without_code.orchestrator.running(sys._getframe()) == ""
