"""What surrounds the services: log handlers, and the app's lifespan. This file is yours.

It is imported before the services are, and by every command.

A handler that is added to the root logger here gets every record, from the kernel, services and libraries alike, with
`app`, `version` and `service` on each:

    logging.getLogger().addHandler(logging.FileHandler("app.log"))

A lifespan runs around all services. Several run in order, and are undone in reverse:

    @lifespan
    async def tracing() -> AsyncGenerator[None, None]:
        provider = start_tracing()
        yield                          # the services run
        await provider.shutdown()      # they have ended, whatever happened
"""
