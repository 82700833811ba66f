"""The examples without resources: nothing real in them, so their seconds cost nothing."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.testing import BACKENDS, backend_options
from services import example_flaky as flaky_module
from services.example_crasher import example_crasher
from services.example_flaky import example_flaky
from services.example_optional import example_optional
from services.hello_world import hello_world
from tests.harness import Lab

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Virtual time, as in the tests of the kernel."""
    return request.param, backend_options(request.param)


async def test_optional_fails_without_harm(lab: Lab) -> None:
    """Before it is ready, with an error that says what is missing; the app goes on, and all are ready."""
    await lab.stop_at(60).run(hello_world, example_optional)
    assert lab.path("example-optional") == "waiting starting failed"
    assert "the app works without one" in str(lab.error("example-optional"))
    assert len(lab.all_ready) == 1
    assert lab.exit_code == 0


async def test_flaky_recovers(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures, two short waits, and then it is ready for good."""
    monkeypatch.setattr(flaky_module, "troubles", iter(["first", "second"]))
    await lab.stop_at(60).run(example_flaky)
    assert lab.path("example-flaky") == ("waiting starting backoff starting backoff starting ready stopping stopped")
    assert 1.3 < lab.when("example-flaky", "ready") < 1.7
    assert lab.exit_code == 0


async def test_crasher_takes_the_app_down(lab: Lab) -> None:
    """Four times it works for two seconds; its last crash stops the others, and makes the exit code 1."""
    await lab.run(hello_world, example_crasher)
    assert lab.path("example-crasher").count("ready stopping backoff") == 3
    assert "on purpose" in str(lab.error("example-crasher"))
    assert 14 < lab.stopped_at < 16
    assert lab.path("hello-world").endswith("stopped")
    assert lab.exit_code == 1
