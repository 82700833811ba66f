"""The minimum for a process: one task on anyio."""

import anyio


async def hello() -> None:
    """Do nothing."""


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hello)


anyio.run(main)
