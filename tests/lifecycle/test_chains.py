"""Values and their consumers, several levels deep."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import ValueLost
from kernel.lifecycle.events import State
from tests.harness import Lab, crash_after, marking
from tests.lifecycle.parts import AnyService, declared, serve

pytestmark = pytest.mark.anyio


DEPTH = 5


LEVELS = [f"s{level}" for level in range(DEPTH)]


@attrs.define(eq=False)
class Chain:
    """A provider, and above it consumers of consumers; each hands over its name and the number of its attempt.

    Args:
        lab: Keeps the marks.
        steady: The attempt of the provider from which on it does not crash any more.
        lasts: Seconds for which it serves before that.
        opening: Seconds that each takes to open.
        closing: Seconds that each takes to close.
        options: Of the provider.
        of_consumers: Options of the consumers.

    """

    lab: Lab
    steady: int = 2
    lasts: float = 5.0
    opening: float = 0.0
    closing: float = 0.0
    options: dict[str, Any] = attrs.field(factory=dict)
    of_consumers: dict[str, Any] = attrs.field(factory=dict)
    attempts: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(LEVELS, 0))

    def services(self) -> list[AnyService]:
        """All of them, the provider first."""
        return [self._level(level) for level in range(DEPTH)]

    def _level(self, level: int) -> AnyService:
        name, below = LEVELS[level], LEVELS[level - 1] if level else ""
        scope: dict[str, Any] = {"Serving": Serving, "live": self._live}
        # The name of a parameter is the contract.
        parameter = f"{below}: str, " if below else ""
        code = f"async def {name}({parameter}serving: Serving[str]): await live('{name}', {below or None}, serving)"
        exec(code, scope)  # noqa: S102
        options = {"depends": [below], **self.of_consumers} if below else self.options
        declared: AnyService = service(**options)(scope[name])
        return declared

    async def _live(self, name: str, below: str | None, serving: Serving[str]) -> None:
        attempt = self.attempts[name] = self.attempts[name] + 1
        with marking(self.lab, f"{name}.{attempt} on {below}"):
            await anyio.sleep(self.opening)
            try:
                async with serving(f"{name}.{attempt}"):
                    self.lab.mark(f"{name}.{attempt} serves")
                    if name == LEVELS[0] and attempt < self.steady:
                        await crash_after(self.lasts, ValueError("boom"))
                    await anyio.sleep_forever()
            finally:
                self.lab.mark(f"{name}.{attempt} closes")
                await anyio.sleep(self.closing)

    def check(self) -> None:
        """Whoever holds a value begins after its provider serves, and has ended before that closes."""
        marked = self.lab.marked
        for mark in marked:
            consumer, on, provider = mark.removesuffix(" begins").partition(" on ")
            if mark.endswith(" begins") and on and provider != "None":
                steps = [f"{provider} serves", mark, f"{consumer} on {provider} ends", f"{provider} closes"]
                places = [marked.index(step) for step in steps]
                assert places == sorted(places), steps


async def test_consumers_of_consumers_restart_in_order(lab: Lab) -> None:
    """The outermost ends first and starts last, each with the new value, and none uses up a retry."""
    chain = Chain(lab, closing=1, opening=1, options={"retries": 1})
    await lab.stop_at(40).run(*chain.services())
    chain.check()
    restart = [mark for when, mark in lab.marks if 5 < when < 40]
    down = [f"{name}.1 on {below} ends" for name, below in _pairs(1)][::-1]
    up = [f"{name}.2 on {below} begins" for name, below in _pairs(2)]
    assert [mark for mark in restart if mark.endswith(("ends", "begins"))] == down + up
    assert chain.attempts == dict.fromkeys(LEVELS, 2)
    assert lab.order("stopped") == LEVELS[::-1]
    assert lab.exit_code == 0


def _pairs(attempt: int) -> list[tuple[str, str | None]]:
    below = [None, *(f"{name}.{attempt}" for name in LEVELS)]
    return list(zip(LEVELS, below, strict=False))


@pytest.mark.parametrize("lasts", [0, 0.5, 1, 2.5, 3])
@pytest.mark.parametrize("delay", [0, 0.25, 4])
async def test_a_provider_that_flaps_faster_than_its_consumers_follow(lab: Lab, lasts: float, delay: float) -> None:
    """Nobody is left with an old value, nobody fails, and once the provider is steady all are ready again."""
    flaps = Retry(times=9, delay=delay, factor=1, jitter=0)
    chain = Chain(lab, steady=9, lasts=lasts, opening=1, closing=1.5, options={"retries": flaps})
    await lab.stop_at(500).run(*chain.services())
    chain.check()
    assert chain.attempts["s0"] == 9
    assert all(lab.path(name).endswith("starting ready stopping stopped") for name in LEVELS)
    last = [
        max(when for when, mark in lab.marks if mark.startswith(f"{name}.") and "serves" in mark) for name in LEVELS
    ]
    assert last == [last[0] + level for level in range(DEPTH)]
    assert lab.exit_code == 0


async def test_restarts_leave_the_retries_of_a_consumer_whole(lab: Lab) -> None:
    """What it was restarted for does not count when it crashes itself."""
    provider = Chain(lab, steady=4, options={"retries": Retry(times=9, delay=1, jitter=0)}).services()[0]

    async def consumer(s0: str, serving: Serving[None]) -> None:
        lab.mark(f"holds {s0}")
        async with serving():
            if lab.marked.count("holds s0.4") == 1:
                raise ValueError("its own")
            await anyio.sleep_forever()

    may_once = Retry(times=1, delay=1, jitter=0)
    await lab.stop_at(50).run(provider, declared("consumer", consumer, depends=["s0"], retries=may_once))
    assert [mark for mark in lab.marked if "holds" in mark] == [f"holds s0.{attempt}" for attempt in (1, 2, 3, 4, 4)]
    assert lab.ending("consumer").state is State.STOPPED
    assert lab.exit_code == 0


async def test_a_default_is_kept_while_others_are_waited_for(lab: Lab) -> None:
    """A value that is gone ends nobody who can do without it: neither who waits for another, nor who backs off."""
    provider = Chain(lab, options={"allowed_failure": True}).services()[0]

    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(20)
        await serve(serving)

    async def waits(s0: str = "nothing") -> None:
        lab.mark(f"waits: {s0}")

    async def backs_off(s0: str = "nothing") -> None:
        lab.mark(f"backs off: {s0}")
        await crash_after(1, ValueError("boom"))

    later = Retry(times=1, delay=20, jitter=0)
    await lab.stop_at(50).run(
        provider,
        declared("slow", slow),
        declared("waits", waits, depends=["s0", "slow"]),
        declared("backs-off", backs_off, depends=["s0"], retries=later, allowed_failure=True),
    )
    told = [mark for mark in lab.marks if mark[1].endswith(("nothing", ": s0.1"))]
    assert told == [(0, "backs off: s0.1"), (20, "waits: nothing"), (21, "backs off: nothing")]
    assert lab.exit_code == 0


@pytest.mark.parametrize("allowed", [True, False], ids=["with permission", "fatally"])
async def test_a_provider_that_is_gone_takes_all_above_it(lab: Lab, allowed: bool) -> None:
    """Its consumers end first at each level; with permission they then fail, each for the loss below it."""
    may = {"allowed_failure": True}
    chain = Chain(lab, closing=1, options=may if allowed else {}, of_consumers={**may, "retries": 9})
    await lab.stop_at(50).run(*chain.services(), declared("calm", serve))
    chain.check()
    assert chain.attempts == dict.fromkeys(LEVELS, 1)
    assert lab.stopped_at == (50 if allowed else 5 + DEPTH)
    for name in LEVELS[1:]:
        assert lab.ending(name).state is (State.FAILED if allowed else State.STOPPED)
        assert isinstance(lab.ending(name).error, ValueLost if allowed else type(None))
    assert lab.exit_code == (0 if allowed else 1)
