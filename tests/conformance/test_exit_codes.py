"""The exit code tells the truth, whatever ends the run, and the last lines say why."""

from __future__ import annotations

import attrs
import pytest

from tests.conformance.program import App, NewApp, Process, Result

CALM = """
@service
async def calm(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.info("closed calmly")
"""


@attrs.frozen
class Ending:
    """How a run ends.

    Args:
        body: What the service `odd` does, besides `calm`; the empty text leaves `calm` out.
        code: The exit code.
        why: The last message, as a regular expression.
        options: Of its decorator.
        state: In which `odd` ends.
        alone: Whether `calm` is left out.
        serves: Whether the body is the work of a serving block.

    """

    body: str
    code: int
    why: str
    options: str = ""
    state: str = "failed"
    alone: bool = False
    serves: bool = False


RAISES = "raise OSError('no route')"
ENDINGS = {
    "fails": Ending(RAISES, 1, "^exit 1: odd failed: OSError: no route$"),
    "fails after retries": Ending(
        RAISES,
        1,
        "^exit 1: odd failed after 3 attempts: OSError: no route$",
        options="retries=Retry(2, delay=0.01)",
    ),
    "fails while serving": Ending(RAISES, 1, "^exit 1: odd failed: OSError: no route$", serves=True),
    "all fail with permission": Ending(
        RAISES,
        1,
        "^exit 1: every service failed; the first was odd: OSError: no route$",
        options="allowed_failure=True",
        alone=True,
    ),
    "one-shot": Ending(
        "pass", 0, "^exit 0: every service has ended$", options="oneshot=True", state="done", alone=True
    ),
    "returns": Ending("pass", 0, "^exit 0: every service has ended$", state="done", alone=True),
    "starts too slowly": Ending(
        "await anyio.sleep(20)",
        1,
        r"^exit 1: odd failed: was not ready after 0.2 s; it was at services/odd.py:9 in odd$",
        options="start_timeout=0.2, oneshot=True",
    ),
    "SystemExit": Ending("sys.exit(5)", 1, "^exit 1: odd failed: SystemExit: 5$"),
    "SystemExit in a child task": Ending(
        "work.start_soon(leave); await anyio.sleep_forever()", 1, "^exit 1: odd failed: SystemExit: 6$", serves=True
    ),
    "ExceptionGroup": Ending(
        "raise ExceptionGroup('two', [OSError('no route'), ValueError('no sense')])",
        1,
        "^exit 1: odd failed: ExceptionGroup: OSError: no route; ValueError: no sense$",
    ),
    "stray cancellation": Ending(
        "raise anyio.get_cancelled_exc_class()() if BACKEND == 'asyncio' else OSError('trio makes none')",
        1,
        "^exit 1: odd failed: (was cancelled from within: no stop was requested|OSError: trio makes none)$",
    ),
    "KeyboardInterrupt": Ending(
        "raise KeyboardInterrupt", 0, "^exit 0: stopped by KeyboardInterrupt$", state="stopped"
    ),
    "os.kill": Ending(
        "os.kill(os.getpid(), signal.SIGTERM); await anyio.sleep_forever()",
        0,
        "^exit 0: stopped by SIGTERM$",
        state="stopped",
    ),
    "fails in clean-up": Ending(
        "    os.kill(os.getpid(), signal.SIGTERM); await anyio.sleep_forever()\n"
        "    raise OSError('cannot say goodbye')",
        1,
        "^exit 1: odd failed while the app was stopping: OSError: cannot say goodbye$",
        serves=True,
    ),
    "never serves": Ending("return", 1, "^exit 1: odd failed: returned without serving", serves=True),
}
LEAVE = """
BACKEND = os.environ["KERNEL_BACKEND"]

async def leave() -> None:
    sys.exit(6)
"""


def start(app: App, ending: Ending, backend: str) -> Process:
    """Start it."""
    depends = "" if ending.alone else "depends=['calm'], "
    if not ending.alone:
        app.service("calm", CALM)
    takes = "serving: Serving[None]" if ending.serves else ""
    head = f"@service({depends}{ending.options})\nasync def odd({takes}) -> None:\n"
    if ending.body == "return":
        body = "    return"
    elif ending.body.startswith("  "):
        body = f"    async with serving():\n    {ending.body}"
    elif ending.serves:
        body = f"    async with serving() as work:\n        {ending.body}"
    else:
        body = f"    {ending.body}"
    # The body of one that serves nothing stands at line 9.
    app.service("odd", f"{head}{body}\n{LEAVE}")
    return app.run(KERNEL_BACKEND=backend)


@pytest.mark.core
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_ending(new_app: NewApp, backend: str) -> None:
    """Each has its exit code and its last words, and the others are stopped calmly."""
    names = list(ENDINGS)
    for some in (names[:8], names[8:]):
        runs = {name: start(new_app(), ENDINGS[name], backend) for name in some}
        for name, run in runs.items():
            check(name, ENDINGS[name], run.result())


def check(name: str, ending: Ending, result: Result) -> None:
    """Compare."""
    import re

    told = f"{name}:\n{result.stderr}"
    assert result.code == ending.code, told
    assert re.search(ending.why, result.messages[-1]), told
    assert result.ending("odd") == ending.state, told
    assert sum(message.startswith("exit ") for message in result.messages) == 1, told
    if not ending.alone:
        assert result.said("calm: closed calmly"), told
        assert result.ending("calm") == "stopped", told


def test_failure_in_mid_start(app: App) -> None:
    """The app stops at once: nothing more is launched, and what waits for the broken one never starts."""
    app.service("a", CALM.replace("calm(", "a("))
    app.service(
        "b", "@service(depends=['a'])\nasync def b(serving: Serving[int]) -> None:\n    raise OSError('no route')"
    )
    app.service("c", "@service(depends=['b'])\nasync def c(b: int) -> None:\n    log.info('got it')")
    app.service(
        "d",
        "@service(depends=['a'])\nasync def d(serving: Serving[None]) -> None:\n    await anyio.sleep(20)\n"
        "    async with serving():\n        pass",
    )
    result = app.call("run", RUNNER_SHUTDOWNTIMEOUT="5s")
    assert result.code == 1
    assert not result.said("got it")
    assert result.in_order("b: failed", "stopping: b failed", "a: closed calmly")
    assert result.ending("c") == "stopped"
    assert result.said(r"\nc +stopped; never started")
    assert result.own_seconds < 3


def test_error_in_a_task_of_asyncios_own(app: App) -> None:
    """What fails in a task made with `asyncio.create_task` is logged, and moves nothing."""
    app.service(
        "loose",
        """
        import asyncio, gc

        async def broken() -> None:
            raise OSError("nobody waits for this")

        @service
        async def loose() -> None:
            task = asyncio.create_task(broken())
            await anyio.sleep(0.01)
            del task
            gc.collect()
            log.info("goes on")
            await anyio.sleep_forever()
        """,
    )
    result = app.run().stop(after="goes on")
    assert result.code == 0
    (record,) = [one for one in result.records if one["level"] == "error"]
    assert record["logger"] == "asyncio"
    assert record["service"] == "loose"
    assert "nobody waits for this" in record["exception"]


def test_tracebacks_survive(app: App) -> None:
    """The log has the whole chain of causes, with notes of service, phase and attempt, and no frame of the kernel's."""
    app.service(
        "deep",
        """
        @service
        async def deep() -> None:
            try:
                int("seven")
            except ValueError as error:
                raise OSError("no route") from error
        """,
    )
    result = app.call("run")
    failed = next(one for one in result.records if one.get("state") == "failed")
    assert failed["error"] == "OSError: no route"
    for part in ("invalid literal", "direct cause", "OSError: no route", "in service deep, running, attempt 1"):
        assert part in failed["exception"]
    assert "kernel/" not in failed["exception"]
    assert result.stderr.count("Traceback") == 2, "each of the two, once"


def test_allowed_failure_is_a_warning(app: App) -> None:
    """The rest runs on, those that only wanted the order start, and the exit code is 0."""
    app.service("calm", CALM)
    app.service("odd", "@service(allowed_failure=True)\nasync def odd() -> None:\n    raise OSError('no route')")
    app.service("after", "@service(depends=['odd'], oneshot=True)\nasync def after() -> None:\n    log.info('started')")
    result = app.run().stop()
    assert result.code == 0
    assert result.said("after: started")
    assert {one["level"] for one in result.records} == {"info", "warning"}
    assert result.messages[-1] == "exit 0: stopped by SIGTERM"
