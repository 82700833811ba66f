"""What still waits for what, as the operator is told while a start or a stop takes long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import attrs
import pytest

from kernel import Retry, Serving, service, started
from kernel.errors import Uncancellable, one_line
from kernel.lifecycle.events import MOVES, State, StillWaiting, Transition
from kernel.lifecycle.explain import describe, describe_move, lost, reason_of, spent
from tests.harness import Lab, block_the_loop
from tests.lifecycle.parts import stood

pytestmark = pytest.mark.anyio


@service(retries=Retry(None, delay=60, jitter=0))
async def flaky(serving: Serving[None]) -> None:
    """Never comes up."""
    raise ConnectionError("refused\nand more")


@service
async def slow(serving: Serving[int]) -> None:
    """Takes its time to come up, and to go."""
    await anyio.sleep(30)
    async with serving(1):
        await anyio.sleep_forever()


@service
async def base(serving: Serving[int]) -> None:
    """Nothing is wrong with it."""
    async with serving(1):
        await anyio.sleep_forever()


@service(depends=[base])
async def lingers(base: int, serving: Serving[None]) -> None:
    """Closes slowly."""
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(5)


@service(depends=[slow, flaky, started(base)])
async def front(slow: int) -> None:
    """Waits for two that are not ready."""


@service(depends=[base])
async def ended() -> None:
    """Has nothing to do."""


@service(depends=[slow])
async def second() -> None:
    """Waits for one of them."""


def told(lab: Lab) -> list[tuple[float, StillWaiting]]:
    """What was told, and when."""
    return [(when, event) for when, event in lab.log if isinstance(event, StillWaiting)]


async def test_a_long_start(lab: Lab) -> None:
    """It is explained after 5 s and whenever it took twice as long, down to the culprits, each described once."""
    await lab.stop_at(25).run(slow, flaky, base, front, second)
    assert [when for when, event in told(lab) if not event.stopping] == [5, 10, 20]
    _, event = told(lab)[1]
    lines = [line.partition(", at ")[0] for line in event.lines]
    assert event.seconds == 10
    assert lines == [
        "front: waiting for 10.0 s",
        "├─ slow: starting for 10.0 s",
        "└─ flaky: backoff for 10.0 s, next try in 20.0 s, last error: ConnectionError: refused",
        "second: waiting for 10.0 s",
        "└─ slow: see above",
    ]
    where = event.lines[1].partition(", at ")[2]
    assert where.startswith("tests/lifecycle/test_explain.py:")
    assert where.endswith(" in slow")
    assert stood(where) == "await anyio.sleep(30)"


async def test_on_a_clock_that_has_run_before(lab: Lab) -> None:
    """All times count from the start, or from the request to stop; the loop's clock has its zero elsewhere."""
    await anyio.sleep(1000.5)
    await lab.stop_at(34).run(slow, lingers, base)
    assert [(when, event.seconds, event.stopping) for when, event in told(lab)] == [
        (5, 5, False),
        (10, 10, False),
        (20, 20, False),
        (36, 2, True),
        (38, 4, True),
    ]
    assert [event.seconds for event in lab.all_ready] == [30]
    assert (lab.report.seconds, lab.report.stopping) == (39, 5)


async def test_nothing_is_told_of_a_start_that_is_over(lab: Lab) -> None:
    """Nor of a stop that is quick."""
    await lab.stop_at(30).run(base)
    assert not told(lab)


async def test_a_start_timeout_is_explained(lab: Lab) -> None:
    """At once, before the one that took too long is cut."""

    @service(start_timeout=3, allowed_failure=True)
    async def late(serving: Serving[None]) -> None:
        await anyio.sleep(60)

    await lab.stop_at(4).run(late, base)
    ((when, event),) = told(lab)
    assert (when, event.seconds, event.stopping) == (3, 3, False)
    (line,) = event.lines  # without those that are ready
    assert line.startswith("late: starting for 3.0 s, at tests/lifecycle/test_explain.py:")


async def test_a_start_timeout_in_the_drain_delay(lab: Lab) -> None:
    """Nobody waits for the start any more: only the stop is explained."""

    @service(start_timeout=3, allowed_failure=True)
    async def late(serving: Serving[None]) -> None:
        await anyio.sleep(60)

    await lab.stop_at(1.5).run(late, base, drain_delay=4)
    assert lab.when("late", "failed") == 3
    assert [(when, event.seconds, event.stopping) for when, event in told(lab)] == [(3.5, 2, True), (5.5, 4, True)]


async def test_a_long_stop(lab: Lab) -> None:
    """It is explained after 2 s and whenever it took twice as long: who waits for whom, and where that stands."""
    await lab.stop_at(1).run(base, lingers, ended, second, slow)
    assert [(when, event.seconds) for when, event in told(lab)] == [(3, 2), (5, 4)]
    (_, event), _ = told(lab)
    assert event.stopping
    assert [line.partition(", at ")[0] for line in event.lines] == [
        "base: ready for 3.0 s",
        "└─ lingers: stopping for 2.0 s",
    ]


async def test_it_rests_under_a_debugger(lab: Lab) -> None:
    """Whoever steps through a start knows what it waits for."""
    await lab.stop_at(30).run(slow, resting=lambda: True)
    assert not told(lab)


@pytest.mark.parametrize(
    ("waiting", "last"),
    [(20, "└─ slow: see above"), (21, "... and 3 more lines"), (100, "... and 161 more lines")],
)
async def test_a_large_tree_is_cut(lab: Lab, waiting: int, last: str) -> None:
    """Of many that wait for one the first are shown, and the rest is counted."""

    async def waits() -> None:
        """Wait for one that is slow."""

    many = [service(depends=[slow])(waits).named(f"waits-{number}") for number in range(waiting)]
    await lab.stop_at(6).run(slow, *many)
    ((_, event),) = told(lab)
    assert len(event.lines) == 40
    assert event.lines[-1] == last


async def test_after_a_blocked_loop(lab: Lab) -> None:
    """It is told late, and of what is so then."""

    @service
    async def blocks(serving: Serving[None]) -> None:
        block_the_loop(12)
        await anyio.sleep(1)
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(20).run(blocks)
    ((when, event),) = told(lab)
    assert when == event.seconds == 12


# -- one service -------------------------------------------------------------------------------------------------


@attrs.frozen
class Named:
    """Some dependency."""

    name: str


@attrs.define
class Explained:
    """Some service."""

    name: str = "api"
    state: State = State.READY
    since: float = 0.0
    attempt: int = 1
    error: BaseException | None = None
    reason: str = ""
    doing: Callable[[], str] | None = None
    next_step_at: float | None = None
    waits_for: Sequence[Named] = ()

    def stands_at(self) -> str:
        """Return where it is."""
        return "api.py:3"


GONE = ConnectionError("gone\nand more")


@pytest.mark.parametrize(
    ("told", "one"),
    [
        ("waits for db, cache", Explained(state=State.WAITING, reason="x", waits_for=[Named("db"), Named("cache")])),
        ("until db is back", Explained(state=State.WAITING, reason="until db is back")),
        ("waits for db", Explained(state=State.WAITING, error=GONE, waits_for=[Named("db")])),
        ("ConnectionError: gone; retry 1 in 2 s", Explained(state=State.BACKOFF, error=GONE, reason="retry 1 in 2 s")),
        ("ConnectionError: gone", Explained(state=State.FAILED, error=GONE, reason="after 3 attempts")),
        ("lost", Explained(state=State.FAILED, reason="lost")),
        ("", Explained(state=State.READY, error=GONE)),
        ("", Explained(state=State.STARTING, error=GONE, attempt=2)),
        ("crashed", Explained(state=State.STOPPING, error=GONE, reason="crashed")),
        ("returned by itself", Explained(state=State.DONE, reason="returned by itself")),
        ("never started", Explained(state=State.STOPPED, reason="never started", error=GONE)),
    ],
)
def test_the_reason_of_a_state(told: str, one: Explained) -> None:
    """An error is the reason only of the states that it leads to, not of those of a later attempt."""
    assert reason_of(one) == told


def test_the_reason_of_an_abandoned_service() -> None:
    """It is the error, which names the line."""
    error = Uncancellable("api", "api.py:3")
    assert reason_of(Explained(state=State.ABANDONED, error=error, reason="x")) == one_line(error)


@pytest.mark.parametrize(
    ("told", "one"),
    [
        ("ready for 8.5 s, at api.py:3", Explained()),
        ("starting for 8.5 s, attempt 2, at api.py:3", Explained(state=State.STARTING, attempt=2)),
        ("stopping for 8.5 s, for two clients", Explained(state=State.STOPPING, doing=lambda: "for two clients")),
        ("waiting for 8.5 s", Explained(state=State.WAITING, attempt=0, doing=lambda: "x")),
        ("waiting for 8.5 s", Explained(state=State.WAITING, next_step_at=12)),
        (
            "backoff for 8.5 s, attempt 3, next try in 2.0 s, last error: ConnectionError: gone",
            Explained(state=State.BACKOFF, attempt=3, error=GONE, next_step_at=12),
        ),
        ("backoff for 8.5 s", Explained(state=State.BACKOFF)),
        ("starting for 8.5 s, at api.py:3", Explained(state=State.STARTING, next_step_at=12)),
    ],
    ids=range(8),
)
def test_a_service_in_the_tree(told: str, one: Explained) -> None:
    """Its state and for how long; its attempt but the first; when it tries again, or where it is; its error."""
    one.since = 1.5
    assert describe(one, 10.0) == told


@pytest.mark.parametrize(
    ("told", "state", "error"),
    [
        ("has ended", State.DONE, None),
        ("failed", State.FAILED, None),
        ("failed: ConnectionError: gone", State.FAILED, GONE),
        ("was abandoned: ConnectionError: gone", State.ABANDONED, GONE),
        ("is gone", State.STOPPED, None),
    ],
)
def test_what_happened_to_a_provider(told: str, state: State, error: BaseException | None) -> None:
    """How it ended, and with what error."""
    assert lost(state, error) == told


@pytest.mark.parametrize(
    ("told", "attempts", "refused"),
    [
        ("", 1, None),
        ("after 2 attempts", 2, None),
        ("and is not retried, since ConnectionError is not in Retry(on=...)", 1, GONE),
        ("after 3 attempts and is not retried, since ConnectionError is not in Retry(on=...)", 3, GONE),
    ],
)
def test_why_it_is_not_retried(told: str, attempts: int, refused: BaseException | None) -> None:
    """It has been often enough, or it is an error that is not to be retried."""
    assert spent(attempts, refused) == told


@pytest.mark.parametrize(
    ("told", "move"),
    [
        ("starting", (State.WAITING, State.STARTING, 1, 0.5)),
        ("starting, attempt 3", (State.BACKOFF, State.STARTING, 3, 0.5)),
        ("ready after 500 ms", (State.STARTING, State.READY, 1, 0.5)),
        ("ready after 2.5 s", (State.STARTING, State.READY, 4, 2.5, "x")),
        ("stopping (crashed)", (State.READY, State.STOPPING, 1, 9.0, "crashed")),
        ("stopping", (State.READY, State.STOPPING, 1, 9.0)),
        ("OSError: no; retry 1 in 2 s", (State.STOPPING, State.BACKOFF, 1, 0.0, "retry 1 in 2 s", OSError("no"))),
        ("waiting (for db)", (State.BACKOFF, State.WAITING, 1, 0.0, "for db")),
        ("stopped after 1.25 s", (State.STOPPING, State.STOPPED, 1, 1.25)),
        ("stopped (never started)", (State.WAITING, State.STOPPED, 0, 1.25, "never started")),
        ("done after 3 s", (State.STOPPING, State.DONE, 1, 3.0)),
        (
            "done (returned by itself); if that is intended, set oneshot=True",
            (State.STOPPING, State.DONE, 1, 3.0, "returned by itself"),
        ),
        (
            "failed after 2 attempts: OSError: no",
            (State.STOPPING, State.FAILED, 2, 3.0, "after 2 attempts", OSError("no")),
        ),
        ("failed (allowed): OSError: no", (State.STOPPING, State.FAILED, 1, 3.0, "", OSError("no"), True)),
        ("failed: lost", (State.WAITING, State.FAILED, 0, 3.0, "lost")),
    ],
)
def test_the_line_about_a_move(told: str, move: tuple[object, ...]) -> None:
    """Each names the state, and what else an operator wants to know of it."""
    event = Transition("api", *move)  # type: ignore[arg-type]
    assert event.state in MOVES[event.previous]
    assert describe_move(event) == told
