"""Write docs/failures.md: what the terminal shows for each failure, taken from the real program.

    .venv/bin/python scripts/template/make_failures.py

Each scenario runs `app run` in a separate source tree. What differs between runs or Python versions is replaced: times,
measured durations, and the lines of tracebacks that are not the user's.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a script has its own folder on the path
    sys.path.insert(0, str(ROOT))

from tests.conformance.program import App  # noqa: E402  (found by the line above)

PAGE = ROOT / "docs" / "failures.md"
ENV = {"LOG_FORMAT": "text", "RUNNER_SHUTDOWNTIMEOUT": "1s", "COLUMNS": "100"}


def _dedent(files: Mapping[str, str]) -> dict[str, str]:
    return {name: textwrap.dedent(source).lstrip("\n") for name, source in files.items()}


@attrs.frozen
class Scenario:
    """A failure.

    Args:
        title: The heading.
        text: What it means, and what to do about it.
        files: The sources by path without the suffix, relative to `services` unless they begin with `app/`.
        env: Variables in addition to `ENV`.
        words: The arguments of `app`.
        steps: Pairs of a text to wait for, and the signal to send then.
        group: The heading above it, given for the first scenario of a group.
        cheap: Whether it ends quickly; a test compares these scenarios with the page.

    """

    title: str
    text: str
    files: Mapping[str, str] = attrs.field(converter=_dedent)
    env: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    words: tuple[str, ...] = attrs.field(default=("run",), kw_only=True)
    steps: tuple[tuple[str, signal.Signals], ...] = attrs.field(default=(), kw_only=True)
    group: str = attrs.field(default="", kw_only=True)
    cheap: bool = attrs.field(default=True, kw_only=True)

    @property
    def paths(self) -> dict[str, str]:
        """Return the sources by their paths in the tree."""
        folders = {name: "" if name.startswith("app/") else "services/" for name in self.files}
        return {f"{folders[name]}{name}.py": source for name, source in self.files.items()}

    @property
    def command(self) -> str:
        """Return the command as a user would type it."""
        variables = (f"{name}={value!r}" if " " in value else f"{name}={value}" for name, value in self.env.items())
        return " ".join((*variables, "app", *self.words))


STOP = (("all ready", signal.SIGTERM),)

IDLE = """
import anyio

from kernel import Serving, service


@service
async def database(serving: Serving[str]) -> None:
    async with serving("a pool"):
        await anyio.sleep_forever()
"""

WRITER = """
import anyio

from kernel import Serving, service


@service(depends=["database"])
async def writer(database: str, serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    print("writing the last rows", flush=True)
    await anyio.sleep(3600)
"""

STUBBORN = """
import anyio

from kernel import Serving, service


@service
async def writer(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    print("writing the last rows", flush=True)
    with anyio.CancelScope(shield=True):
        await anyio.sleep(3600)
"""

LIFESPAN = """
from collections.abc import AsyncGenerator

from kernel import lifespan


@lifespan
async def vault() -> AsyncGenerator[None]:
    {before}
    yield
    {after}
"""

IMPORT = '''

@database.command
async def load(database: str, file: str) -> None:
    """Load a file into the pool."""
    raise FileNotFoundError(f"no such file: {file}")


@database.command
async def watch(database: str) -> None:
    """Watch the pool."""
    print("watching", flush=True)
    await anyio.sleep_forever()
'''

SCENARIOS = (
    Scenario(
        "It crashes, and its retries are used up",
        "Each crash is a warning with the time of the next attempt; the last one is fatal and stops the app. The "
        "traceback is shown at the first and the last attempt, and in between if it differs. Fix what it names; "
        "`retries` sets how often the service is retried.",
        {
            "database": """
            import anyio

            from kernel import Retry, Serving, service


            @service(retries=Retry(times=3, delay=0.02))
            async def database(serving: Serving[str]) -> None:
                await anyio.sleep(0.01)
                raise ConnectionError("connection refused by db.internal:5432")
            """,
            "api": """
            import anyio

            from kernel import service


            @service(depends=["database"])
            async def api(database: str) -> None:
                await anyio.sleep_forever()
            """,
        },
        group="While it runs",
    ),
    Scenario(
        "It fails (allowed)",
        "The failure is a warning, and the other services keep running; dependents that do not use its value start "
        "anyway. The exit code stays 0. If the app cannot work without this service, remove `allowed_failure=True`.",
        {
            "migrator": """
            from kernel import service


            @service(oneshot=True, allowed_failure=True)
            async def migrator() -> None:
                raise LookupError("no table named items")
            """,
            "api": """
            import anyio

            from kernel import service


            @service(depends=["migrator"])
            async def api() -> None:
                await anyio.sleep_forever()
            """,
        },
        steps=STOP,
    ),
    Scenario(
        "Every service failed",
        "Each of them is allowed to fail, but nothing is left running, so the exit code is 1. Look for a common "
        "cause: a network, a disk, a variable.",
        {
            "cache": """
            from kernel import Serving, service


            @service(allowed_failure=True)
            async def cache(serving: Serving[None]) -> None:
                raise ConnectionError("connection refused by cache.internal")
            """,
            "mail": """
            from kernel import Serving, service


            @service(allowed_failure=True)
            async def mail(serving: Serving[None]) -> None:
                raise ConnectionError("connection refused by mail.internal")
            """,
        },
    ),
    Scenario(
        "An error while another is handled",
        "The line names the later error, and the traceback begins with the first: fix that one, then the code that "
        "handles it.",
        {
            "database": """
            from kernel import Serving, service

            FALLBACK: dict[str, str] = {}


            @service
            async def database(serving: Serving[str]) -> None:
                try:
                    raise ConnectionError("connection refused by db.internal:5432")
                except ConnectionError:
                    url = FALLBACK["url"]
                async with serving(url):
                    pass
            """,
        },
    ),
    Scenario(
        "Several errors at once",
        "Background tasks failed together. The line names each error, and the traceback shows one below the other.",
        {
            "feed": """
            import anyio

            from kernel import Serving, service


            @service
            async def feed(serving: Serving[None]) -> None:
                async with serving() as work:
                    work.start_soon(read)
                    work.start_soon(write)
                    await anyio.sleep_forever()


            async def read() -> None:
                raise ConnectionResetError("the other side hung up")


            async def write() -> None:
                raise OSError("no space left on device")
            """,
        },
    ),
    Scenario(
        "It calls sys.exit",
        "A service cannot end the process, not even from a background task: `sys.exit` is a crash like any other. "
        "Raise an error that says what is wrong instead.",
        {
            "licence": """
            import sys

            import anyio

            from kernel import Serving, service


            @service
            async def licence(serving: Serving[None]) -> None:
                async with serving() as work:
                    work.start_soon(check)
                    await anyio.sleep_forever()


            async def check() -> None:
                sys.exit("the licence has run out")
            """,
        },
    ),
    Scenario(
        "It is cancelled from within",
        "A cancellation came out of the service, but no stop was requested. Often the service awaits a task that was "
        "cancelled; catch the cancellation there, or wait for the task in another way.",
        {
            "worker": """
            import asyncio

            from kernel import Serving, service


            @service
            async def worker(serving: Serving[None]) -> None:
                async with serving():
                    task = asyncio.create_task(asyncio.sleep(3600))
                    task.cancel()
                    await task
            """,
        },
    ),
    Scenario(
        "An error in an asyncio task",
        "Nobody awaits this task, so asyncio reports its error only when the task is garbage-collected, and no "
        "service changes its state. Use `work.start_soon`: then the error is the service's own failure, and is "
        "retried or fatal.",
        {
            "worker": """
            import asyncio
            import gc

            import anyio

            from kernel import Serving, service


            @service
            async def worker(serving: Serving[None]) -> None:
                async with serving():
                    asyncio.create_task(send())
                    await anyio.sleep(0.05)
                    gc.collect()
                    await anyio.sleep_forever()


            async def send() -> None:
                raise ConnectionError("connection refused by mail.internal")
            """,
        },
        steps=(("ConnectionError: connection", signal.SIGTERM),),
    ),
    Scenario(
        "A start that hangs",
        "After 5 s, and each time that the start has taken twice as long, a tree shows what waits for what. The "
        "innermost line is the cause, with its line of code.",
        {
            "api": """
            import anyio

            from kernel import service


            @service(depends=["database"])
            async def api(database: str) -> None:
                await anyio.sleep_forever()
            """,
            "database": """
            import anyio

            from kernel import Serving, service


            @service
            async def database(serving: Serving[str]) -> None:
                await connect()
                async with serving("a pool"):
                    await anyio.sleep_forever()


            async def connect() -> None:
                await anyio.sleep(3600)  # nobody answers
            """,
        },
        steps=(("database: starting for", signal.SIGTERM),),
        cheap=False,
    ),
    Scenario(
        "It is not ready in time",
        "`start_timeout` has passed: the log shows the tree, then the line where the service was. Fix what it waits "
        "for, or raise `start_timeout`.",
        {
            "database": """
            import anyio

            from kernel import Serving, service


            @service(start_timeout=0.3)
            async def database(serving: Serving[str]) -> None:
                await connect()
                async with serving("a pool"):
                    await anyio.sleep_forever()


            async def connect() -> None:
                await anyio.sleep(3600)  # nobody answers
            """,
        },
        cheap=False,
    ),
    Scenario(
        "No more files can be opened",
        "Code that needs a file fails, by the rules for every failure; the kernel itself needs none to report it or "
        "to stop in order. The same holds when threads or memory run out, or the working directory is removed. Look "
        "for code that opens files and does not close them; `ulimit -n` shows the limit.",
        {
            "database": IDLE,
            "importer": """
            import resource
            from pathlib import Path

            from kernel import service


            @service(depends=["database"], allowed_failure=True)
            async def importer() -> None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))  # stands for a leak
                Path("items.csv").open()
            """,
        },
        steps=(("Too many open files", signal.SIGTERM),),
    ),
    Scenario(
        "A provider crashes and recovers",
        "The consumers of a service that crashed are stopped before its resources close, and start again when it is "
        "ready again. This does not use up their retries. Only the first service has a fault to fix.",
        {
            "database": """
            import anyio

            from kernel import Retry, Serving, service

            pools: list[str] = []


            @service(retries=Retry(times=3, delay=0.05))
            async def database(serving: Serving[str]) -> None:
                pools.append(f"pool {len(pools) + 1}")
                async with serving(pools[-1]):
                    await anyio.sleep(0.1)
                    if len(pools) == 1:
                        raise ConnectionResetError("the server was restarted")
                    await anyio.sleep_forever()
            """,
            "api": """
            import anyio

            from kernel import Serving, service


            @service(depends=["database"])
            async def api(database: str, serving: Serving[None]) -> None:
                async with serving():
                    print(f"works on {database}", flush=True)
                    await anyio.sleep_forever()
            """,
        },
        steps=(("works on pool 2", signal.SIGTERM),),
    ),
    Scenario(
        "A provider fails for good",
        "The consumer did nothing wrong: look at the service whose value it used, and why that one failed.",
        {
            "cache": """
            import anyio

            from kernel import Serving, service


            @service(allowed_failure=True)
            async def cache(serving: Serving[dict[str, str]]) -> None:
                async with serving({}):
                    await anyio.sleep(0.1)
                    raise ConnectionResetError("the cache hung up")
            """,
            "api": """
            import anyio

            from kernel import Serving, service


            @service(depends=["cache"])
            async def api(cache: dict[str, str], serving: Serving[None]) -> None:
                async with serving():
                    await anyio.sleep_forever()
            """,
        },
    ),
    Scenario(
        "An optional value is gone",
        "The parameter has a default, so the consumer starts again with that. Nothing needs to be done at once.",
        {
            "cache": """
            import anyio

            from kernel import Serving, service


            @service(allowed_failure=True)
            async def cache(serving: Serving[dict[str, str]]) -> None:
                async with serving({}):
                    await anyio.sleep(0.1)
                    raise ConnectionResetError("the cache hung up")
            """,
            "api": """
            import anyio

            from kernel import Serving, service


            @service(depends=["cache"])
            async def api(serving: Serving[None], cache: dict[str, str] | None = None) -> None:
                async with serving():
                    print("works", "without" if cache is None else "with", "a cache", flush=True)
                    await anyio.sleep_forever()
            """,
        },
        steps=(("works without", signal.SIGTERM),),
    ),
    Scenario(
        "It returns without ever serving",
        "Its dependents would wait forever, so this is a failure: find the path through the function that never "
        "reaches `serving`.",
        {
            "database": """
            import os

            import anyio

            from kernel import Serving, service


            @service
            async def database(serving: Serving[str]) -> None:
                if url := os.environ.get("URL"):
                    async with serving(url):
                        await anyio.sleep_forever()
            """,
        },
    ),
    Scenario(
        "It serves twice",
        "A service can become ready only once in an attempt. To reconnect, raise, and let `retries` start it again: "
        "then its consumers are stopped first.",
        {
            "database": """
            import anyio

            from kernel import Serving, service


            @service
            async def database(serving: Serving[str]) -> None:
                while True:
                    async with serving("a pool"):
                        await anyio.sleep(0.01)
            """,
        },
    ),
    Scenario(
        "It returns before a stop is requested",
        "Only a one-shot is expected to return. This is a warning, and the other services keep running; here there "
        "are none, so the app ends. If that is intended, set `oneshot=True`; otherwise look for the loop that ended.",
        {
            "worker": """
            import anyio

            from kernel import service


            @service
            async def worker() -> None:
                for _ in range(3):
                    await anyio.sleep(0.01)
            """,
        },
    ),
    Scenario(
        "The app's lifespan fails before its yield",
        "No service was started, because what they all need is not there.",
        {"app/init": LIFESPAN.format(before='raise OSError("no vault")', after="pass"), "database": IDLE},
    ),
    Scenario(
        "Its clean-up fails",
        "The stop was requested, but the exit code is 1: something may not have been written or closed.",
        {
            "writer": """
            import anyio

            from kernel import Serving, service


            @service
            async def writer(serving: Serving[None]) -> None:
                try:
                    async with serving():
                        await anyio.sleep_forever()
                finally:
                    raise OSError("no space left on device")
            """,
        },
        steps=STOP,
        group="While it stops",
    ),
    Scenario(
        "Its clean-up fails after a crash",
        "One failed attempt with two errors: the crash came first, so fix that. The other error has a log record of "
        "its own.",
        {
            "writer": """
            from kernel import Serving, service


            @service
            async def writer(serving: Serving[None]) -> None:
                try:
                    async with serving():
                        raise ValueError("no such column: prize")
                finally:
                    raise OSError("no space left on device")
            """,
        },
    ),
    Scenario(
        "The app's lifespan fails after its yield",
        "All services have ended well, but the lifespan's clean-up may be incomplete.",
        {"app/init": LIFESPAN.format(before="pass", after='raise OSError("no vault")'), "database": IDLE},
        steps=STOP,
    ),
    Scenario(
        "It takes too long to stop",
        "After 2 s a tree shows what waits for what. The service was cancelled at the line shown, early enough that "
        "the services below it can still close. Make that line faster, or raise `RUNNER_SHUTDOWNTIMEOUT`, and "
        "`stop_timeout` if that is less.",
        {
            "database": IDLE,
            "writer": """
            import anyio

            from kernel import Serving, service


            @service(depends=["database"])
            async def writer(database: str, serving: Serving[None]) -> None:
                async with serving():
                    await anyio.sleep_forever()
                await anyio.sleep(3600)  # the last rows
            """,
        },
        env={"RUNNER_SHUTDOWNTIMEOUT": "4s"},
        steps=STOP,
        cheap=False,
    ),
    Scenario(
        "It ignores its cancellation",
        "Even cancelling did not help, so the service was abandoned, and the process exited without it. A thread "
        "cannot be stopped from outside: give the call a timeout, or let the thread check an event. Give a shielded "
        "scope a deadline. An `except BaseException` without a `raise` looks the same.",
        {
            "database": IDLE,
            "reader": """
            import time

            from anyio import to_thread

            from kernel import Serving, service


            @service(depends=["database"])
            async def reader(database: str, serving: Serving[None]) -> None:
                async with serving():
                    await to_thread.run_sync(time.sleep, 3600)
            """,
            "writer": """
            import anyio

            from kernel import Serving, service


            @service(depends=["database"])
            async def writer(database: str, serving: Serving[None]) -> None:
                async with serving():
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3600)
            """,
        },
        steps=STOP,
        cheap=False,
    ),
    Scenario(
        "It blocks the event loop",
        "Nothing else can run, so no service could close: a thread of the kernel's says which line blocks, and ends "
        "the process half a second after the deadline. Move that line to `anyio.to_thread`. (The warning comes when "
        "the loop has been blocked for a second, and another one when it is free again.)",
        {
            "database": IDLE,
            "worker": """
            import time

            from kernel import Serving, service


            @service(depends=["database"])
            async def worker(database: str, serving: Serving[None]) -> None:
                async with serving():
                    print("busy", flush=True)
                    time.sleep(3600)
            """,
        },
        env={"RUNNER_SHUTDOWNTIMEOUT": "2s"},
        steps=(("busy", signal.SIGTERM),),
        cheap=False,
    ),
    Scenario(
        "A second signal",
        "All services that were still running were cancelled, so their clean-up may be incomplete. The same signal "
        "again within half a second counts as one, and so does SIGTERM with another: a terminal and a parent process "
        "may both send theirs.",
        {"database": IDLE, "writer": WRITER},
        env={"RUNNER_SHUTDOWNTIMEOUT": "30s"},
        steps=(("all ready", signal.SIGTERM), ("writing", signal.SIGINT)),
    ),
    Scenario(
        "A third signal",
        "The process exited at once, without a report: the line about the second signal names what was still running.",
        {"writer": STUBBORN},
        env={"RUNNER_SHUTDOWNTIMEOUT": "30s"},
        steps=(("all ready", signal.SIGTERM), ("writing", signal.SIGINT), ("cancelling", signal.SIGHUP)),
    ),
    Scenario(
        "A command fails",
        "The error, and exit code 1. The services that the command needs were started before it, and stopped after it.",
        {"database": IDLE + IMPORT},
        words=("database", "load", "items.csv"),
        group="Commands",
    ),
    Scenario(
        "Ctrl+C in a command",
        "The command was cancelled and has cleaned up, and the services that it needs have been stopped. The exit "
        "code is 130, or 143 for SIGTERM, so that in `app database watch && deploy` nothing is deployed.",
        {"database": IDLE + IMPORT},
        words=("database", "watch"),
        steps=(("watching", signal.SIGINT),),
    ),
    Scenario(
        "A wrong option",
        "`app run --help` lists the options.",
        {"database": IDLE},
        words=("run", "--with-dependancies"),
    ),
    Scenario(
        "Invalid settings of OpenTelemetry",
        "They are refused by name like any others, before the SDK would fail on them, or warn at each record. Only "
        "settings of signals that are exported are checked.",
        {"api": IDLE},
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
            "OTEL_BSP_SCHEDULE_DELAY": "0",
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "many",
        },
    ),
    Scenario(
        "A deadline in the wrong unit",
        "A plain number is in seconds. A value over 100 days is taken for a mistake: here it is in nanoseconds.",
        {"api": IDLE},
        env={"RUNNER_SHUTDOWNTIMEOUT": "10000000000"},
    ),
    Scenario(
        "Wrong configuration",
        "All wrong values of all enabled services are reported together, each with what was expected and where it is "
        "declared. The values of a `Secret` are never shown. A warning names a variable that nothing reads, but whose "
        "name is nearly that of a setting.",
        {
            "api": """
            import attrs

            from kernel import Secret, Seconds, service


            @attrs.frozen
            class ApiConfig:
                url: str
                token: Secret[int]
                port: int = 8000
                patience: Seconds = 5.0
                v2_port: int = 8001


            @service
            async def api(config: ApiConfig) -> None:
                print(config)
            """,
            "api_v2": """
            import attrs

            from kernel import service


            @attrs.frozen
            class NextConfig:
                port: int = 8001
                colours: bool = True


            @service
            async def next(config: NextConfig) -> None:
                print(config)
            """,
        },
        env={
            "API_ULR": "http://here",
            "API_TOKEN": "hunter2",
            "API_PORT": "tcp://10.0.0.7:80",
            "API_PATIENCE": "5 parsecs",
            "API_V2_COLOURS": "green",
            "LOG_LEVEL": "loud",
        },
        group="Before anything starts",
    ),
    Scenario(
        "A service that does not exist",
        "No file in `services/` has this name.",
        {"database": IDLE},
        words=("run", "databsae"),
    ),
    Scenario(
        "A dependency cycle",
        "Remove the dependency that matters least: often two services share something that should be a third one.",
        {
            "api": """
            from kernel import service


            @service(depends=["billing"])
            async def api() -> None: ...
            """,
            "billing": """
            from kernel import service


            @service(depends=["mail"])
            async def billing() -> None: ...
            """,
            "mail": """
            from kernel import service


            @service(depends=["api"])
            async def mail() -> None: ...
            """,
        },
    ),
    Scenario(
        "Files that cannot be imported",
        "Only enabled services are imported, so a service whose packages are missing can be left out.",
        {
            "database": IDLE,
            "broken": """
            from kernel import service


            @service
            async def broken() -> None
                ...
            """,
            "early": """
            import os

            from kernel import service

            KEY = os.environ["EARLY_KEY"]


            @service
            async def early() -> None: ...
            """,
            "report": """
            import pandoc_of_old

            from kernel import service


            @service
            async def report() -> None:
                pandoc_of_old.convert()
            """,
        },
    ),
    Scenario(
        "Services that are declared wrongly",
        "Each line names the file and line, the problem, and what to write.",
        {
            "database": IDLE,
            "billing/__init__": "",
            "billing/worker": """
            from kernel import service


            @service
            async def worker() -> None: ...
            """,
            "mail": """
            import time

            from kernel import service


            @service
            def mail() -> None:
                time.sleep(1)
            """,
            "search": """
            from kernel import service


            @service(depends=["database"])
            async def search(databse: str) -> None: ...
            """,
            "shop": """
            from kernel import service


            @service(depends=["bililng"])
            async def shop() -> None: ...
            """,
        },
    ),
    Scenario(
        "A value from a service that is left out",
        "The service exists but is not enabled here, so this process cannot get its value. The line names the three "
        "ways out.",
        {
            "database": IDLE,
            "api": """
            import anyio

            from kernel import service


            @service(depends=["database"])
            async def api(database: str) -> None:
                await anyio.sleep_forever()
            """,
        },
        env={"SERVICES_ENABLED": "api"},
    ),
)


# -- running one -------------------------------------------------------------------------------------------------


def play(scenario: Scenario) -> str:
    """Run *scenario*; return what the terminal shows, with the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        app = App(Path(folder).resolve() / "app")
        env = app._env  # noqa: SLF001  (coverage measurement would also complain when files run out)
        for name in [name for name in env if name.startswith("COVERAGE_")]:
            del env[name]
        try:
            for path, source in scenario.paths.items():
                app.write(path, source)
            run = app.start(*scenario.words, **{**ENV, **scenario.env})
            for pattern, number in scenario.steps:
                run.wait_for(pattern)
                run.send(number, further=True)
            result = run.result()
        finally:
            app.close()
        return f"{scrub(result.stderr, app.root)}\n$ echo $?\n{result.code}".lstrip()


FRAME = re.compile(r'(?P<indent>[ |]*)File "(?P<path>.*?)", line \d+')
MARKS = re.compile(r"[ |]*[~^]+ *")
CLOCK = re.compile(r"^\d\d:\d\d:\d\d\.\d{3}", re.MULTILINE)
TASK = re.compile(r"\bTask-\d+\b")
TOLD = re.compile(r"(deadline|was not ready after|not ready after|its stop_timeout is) [\d.]+ m?s")
MEASURED = re.compile(r"(?P<told>" + TOLD.pattern + r")|\b[\d.]+(e-\d+)? m?s\b")


def scrub(text: str, root: Path) -> str:
    """Return *text* without anything that differs between runs: times, durations, the tree's path, library frames."""
    lines: list[str] = []
    dropped: str | None = None  # the indent of the library frame that is being left out
    for line in text.splitlines():
        frame = FRAME.match(line)
        if frame:
            own = frame["path"].startswith((f"{root}/services/", f"{root}/app/init.py"))
            dropped = None if own else frame["indent"]
        elif dropped is not None and not line.startswith(f"{dropped}  "):
            dropped = None
        if dropped is None and not MARKS.fullmatch(line):
            lines.append(line.replace(f"{root}/", "").rstrip())
    text = TASK.sub("Task-#", CLOCK.sub("10:00:00.000", "\n".join(lines)))
    return MEASURED.sub(lambda found: found["told"] or "# s", text)


# -- the page ----------------------------------------------------------------------------------------------------

INTRO = f"""\
# Failures

What the terminal shows for each failure, from the real program, and what to do about it. The template's
`make_failures.py` writes this page by running the scenarios, and a test checks the quick ones against it; so change the
scenario or the message, never the page.

How to read the log when something has just broken:

1. The last line begins with `exit`: the exit code and its reason.
2. The lines above it show how each service ended: its attempts, how long it was up, and its error, unless the last line
   shows that already.
3. Then look for the first `ERROR`: that is where it began. The traceback is below it.
4. Lines that begin with `error:` come before anything starts. Each says where the problem is, what it is, and what to
   write.

Times are made up, and `# s` replaces a measured duration. Tracebacks leave out the frames of Python, libraries and the
kernel. `RUNNER_SHUTDOWNTIMEOUT` is 1 s unless the command says otherwise. If `services/database.py` is not shown, it is
this one, and nothing is wrong with it:

```python
{IDLE.strip()}
```
"""


def render(said: Mapping[str, str]) -> str:
    """Return the page; *said* has the terminal's output by title."""
    parts = [INTRO, _contents(said)]
    for scenario in SCENARIOS:
        if scenario.group:
            parts.append(f"## {scenario.group}\n")
        text = textwrap.fill(scenario.text, 120, break_long_words=False, break_on_hyphens=False)
        parts.append(f"### {scenario.title}\n\n{text}\n")
        shown = {path: source for path, source in scenario.paths.items() if source != IDLE.lstrip("\n")}
        parts += [f"```python\n# {path}\n{source}```\n" for path, source in shown.items()]
        parts.append(f"```text\n$ {scenario.command}\n{said[scenario.title]}\n```\n")
    return "\n".join(parts)


def _contents(said: Mapping[str, str]) -> str:
    """Return a table of all scenarios with their exit codes."""
    rows = ["| what happened | exit |", "| --- | --- |"]
    for scenario in SCENARIOS:
        if scenario.group:
            rows.append(f"| **{scenario.group}** | |")
        anchor = re.sub(r"[^\w -]", "", scenario.title.lower()).replace(" ", "-")
        rows.append(f"| [{scenario.title}](#{anchor}) | {said[scenario.title].splitlines()[-1]} |")
    return "\n".join(rows) + "\n"


def read(page: str) -> dict[str, str]:
    """Return the terminal's output by title, as read from *page*."""
    found = re.findall(r"^### (.*?)\n.*?^```text\n\$ [^\n]*\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    return dict(found)


def main() -> None:
    """Run all scenarios, four at a time, and write the page."""
    with ThreadPoolExecutor(4) as pool:
        said = dict(zip((scenario.title for scenario in SCENARIOS), pool.map(play, SCENARIOS), strict=True))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(said))


if __name__ == "__main__":
    main()
