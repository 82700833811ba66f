"""The public test kit: `running` and the fakes, used as its users would."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.errors import (
    ConfigError,
    NamingError,
    PlanError,
    Problems,
    ServedTwice,
    StrayCancellation,
)
from kernel.lifecycle.events import State, StopBegan, Transition
from kernel.testing import (
    CancelledWithin,
    FakeServing,
    InjectedFault,
    RunFailed,
    Running,
    StateMissed,
    faulty,
    running,
)
from tests.testing.parts import StoreConfig, guest, reader, store

pytestmark = pytest.mark.anyio


ROOT = Path(__file__).parents[2]


DOCS = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/testing.md").read_text(), re.MULTILINE | re.DOTALL))


# -- running -----------------------------------------------------------------------------------------------------------


async def test_services_are_ready_in_the_block_and_stopped_after_it() -> None:
    """The block begins when all are ready; a dependency outlives its dependents."""
    async with running(store, reader) as run:
        assert anyio.current_time() == 1
        assert run.states(reader) == [State.WAITING, State.STARTING, State.READY]
        assert run.value("store") == StoreConfig()
        assert run.value(reader) is None
        with pytest.raises(RuntimeError, match="still run"):
            _ = run.report
    assert run.value(store) is None
    assert run.report.exit_code == 0
    stopped = [event.service for event in run.events if isinstance(event, Transition) and event.state is State.STOPPED]
    assert stopped == ["reader", "store"]
    assert [move.previous for move in run.transitions(store)] == run.states(store)[:-1]


async def test_a_block_may_wait_for_a_state_and_stop_all() -> None:
    """`wait_for` returns when the state is there, and says so when it never will be."""
    async with running(store, reader) as run:
        await run.wait_for(store, State.READY)
        run.stop()
        await run.wait_for(reader, State.STOPPING)
        await run.wait_for("store", State.STOPPED)
        run.stop()
        with pytest.raises(StateMissed, match=r"store has ended \(stopped\); it will never be ready"):
            await run.wait_for(store, State.READY)
    assert run.report.reason == "requested by the test"


async def test_all_may_be_done_before_the_block_is() -> None:
    """One-shots that returned well, and failures that are allowed, end nothing but themselves."""

    @service(oneshot=True)
    async def migrator() -> None:
        await anyio.sleep(3)

    async with running(migrator) as run:
        await anyio.sleep(1)
    assert run.states(migrator)[-1] is State.DONE
    async with running(store, guest) as run:
        await anyio.sleep(1)
    assert run.states(guest)[-1] is State.FAILED


async def test_a_failure_before_the_block_is_raised_instead() -> None:
    """The block is never entered, and the cause is the service's own exception."""
    with pytest.raises(RunFailed, match="store failed: InjectedFault: no disk") as failed:
        async with running(faulty(store, InjectedFault("no disk")), reader):
            pytest.fail("entered")
    assert isinstance(failed.value.__cause__, InjectedFault)
    assert failed.value.run.states(reader) == [State.WAITING, State.STOPPED]
    assert failed.value.report.first == "store"


async def test_a_failure_in_the_block_cancels_it_when_all_have_ended() -> None:
    """The block sees the others stop, and nothing that can no longer happen is waited for."""

    @service
    async def crasher() -> None:
        await anyio.sleep(5)
        raise OSError("broken")

    with pytest.raises(RunFailed) as failed:  # noqa: PT012
        async with running(store, crasher) as run:
            await run.wait_for(store, State.STOPPED)
            await anyio.sleep_forever()
    assert isinstance(failed.value.__cause__, OSError)
    with pytest.raises(AssertionError, match="mine") as raised:  # noqa: PT012
        async with running(store, crasher) as run:
            await run.wait_for(crasher, State.FAILED)
            raise AssertionError("mine")
    assert raised.value.__notes__ == ["besides: crasher failed: OSError: broken"]


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    """Nothing is wrapped into a group, and the services are stopped in order first."""
    with pytest.raises(KeyError):
        async with running(store) as run:
            raise KeyError("mine")
    assert run.states(store)[-1] is State.STOPPED


async def test_a_cancelled_block_stops_its_services_in_order() -> None:
    """In the block, and while the services start."""
    with anyio.move_on_after(3) as scope:
        async with running(store, reader) as run:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.report.exit_code == 0
    assert anyio.current_time() == 4
    with anyio.move_on_after(0.5) as scope:
        async with running(store):
            pytest.fail("entered")
    assert scope.cancelled_caught


async def test_a_stop_before_all_are_ready_is_told() -> None:
    """A KeyboardInterrupt in a service is a request to stop, and no failure of it."""

    @service
    async def interrupted(serving: Serving[None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunFailed, match="stopped before all services were ready: KeyboardInterrupt"):
        async with running(store, interrupted):
            pytest.fail("entered")


async def test_configs_are_given_or_read() -> None:
    """By service, by name, or from an environment; what is given is not read."""
    names: list[str | Service[..., Any]] = [store, "store"]
    for name in names:
        configs: dict[str | Service[..., Any], object] = {name: StoreConfig(7)}
        async with running(store, configs=configs, environ={"STORE_SIZE": "many"}) as run:
            assert run.value(store) == StoreConfig(7)
    async with running(store, environ={"STORE_SIZE": "9"}) as run:
        assert run.value(store) == StoreConfig(9)


@pytest.mark.parametrize(
    ("services", "options", "error", "says"),
    [
        ([], {}, NamingError, "got: none"),
        ([store, store], {}, NamingError, "got: store, store"),
        ([reader], {}, NamingError, "reader depends on 'store', which does not exist"),
        (
            [store],
            {"configs": {"stor": 1}},
            NamingError,
            "there is no service 'stor' in this block; did you mean 'store'",
        ),
        ([store], {"configs": {"xyz": 1}}, NamingError, "there are: store"),
        ([store], {"configs": {store: 1}}, ConfigError, "store takes a config of type StoreConfig, but got 1"),
        ([store, reader], {"configs": {reader: 1}}, ConfigError, "reader takes no config, but got 1"),
        ([store], {"environ": {"STORE_SIZE": "many"}}, ConfigError, "STORE_SIZE is 'many'"),
        ([reader], {"configs": {"xyz": 1}}, Problems, "does not exist"),
    ],
)
async def test_what_cannot_run_is_refused(
    services: list[Service[..., Any]], options: dict[str, Any], error: type[PlanError], says: str
) -> None:
    """Nothing is started, and the error tells what is wrong."""
    with pytest.raises(error, match=re.escape(says)):
        async with running(*services, **options):
            pytest.fail("entered")


async def test_all_that_is_wrong_is_told_at_once() -> None:
    """Each config of them all, and each dependency."""
    configs: Any = {"xyz": 1, "stor": 1, store: 1, reader: 1}
    with pytest.raises(Problems) as caught:
        async with running(store, reader, guest, reader, configs=configs, environ={"STORE_SIZE": "many"}):
            pytest.fail("entered")
    told = [str(error) for error in caught.value.errors]
    assert [next(words for words in told if says in words) for says in ("got: store, reader, guest, reader", "'xyz'")]
    assert [error for error in told if "'stor'" in error]
    assert [error for error in told if "configs: store takes a config of type StoreConfig, but got 1" in error]
    assert [error for error in told if "configs: reader takes no config, but got 1" in error]
    assert len(told) == 5


@pytest.mark.parametrize(("options", "seconds"), [({}, 10.0), ({"shutdown_timeout": 3.0}, 3.0)])
async def test_the_shutdown_has_ten_seconds(options: dict[str, Any], seconds: float) -> None:
    """Or as many as are given."""
    async with running(store, **options) as run:
        pass
    (began,) = (event for event in run.events if isinstance(event, StopBegan))
    assert (began.seconds, began.reason, began.failure) == (seconds, "the test left the block", False)


async def test_a_variable_that_nobody_reads_is_warned_about() -> None:
    """A misspelt variable in a test would test nothing."""
    with pytest.warns(UserWarning, match="did you mean STORE_SIZE"):
        async with running(store, environ={"STORE_SIZES": "9"}):
            pass


# -- a fake ------------------------------------------------------------------------------------------------------------


async def test_a_service_is_called_with_a_fake(fake_serving: FakeServing) -> None:
    """The fake has the value; a stop cancels the work and not what surrounds it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store, StoreConfig(3), fake_serving)
        assert await fake_serving.served() == StoreConfig(3)
        await anyio.sleep(5)
        fake_serving.stop()
    assert anyio.current_time() == 7
    assert fake_serving.error is None


async def test_background_tasks_end_with_the_work_of_a_fake() -> None:
    """By a stop asked for before it serves, too; and one that drains leaves by itself."""
    ended: list[str] = []

    async def background() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("background")

    async def drains(serving: Serving[int]) -> None:
        async with serving(1, drain=True) as work:
            work.start_soon(background)
            await work.stop_requested()
            await anyio.sleep(2)
            ended.append("drained")

    early = FakeServing()
    early.stop()
    await drains(early)
    assert ended == ["drained", "background"]
    assert anyio.current_time() == 2
    assert early.value == 1


async def test_a_stop_before_a_fake_serves() -> None:
    """Ends the work as soon as it begins."""
    early = FakeServing()
    early.stop()
    with anyio.fail_after(100):
        await store(StoreConfig(3), early)
    assert await early.served() == StoreConfig(3)
    assert anyio.current_time() == 2


def test_a_fake_that_nobody_used() -> None:
    """Has the values that a service sees before anything happens."""
    fake = FakeServing()
    assert (fake.value, fake.error, fake.config, fake.withheld) == (None, None, None, ())
    assert (fake.requested, fake.live_consumers, fake.time_left, fake.name) == (False, 0, 0.0, "the service")


async def test_what_a_service_says_to_its_fake(fake_serving: FakeServing) -> None:
    """That it is not ready, for the reasons that hold at the moment; and that a stop was requested."""
    seen: list[Any] = []

    async def works(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            with work.unready("warming up"), work.unready("no disk"):
                seen.append(fake_serving.withheld)
            seen.append(fake_serving.withheld)
            seen.append(work.stopping)
            await work.stop_requested()
            block: Any = work
            seen.append((work.stopping, block.time_left(), block.config))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(works, fake_serving)
        await fake_serving.served()
        await anyio.sleep(1)
        fake_serving.stop()
    assert seen == [("warming up", "no disk"), (), False, (True, 0.0, None)]


async def test_a_crash_in_the_work_of_a_fake_comes_out(fake_serving: FakeServing) -> None:
    """As it is; and one fake serves once."""

    async def crashes(serving: Serving[None]) -> None:
        async with serving():
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await crashes(fake_serving)
    assert isinstance(fake_serving.error, OSError)
    with pytest.raises(ServedTwice):
        await crashes(fake_serving)
    with pytest.raises(StrayCancellation):
        await faulty(store, CancelledWithin(), "work")(StoreConfig(), FakeServing("store"))


# -- the page, and what the module costs -------------------------------------------------------------------------------


PAGE: dict[str, Any] = {"__name__": "page"}


exec(compile(DOCS, "docs/testing.md", "exec"), PAGE)  # noqa: S102


PAGE_TESTS: list[Callable[..., Awaitable[None]]] = [one for name, one in PAGE.items() if name.startswith("test_")]


@pytest.mark.parametrize("example", PAGE_TESTS, ids=lambda example: example.__name__)
async def test_the_page(example: Callable[..., Awaitable[None]], fake_serving: FakeServing) -> None:
    """Each test that docs/testing.md shows passes."""
    await (example(fake_serving) if inspect.signature(example).parameters else example())


@pytest.mark.parametrize(
    ("imported", "spared"), [("kernel.cli, kernel.run.runner", "pytest"), ("kernel.testing", "trio")]
)
def test_what_is_imported(imported: str, spared: str) -> None:
    """The kernel needs no pytest, and the test kit no trio before it is used."""
    code = f"import sys, {imported}; sys.exit({spared!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_running_is_documented() -> None:
    """Every public method of what `running` gives says what it does."""
    assert all(inspect.getdoc(one) for name, one in vars(Running).items() if not name.startswith("_"))
