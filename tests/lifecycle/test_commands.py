"""One-shots and commands, and the providers that they wait for."""

from __future__ import annotations

import anyio
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import StartTimeout, ValueLost
from kernel.lifecycle.events import State
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after, hang
from tests.lifecycle.parts import ALWAYS, Part, chain, provider, story

pytestmark = pytest.mark.anyio


# -- the end of a command ----------------------------------------------------------------------------------------------


async def test_a_command_is_not_started_again(lab: Lab) -> None:
    """A provider's crash ends the command that holds its value, and so the app."""

    @service(depends=["db"])
    async def command(db: str) -> None:
        await anyio.sleep_forever()

    await lab.run(provider(lab, failing=lambda: True), Unit(command, command=True))
    error = lab.error("command")
    assert isinstance(error, ValueLost)
    assert error.provider == "db"
    assert lab.stop_began.reason == "command failed"
    assert lab.exit_code == 1


@pytest.mark.parametrize("below", [False, True], ids=["itself", "what it stands on"])
async def test_a_command_is_told_which_value_it_lost(lab: Lab, below: bool) -> None:
    """Of several providers the error names the one whose value went, also where another one below it has crashed."""
    crashing = provider(lab, "cache", failing=lambda: True)
    parts = chain(db=Part(crashes=(5,)), cache=Part()) if below else [crashing]

    @service
    async def other(serving: Serving[str]) -> None:
        async with serving("value"):
            await anyio.sleep_forever()

    @service(depends=["other", "cache"], oneshot=True)
    async def ask(other: str, cache: str) -> None:
        await anyio.sleep_forever()

    await lab.run(*parts, other, Unit(ask, command=True))
    error = lab.error("ask")
    assert isinstance(error, ValueLost)
    assert error.provider == "cache"


async def test_the_end_of_a_command_is_the_end(lab: Lab) -> None:
    """When a command has returned, those who gave it values are stopped, after it."""

    @service(depends=["db"])
    async def command(db: str) -> None:
        await anyio.sleep(2)

    await lab.run(provider(lab), Unit(command, command=True))
    assert lab.stop_began.reason == "the command has ended"
    assert lab.marks[1:] == [(2, "db closing"), (3, "db closed")]
    assert lab.exit_code == 0


# -- one-shots and commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "runs"), [(1.5, 1), (2, 1), (2.5, 2)], ids=["in backoff", "as it is tried again", "in its second attempt"]
)
async def test_a_stop_while_a_oneshot_is_retried(lab: Lab, stop: float, runs: int) -> None:
    """It is stopped, which is no failure, and what waits for it never starts."""

    @service(oneshot=True, retries=ALWAYS)
    async def migrate() -> None:
        lab.mark("migrate")
        await crash_after(1, ValueError("no route"))

    @service(depends=["migrate"])
    async def api() -> None:
        lab.mark("never")

    await lab.stop_at(stop).run(migrate, api)
    assert story(lab, "migrate").endswith(f" stopped@{stop}")
    assert lab.ending("api").reason == "never started"
    assert lab.marked == ["migrate"] * runs
    assert lab.exit_code == 0


@pytest.mark.parametrize(
    ("oneshot", "options"),
    [(False, {}), (True, {})],
    ids=["service", "one-shot"],
)
async def test_a_start_that_took_too_long_and_is_cut_in_the_stop(lab: Lab, oneshot: bool, options: object) -> None:
    """However it ended, the error that came first survives: as the error, or as its cause."""

    async def slow(serving: Serving[None]) -> None:
        await hang(4.5)

    async def slow_oneshot() -> None:
        await hang(4.5)

    declare = service(start_timeout=1, stop_timeout=2, oneshot=oneshot)
    await lab.stop_at(2).run(declare(slow_oneshot if oneshot else slow))
    error: BaseException | None = lab.report.endings[0].error
    seen = []
    while error is not None:
        seen.append(type(error))
        error = error.__cause__
    assert StartTimeout in seen
    assert lab.exit_code == 1


def command(lab: Lab, closing: float = 0.0) -> Unit:
    """A command that holds the value of `db`, and never ends by itself."""

    @service(depends=["db"], oneshot=True, start_timeout=None)
    async def ask(db: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await hang(closing)

    return Unit(ask, command=True)


@pytest.mark.parametrize(("crash", "stop"), [(5, 6), (6, 5), (5, 5)], ids=["crash first", "signal first", "at once"])
async def test_a_command_whose_provider_crashes_as_a_signal_comes(lab: Lab, crash: float, stop: float) -> None:
    """The command has been stopped, the provider has failed, and closes only when the command has cleaned up."""
    (db,) = chain(db=Part(crashes=(crash,), closing=1))
    await lab.stop_at(stop).run(db, command(lab, closing=3))
    assert story(lab, "ask") == "starting@0 stopping@5 stopped@8"
    assert story(lab, "db") == f"ready@0 stopping@{crash} failed@9"
    assert lab.exit_code == 1


async def test_a_signal_while_the_providers_of_a_command_start(lab: Lab) -> None:
    """The command never starts, and what was set up is torn down: as asked."""
    (db,) = chain(db=Part(opening=5, closing=1))
    await lab.stop_at(4.5).run(db, command(lab))
    assert (story(lab, "db"), story(lab, "ask")) == ("starting@0 stopping@4.5 stopped@6", "stopped@4.5")
    assert lab.exit_code == 0


# -- KeyboardInterrupt -------------------------------------------------------------------------------------------------


async def test_keyboard_interrupt_in_a_provider_is_a_signal_to_its_consumers_too(lab: Lab) -> None:
    """The stop begins with it: its deadline holds for those who drain, and a command has been stopped, not failed."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with serving("value"):
            await crash_after(5, KeyboardInterrupt())

    await lab.run(db, command(lab, closing=2))
    assert lab.stopped_at == 5
    assert lab.ending("ask").state is State.STOPPED
    assert lab.exit_code == 0
