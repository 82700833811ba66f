"""The services that the test kit is tried on."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import attrs

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving


@attrs.frozen
class StoreConfig:
    size: int = 5
    kind: str = "plain"


@service(retries=Retry(times=1, delay=1, jitter=0))
async def store(config: StoreConfig, serving: Serving[StoreConfig]) -> None:
    """Takes a second to open, and one to close."""
    await anyio.sleep(1)
    try:
        async with serving(config):
            await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)


@service(depends=[store])
async def reader(store: StoreConfig, serving: Serving[None]) -> None:
    """Holds the store."""
    async with serving():
        await anyio.sleep_forever()


@service(depends=["store"], allowed_failure=True)
async def guest(store: StoreConfig) -> None:
    """May fail, and does."""
    raise OSError("no luck")
