"""Writes docs/failures.md: what the terminal says for each failure, as the real program says it.

    .venv/bin/python scripts/template/make_failures.py

Each scenario is a tree of its own in which `app run` is started. What differs from run to run, and from one Python to
the next, is replaced: times, measured durations, and those lines of a traceback that are not the user's.
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
if str(ROOT) not in sys.path:  # as a script, it has its own folder there
    sys.path.insert(0, str(ROOT))

from tests.conformance.program import App  # noqa: E402  (found only now)

PAGE = ROOT / "docs" / "failures.md"
ENV = {"LOG_FORMAT": "text", "RUNNER_SHUTDOWNTIMEOUT": "1s", "COLUMNS": "100"}


def _dedent(files: Mapping[str, str]) -> dict[str, str]:
    return {name: textwrap.dedent(source).lstrip("\n") for name, source in files.items()}


@attrs.frozen
class Scenario:
    """One failure.

    Args:
        title: The heading.
        text: What to read there, and what to do.
        files: The sources, by path without its ending, below `services` where it does not begin with `app/`.
        env: Variables besides `ENV`.
        words: What follows `app`.
        steps: What to wait for, and the signal that is then sent.
        group: The heading above, for the first of its kind.
        cheap: Whether it is over at once, and so is held against the page by a test.

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
        """The sources by their paths in the tree."""
        folders = {name: "" if name.startswith("app/") else "services/" for name in self.files}
        return {f"{folders[name]}{name}.py": source for name, source in self.files.items()}

    @property
    def command(self) -> str:
        """What a user would type."""
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
        "It crashes, and its retries are spent",
        "Each crash is a warning with the next try; the last one is fatal and stops the app. The traceback is shown at "
        "the first attempt and at the last, and in between where it differs. Mend what it names; `retries` says how "
        "often it is tried.",
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
        "A warning, and the rest runs on; what only waits for its order starts all the same. The exit code stays 0. If "
        "nobody can do without this service, take `allowed_failure=True` away.",
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
        "Each of them may fail, but nothing is left that runs, so the exit code is 1. Look for what they have in "
        "common: a network, a disk, a variable.",
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
        "The line names the later error, and the traceback begins with the first: mend that one, then the code that "
        "was to deal with it.",
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
        "Background tasks failed together. The line names each of them, and the traceback shows them one below the "
        "other.",
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
        "A service cannot end the process, not even from a task of its own: that is a crash like any other. Let it "
        "raise what is wrong instead.",
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
        "A cancellation came out of it, but no stop was requested. Often it awaits a task that was cancelled "
        "before; catch it there, or wait for the task in another way.",
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
        "An error in a task of asyncio's",
        "Nobody awaits this task, so asyncio tells of its error once it is thrown away, and no service changes its "
        "state. Use `work.start_soon`: then it is the service's own failure, and is retried or fatal.",
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
        "After 5 s, and each time that it has taken twice as long, a tree shows what waits for what. The innermost "
        "line is the culprit, with the line of its code.",
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
        "`start_timeout` has passed: the tree, then the line where it stood. Mend what it waits for, or give it more "
        "time.",
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
        "Whoever needs one fails, by the rules that hold for every failure; the kernel needs none to tell of it, "
        "or to stop in order. The same holds where threads or memory run out, or the working directory is removed. "
        "Look for who opens files and does not close them; `ulimit -n` says how many there may be.",
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
        "A value goes, and comes back",
        "Those who hold the value of a service that crashed are stopped before its resources close, and start again "
        "when it is ready again. That costs them no retry. Only the first service has a fault to mend.",
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
        "The value that it holds is gone for good",
        "The consumer did nothing wrong: look at the service whose value it held, and why that ended.",
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
        "A value that it can do without is gone",
        "The parameter has a default, so it starts again with that. Nothing needs to be done at once.",
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
        "Those that depend on it would wait for ever, so it is a failure: find the way through the function that "
        "misses `serving`.",
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
        "What is ready cannot become ready again in the same attempt. To reconnect, raise, and let `retries` start it "
        "anew: then those who hold the old value are stopped first.",
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
        "It returns unasked",
        "Only a one-shot is expected to return. A warning, and the rest runs on; here there is no rest, so the app "
        "ends. Say `oneshot=True` if it should, or look for the loop that ended.",
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
        "No service was started: what they all rely on is not there.",
        {"app/init": LIFESPAN.format(before='raise OSError("no vault")', after="pass"), "database": IDLE},
    ),
    Scenario(
        "Its clean-up fails",
        "A stop as asked, but the exit code is 1: something may not have been written or closed.",
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
        "One failed attempt with two errors: the crash came first, and is what to mend. The other one has a record of "
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
        "All services have ended well, but what was to be undone after them may not be.",
        {"app/init": LIFESPAN.format(before="pass", after='raise OSError("no vault")'), "database": IDLE},
        steps=STOP,
    ),
    Scenario(
        "It takes too long to stop",
        "After 2 s a tree shows what waits for what. It was cut at the line shown, early enough that the services "
        "below it still close. Make that line faster, or raise `RUNNER_SHUTDOWNTIMEOUT`, and `stop_timeout` where "
        "that is less.",
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
        "It cannot be cut",
        "Even cancelling did not help, so it was abandoned, and the process left it behind. Nobody can stop a thread "
        "from outside: give the call a timeout of its own, or let the thread look at an event. Give what stands in a "
        "shield a limit of its own. An `except BaseException` without a `raise` looks the same.",
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
        "Whatever still ran was cut where it stood: its clean-up may be half done. Within half a second the same "
        "signal again, or SIGTERM with another, is one: a terminal and a parent may both send theirs.",
        {"database": IDLE, "writer": WRITER},
        env={"RUNNER_SHUTDOWNTIMEOUT": "30s"},
        steps=(("all ready", signal.SIGTERM), ("writing", signal.SIGINT)),
    ),
    Scenario(
        "A third signal",
        "The process ended on the spot, and there is no report: what still ran is named by the line about the second "
        "signal.",
        {"writer": STUBBORN},
        env={"RUNNER_SHUTDOWNTIMEOUT": "30s"},
        steps=(("all ready", signal.SIGTERM), ("writing", signal.SIGINT), ("cancelling", signal.SIGHUP)),
    ),
    Scenario(
        "A command fails",
        "What it raised, and exit code 1. What it had asked for was started before and has been stopped after it.",
        {"database": IDLE + IMPORT},
        words=("database", "load", "items.csv"),
        group="Commands",
    ),
    Scenario(
        "Ctrl+C in a command",
        "It was cancelled and has cleaned up, and what it had asked for has been stopped. The exit code is 130, for "
        "SIGTERM 143: what was to come after it, as in `app database watch && deploy`, does not.",
        {"database": IDLE + IMPORT},
        words=("database", "watch"),
        steps=(("watching", signal.SIGINT),),
    ),
    Scenario(
        "A wrong option",
        "`app run --help` tells which there are.",
        {"database": IDLE},
        words=("run", "--with-dependancies"),
    ),
    Scenario(
        "Settings of OpenTelemetry that cannot be",
        "They are refused by name as any other, before the SDK would fail by them, or warn for each record. Only what "
        "concerns a signal that is exported is looked at.",
        {"api": IDLE},
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
            "OTEL_BSP_SCHEDULE_DELAY": "0",
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "many",
        },
    ),
    Scenario(
        "A deadline in the wrong unit",
        "A number alone is seconds. What is longer than 100 days was meant otherwise, as here in nanoseconds.",
        {"api": IDLE},
        env={"RUNNER_SHUTDOWNTIMEOUT": "10000000000"},
    ),
    Scenario(
        "Wrong configuration",
        "Every wrong value of every enabled service, in one go, with what was expected and where that is declared. The "
        "values of a `Secret` are never shown. A warning names a variable that nobody reads, but that nearly has the "
        "name of one.",
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
        "The name is not that of a file in `services/`.",
        {"database": IDLE},
        words=("run", "databsae"),
    ),
    Scenario(
        "A dependency cycle",
        "Remove one of the dependencies; often what two services share belongs in a third.",
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
        "Files that do not import",
        "Only what is enabled is imported, so a service whose packages are not there can be left out.",
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
        "Each line names the file and line, what is wrong there, and what to write.",
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
        "It exists, but runs elsewhere: its value cannot come from there. The line names the three ways out.",
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
    """What the terminal says, and how it ends."""
    with tempfile.TemporaryDirectory() as folder:
        app = App(Path(folder).resolve() / "app")
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
    """*text* without what differs from run to run: times, durations, the tree's place, other people's lines."""
    lines: list[str] = []
    dropped: str | None = None  # the indent of the frame of others that is being left out
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
# What the terminal says

Each failure, as the real program tells of it, and what to do about it. The template's `make_failures.py` writes this
page by running them, and a test holds the cheap ones against it; so mend the scenario or the message, never the page.

How to read it, when something has just broken:

1. The last line is `exit`: the code, and the one reason for it.
2. The lines above it tell how each service ended: its attempts, how long it was up, and its error, unless the last
   line tells that already.
3. Then look for the first `ERROR`: that is where it began. The traceback stands below it.
4. Lines that begin with `error:` come before anything starts. Each says where it is wrong, what, and what to write.

Times are made up, `# s` is a duration that was measured, and what is Python's, a library's or the kernel's is left out
of the tracebacks. `RUNNER_SHUTDOWNTIMEOUT` is 1 s where nothing else is said. Where `services/database.py` is not
shown, it is this one, with which nothing is wrong:

```python
{IDLE.strip()}
```
"""


def render(said: Mapping[str, str]) -> str:
    """The page, with what the terminal *said* by title."""
    parts = [INTRO, _contents(said)]
    for one in SCENARIOS:
        if one.group:
            parts.append(f"## {one.group}\n")
        parts.append(
            f"### {one.title}\n\n{textwrap.fill(one.text, 120, break_long_words=False, break_on_hyphens=False)}\n"
        )
        shown = {path: source for path, source in one.paths.items() if source != IDLE.lstrip("\n")}
        parts += [f"```python\n# {path}\n{source}```\n" for path, source in shown.items()]
        parts.append(f"```text\n$ {one.command}\n{said[one.title]}\n```\n")
    return "\n".join(parts)


def _contents(said: Mapping[str, str]) -> str:
    """A table of all of them, with their exit codes."""
    rows = ["| what happened | exit |", "| --- | --- |"]
    for one in SCENARIOS:
        if one.group:
            rows.append(f"| **{one.group}** | |")
        anchor = re.sub(r"[^\w -]", "", one.title.lower()).replace(" ", "-")
        rows.append(f"| [{one.title}](#{anchor}) | {said[one.title].splitlines()[-1]} |")
    return "\n".join(rows) + "\n"


def read(page: str) -> dict[str, str]:
    """What the terminal said by title, out of a *page*."""
    found = re.findall(r"^### (.*?)\n.*?^```text\n\$ [^\n]*\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    return dict(found)


def main() -> None:
    """Play all of them, some at a time, and write the page."""
    with ThreadPoolExecutor(4) as pool:
        said = dict(zip((one.title for one in SCENARIOS), pool.map(play, SCENARIOS), strict=True))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(said))


if __name__ == "__main__":
    main()
