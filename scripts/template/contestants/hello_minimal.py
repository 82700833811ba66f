"""The minimum for a process that imports the kernel's libraries and runs one task."""

import anyio
from attrs import frozen
from cyclopts import App


async def hello() -> None:
    """Do nothing."""


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hello)


assert all((frozen, App))
anyio.run(main)
