"""launart: services prepare and clean up in levels, each level in parallel."""

import asyncio
import sys

from contestants.moments import Run
from launart import Launart  # type: ignore[import-not-found]
from launart import Service as Base
from loguru import logger  # type: ignore[import-not-found]


class Service(Base):  # type: ignore[misc]
    """A node."""

    def __init__(self, run: Run, place: int) -> None:
        self.run, self.place, self.id = run, place, str(place)
        super().__init__()

    @property
    def required(self) -> set[str]:
        return {str(needed) for needed in self.run.nodes[self.place].needs}

    @property
    def stages(self) -> set[str]:
        return {"preparing", "blocking", "cleanup"}

    async def launch(self, manager: Launart) -> None:
        node = self.run.nodes[self.place]
        async with self.stage("preparing"):
            self.run.launched(self.place)
            if node.opening:
                await asyncio.sleep(node.opening)
            self.run.ready(self.place)
        async with self.stage("blocking"):
            await manager.status.wait_for_sigexit()
        async with self.stage("cleanup"):
            self.run.asked(self.place)
            if node.closing:
                await asyncio.sleep(node.closing)
            self.run.ended(self.place)


async def main() -> None:
    run = Run()
    manager = Launart()
    for place in run.places:
        manager.add_component(Service(run, place))
    run.begins()
    launched = asyncio.create_task(manager.launch())
    await manager.status.wait_for_blocking()
    run.all_ready()
    manager.status.exiting = True
    await launched
    run.all_ended()


logger.remove()
logger.add(sys.stderr, level="WARNING")
asyncio.run(main())
