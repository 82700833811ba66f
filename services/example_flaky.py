"""Fails twice before it is ready, then recovers."""

from __future__ import annotations

import anyio

from kernel import Retry, Serving, service

# Each attempt is a new call of the function. State that must outlive an attempt is kept outside, like the problems of
# a remote server in real life.
troubles = iter(["connection refused", "still warming up"])


# retries=3 would wait 1, 2 and 4 seconds; here 0.5 and 1 are enough. Dependents wait, and start when it succeeds.
@service(retries=Retry(times=3, delay=0.5))
async def example_flaky(serving: Serving[None]) -> None:
    """Raise the error, and let the kernel decide: no loop, no sleep, no `except` in here."""
    trouble = next(troubles, None)
    if trouble:
        raise ConnectionError(trouble)
    async with serving():
        await anyio.sleep_forever()
