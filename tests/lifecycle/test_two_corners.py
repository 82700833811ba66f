"""Where two corners of the contract meet: what is decided for each alone holds for both at once."""

from __future__ import annotations

import attrs
import pytest

from tests.harness import Lab
from tests.lifecycle.parts import ONCE, Part, chain, story

pytestmark = pytest.mark.anyio


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
