"""Where two corners of the contract meet, and only a process can tell."""

from __future__ import annotations

import datetime as dt
import signal

import pytest

from tests.conformance.program import App, Result

BASE = """
@service
async def base(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(0.02)
    log.info("closed")
"""
HUNG = """
def block() -> None:
    log.info("blocks")
    time.sleep(20)

@service(allowed_failure=True)
async def hung(serving: Serving[None]) -> None:
    async with serving():
        await anyio.to_thread.run_sync(block)
"""
SLOW_TO_FLUSH = """
class Slow(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        pass

    def flush(self) -> None:
        print("flushing", file=sys.stderr, flush=True)
        time.sleep(20)

logging.getLogger().addHandler(Slow())
"""


def seconds_between(result: Result, first: str, last: str) -> float:
    """From the first message that matches one pattern to the first that matches the other."""
    times = [result.records[result.position(pattern)]["ts"] for pattern in (first, last)]
    began, ended = (dt.datetime.fromisoformat(time) for time in times)
    return (ended - began).total_seconds()


@pytest.mark.parametrize("further", [0, 1, 2])
def test_a_signal_while_the_last_words_of_an_abandoned_service_are_flushed(app: App, further: int) -> None:
    """The flush has a second, which a third signal cuts short; the code is the one that was told, and told once."""
    app.service("hung", HUNG)
    app.init(SLOW_TO_FLUSH)
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="200ms")
    run.wait_for("blocks")
    run.send(signal.SIGTERM)
    run.wait_for("flushing")
    for number in (signal.SIGINT, signal.SIGHUP)[:further]:
        run.send(number, further=number == signal.SIGINT)
    result = run.result()
    assert result.code == 3, result.stderr
    assert result.own_seconds < (1.2 if further == 2 else 2)
    (last,) = (record["message"] for record in result.records if "exit_code" in record)
    assert last.startswith("exit 3: hung abandoned")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_hangs_is_given_up_before_the_turn_of_those_below(app: App, backend: str) -> None:
    """At T - k r, in real time too: here T = 2 s, k = 1, and r = T / (2 * 2)."""
    app.service("base", BASE)
    app.service("hung", HUNG.replace("@service(", "@service(depends=['base'], "))
    result = app.run(RUNNER_SHUTDOWNTIMEOUT="2s", KERNEL_BACKEND=backend).stop(after="blocks")
    assert result.code == 3
    assert 1.4 < seconds_between(result, "^stopping: SIGTERM", "^hung: abandoned") < 1.9
    assert result.in_order("^hung: abandoned", "^base: closed", "^exit 3: hung abandoned")


def test_a_signal_during_validation(app: App) -> None:
    """As one during imports: nothing is started, and the exit code is 0."""
    app.service(
        "picky",
        """
        def look(instance: object, attribute: object, value: int) -> None:
            print("looking", file=sys.stderr, flush=True)
            time.sleep(0.3)

        @attrs.frozen
        class Config:
            port: int = attrs.field(default=1, validator=look)

        @service
        async def picky(config: Config) -> None:
            log.info("never")
        """,
    )
    result = app.run(PICKY_PORT="2").stop(after="looking")
    assert result.code == 0
    (only,) = result.messages
    assert only.startswith("exit 0: SIGTERM")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_signal_cuts_a_command_and_its_providers(app: App, backend: str) -> None:
    """The command's clean-up is cut as well, and then the provider's: nobody waits for either."""
    app.service(
        "database",
        """
        @service
        async def database(serving: Serving[int]) -> None:
            async with serving(1):
                await anyio.sleep_forever()
            log.info("never closes while it is in use")

        @database.command
        async def ask(database: int) -> None:
            log.info("asking")
            try:
                await anyio.sleep_forever()
            finally:
                log.info("cleaning up")
                with anyio.move_on_after(20, shield=True):
                    await anyio.sleep_forever()
        """,
    )
    run = app.start("database", "ask", KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="10s", LOG_LEVEL="info")
    run.wait_for("asking")
    run.send(signal.SIGINT)
    run.wait_for("cleaning up")
    run.send(signal.SIGTERM, further=True)
    result = run.result()
    assert result.code == 130
    assert result.messages[-1].startswith("exit 130: ")
    assert not result.said("never closes")
    assert result.seconds > 0.9
    assert result.own_seconds < 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_signal_while_the_loop_is_blocked_for_a_while(app: App, backend: str) -> None:
    """The deadline counts from the signal all the same: whoever hangs then costs those below it nothing."""
    app.service("base", BASE)
    app.service(
        "hung",
        """
        @service(depends=["base"])
        async def hung(serving: Serving[None]) -> None:
            async with serving():
                log.info("blocks")
                time.sleep(1.2)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(20)
        """,
    )
    result = app.run(RUNNER_SHUTDOWNTIMEOUT="2s", KERNEL_BACKEND=backend).stop(after="blocks")
    assert result.code == 3
    assert result.own_seconds < 2.5
    assert result.said("^base: closed"), result.stderr
