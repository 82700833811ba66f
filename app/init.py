"""What surrounds the services: log handlers, the app's lifespan, and observers. This file is yours.

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

An observer is told each step of the run; `kernel.events` has what it may be told:

    @observer
    def count(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.BACKOFF:
            CRASHES.labels(event.service).inc()
"""
