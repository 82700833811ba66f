"""The public test kit: faults."""

from __future__ import annotations

import functools
from typing import Self

import anyio
import anyio.lowlevel
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import (
    DeclarationError,
    StrayCancellation,
)
from kernel.lifecycle.events import State
from kernel.testing import (
    CancelledWithin,
    FakeServing,
    Fault,
    Hang,
    InjectedFault,
    Phase,
    RunFailed,
    Slow,
    backend_options,
    faulty,
    running,
)
from tests.harness import Lab
from tests.testing.parts import guest, store

pytestmark = pytest.mark.anyio


PHASES: tuple[Phase, ...] = ("start", "work", "clean-up")


@pytest.mark.parametrize("at", PHASES)
@pytest.mark.parametrize("fault", [InjectedFault, OSError("mine"), CancelledWithin()], ids=repr)
async def test_a_crash_is_injected(lab: Lab, at: Phase, fault: Fault) -> None:
    """In each phase, by any exception, on each attempt."""
    await lab.stop_at(10).run(faulty(attrs.evolve(store, retry=Retry()), fault, at))
    assert (lab.stopped_at == 10) == (at == "clean-up")
    if not isinstance(fault, CancelledWithin):
        assert isinstance(lab.error("store"), InjectedFault if fault is InjectedFault else OSError)
    elif at == "clean-up":  # which cannot be told from the kernel's own: it had cancelled the work
        assert lab.path("store") == "waiting starting ready stopping stopped"
        assert lab.when("store", "stopped") == 10
    else:
        assert isinstance(lab.error("store"), StrayCancellation)


async def test_only_the_first_attempts_may_be_faulty() -> None:
    """The second attempt is the real thing."""
    async with running(faulty(store, InjectedFault, times=1)) as run:
        assert run.states(store).count(State.STARTING) == 2
    assert run.report.exit_code == 0


async def test_the_step_is_counted() -> None:
    """The second of two suspensions, not the first."""

    @service
    async def steps() -> None:
        await anyio.sleep(1)
        await anyio.sleep(10)

    with pytest.raises(RunFailed):
        async with running(store, faulty(steps, InjectedFault, "work", 2)):
            await anyio.sleep_forever()
    assert anyio.current_time() == 2.0


class Entering:
    """A block whose entry and exit take two steps each."""

    def __init__(self, log: list[str], *args: object, **kwargs: object) -> None:
        self.log = log
        log.append(f"{args} {kwargs}")

    async def __aenter__(self) -> Self:
        await anyio.sleep(1)
        await anyio.sleep(1)
        self.log.append("entered")
        return self

    async def __aexit__(self, *exc: object) -> bool:
        await anyio.sleep(1)
        await anyio.sleep(1)
        self.log.append(f"left with {exc[0] and exc[0].__name__}")  # type: ignore[attr-defined]
        return False


@pytest.mark.parametrize(
    ("at", "step", "seconds"),
    [("start", 1, 0), ("start", 2, 1), ("work", 1, 4), ("work", 2, 5), ("clean-up", 1, 8), ("clean-up", 2, 9)],
)
async def test_the_steps_of_the_block_itself_do_not_count(at: Phase, step: int, seconds: float) -> None:
    """Those of each phase do, from one."""
    log: list[str] = []

    @service
    async def steps(serving: Serving[int]) -> None:
        for _ in range(2):
            await anyio.sleep(1)
        async with serving(1, drain=True) as work:
            assert isinstance(work, Entering)
            for _ in range(2):
                await anyio.sleep(1)
        for _ in range(2):
            await anyio.sleep(1)

    began = anyio.current_time()
    with pytest.raises(InjectedFault):
        await faulty(steps, InjectedFault, at, step)(functools.partial(Entering, log))
    left = 2 if at == "work" else 0  # the error leaves the block
    assert anyio.current_time() - began == seconds + left
    whole = ["(1,) {'drain': True}", "entered", f"left with {InjectedFault.__name__ if at == 'work' else None}"]
    assert log == (whole if seconds > 2 else [])
    began = anyio.current_time()
    await faulty(steps, InjectedFault, at, 3)(functools.partial(Entering, log))  # there is no third one
    assert anyio.current_time() - began == 10


@pytest.mark.parametrize(("times", "faults"), [(None, 4), (0, 0), (1, 1), (3, 3)])
async def test_how_many_attempts_are_faulty(times: int | None, faults: int) -> None:
    """The first ones, or all."""

    @service
    async def steps() -> None:
        await anyio.sleep(1)

    copy, ends = faulty(steps, OSError("mine"), "work", times=times), list[str]()
    for _ in range(4):
        try:
            await copy()
        except OSError as error:
            ends.append(str(error))
    assert ends == ["mine"] * faults


async def test_slow_and_hanging_steps(lab: Lab) -> None:
    """A slow step takes longer; a hanging one does not even mind that it is cancelled."""
    await lab.stop_at(10).run(faulty(store, Slow(4)))
    assert lab.when("store", "ready") == 5
    assert lab.when("store", "stopped") == 11
    later = Lab()
    await later.stop_at(10).run(faulty(store, Hang(4), "work"))
    assert later.when("store", "stopped") == 15
    last = Lab()
    await last.stop_at(10).run(faulty(store, Slow(4), "clean-up"), shutdown_timeout=100)
    assert last.when("store", "stopped") == 15


@pytest.mark.parametrize("at", PHASES)
async def test_a_hang_for_ever_is_abandoned(at: Phase) -> None:
    """And ends with the run, so that the test does."""
    hangs = attrs.evolve(faulty(store, Hang(), at), start_timeout=5)
    with pytest.raises(RunFailed, match="store abandoned: store could not be cancelled") as failed:
        async with running(hangs):
            await anyio.sleep(1)
    assert "tests/testing/parts.py" in str(failed.value)


async def test_a_slow_step_can_be_cancelled(lab: Lab) -> None:
    """The stop cuts it short."""

    @service
    async def works(serving: Serving[None]) -> None:
        event = anyio.Event()
        async with serving() as work:
            work.start_soon(_set, event)
            await event.wait()
            await anyio.sleep_forever()

    async def _set(event: anyio.Event) -> None:
        await anyio.sleep(1)
        event.set()

    await lab.stop_at(3).run(faulty(works, Slow(100), "work"))
    assert lab.when("works", "stopped") == 3


@pytest.mark.parametrize("anyio_backend", [("trio", backend_options("trio"))], ids=["trio"])
async def test_a_wait_that_cannot_be_undone_crashes_when_it_is_over(lab: Lab) -> None:
    """Some waits of trio refuse to be undone; the exit of a task group takes the error for its own."""
    import trio

    @service
    async def grouped() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)

    @service
    async def refusing() -> None:
        task = trio.lowlevel.current_task()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wake, task)
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def _wake(task: trio.lowlevel.Task) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        trio.lowlevel.reschedule(task)

    await lab.run(faulty(grouped, InjectedFault, "work"))
    assert "InjectedFault" in repr(lab.error("grouped"))
    later = Lab()
    await later.run(faulty(refusing, InjectedFault, "work"))
    assert "InjectedFault" in repr(later.error("refusing"))
    assert later.when("refusing", "failed") - later.when("refusing", "starting") == 3


async def test_a_faulty_copy_is_a_service_like_the_other() -> None:
    """Same name, signature and commands; and it can be called with a fake."""

    @service
    async def tool(serving: Serving[int]) -> None:
        await anyio.sleep(1)
        async with serving(1):
            await anyio.sleep(1)

    @tool.command
    async def up() -> None: ...

    copy = faulty(tool, Slow(1), times=0)
    assert (copy.name, copy.commands, copy.needs) == (tool.name, tool.commands, tool.needs)
    await copy(serving=(fake := FakeServing()))
    assert fake.value == 1
    with pytest.raises(InjectedFault):
        await faulty(tool, InjectedFault)(FakeServing())


async def test_a_faulty_service_may_be_closed() -> None:
    """As any coroutine that is suspended."""
    closed: list[bool] = []

    @service
    async def waits() -> None:
        try:
            await anyio.lowlevel.cancel_shielded_checkpoint()
        finally:
            closed.append(True)

    coroutine = faulty(waits, Slow(1), "work")()
    coroutine.send(None)
    coroutine.close()
    assert closed


async def test_what_cannot_be_faulty_is_refused() -> None:
    """A phase that the service does not have, and a step before the first."""
    with pytest.raises(DeclarationError) as caught:
        faulty(guest, InjectedFault)
    assert str(caught.value) == f'{guest.where}: guest has no start: it takes no `Serving`; write at="work"'
    with pytest.raises(ValueError, match="step is 0"):
        faulty(store, InjectedFault, step=0)
