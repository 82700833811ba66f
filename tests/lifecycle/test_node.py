"""What a service in the graph tells of those that it waits for, and of those that made it stop."""

from __future__ import annotations

import anyio
import pytest

from kernel import Serving, service, started
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import crash_later, crashing_at, provider, sleeper

pytestmark = pytest.mark.anyio


def waited(lab: Lab, name: str) -> list[tuple[str, tuple[str, ...]]]:
    """The moves of a service that tell what it waited for, and what they tell."""
    return [(move.state.value, move.waited_for) for move in lab.moves(name) if move.waited_for]


def causes(lab: Lab, name: str) -> list[tuple[str, str]]:
    """The moves of a service with their causes."""
    return [(move.state.value, move.cause) for move in lab.moves(name)]


# -- what it waited for ------------------------------------------------------------------------------------------


async def test_a_start_names_all_in_the_order_in_which_they_came(lab: Lab) -> None:
    """However they were declared; those that were ready from the start count as well."""
    others = sleeper("slow", opening=9), sleeper("quick", opening=1), sleeper("middle", opening=4)
    await lab.stop_at(20).run(*others, sleeper("a", "slow", "quick", "middle"))
    assert waited(lab, "a") == [("starting", ("quick", "middle", "slow"))]


async def test_one_that_comes_twice_counts_when_it_came_last(lab: Lab) -> None:
    """It was away meanwhile, so what waited for it waited until then."""
    others = crashing_at("flaky", 5), sleeper("second", opening=7), sleeper("slow", opening=30)
    await lab.stop_at(40).run(*others, sleeper("a", "flaky", "second", "slow"))
    assert waited(lab, "a") == [("starting", ("second", "flaky", "slow"))]


async def test_a_later_wait_names_only_what_it_waited_for(lab: Lab) -> None:
    """Not what an earlier one did."""
    other = sleeper("slow", opening=2)

    @service(depends=["db", "slow"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), other, api)
    assert waited(lab, "api") == [("starting", ("db", "slow")), ("starting", ("db",))]


async def test_a_wait_in_vain_names_only_what_is_missing(lab: Lab) -> None:
    """Stopped before it could start, it waited for those that were not ready."""

    @service(depends=["quick", "slow", started("opens"), "later", "slower"])
    async def a() -> None:
        raise AssertionError("it cannot start")

    opening = sleeper("slow", opening=60), sleeper("slower", opening=70), sleeper("opens", opening=80)
    await lab.stop_at(10).run(*opening, sleeper("quick"), sleeper("later", "slow"), a)
    assert waited(lab, "a") == [("stopped", ("slow", "later", "slower"))]
    assert waited(lab, "later") == [("stopped", ("slow",))]


async def test_a_value_that_never_comes_is_named_last(lab: Lab) -> None:
    """Behind what is missing beside it, and once; what is ready by then is left out."""

    @service(allowed_failure=True)
    async def broken(serving: Serving[int]) -> None:
        await crash_after(3, OSError("no disk"))

    @service(depends=["broken", "quick", "slow"], allowed_failure=True)
    async def a(broken: int) -> None:
        raise AssertionError("it cannot start")

    await lab.stop_at(10).run(sleeper("quick", opening=1), sleeper("slow", opening=60), broken, a)
    assert waited(lab, "a") == [("failed", ("slow", "broken"))]


# -- what it still waits for -------------------------------------------------------------------------------------


async def test_only_what_has_not_started_waits(lab: Lab) -> None:
    """Not one that runs while a dependency is away, nor one that has ended; one between two attempts does."""
    seen: dict[str, list[str]] = {}

    @service(depends=["db"])
    async def done() -> None:
        await anyio.sleep(1)

    @service(depends=["db"], retries=9)
    async def again(serving: Serving[None]) -> None:
        await crash_after(4.9 - lab.now, OSError("no route"))

    def look() -> None:
        for name, node in lab.orchestrator.supervisors.items():
            seen[f"{name} {node.state.value}"] = [target.name for target in node.waits_for]

    others = sleeper("runs", "db"), sleeper("opens", "db", opening=60), sleeper("waits", "runs", "opens")
    at = lab.at(5.5, look).at(6.5, look)
    await at.stop_at(20).run(provider(lab, failing=lambda: lab.now < 4, retries=1), *others, done, again)
    assert lab.path("db").startswith("waiting starting ready stopping backoff")
    assert {name: found for name, found in seen.items() if found} == {
        "waits waiting": ["opens"],
        "again backoff": ["db"],
        "again waiting": ["db"],
    }
    assert {"runs ready", "opens starting", "done done", "db stopping", "db backoff"} <= {*seen}


# -- what made it stop -------------------------------------------------------------------------------------------


async def test_the_cause_is_told_where_a_restart_stops_it(lab: Lab) -> None:
    """Of each consumer, however far it is from the crash; neither where it starts again, nor when the app stops."""

    @service(depends=["db"])
    async def cache(db: str, serving: Serving[str]) -> None:
        async with serving("cache"):
            await anyio.sleep_forever()

    @service(depends=["cache"])
    async def api(cache: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), cache, api, sleeper("orderly", "db"))
    once_more = ["waiting", "starting", "ready", "stopping", "stopped"]
    for name in ("cache", "api"):
        expected = [("starting", ""), ("ready", ""), ("stopping", "db"), *((state, "") for state in once_more)]
        assert causes(lab, name) == expected
    for name in ("db", "orderly"):
        assert not any(cause for _, cause in causes(lab, name))


async def test_the_cause_is_the_last_one(lab: Lab) -> None:
    """A consumer of two values is stopped by one after the other."""

    @service(depends=["a", "b"])
    async def api(a: None, b: None, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(crashing_at("a", 5), crashing_at("b", 20), api)
    assert [cause for state, cause in causes(lab, "api") if state == "stopping"] == ["a", "b", ""]


# -- its critical path -------------------------------------------------------------------------------------------


async def test_the_critical_path_of_what_has_not_started(lab: Lab) -> None:
    """It is the service alone, also where it never starts: what it waited for took no time of its own."""
    seen: list[tuple[str, ...]] = []
    broken = Unit(service(allowed_failure=True)(crash_later).named("broken"), internal=True)

    @service(depends=["broken"], allowed_failure=True)
    async def a(broken: str) -> None:
        raise AssertionError("it cannot start")

    def look() -> None:
        seen.append(lab.orchestrator.supervisors["a"].chain)

    await lab.at(1, look).at(3, look).stop_at(9).run(broken, a, sleeper("b", opening=1))
    assert seen == [("a",), ("a",)]
    assert lab.path("a") == "waiting failed"
    assert [(event.seconds, event.chain) for event in lab.all_ready] == [(2, ("a",))]
