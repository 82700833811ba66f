"""Fails at once (allowed): the app runs without it."""

from __future__ import annotations

import anyio

from kernel import Serving, service


@service(allowed_failure=True)
async def example_optional(serving: Serving[None]) -> None:
    """Fail before being ready. Nothing waits forever: services that only need the order start, with a warning."""
    find_cache()
    async with serving():
        await anyio.sleep_forever()


def find_cache() -> None:
    """Stand in for anything that a machine may lack.

    Raises:
        LookupError: Always.

    """
    raise LookupError("no cache found; the app works without one, only slower")
