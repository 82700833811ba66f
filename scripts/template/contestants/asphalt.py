"""asphalt: components wait for each other's resources; their clean-up runs in reverse, one after the other."""

import asyncio
from functools import partial

from asphalt.core import Component, ContainerComponent, Context  # type: ignore[import-not-found]
from contestants.moments import Run


class Service(Component):  # type: ignore[misc]
    """A node."""

    def __init__(self, run: Run, place: int) -> None:
        self.run, self.place = run, place

    async def start(self, ctx: Context) -> None:
        node = self.run.nodes[self.place]
        for needed in node.needs:
            await ctx.request_resource(int, f"s{needed}")
        self.run.launched(self.place)
        if node.opening:
            await asyncio.sleep(node.opening)
        self.run.ready(self.place)
        ctx.add_resource(self.place, f"s{self.place}")
        ctx.add_teardown_callback(partial(self.stop, asyncio.create_task(self.work())))

    async def work(self) -> None:
        await asyncio.Event().wait()

    async def stop(self, work: asyncio.Task[None]) -> None:
        work.cancel()
        await asyncio.wait([work])
        self.run.asked(self.place)
        if seconds := self.run.nodes[self.place].closing:
            await asyncio.sleep(seconds)
        self.run.ended(self.place)


async def main() -> None:
    run = Run()
    root = ContainerComponent()
    for place in run.places:
        root.child_components[f"s{place}"] = Service(run, place)
    run.begins()
    async with Context() as ctx:
        await root.start(ctx)
        run.all_ready()
    run.all_ended()


asyncio.run(main())
