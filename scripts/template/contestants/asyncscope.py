"""asyncscope: a scope for each service, which ends when nobody uses it any more."""

import anyio
from asyncscope import main_scope, scope  # type: ignore[import-not-found]
from contestants.moments import Run


async def main() -> None:
    run = Run()

    async def use(place: int) -> None:
        await scope.service(str(place), service, place)

    async def service(place: int) -> None:
        node = run.nodes[place]
        if node.needs:
            async with anyio.create_task_group() as tasks:
                for needed in node.needs:
                    tasks.start_soon(use, needed)
        run.launched(place)
        if node.opening:
            await anyio.sleep(node.opening)
        run.ready(place)
        scope.register(place)
        await scope.wait_no_users()
        run.asked(place)
        if node.closing:
            await anyio.sleep(node.closing)
        run.ended(place)

    run.begins()
    async with main_scope():
        async with anyio.create_task_group() as tasks:
            for place in run.places:
                tasks.start_soon(use, place)
        run.all_ready()
    run.all_ended()


anyio.run(main)
