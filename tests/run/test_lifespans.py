"""The app's lifespans, around the services."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import attrs
import pytest

from kernel.lifecycle.units import Unit
from kernel.run.runner import around
from tests.harness import Lab, resource
from tests.lifecycle.parts import Part, chain


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


@pytest.mark.anyio
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
