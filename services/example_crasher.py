"""Crashes until its retries are used up, and then ends the app."""

from __future__ import annotations

import anyio

from kernel import Serving, service

WORKS_FOR = 2.0  # seconds


# The retries wait 1, 2 and 4 seconds, so the app ends after about 15. To keep it running, disable this service: set
# SERVICES_ENABLED to !example-crasher.
@service(retries=3)
async def example_crasher(serving: Serving[None]) -> None:
    """Become ready, then crash. After the last retry the app stops in order, with exit code 1."""
    async with serving():
        await anyio.sleep(WORKS_FOR)
        raise RuntimeError("this example crashes on purpose")
