"""Fails at once, and may: the app goes on without it."""

from __future__ import annotations

import anyio

from kernel import Serving, service


@service(allowed_failure=True)
async def example_optional(serving: Serving[None]) -> None:
    """Fail before being ready. Nothing waits for ever: those that wanted only the order would start, with a warning."""
    find_cache()
    async with serving():
        await anyio.sleep_forever()


def find_cache() -> None:
    """Stand for anything that a machine may lack.

    Raises:
        LookupError: Always.

    """
    raise LookupError("no cache found; the app works without one, only slower")
