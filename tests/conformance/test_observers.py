"""Observers of the user's own, in the real program."""

from __future__ import annotations

import re

import pytest

from tests.conformance.program import REPO, App

BACKENDS = ["asyncio", "trio"]
WORKER = """
@service(retries=Retry(1, delay=0.01))
async def worker() -> None:
    raise OSError("no disk")
"""
STORE = """
@service
async def store(serving: Serving[int]) -> None:
    async with serving(5) as work:
        await anyio.sleep_forever()

@store.command
async def ask(store: int) -> None:
    print("asked", store)
"""
PAGE = (REPO / "docs" / "observability.md").read_text()
OBSERVER = re.findall(r"```python\n(.*?)```", PAGE.partition("## Your own observer")[2], re.DOTALL)[0]
BROKEN = """
from kernel import observer

@observer
def broken(event: object) -> None:
    raise {error}
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_told_each_event(app: App, backend: str) -> None:
    """In order, as the page on observability shows it."""
    app.service("worker", WORKER)
    app.init(OBSERVER)
    result = app.call("run", KERNEL_BACKEND=backend)
    assert result.code == 1, result.stderr
    assert result.stdout.splitlines() == ["worker crashed in attempt 1: no disk"]


@pytest.mark.parametrize("error", ["ValueError('no')", "SystemExit(0)", "BaseException('no')"])
def test_one_that_fails_is_disabled(app: App, error: str) -> None:
    """It is reported, once, and the run goes on to its own end."""
    app.service("worker", WORKER)
    app.init(BROKEN.format(error=error))
    result = app.call("run")
    assert result.code == 1, result.stderr
    assert len([message for message in result.messages if "failed and was disabled" in message]) == 1
    assert result.messages[-1].startswith("exit 1: worker failed after 2 attempts: OSError: no disk")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("@observer\nasync def late(event: object) -> None: ...", "observer 'late' is async"),
        ("@observer\ndef none() -> None: ...", "observer 'none' cannot be called with one argument"),
    ],
)
def test_one_that_cannot_be_called_is_refused(app: App, code: str, message: str) -> None:
    """With file and line, and what to write instead; nothing is started."""
    app.service("worker", WORKER)
    app.init(f"from kernel import observer\n{code}")
    result = app.call("run")
    assert result.code == 2, result.stderr
    assert message in result.stderr
    assert "app/init.py:" in result.stderr
    assert "starting" not in result.stderr


def test_a_command_has_none(app: App) -> None:
    """Its hooks do not run either."""
    app.service("store", STORE)
    app.init(OBSERVER)
    result = app.call("store", "ask")
    assert (result.code, result.stdout) == (0, "asked 5\n"), result.stderr
