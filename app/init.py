"""What surrounds the services: log handlers, the app's lifespan, and observers. This file is yours.

It is imported before the services, and by every command.

A handler that is added to the root logger here gets every record of the kernel, services and libraries, with
`app`, `version` and `service` on each:

    logging.getLogger().addHandler(logging.FileHandler("app.log"))

A lifespan runs around all services. Several are entered in order, and exited in reverse:

    @lifespan
    async def tracing() -> AsyncGenerator[None, None]:
        provider = start_tracing()
        yield                          # the services run
        await provider.shutdown()      # they have ended, whatever happened

An observer is called with each event of the run; `kernel.events` lists them:

    @observer
    def count(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.BACKOFF:
            CRASHES.labels(event.service).inc()
"""
