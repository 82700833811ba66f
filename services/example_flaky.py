"""Fails twice before it is ready, then recovers."""

from __future__ import annotations

import anyio

from kernel import Retry, Serving, service

# Each attempt is a new call of the function. What has to outlive an attempt stands outside, as the troubles of the
# other side do in real life.
troubles = iter(["connection refused", "still warming up"])


# retries=3 would wait 1, 2 and 4 seconds; here 0.5 and 1 will do. Dependents wait meanwhile, and start on its success.
@service(retries=Retry(times=3, delay=0.5))
async def example_flaky(serving: Serving[None]) -> None:
    """Raise what went wrong, and let the kernel decide: no loop, no sleep, no `except` in here."""
    trouble = next(troubles, None)
    if trouble:
        raise ConnectionError(trouble)
    async with serving():
        await anyio.sleep_forever()
