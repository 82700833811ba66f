"""What a user's code may raise in the real program, and what a command gets of the services it asks for."""

from __future__ import annotations

import re
import signal

import pytest

from tests.conformance.program import App, NewApp, Process
from tests.odd_errors import SOURCE

BACKENDS = ["asyncio", "trio"]

CALM = """
@service
async def calm(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.info("closed calmly")
"""

RAISES = {
    "SystemExit(0)": "raise SystemExit(0)",
    "a group with SystemExit": "raise BaseExceptionGroup('one', [SystemExit(0)])",
    "GeneratorExit": "raise GeneratorExit",
    "unprintable": "raise Unprintable",
    "unchangeable": "raise Unchangeable",
}


@pytest.mark.many
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", RAISES)
def test_an_error_of_a_service_is_told(app: App, kind: str, backend: str) -> None:
    """Whatever it is: in the log, with its traceback, in the report, and in the exit code; the others close calmly."""
    app.service("calm", CALM)
    app.service("odd", f"{SOURCE}@service(depends=['calm'])\nasync def odd() -> None:\n    {RAISES[kind]}")
    result = app.call("run", KERNEL_BACKEND=backend)
    assert result.code == 1, result.stderr
    assert result.in_order("odd: failed", "calm: closed calmly", "^exit 1: odd failed")
    assert result.ending("odd") == "failed"
    assert result.ending("calm") == "stopped"
    (failed,) = (one for one in result.records if one.get("state") == "failed")
    assert "services/odd.py" in failed["exception"]


@pytest.mark.many
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", RAISES)
def test_an_error_of_a_lifespan_is_told(app: App, kind: str, place: str, backend: str) -> None:
    """Before its `yield` nothing starts, after it all has ended; the exit code is 1."""
    lines = [RAISES[kind], "yield"] if place == "before" else ["yield", RAISES[kind]]
    body = "\n    ".join(lines)
    app.init(f"{SOURCE}@lifespan\nasync def hook() -> AsyncGenerator[None, None]:\n    {body}")
    app.service("calm", CALM)
    run = app.run(KERNEL_BACKEND=backend)
    if place == "after":
        run.wait_for("all ready")
        run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 1, result.stderr
    assert result.said("closed calmly") == (place == "after")
    assert result.said("^exit 1: app/init.py:hook failed")


@pytest.mark.many
@pytest.mark.parametrize("how", ["plain", "async", "in a child task", "with a value"])
@pytest.mark.parametrize("kind", RAISES)
def test_an_error_of_a_command_is_exit_1(app: App, kind: str, how: str) -> None:
    """With a kernel or without, and what it was given closes calmly."""
    body = RAISES[kind]
    if how == "in a child task":
        body = "async with anyio.create_task_group() as tasks:\n        tasks.start_soon(fail)"
    value = "provider: int" if how == "with a value" else ""
    app.service(
        "provider",
        f"{SOURCE}async def fail() -> None:\n    {RAISES[kind]}\n\n"
        "@service\nasync def provider(serving: Serving[int]) -> None:\n"
        "    async with serving(1):\n        await anyio.sleep_forever()\n"
        "    await anyio.sleep(0.01)\n    log.warning('closed calmly')\n\n"
        f"@provider.command\n{'' if how == 'plain' else 'async '}def use({value}) -> None:\n    {body}",
    )
    result = app.call("provider", "use")
    if kind == "SystemExit(0)" and how != "in a child task":  # a command may say how it ends
        assert result.code == 0, result.stderr
    else:
        assert result.code == 1, result.stderr
        assert result.messages[-1].startswith("exit 1: ")
    assert result.said("closed calmly") == (how == "with a value")


@pytest.mark.parametrize("kind", RAISES)
def test_an_error_of_a_converter_is_a_bad_value(app: App, kind: str) -> None:
    """Nothing is started, and the line names the variable."""
    app.service("calm", CALM)
    app.service(
        "odd",
        f"{SOURCE}def convert(value: object) -> int:\n    {RAISES[kind]}\n\n"
        "@attrs.frozen\nclass OddConfig:\n    port: int = attrs.field(default=1, converter=convert)\n\n"
        "@service\nasync def odd(config: OddConfig) -> None:\n    log.info('never')",
    )
    result = app.call("run", ODD_PORT="80")
    assert result.code == 2, result.stderr
    assert re.match("ODD_PORT:? is '80'", result.errors[0])
    assert not result.said("never|calm")


def test_a_log_handler_that_fails_does_not_end_the_log(app: App) -> None:
    """The user's own handler is not the kernel's: what comes after its failure is logged all the same."""
    app.init(
        "class Handler(logging.Handler):\n    def emit(self, record: logging.LogRecord) -> None:\n"
        "        raise OSError('disk full')\n\nlogging.getLogger('kernel').addHandler(Handler())"
    )
    app.service("calm", CALM.replace("await anyio.sleep_forever", "log.info('works'); await anyio.sleep_forever"))
    result = app.run().stop(after="works")
    assert result.code == 0
    assert result.said("calm: stopped")


# -- interrupts ------------------------------------------------------------------------------------------------------

INTERRUPTS = {
    "in the body": "        raise KeyboardInterrupt",
    "in the background": "        work.start_soon(interrupt)\n        await anyio.sleep_forever()",
    "in a task group": (
        "        async with anyio.create_task_group() as tasks:\n            tasks.start_soon(interrupt)\n"
        "            await anyio.sleep_forever()"
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_is_a_signal(new_app: NewApp, backend: str) -> None:
    """Wherever it comes up: nothing is tried again, all close calmly, exit 0."""
    runs: list[Process] = []
    for body in INTERRUPTS.values():
        app = new_app()
        app.service("calm", CALM)
        app.service(
            "odd",
            "async def interrupt() -> None:\n    raise KeyboardInterrupt\n\n"
            "@service(depends=['calm'], retries=5)\nasync def odd(serving: Serving[None]) -> None:\n"
            f"    async with serving() as work:\n{body}",
        )
        runs.append(app.run(KERNEL_BACKEND=backend))
    for run in runs:
        result = run.result()
        assert result.code == 0, result.stderr
        assert result.ending("odd") == result.ending("calm") == "stopped"
        assert result.said("calm: closed calmly")
        assert re.search("^exit 0: .*KeyboardInterrupt$", result.messages[-1])


# -- what a command asks for -----------------------------------------------------------------------------------------

STORE = """
@service(retries=5)
async def store(serving: Serving[str]) -> None:
    log.warning("store opens")
    async with serving("store") as work:
        if os.environ.get("STORE_CRASHES"):
            work.start_soon(crash)
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.warning("store closes")

async def crash() -> None:
    await anyio.sleep(0.2)
    raise OSError("disk gone")
"""
MIGRATION = """
@service(oneshot=True)
async def migration() -> None:
    log.warning("migrated")
"""
CACHE = """
@service(depends=["store", "migration"])
async def cache(store: str, serving: Serving[str]) -> None:
    log.warning("cache opens on %s", store)
    async with serving("cache"):
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.warning("cache closes")

@cache.command
async def use(cache: str, *, seconds: float = 0) -> None:
    try:
        log.warning("in use: %s", cache)
        await anyio.sleep(seconds)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        log.warning("out of use")
"""


@pytest.fixture
def shop(app: App) -> App:
    """A command on a service, which needs two others; and one that nobody needs and that does not import."""
    app.service("store", STORE)
    app.service("migration", MIGRATION)
    app.service("cache", CACHE)
    app.service("stranger", "raise OSError('must not be imported')")
    return app


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_providers_of_a_command_need_runs_too(shop: App, backend: str) -> None:
    """Also what they need for the order only, started before and stopped after, whatever is enabled."""
    result = shop.call("cache", "use", SERVICES_ENABLED="stranger", KERNEL_BACKEND=backend)
    assert result.code == 0, result.stderr
    assert result.in_order("migrated", "cache opens on store", "in use", "out of use", "cache closes", "store closes")
    assert result.in_order("store opens", "cache opens")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crash_below_ends_a_command_that_is_running(shop: App, backend: str) -> None:
    """It cleans up while its value is whole, and is not run again, as the provider is: exit 1, which says why."""
    result = shop.call("cache", "use", "--seconds", "20", STORE_CRASHES="1", KERNEL_BACKEND=backend)
    assert result.code == 1, result.stderr
    assert result.in_order("in use", "out of use", "cache closes")
    assert sum("in use: cache" in message for message in result.messages) == 1
    assert result.messages[-1].startswith("exit 1: cache use failed: needs the value of cache")


@pytest.mark.parametrize("options", ["", "allowed_failure=True", "retries=Retry(2, delay=0.01)"])
def test_a_provider_that_never_serves_ends_a_command_before_it_runs(app: App, options: str) -> None:
    """Whatever is allowed to the provider: without the value there is no command. What it is tried again for counts."""
    app.service(
        "provider",
        f"@service({options})\nasync def provider(serving: Serving[int]) -> None:\n    log.warning('tries')\n"
        "    raise OSError('no disk')\n\n"
        "@provider.command\nasync def use(provider: int) -> None:\n    log.warning('used')",
    )
    result = app.call("provider", "use")
    assert result.code == 1, result.stderr
    assert not result.said("used")
    assert sum(message == "provider: tries" for message in result.messages) == (3 if "retries" in options else 1)
    assert "OSError: no disk" in result.messages[-1]
