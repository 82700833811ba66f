"""aiomisc: services wait for each other through the context. They stop in no particular order."""

import asyncio

import aiomisc  # type: ignore[import-not-found]
from contestants.moments import Run


class Service(aiomisc.Service):  # type: ignore[misc]
    """A node."""

    run: Run
    place: int

    async def start(self) -> None:
        node = self.run.nodes[self.place]
        for needed in node.needs:
            await self.context[needed]
        self.run.launched(self.place)
        if node.opening:
            await asyncio.sleep(node.opening)
        self.run.ready(self.place)
        self.context[self.place] = True
        self.start_event.set()
        self.work = asyncio.Event()  # kept by the service, since the entrypoint keeps no task alive
        await self.work.wait()

    async def stop(self, exception: Exception | None = None) -> None:  # noqa: ARG002
        self.run.asked(self.place)
        if seconds := self.run.nodes[self.place].closing:
            await asyncio.sleep(seconds)
        self.run.ended(self.place)


async def main() -> None:
    run = Run()
    services = [Service(run=run, place=place) for place in run.places]
    run.begins()
    async with aiomisc.entrypoint(*services, log_config=False):
        run.all_ready()
    run.all_ended()


asyncio.run(main())
