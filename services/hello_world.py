"""Says hello and runs until it is stopped: the smallest service there is."""

from __future__ import annotations

import logging

import anyio

from kernel import service

log = logging.getLogger(__name__)  # standard logging: the kernel adds the service's name to each record


@service
async def hello_world() -> None:
    """Take nothing, provide nothing: it is ready when launched, and cancelled when a stop is requested."""
    log.info("hello, world")
    await anyio.sleep_forever()  # a service that returned would be done, with a warning
