"""Generated apps on both backends, judged by an oracle that knows only the contract.

`GENERATED_EXAMPLES=5000` runs more of them than usual, at random; `just fuzz` runs them for as long as one likes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, given, note, settings

from kernel.testing import BACKENDS
from tests.generated import App, Stage, apps
from tests.harness import run_virtually
from tests.oracle import Oracle
from tests.shared import examples

EXAMPLES = int(os.environ.get("GENERATED_EXAMPLES", "0"))


PATIENCE = 20.0  # seconds of real time for a run that takes a fiftieth of one


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Make a hang a failure, which hypothesis can shrink like any other.

    On a machine with too much to do, a run that has not had its *seconds* of processor time is only slow.
    """
    began, used = time.monotonic(), time.process_time()

    def hung(*_: object) -> None:
        if time.process_time() - used >= seconds / 2 or time.monotonic() - began >= 20 * seconds:
            raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def play(backend: str, app: App) -> None:
    """Run *app* and judge the run."""
    stage = Stage(app)
    with patience(PATIENCE):
        run_virtually(backend, stage.run)
    if currently_in_test_context():
        note("\n".join(f"{when:6.3f}  {entry}" for when, entry in stage.log))
    Oracle(stage).judge()


@settings(
    max_examples=EXAMPLES or examples(1000),
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(apps())
@pytest.mark.no_cover  # other tests cover as much, and the tracer would double the time
@pytest.mark.parametrize("backend", BACKENDS)
def test_generated(backend: str, app: App) -> None:
    """Whatever the services, their faults and the moment of the stop, the contract is kept."""
    play(backend, app)
