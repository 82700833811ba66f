"""A signal that also reaches the children and the libraries of services: what counts as its doing."""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Callable

import anyio
import pytest

from kernel import Retry, Serving, service
from kernel.errors import NeverServed, StrayCancellation
from kernel.lifecycle.events import State
from kernel.lifecycle.group_signal import JUST, Signalled, came_of, killed_by
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import sleeper

# -- which signal there was --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ago", "just"), [(0.0, True), (0.1, True), (JUST, True), (0.51, False), (30.0, False)])
def test_a_signal_that_was_just_received(ago: float, just: bool) -> None:
    """It is told, and begins the stop as of then; one that was received long before is not told and stops nothing."""
    begun: list[tuple[str, float]] = []
    signalled = Signalled(lambda: ("SIGTERM", ago), lambda name, *, ago: begun.append((name, ago)))
    assert signalled() == ("SIGTERM" if just else "")
    assert begun == [("SIGTERM", ago)] * just
    assert signalled(within=math.inf) == "SIGTERM"


def test_no_signal_was_received() -> None:
    """Nothing is told, however long one looks back."""
    begun: list[str] = []
    signalled = Signalled(lambda: ("", math.inf), begun.append)
    assert (signalled(), signalled(within=math.inf), begun) == ("", "", [])
    assert (Signalled(lambda: ("", 0.0), begun.append)(), begun) == ("", [])


# -- which child processes it ended ------------------------------------------------------------------------------


def ended(code: int) -> BaseException:
    """What `subprocess` and anyio raise for a child that ended with *code*."""
    return subprocess.CalledProcessError(code, ["convert", "a.png"])


def because(cause: BaseException) -> BaseException:
    """What a library raises *cause* as."""
    error = RuntimeError("cannot convert")
    error.__cause__ = cause
    return error


def group(*members: BaseException) -> BaseException:
    """What a task group raises."""
    return BaseExceptionGroup("several", members)


def circle() -> BaseException:
    """What ``raise error from error`` leads to."""
    error = OSError("odd")
    error.__cause__ = error.__context__ = error
    return error


class WithCodes(Exception):
    """An error whose `returncode` is something else."""

    returncode = [-2]  # noqa: RUF012


KILLED: dict[str, tuple[BaseException, str]] = {
    "by SIGINT": (ended(-signal.SIGINT), "SIGINT"),
    "by SIGTERM": (ended(-signal.SIGTERM), "SIGTERM"),
    "below a shell, by SIGINT": (ended(130), "SIGINT"),
    "below a shell, by SIGTERM": (ended(143), "SIGTERM"),
    "as a cause": (because(ended(-2)), "SIGINT"),
    "as the cause of a cause": (because(because(ended(130))), "SIGINT"),
    "first of a group": (group(ended(-15), ValueError("bad")), "SIGTERM"),
    "last of a group": (group(ValueError("bad"), OSError("none"), ended(-15)), "SIGTERM"),
    "in a group in a group": (group(ValueError("bad"), group(KeyError("b"), because(ended(143)))), "SIGTERM"),
    "a group as a cause": (because(group(ValueError("bad"), ended(-15))), "SIGTERM"),
    "all of a group": (group(ended(-15), ended(143)), "SIGTERM"),
    "beside an odd one": (group(ended(-15), circle()), "SIGTERM"),
}
NOT_KILLED: dict[str, tuple[BaseException, str]] = {
    "no child": (ValueError("bad"), "SIGINT"),
    "it failed": (ended(1), "SIGINT"),
    "it ended well": (ended(0), "SIGINT"),
    "by another signal": (ended(-signal.SIGKILL), "SIGTERM"),
    "below a shell, by another signal": (ended(128 + signal.SIGKILL), "SIGTERM"),
    "its code is the number": (ended(2), "SIGINT"),
    "its code is near": (ended(131), "SIGINT"),
    "its code is that less than 128": (ended(126), "SIGINT"),
    "the cause is another": (because(because(ended(1))), "SIGINT"),
    "none of a group": (group(ValueError("bad"), group(ended(1), because(KeyError("k")))), "SIGINT"),
    "its own cause": (circle(), "SIGINT"),
    "what is no code": (WithCodes(), "SIGINT"),
}


@pytest.mark.parametrize("case", KILLED)
def test_a_child_that_the_signal_killed(case: str) -> None:
    """The error tells, or any member of its group, or what caused either."""
    assert killed_by(*KILLED[case])


@pytest.mark.parametrize("case", NOT_KILLED)
def test_a_child_that_the_signal_did_not_kill(case: str) -> None:
    """Another end of a child, and any other error, is no doing of the signal."""
    assert not killed_by(*NOT_KILLED[case])


# -- what came of a cancellation ---------------------------------------------------------------------------------


class Cancelled(BaseException):
    """The cancellation of some event loop."""


def after(context: BaseException, error: BaseException | None = None) -> BaseException:
    """An error that was raised while *context* was handled."""
    error = error or ValueError("late")
    error.__context__ = context
    return error


CAME: dict[str, BaseException] = {
    "itself": Cancelled(),
    "while handling it": after(Cancelled()),
    "while handling what was": after(after(Cancelled())),
    "one of a group": group(ValueError("bad"), after(Cancelled())),
    "one of a group in a group": group(group(after(Cancelled()), ValueError("bad")), KeyError("k")),
}
CAME_NOT: dict[str, BaseException] = {
    "alone": ValueError("bad"),
    "while handling another": after(OSError("gone")),
    "because of it": because(OSError("gone")),
    "none of a group": group(ValueError("bad"), after(OSError("gone"))),
    "a group whose siblings were cancelled": after(Cancelled(), group(ValueError("bad"))),
    "its own context": circle(),
}


@pytest.mark.parametrize("case", CAME)
def test_what_came_of_a_cancellation(case: str) -> None:
    """The cancellation is the error, or a context of it or of any member of its group."""
    assert came_of(CAME[case], Cancelled)


@pytest.mark.parametrize("case", CAME_NOT)
def test_what_came_of_no_cancellation(case: str) -> None:
    """A group that crashed by itself has cancelled its siblings; that makes no difference."""
    assert not came_of(CAME_NOT[case], Cancelled)


# -- what that means for a service -------------------------------------------------------------------------------

SENT = 10.0  # seconds after the start
NEVER = Retry(times=0)


def gone() -> BaseException:
    """What fails by itself."""
    return OSError("the connection is gone")


def children() -> BaseException:
    """What fails because the signal killed a child."""
    return group(KeyError("k"), because(ended(-15)))


def sent(lab: Lab) -> Callable[[], tuple[str, float]]:
    """What tells of a signal at `SENT`."""
    return lambda: ("SIGTERM", lab.now - SENT) if lab.now >= SENT else ("", math.inf)


async def run(lab: Lab, at_work: Callable[[], object], *, stop: bool = False) -> Lab:
    """Run a service that calls *at_work* 0.2 s after the signal, which stops the app 0.1 s after it, or not at all."""

    @service(retries=NEVER)
    async def worker(serving: Serving[None]) -> None:
        async with serving(drain=True):
            await anyio.sleep(SENT + 0.2)
            at_work()

    if stop:
        lab.stop_at(SENT + 0.1, "SIGTERM")
    return await lab.run(worker, sleeper("pool"), signal=sent(lab))


def throw(error: BaseException) -> Callable[[], None]:
    """What raises *error*."""

    def raises() -> None:
        raise error

    return raises


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("error", [gone, children])
async def test_what_fails_by_itself_was_stopped(lab: Lab, error: Callable[[], BaseException], *, stop: bool) -> None:
    """The failure is told, with the signal, and is none; the app stops as of the signal, in good order."""
    await run(lab, throw(error()), stop=stop)
    assert lab.path("worker") == "waiting starting ready stopping stopped"
    assert lab.notices == ["worker: failed on SIGTERM, which its child processes receive too"]
    assert lab.stop_began.reason == "SIGTERM"
    assert not lab.stop_began.failure
    assert lab.ending("worker").error is None
    assert lab.ending("pool").state is State.STOPPED
    assert lab.exit_code == 0


@pytest.mark.anyio
async def test_a_failure_before_the_signal(lab: Lab) -> None:
    """It is a failure, whatever comes later, and so is one long after a signal that nobody obeyed."""
    await run(lab, throw(ended(-15)))
    assert lab.exit_code == 0
    for seconds in (SENT - 0.1, SENT + JUST + 0.1):
        other = Lab()

        @service(retries=NEVER)
        async def worker(seconds: float = seconds) -> None:
            await crash_after(seconds, ended(-15))

        await other.run(worker, sleeper("pool"), signal=sent(other))
        assert (other.path("worker"), other.exit_code) == ("waiting starting ready stopping failed", 1)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [gone, children])
async def test_a_failure_while_starting(lab: Lab, error: Callable[[], BaseException]) -> None:
    """What fails before its service is ready, and before the stop has begun, leaves a service that was stopped."""

    @service(retries=3)
    async def migration(serving: Serving[None]) -> None:
        await crash_after(SENT + 0.2, error())
        async with serving():
            pass

    await lab.run(migration, sleeper("pool"), signal=sent(lab))
    assert lab.path("migration") == "waiting starting stopping stopped"
    assert lab.exit_code == 0


@pytest.mark.anyio
async def test_what_the_service_did_wrong_itself(lab: Lab) -> None:
    """What the kernel holds against a service is no doing of the signal."""

    @service(retries=NEVER)
    async def empty(serving: Serving[None]) -> None:
        await anyio.sleep(SENT + 0.1)

    await lab.run(empty, sleeper("pool"), signal=sent(lab))
    assert isinstance(lab.error("empty"), NeverServed)
    assert not lab.notices
    assert lab.exit_code == 1


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "code"), [(gone, 1), (children, 0)])
@pytest.mark.parametrize("drain", [False, True])
async def test_what_fails_since_it_is_stopped(
    lab: Lab, error: Callable[[], BaseException], code: int, *, drain: bool
) -> None:
    """Clean-up, or what handles the cancellation, fails for itself; only a child that was killed excuses it."""

    @service(retries=NEVER)
    async def worker(serving: Serving[None]) -> None:
        if drain:
            async with serving(drain=True) as work:
                await work.stop_requested()
            raise error()
        async with serving():
            try:
                await anyio.sleep_forever()
            finally:
                raise error()

    await lab.stop_at(SENT + 0.1, "SIGTERM").run(worker, sleeper("pool"), signal=sent(lab))
    assert lab.exit_code == code
    assert lab.ending("worker").state is (State.FAILED if code else State.STOPPED)
    assert len(lab.notices) == 1 - code


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [SENT - 1, SENT + 0.1, SENT + 5])
async def test_a_worker_that_cancels_itself_on_a_signal(lab: Lab, seconds: float) -> None:
    """However long it takes to finish its jobs; without a signal it is a crash."""

    @service(retries=NEVER)
    async def worker(serving: Serving[None]) -> None:
        async with serving(drain=True):
            await anyio.sleep(seconds)
            raise StrayCancellation("worker")

    await lab.stop_at(SENT + 0.2, "SIGTERM").run(worker, sleeper("pool"), signal=sent(lab))
    assert lab.exit_code == (1 if seconds < SENT else 0)
    assert lab.ending("worker").state is (State.FAILED if seconds < SENT else State.STOPPED)
    assert not lab.notices


@pytest.mark.anyio
@pytest.mark.parametrize("ready", [False, True])
async def test_no_time_limit_outlasts_the_service(lab: Lab, caplog: pytest.LogCaptureFixture, *, ready: bool) -> None:
    """The end of the service, which begins the stop, is final, although its dependency takes the whole shutdown."""

    @service(depends=["pool"], retries=NEVER, stop_timeout=1)
    async def worker(serving: Serving[None]) -> None:
        if ready:
            async with serving():
                await crash_after(SENT + 0.2, ended(-15))
        await crash_after(SENT + 0.2, ended(-15))

    await lab.run(worker, sleeper("pool", closing=9.1), signal=sent(lab))
    assert lab.ending("worker").state is State.STOPPED
    assert lab.ending("worker").error is None
    assert lab.when("pool", "stopped") == pytest.approx(SENT + 0.2 + 9.1)
    assert lab.exit_code == 0
    assert not caplog.records
