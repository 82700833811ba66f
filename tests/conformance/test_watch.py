"""Somebody blocks the event loop: it is said who and where, while it is happening."""

from __future__ import annotations

import pytest

from tests.conformance.program import App


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_says_who_blocks_the_loop(app: App, backend: str) -> None:
    """The warning names the service, the function and the line, and comes before the loop is free."""
    app.service(
        "greedy",
        """
        def compute() -> None:
            time.sleep(1.8)
            log.info("computed")

        @service(oneshot=True)
        async def greedy() -> None:
            await anyio.sleep(0)
            compute()
            await anyio.sleep(0.3)
        """,
    )
    result = app.run(KERNEL_BACKEND=backend).result()
    assert result.code == 0, result.stderr
    assert result.in_order(
        r"greedy: greedy has been blocking the event loop for 1\.\d s at services/greedy.py:8 in compute; nothing else",
        "greedy: computed",
        r"the event loop is free again, after 1\.\d s",
    )


def test_says_nothing_of_a_free_loop(app: App) -> None:
    """Waiting is not blocking."""
    app.service(
        "patient",
        """
        @service(oneshot=True)
        async def patient() -> None:
            await anyio.sleep(1.6)
        """,
    )
    result = app.run().result()
    assert result.code == 0
    assert result.ending("patient") == "done"
    assert not result.said("event loop")


def test_rests_under_a_debugger(app: App) -> None:
    """Whoever holds a breakpoint knows that the loop stands still."""
    app.service(
        "greedy",
        """
        @service(oneshot=True)
        async def greedy() -> None:
            import bdb
            time.sleep(1.6)
        """,
    )
    result = app.run(ENV="dev").result()
    assert result.code == 0
    assert not result.said("blocking the event loop")
