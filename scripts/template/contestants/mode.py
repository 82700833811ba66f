"""mode-streaming: one service has all others as children; they start one after the other, and stop in reverse.

A service that is a child of several would be stopped with the first of them; in one list, the order is kept.
"""

import asyncio
import logging

import mode  # type: ignore[import-not-found]
from contestants.moments import Run


class Service(mode.Service):  # type: ignore[misc]
    """A node."""

    def __init__(self, run: Run, place: int) -> None:
        self.run, self.place = run, place
        super().__init__()

    async def on_start(self) -> None:
        self.run.launched(self.place)
        if seconds := self.run.nodes[self.place].opening:
            await asyncio.sleep(seconds)
        self.run.ready(self.place)

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def work(self) -> None:
        await asyncio.Event().wait()

    async def on_stop(self) -> None:
        self.run.asked(self.place)
        if seconds := self.run.nodes[self.place].closing:
            await asyncio.sleep(seconds)
        self.run.ended(self.place)


async def main() -> None:
    run = Run()
    root = mode.Service()
    for place in run.places:
        root.add_dependency(Service(run, place))
    run.begins()
    await root.start()
    run.all_ready()
    await root.stop()
    run.all_ended()


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
