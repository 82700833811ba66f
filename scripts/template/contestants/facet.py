"""facet: dependencies start first, in parallel, and stop last, by counting."""

import asyncio

from contestants.moments import Run
from facet import ServiceMixin  # type: ignore[import-not-found]


class Service(ServiceMixin):  # type: ignore[misc]
    """A node."""

    def __init__(self, run: Run, place: int, needs: list["Service"]) -> None:
        self.run_, self.place, self.needs = run, place, needs

    @property
    def dependencies(self) -> list[list["Service"]]:
        return [self.needs] if self.needs else []

    async def start(self) -> None:
        self.run_.launched(self.place)
        if seconds := self.run_.nodes[self.place].opening:
            await asyncio.sleep(seconds)
        self.add_task(asyncio.Event().wait())
        self.run_.ready(self.place)

    async def stop(self) -> None:
        self.run_.asked(self.place)
        if seconds := self.run_.nodes[self.place].closing:
            await asyncio.sleep(seconds)
        self.run_.ended(self.place)


class Root(ServiceMixin):  # type: ignore[misc]
    """Depends on all services."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services

    @property
    def dependencies(self) -> list[list[Service]]:
        return [self.services]


async def main() -> None:
    run = Run()
    services: list[Service] = []
    for place, node in enumerate(run.nodes):
        services.append(Service(run, place, [services[needed] for needed in node.needs]))
    root = Root(services)
    run.begins()
    async with root:
        run.all_ready()
    run.all_ended()


asyncio.run(main())
