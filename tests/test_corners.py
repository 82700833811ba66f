"""Where two corners of the contract meet: what is decided for each alone must hold for both at once."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.errors import StartTimeout, StopTimeout, ValueLost
from kernel.lifecycle.events import Event, State, Transition
from kernel.lifecycle.units import Unit
from kernel.observe import lifecycle_log
from kernel.plan.discovery import ServiceFile, _refuse_name
from kernel.plan.registry import Registry
from kernel.process.signals import Signals
from kernel.run.runner import around
from tests.harness import Lab, crash_after, hang, resource

ALWAYS = Retry(times=None, delay=1, factor=1, jitter=0)
ONCE = Retry(times=1, delay=1, jitter=0)
AnyService = Service[..., Any]
virtual = pytest.mark.anyio


# -- a chain of consumers ----------------------------------------------------------------------------------------------


@attrs.frozen
class Part:
    """What one service does. Times are in seconds; what is a tuple is for one attempt after the other.

    Args:
        opening: How long it takes to serve.
        crashes: When its work crashes, from ready on.
        leaves: When it leaves its block unasked, from ready on.
        drains: How long it drains when asked to stop; None where its work is cancelled.
        closing: How long its clean-up takes.
        hangs: How long that ignores every cancellation.
        fails: In how many attempts clean-up fails in the end.
        retries: How often it may crash.
        limit: Its stop_timeout.
        allowed: Whether it may fail.

    """

    opening: float = 0.0
    crashes: tuple[float, ...] = ()
    leaves: tuple[float, ...] = ()
    drains: float | None = None
    closing: float = 0.0
    hangs: float = 0.0
    fails: int = 0
    retries: int | Retry = ALWAYS
    limit: float = 30.0
    allowed: bool = False

    async def play(self, serving: Serving[str], attempt: int) -> None:
        """Be that service."""
        await anyio.sleep(self.opening)
        try:
            async with serving("value", drain=self.drains is not None) as work:
                if attempt < len(self.crashes):
                    await crash_after(self.crashes[attempt], ValueError("boom"))
                if attempt < len(self.leaves):
                    await anyio.sleep(self.leaves[attempt])
                elif self.drains is None:
                    await anyio.sleep_forever()
                else:
                    await work.stop_requested()
                    await anyio.sleep(self.drains)
        finally:
            await hang(self.hangs)
            await anyio.sleep(self.closing)
            if attempt < self.fails:
                raise OSError("clean-up")


def chain(**parts: Part) -> list[AnyService]:
    """`db`, whose value `cache` holds, whose value `api` holds; or less of them."""
    attempts = dict.fromkeys(parts, -1)

    async def play(name: str, serving: Serving[str]) -> None:
        attempts[name] += 1
        await parts[name].play(serving, attempts[name])

    async def db(serving: Serving[str]) -> None:
        await play("db", serving)

    async def cache(db: str, serving: Serving[str]) -> None:
        await play("cache", serving)

    async def api(cache: str, serving: Serving[str]) -> None:
        await play("api", serving)

    depends = {"db": [], "cache": ["db"], "api": ["cache"]}
    functions = (fn for fn in (db, cache, api) if fn.__name__ in parts)
    return [
        service(
            depends=depends[fn.__name__],
            retries=parts[fn.__name__].retries,
            stop_timeout=parts[fn.__name__].limit,
            allowed_failure=parts[fn.__name__].allowed,
        )(fn)
        for fn in functions
    ]


def story(lab: Lab, name: str) -> str:
    """Each state of a service with its time; "starting" is left out where it is ready at once."""
    moves = [(when, event) for when, event in lab.log if isinstance(event, Transition) and event.service == name]
    text = " ".join(f"{event.state.value}@{when:g}" for when, event in moves)
    return re.sub(r"starting@(\S+) (?=ready@\1 )", "", text)


@attrs.frozen
class Case:
    """The exit code, services of the chain with what is to become of each, when signals come, and why it stops."""

    code: int
    db: tuple[Part, str]
    cache: tuple[Part, str] | None = None
    api: tuple[Part, str] | None = None
    stop: float | None = None
    force: float | None = None
    timeout: float = 10.0
    drain_delay: float = 0.0
    began: str = "asked"


CASES = {
    # -- a stop comes while consumers stop because their provider crashed
    "a draining consumer goes on draining, and the provider's crash stays a failure": Case(
        1,
        db=(Part(crashes=(5,), closing=1), "ready@0 stopping@5 failed@12"),
        cache=(Part(drains=6), "ready@0 stopping@5 stopped@11"),
        stop=7,
    ),
    "its stop_timeout counts from when it was asked first": Case(
        1,
        db=(Part(crashes=(5,), closing=1, limit=2), "ready@0 stopping@5 failed@9"),
        cache=(Part(drains=50, limit=3), "ready@0 stopping@5 failed@8"),
        stop=7,
    ),
    "its share of the deadline holds as well": Case(  # T = 10, r = 1: cut at T - 1.5
        1,
        db=(Part(crashes=(5,), closing=1), "ready@0 stopping@5 failed@9.5"),
        cache=(Part(drains=50), "ready@0 stopping@5 failed@8.5"),
        stop=6,
        timeout=4,
    ),
    "clean-up of a restarted consumer that fails then is not retried": Case(
        1,
        db=(Part(crashes=(5,), closing=1), "ready@0 stopping@5 failed@9"),
        cache=(Part(closing=3, fails=1), "ready@0 stopping@5 failed@8"),
        stop=6,
    ),
    "the provider crashes in the very tick of the stop": Case(
        1,
        db=(Part(crashes=(5,)), "ready@0 stopping@5 failed@7"),
        cache=(Part(closing=2), "ready@0 stopping@5 stopped@7"),
        stop=5,
    ),
    "the provider starts again, and its consumer waits": Case(
        0,
        db=(Part(opening=3, crashes=(5,)), "starting@0 ready@3 stopping@8 backoff@8 starting@9 stopping@10 stopped@11"),
        cache=(Part(), "ready@3 stopping@8 waiting@8 stopped@10"),
        stop=10,
    ),
    "the provider's provider crashes and the one in between has not been asked yet": Case(
        1,
        db=(Part(crashes=(5,)), "ready@0 stopping@5 failed@10"),
        cache=(Part(closing=1), "ready@0 stopping@9 stopped@10"),
        api=(Part(closing=4), "ready@0 stopping@5 stopped@9"),
        stop=6,
    ),
    # -- the provider ends, and the stop
    "a provider leaves serving unasked during the stop": Case(
        0,
        db=(Part(leaves=(6,), closing=1), "ready@0 stopping@6 stopped@9"),
        cache=(Part(closing=3), "ready@0 stopping@5 stopped@8"),
        stop=5,
    ),
    "a provider leaves serving unasked during the drain delay": Case(
        0,
        db=(Part(leaves=(6,)), "ready@0 stopping@6 done@7"),
        cache=(Part(closing=1), "ready@0 stopping@6 waiting@7 stopped@7"),
        stop=5,
        drain_delay=5,
    ),
    "a provider that left serving unasked fails in its clean-up: it is retried, and its consumer waits for it": Case(
        0,
        db=(Part(leaves=(5,), closing=1, fails=1), "ready@0 stopping@5 backoff@6 ready@7 stopping@9 stopped@10"),
        cache=(Part(), "ready@0 stopping@5 waiting@5 ready@7 stopping@9 stopped@9"),
        stop=9,
    ),
    "a draining consumer, and a provider that left serving unasked: done after it, and the value is lost": Case(
        1,
        db=(Part(leaves=(5,), closing=1, limit=2), "ready@0 stopping@5 done@12"),
        cache=(Part(drains=6), "ready@0 stopping@5 waiting@11 failed@12"),
        began="cache failed",
    ),
    # -- what cannot be cut, and a provider that crashes
    "a consumer is abandoned while its provider's provider restarts; then the others go on": Case(
        3,
        db=(Part(crashes=(5,), closing=1, limit=2), "ready@0 stopping@5 backoff@10 ready@11 stopping@31 stopped@32"),
        cache=(Part(closing=1, limit=2), "ready@0 stopping@8 waiting@9 ready@11 stopping@30 stopped@31"),
        api=(Part(hangs=50, limit=2, allowed=True), "ready@0 stopping@5 abandoned@8"),
        stop=30,
    ),
    "an abandoned consumer is left alone when its provider crashes again": Case(
        3,
        db=(
            Part(crashes=(5, 5)),
            "ready@0 stopping@5 backoff@8 ready@9 stopping@14 backoff@14 ready@15 stopping@30 stopped@30",
        ),
        cache=(Part(hangs=50, limit=2, allowed=True), "ready@0 stopping@5 abandoned@8"),
        stop=30,
    ),
    "a consumer is abandoned, which is fatal: its provider's crash is not retried": Case(
        3,
        db=(Part(crashes=(5,), closing=1), "ready@0 stopping@5 failed@9"),
        cache=(Part(hangs=50, limit=2), "ready@0 stopping@5 abandoned@8"),
        began="cache abandoned",
    ),
    "a provider is abandoned in the clean-up of its crash: its consumer has lost the value": Case(
        3,
        db=(Part(crashes=(5,), hangs=50, limit=2, allowed=True), "ready@0 stopping@5 abandoned@8"),
        cache=(Part(allowed=True), "ready@0 stopping@5 waiting@5 failed@8"),
        began="every service has ended",
    ),
    # -- more than one crash
    "a consumer crashes while it waits for its own consumers to end: a retry of its own": Case(
        0,
        db=(Part(crashes=(5,), closing=2), "ready@0 stopping@5 backoff@11 ready@12 stopping@20 stopped@22"),
        cache=(
            Part(crashes=(7,), retries=ONCE),
            "ready@0 stopping@7 backoff@9 waiting@10 ready@12 stopping@20 stopped@20",
        ),
        api=(Part(closing=4), "ready@0 stopping@5 waiting@9 ready@12 stopping@16 stopped@20"),
        stop=16,
    ),
    "clean-up of a restarted consumer fails for good: the stop begins, and the provider's crash is not retried": Case(
        1,
        db=(Part(crashes=(5,), closing=1), "ready@0 stopping@5 failed@9"),
        cache=(Part(closing=3, fails=1, retries=0), "ready@0 stopping@5 failed@8"),
        began="cache failed",
    ),
    # -- drain, and no failure
    "a provider drains when its draining consumer has ended": Case(
        0,
        db=(Part(drains=2), "ready@0 stopping@8 stopped@10"),
        cache=(Part(drains=3), "ready@0 stopping@5 stopped@8"),
        stop=5,
    ),
    "consumers drain from the outside in when a provider crashes": Case(
        0,
        db=(Part(crashes=(5,)), "ready@0 stopping@5 backoff@10 ready@11 stopping@25 stopped@25"),
        cache=(Part(drains=2), "ready@0 stopping@8 waiting@10 ready@11 stopping@23 stopped@25"),
        api=(Part(drains=3), "ready@0 stopping@5 waiting@8 ready@11 stopping@20 stopped@23"),
        stop=20,
    ),
    "a consumer that reaches serving within its second, as its value goes, closes calmly and starts again": Case(
        0,
        db=(Part(crashes=(5,)), "ready@0 stopping@5 backoff@7.5 ready@8.5 stopping@22 stopped@22"),
        cache=(
            Part(opening=5.5, closing=2),
            "starting@0 stopping@5 waiting@7.5 starting@8.5 ready@14 stopping@20 stopped@22",
        ),
        stop=20,
    ),
    # -- what may fail
    "one that may fail crashes in the drain delay: it is not retried, and the delay goes on": Case(
        0,
        db=(Part(), "ready@0 stopping@8 stopped@8"),
        cache=(Part(crashes=(6,), allowed=True), "ready@0 stopping@6 failed@6"),
        stop=5,
        drain_delay=3,
    ),
    "the only service may fail, and does in its clean-up: then every service has failed": Case(
        1, db=(Part(fails=1, allowed=True), "ready@0 stopping@5 failed@5"), stop=5
    ),
    # -- the deadline
    "a failure in the course of the stop does not move the deadline": Case(  # T = 15, r = 1
        3,
        db=(Part(hangs=50, limit=99), "ready@0 stopping@14 abandoned@15"),
        cache=(Part(crashes=(8,), hangs=50, limit=99), "ready@0 stopping@8 abandoned@14"),
        api=(Part(hangs=50, limit=99), "ready@0 stopping@5 abandoned@13"),
        stop=5,
    ),
    "a failure ends the drain delay, and what is left until the deadline is shared out": Case(  # T = 8, r = 2 / (2 * 2)
        3,
        db=(Part(hangs=50), "ready@0 stopping@7.5 abandoned@8"),
        cache=(Part(hangs=50), "ready@0 stopping@6 abandoned@7.5"),
        api=(Part(crashes=(6,)), "ready@0 stopping@6 failed@6"),
        stop=5,
        timeout=3,
        drain_delay=2.5,
    ),
    "a service that is starting has no more than its share of the deadline": Case(  # T = 5.8, r = 0.2
        0,
        db=(Part(closing=0.1), "ready@0 stopping@5.5 stopped@5.6"),
        cache=(Part(opening=50), "starting@0 stopping@5 stopped@5.5"),
        stop=5,
        timeout=0.8,
    ),
    # -- a further signal
    "a second signal in the drain delay: what ignores the cut is given up 1 s later": Case(
        130,
        db=(Part(closing=50), "ready@0 stopping@6 failed@6"),
        cache=(Part(hangs=50), "ready@0 stopping@6 abandoned@7"),
        stop=5,
        force=6,
        drain_delay=4,
    ),
    "a second signal while a consumer drains because its provider crashed": Case(
        130,
        db=(Part(crashes=(5,), closing=50), "ready@0 stopping@5 failed@7"),
        cache=(Part(drains=50), "ready@0 stopping@5 failed@7"),
        stop=6,
        force=7,
    ),
    "a second signal just before the deadline moves it no further": Case(
        130, db=(Part(hangs=50, limit=99), "ready@0 stopping@5 abandoned@15"), stop=5, force=14.7
    ),
}


@virtual
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_two_corners_meet(lab: Lab, case: Case) -> None:
    """Each service has the life that the contract gives it, and the exit code follows."""
    if case.stop is not None:
        lab.stop_at(case.stop)
    if case.force is not None:
        lab.force_at(case.force)
    told = {name: one for name, one in (("db", case.db), ("cache", case.cache), ("api", case.api)) if one}
    parts = {name: part for name, (part, _) in told.items()}
    await lab.run(*chain(**parts), shutdown_timeout=case.timeout, drain_delay=case.drain_delay)
    assert {name: story(lab, name) for name in parts} == {name: text for name, (_, text) in told.items()}
    assert lab.stop_began.reason == case.began
    assert lab.exit_code == case.code


# -- abandoned -------------------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("stop", [None, 5], ids=["in a restart", "in the stop"])
async def test_what_was_abandoned_while_starting_and_serves_later_serves_nobody(lab: Lab, stop: float | None) -> None:
    """It has ended for the kernel: what it does then is noticed, and the others go on, or close, as they would."""
    (db,) = chain(db=Part(crashes=() if stop else (1,), closing=0.4))

    @service(depends=["db"], stop_timeout=1, allowed_failure=True)
    async def cache(db: str, serving: Serving[None]) -> None:
        await hang(14.2 if stop else 6)
        async with serving():
            lab.mark("serves")
            await anyio.sleep_forever()

    await lab.stop_at(stop or 20).run(db, cache)
    assert story(lab, "cache") == f"starting@0 stopping@{stop or 1} abandoned@{14 if stop else 3}"
    assert story(lab, "db").endswith("stopping@14 stopped@14.4" if stop else "ready@4.4 stopping@20 stopped@20.4")
    assert lab.exit_code == 3


# -- one-shots and commands ------------------------------------------------------------------------------------------


@virtual
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


@virtual
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


@virtual
@pytest.mark.parametrize(("crash", "stop"), [(5, 6), (6, 5), (5, 5)], ids=["crash first", "signal first", "at once"])
async def test_a_command_whose_provider_crashes_as_a_signal_comes(lab: Lab, crash: float, stop: float) -> None:
    """The command has been stopped, the provider has failed, and closes only when the command has cleaned up."""
    (db,) = chain(db=Part(crashes=(crash,), closing=1))
    await lab.stop_at(stop).run(db, command(lab, closing=3))
    assert story(lab, "ask") == "starting@0 stopping@5 stopped@8"
    assert story(lab, "db") == f"ready@0 stopping@{crash} failed@9"
    assert lab.exit_code == 1


@virtual
async def test_a_signal_while_the_providers_of_a_command_start(lab: Lab) -> None:
    """The command never starts, and what was set up is torn down: as asked."""
    (db,) = chain(db=Part(opening=5, closing=1))
    await lab.stop_at(4.5).run(db, command(lab))
    assert (story(lab, "db"), story(lab, "ask")) == ("starting@0 stopping@4.5 stopped@6", "stopped@4.5")
    assert lab.exit_code == 0


@virtual
async def test_a_command_names_the_value_that_went(lab: Lab) -> None:
    """Of several values, also when it went because of a crash further below."""
    db, cache = chain(db=Part(crashes=(5,)), cache=Part())

    @service
    async def other(serving: Serving[str]) -> None:
        async with serving("value"):
            await anyio.sleep_forever()

    @service(depends=["other", "cache"], oneshot=True)
    async def ask(other: str, cache: str) -> None:
        await anyio.sleep_forever()

    await lab.run(db, cache, other, Unit(ask, command=True))
    error = lab.error("ask")
    assert isinstance(error, ValueLost)
    assert error.provider == "cache"


# -- KeyboardInterrupt -----------------------------------------------------------------------------------------------


@virtual
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


# -- cut, though nobody had asked ------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(
    "how",
    [
        "is cancelled",
        "returns",
        "raises",
    ],
)
async def test_a_service_that_left_its_block_and_had_to_be_cut_has_failed(lab: Lab, how: str) -> None:
    """It overran, as it would have in a stop, whatever it did when it was cut."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep(1)
        try:
            await anyio.sleep_forever()
        finally:
            if how == "returns":
                return  # noqa: B012  (to swallow the cancellation is its point)
            if how == "raises":
                raise OSError("half written")

    await lab.run(db)
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert (error.__cause__ is not None) is (how == "raises")
    assert lab.exit_code == 1


# -- retries ---------------------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(
    ("ready_for", "end"),
    [
        (59.5, "failed"),
        (60, "stopped"),
    ],
)
async def test_the_budget_of_a_consumer_is_full_again_though_it_was_restarted(
    lab: Lab, ready_for: float, end: str
) -> None:
    """Once ready for reset_after, a crash soon after the next restart is the first again."""
    db, cache = chain(db=Part(crashes=(1 + ready_for,)), cache=Part(crashes=(0, math.inf, 1), retries=ONCE))
    await lab.stop_at(100).run(db, cache)
    assert lab.when("cache", "waiting") - lab.when("cache", "ready", 2) == ready_for
    assert lab.ending("cache").state.value == end


# -- values and readiness that come and go ---------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("crashes", [True, False], ids=["fails with permission", "leaves unasked"])
async def test_a_consumer_with_a_default_goes_on_without_a_value_that_is_gone_for_good(lab: Lab, crashes: bool) -> None:
    """It has let go of the value before the provider closes, and then starts again with its default."""
    part = Part(crashes=(5,)) if crashes else Part(leaves=(5,))
    (db,) = chain(db=attrs.evolve(part, closing=1, retries=0, allowed=True))

    @service(depends=["db"])
    async def cache(db: str = "default") -> None:
        lab.mark(db)
        await anyio.sleep_forever()

    await lab.stop_at(10).run(db, cache)
    assert story(lab, "cache") == "ready@0 stopping@5 waiting@5 ready@6 stopping@10 stopped@10"
    assert lab.marked == ["value", "default"]
    assert lab.exit_code == 0


@virtual
async def test_what_is_about_to_be_restarted_is_not_ready(lab: Lab) -> None:
    """One whose value goes still serves its own consumers; who waits for it and for another waits on."""
    parts = chain(db=Part(crashes=(2,)), cache=Part(), api=Part(closing=3))

    @service
    async def other(serving: Serving[None]) -> None:
        await anyio.sleep(3)
        async with serving():
            await anyio.sleep_forever()

    @service(depends=["cache", "other"])
    async def both() -> None:
        await anyio.sleep_forever()

    await lab.stop_at(10).run(*parts, other, both)
    assert story(lab, "cache").startswith("ready@0 stopping@5 waiting@5 ready@6")
    assert story(lab, "both").startswith("ready@6")


# -- two failures at once --------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("allowed", [True, False], ids=["one may", "neither may"])
async def test_two_failures_in_one_tick(lab: Lab, allowed: bool) -> None:
    """The first is the one that the stop is for, and never one that may fail; both are told."""
    now = anyio.Event()

    @service(allowed_failure=allowed)
    async def one() -> None:
        await now.wait()
        raise ValueError

    @service
    async def two() -> None:
        await now.wait()
        raise OSError

    await lab.at(5, now.set).run(one, two)
    assert {ending.state for ending in lab.report.endings} == {State.FAILED}
    assert lab.report.first == lab.stop_began.reason.removesuffix(" failed")
    assert lab.report.first == "two" if allowed else lab.report.first == lab.order("failed")[0]
    assert lab.exit_code == 1


# -- observers -------------------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(
    ("trigger", "force", "code", "ends"),
    [
        ("cache ready", False, 0, "stopped stopped stopped"),
        ("cache ready", True, 130, "failed failed failed"),
        ("AllReady", False, 0, "stopped stopped stopped"),
        ("db stopping", False, 1, "failed stopped stopped"),
        ("cache waiting", False, 1, "failed stopped stopped"),
        ("db backoff", False, 0, "stopped stopped stopped"),
        ("db starting", False, 0, "stopped stopped stopped"),
        ("StopBegan", True, 130, "failed failed failed"),
        ("api stopped", True, 130, "failed failed stopped"),
    ],
)
async def test_an_observer_asks_in_the_very_event(lab: Lab, trigger: str, force: bool, code: int, ends: str) -> None:
    """Whatever the event tells of has happened, and nothing is launched any more."""
    asked: list[float] = []

    def asks(event: Event) -> None:
        told = f"{event.service} {event.state.value}" if isinstance(event, Transition) else type(event).__name__
        if told == trigger and not asked:
            asked.append(lab.now)
            (lab.orchestrator.force if force else lambda: lab.orchestrator.request_stop("by an observer"))()

    if trigger in {"StopBegan", "api stopped"}:
        lab.stop_at(4)
    parts = chain(db=Part(crashes=(5,), closing=1), cache=Part(closing=1), api=Part())
    await lab.run(*parts, observers=[asks])
    launches = [when for when, event in lab.log if isinstance(event, Transition) and event.state is State.STARTING]
    assert max(launches) <= asked[0]
    assert " ".join(ending.state.value for ending in lab.report.endings) == ends
    assert lab.exit_code == code


@virtual
async def test_an_observer_asks_as_it_learns_of_a_failure(lab: Lab) -> None:
    """The failure has begun the stop already, and stays its reason."""

    def asks(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.FAILED:
            lab.orchestrator.request_stop("by an observer")

    (db,) = chain(db=Part(crashes=(5,), retries=0))
    await lab.run(db, observers=[asks])
    assert attrs.astuple(lab.stop_began) == ("db failed", 10.0, True)
    assert lab.exit_code == 1


@virtual
@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.STOPPED])
@pytest.mark.parametrize("error", [SystemExit(3), BaseExceptionGroup("", [SystemExit(3)])], ids=["exit", "group"])
async def test_an_observer_that_exits_takes_nothing_down(lab: Lab, error: BaseException, state: State) -> None:
    """It is reported and asked no more, as one that fails in any other way."""

    def exits(event: Event) -> None:
        if isinstance(event, Transition) and event.state is state:
            raise error

    await lab.stop_at(5).run(*chain(db=Part(), cache=Part(closing=1)), observers=[exits])
    assert story(lab, "db") == "ready@0 stopping@6 stopped@6"
    assert len(lab.notices) == 1
    assert lab.exit_code == 0


# -- the app's lifespans ---------------------------------------------------------------------------------------------


@attrs.frozen
class Span:
    """A run within two lifespans, of which the inner one misbehaves.

    Args:
        code: The exit code.
        inner: How that ends.
        opening: How long the inner one takes before its `yield`.
        before: Whether it fails there.
        closing: How long it takes after it.
        after: Whether it fails there.
        work: What the service does; it ends after so many seconds.
        stop: When a signal comes.
        force: When the next one does.

    """

    code: int
    inner: str
    opening: float = 0.0
    before: bool = False
    closing: float = 0.0
    after: bool = False
    work: Part = attrs.field(factory=Part)
    stop: float | None = None
    force: float | None = None


SPANS = {
    "fails after a forced stop": Span(130, "failed", after=True, work=Part(closing=50), stop=5, force=6),
    "is cut by a second signal": Span(130, "failed", closing=50, stop=5, force=6),
    "is cut by a second signal in its start": Span(130, "failed", opening=50, stop=5, force=5.5),
    "fails when all is done": Span(1, "failed", after=True, work=Part(leaves=(5,))),
    "fails after a failure": Span(1, "failed", after=True, work=Part(crashes=(5,), retries=0)),
    "fails after one was abandoned": Span(3, "failed", after=True, work=Part(hangs=50), stop=5),
    "is stopped in its start": Span(0, "stopped", opening=50, stop=5),
    "fails in its start, after the signal": Span(1, "failed", opening=5.5, before=True, stop=5),
    "is torn down after the signal, and fails in that": Span(1, "failed", opening=5.5, after=True, stop=5),
}


@virtual
@pytest.mark.parametrize("case", SPANS.values(), ids=SPANS)
async def test_a_lifespan_meets_another_corner(lab: Lab, case: Span) -> None:
    """The first exit code that fits counts; no service starts before it, and the outer one is undone all the same."""

    async def outer() -> AsyncGenerator[None, None]:
        async with resource(lab, "outer"):
            yield

    async def inner() -> AsyncGenerator[None, None]:
        await anyio.sleep(case.opening)
        if case.before:
            raise OSError("no disk")
        try:
            yield
        finally:
            await anyio.sleep(case.closing)
            if case.after:
                raise OSError("no disk")

    if case.stop is not None:
        lab.stop_at(case.stop)
    if case.force is not None:
        lab.force_at(case.force)
    await lab.run(*around([Unit(one) for one in chain(db=case.work)], [outer, inner], "app/init.py"))
    assert lab.ending("app/init.py:inner").state.value == case.inner
    assert lab.ending("db").attempts == (not case.opening)
    assert case.force or lab.marked == ["outer open", "outer closing", "outer closed"]
    assert lab.exit_code == case.code


# -- what is said ----------------------------------------------------------------------------------------------------


@virtual
async def test_the_last_lines_tell_each_end_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Each service has a line, where whoever overran is named; the last line has the first error and its service."""
    parts = chain(db=Part(closing=50, limit=2), cache=Part(), api=Part(crashes=(5,), retries=0))
    await lab.run(*parts)
    with caplog.at_level(logging.INFO):
        lifecycle_log.log_endings(lab.report)
        lifecycle_log.log_verdict(lab.report)
    table, last = (record.getMessage() for record in caplog.records)
    ends = dict(line.split(maxsplit=1) for line in table.splitlines()[1:])
    assert list(ends) == ["db", "cache", "api"]
    assert re.match("failed.*overran: cancelled 2 s after the stop was requested", ends["db"])
    assert re.match("stopped", ends["cache"])
    assert re.match("failed", ends["api"])
    assert re.fullmatch("exit 1: api failed.*ValueError: boom", last)


@virtual
@pytest.mark.parametrize("oneshot", [True, False])
async def test_done_unasked_is_worth_a_warning(lab: Lab, caplog: pytest.LogCaptureFixture, oneshot: bool) -> None:
    """Unless it is a one-shot, which is there to be done."""

    @service(oneshot=oneshot)
    async def brief() -> None: ...

    with caplog.at_level(logging.INFO):
        await lab.run(brief, observers=[lifecycle_log.LogObserver()])
    (done,) = (record for record in caplog.records if record.getMessage().startswith("done"))
    assert done.levelno == (logging.INFO if oneshot else logging.WARNING)
    assert lab.exit_code == 0


@virtual
@pytest.mark.parametrize("holds", [True, False])
async def test_a_stop_gives_a_clean_up_no_second_stop_timeout(lab: Lab, holds: bool) -> None:
    """It is on the clock since the crash; whether anybody depends on it changes nothing."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("boom"))
        finally:
            await anyio.sleep_forever()

    @service(depends=["db"] if holds else [])
    async def calm() -> None:
        await anyio.sleep_forever()

    await lab.stop_at(3).run(db, calm)
    assert lab.when("db", "failed") == 4
    assert isinstance(lab.error("db").__cause__, ValueError)


# -- signals ---------------------------------------------------------------------------------------------------------

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
    ("came", "counts"),
    [
        ([(INT, 0), (INT, 0.49)], [1]),
        ([(INT, 0), (INT, 0.51)], [1, 2]),
        ([(INT, 0), (INT, 0.3), (INT, 0.6)], [1, 2]),  # whoever holds the key down means it
        ([(INT, 0), (TERM, 0.1)], [1, 2]),
        ([(INT, 0), (TERM, 0.1), (TERM, 0.2)], [1, 2]),
        ([(INT, 0), (TERM, 0.1), (HUP, 0.2)], [1, 2, 130]),
        ([(INT, 0), (INT, 1), (INT, 2)], [1, 2, 130]),
        ([(INT, 0), (TERM, 0.1), (INT, 0.2)], [1, 2]),
    ],
)
def test_the_same_signal_twice_within_half_a_second_is_one(
    monkeypatch: pytest.MonkeyPatch, came: list[tuple[signal.Signals, float]], counts: list[int]
) -> None:
    """Each other one counts, and the third ends the process."""
    told: list[int] = []

    class Left(BaseException):
        """The process would be gone."""

    def leave(code: int) -> None:
        told.append(code)
        raise Left

    signals = Signals(told.append, lambda *_: None)
    signals.listen(lambda _: None)
    monkeypatch.setattr(os, "_exit", leave)
    for number, when in came:
        monkeypatch.setattr("kernel.process.signals.time", SimpleNamespace(monotonic=lambda when=when: 100 + when))
        try:
            signals._handle(number)
        except Left:
            break
    assert told == counts


# -- declarations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oneshot", [True, False])
def test_a_value_from_a_service_without_serving_is_refused(oneshot: bool) -> None:
    """It has none to hand over."""

    async def db() -> None: ...

    async def cache(db: str) -> None: ...

    declared: dict[str, AnyService] = {"db": service(oneshot=oneshot)(db), "cache": service(depends=["db"])(cache)}
    (error,), _ = Registry(declared).check()
    assert "cache takes the value of db" in str(error)


@pytest.mark.parametrize("name", ["admin", "kernel", "log", "otel", "runner", "services", "env"])
def test_a_name_that_means_something_else_is_reserved(name: str) -> None:
    """Its variables, or its records, would be taken for those of the kernel."""
    file = ServiceFile(name, f"services.{name}", f"services/{name}.py", None, str)  # type: ignore[arg-type]
    assert f"the name {name!r} is reserved" in str(_refuse_name(file, [name], ()))
