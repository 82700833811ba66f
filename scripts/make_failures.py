"""Writes docs/failures.md: what the terminal says for each failure, as the real program says it.

    .venv/bin/python scripts/make_failures.py

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

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # as a script, it has its own folder there
    sys.path.insert(0, str(ROOT))

from tests.conformance.program import App  # noqa: E402  (found only now)

PAGE = ROOT / "docs" / "failures.md"
ENV = {"LOG_FORMAT": "text", "RUNNER_SHUTDOWNTIMEOUT": "1s"}


def _dedent(files: Mapping[str, str]) -> dict[str, str]:
    return {name: textwrap.dedent(source).lstrip("\n") for name, source in files.items()}


@attrs.frozen
class Scenario:
    """One failure.

    Args:
        title: The heading.
        text: What to read there, and what to do.
        files: The sources of the services, by the name of their file without its ending.
        env: Variables besides `ENV`.
        words: What follows `app run`.
        steps: What to wait for, and the signal that is then sent.
        group: The heading above, for the first of its kind.
        cheap: Whether it is over at once, and so is held against the page by a test.

    """

    title: str
    text: str
    files: Mapping[str, str] = attrs.field(converter=_dedent)
    env: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    words: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    steps: tuple[tuple[str, signal.Signals], ...] = attrs.field(default=(), kw_only=True)
    group: str = attrs.field(default="", kw_only=True)
    cheap: bool = attrs.field(default=True, kw_only=True)

    @property
    def command(self) -> str:
        """What a user would type."""
        variables = (f"{name}={value!r}" if " " in value else f"{name}={value}" for name, value in self.env.items())
        return " ".join((*variables, "app run", *self.words))


STOP = (("all ready", signal.SIGTERM),)

IDLE = """
import anyio

from kernel import Serving, service


@service
async def database(serving: Serving[str]) -> None:
    async with serving("a pool"):
        await anyio.sleep_forever()
"""

SCENARIOS = (
    Scenario(
        "It crashes, and its retries are spent",
        "Each crash is a warning with the next try; the last one is fatal and stops the app. The last line repeats the "
        "first error: begin there, and look at the topmost traceback.",
        {
            "database": """
            import anyio

            from kernel import Retry, Serving, service


            @service(retries=Retry(times=1, delay=0.05))
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
        "It fails, which it may",
        "A warning, and the rest runs on; the exit code stays 0. If nobody can do without this service, take "
        "`allowed_failure=True` away.",
        {
            "api": """
            import anyio

            from kernel import service


            @service(depends=["cache"])
            async def api() -> None:
                await anyio.sleep_forever()
            """,
            "cache": """
            from kernel import Serving, service


            @service(allowed_failure=True)
            async def cache(serving: Serving[None]) -> None:
                raise LookupError("no cache found")
            """,
        },
        steps=STOP,
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
        "The value that it holds is gone for good",
        "The holder did nothing wrong: look at the service whose value it held, and why that ended.",
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
        "It cannot be cut: a shield",
        "Even cancelling did not help, so it was abandoned, and the process left it behind: exit code 3. Give what "
        "stands in the shield a limit of its own.",
        {
            "writer": """
            import anyio

            from kernel import Serving, service


            @service
            async def writer(serving: Serving[None]) -> None:
                async with serving():
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3600)
            """,
        },
        steps=STOP,
        cheap=False,
    ),
    Scenario(
        "It cannot be cut: a thread",
        "Nobody can stop a thread from outside: give the call a timeout of its own, or let the thread look at an "
        "event.",
        {
            "worker": """
            import time

            from anyio import to_thread

            from kernel import Serving, service


            @service
            async def worker(serving: Serving[None]) -> None:
                async with serving():
                    await to_thread.run_sync(time.sleep, 3600)
            """,
        },
        steps=STOP,
        cheap=False,
    ),
    Scenario(
        "It blocks the event loop",
        "Nothing else can run, so no service could close: a thread of the kernel's says which line blocks, and ends "
        "the process half a second after the deadline. Move that line to `anyio.to_thread`.",
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
        "Whatever still ran was cut where it stood: its clean-up may be half done. The exit code is 130.",
        {
            "writer": """
            import anyio

            from kernel import Serving, service


            @service
            async def writer(serving: Serving[None]) -> None:
                async with serving():
                    await anyio.sleep_forever()
                print("writing the last rows", flush=True)
                await anyio.sleep(3600)
            """,
        },
        env={"RUNNER_SHUTDOWNTIMEOUT": "30s"},
        steps=(("all ready", signal.SIGTERM), ("writing", signal.SIGINT)),
        cheap=False,
    ),
    Scenario(
        "Wrong configuration",
        "Every wrong value of every enabled service, in one go, with what was expected and where that is declared.",
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


            @service
            async def api(config: ApiConfig) -> None:
                print(config)
            """,
        },
        env={"API_PORT": "tcp://10.0.0.7:80", "API_PATIENCE": "5 parsecs", "API_TOKEN": "hunter2", "LOG_LEVEL": "loud"},
        group="Before anything starts",
    ),
    Scenario(
        "A service that does not exist",
        "The name is not that of a file in `services/`.",
        {"database": IDLE},
        words=("databsae",),
    ),
    Scenario(
        "Services that wait for each other",
        "Break the circle at the edge that matters least: often two services share something that is a third one.",
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
        "A file that does not import",
        "Only what is enabled is imported, so a service whose packages are not there can be left out.",
        {
            "database": IDLE,
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
            for name, source in scenario.files.items():
                app.write(f"services/{name}.py", source)
            run = app.run(*scenario.words, **{**ENV, **scenario.env})
            for pattern, number in scenario.steps:
                run.wait_for(pattern)
                run.send(number)
            result = run.result()
        finally:
            app.close()
        return f"{scrub(result.stderr, app.root)}\n$ echo $?\n{result.code}"


FRAME = re.compile(r'(?P<indent>[ |]*)File "(?P<path>.*?)", line \d+')
MARKS = re.compile(r"[ |]*[~^]+ *")
CLOCK = re.compile(r"^\d\d:\d\d:\d\d\.\d{3}", re.MULTILINE)
TOLD = re.compile(r"(at most|was not ready after|not ready after) [\d.]+ m?s")
MEASURED = re.compile(r"(?P<told>" + TOLD.pattern + r")|\b[\d.]+(e-\d+)? m?s\b")


def scrub(text: str, root: Path) -> str:
    """*text* without what differs from run to run: times, durations, the tree's place, other people's lines."""
    lines: list[str] = []
    dropped: str | None = None  # the indent of the frame of others that is being left out
    for line in text.splitlines():
        frame = FRAME.match(line)
        if frame:
            dropped = None if frame["path"].startswith(f"{root}/services/") else frame["indent"]
        elif dropped is not None and not line.startswith(f"{dropped}  "):
            dropped = None
        if dropped is None and not MARKS.fullmatch(line):
            lines.append(line.replace(f"{root}/", "").rstrip())
    text = CLOCK.sub("10:00:00.000", "\n".join(lines))
    return MEASURED.sub(lambda found: found["told"] or "# s", text)


# -- the page ----------------------------------------------------------------------------------------------------

INTRO = """\
# What the terminal says

Each failure, as the real program tells of it. `scripts/make_failures.py` writes this page by running them, and a test
holds the cheap ones against it; so mend the scenario or the message, never the page.

The last two lines of a run matter most: how each service ended, and `exit`, the code and its reason. Before them,
the first `ERROR` is where it began. Times are made up, `# s` is a duration that was measured, and what is Python's, a
library's or the kernel's is left out of the tracebacks. `RUNNER_SHUTDOWNTIMEOUT` is 1 s throughout, where nothing
else is said.
"""


def render(said: Mapping[str, str]) -> str:
    """The page, with what the terminal *said* by title."""
    parts = [INTRO]
    for one in SCENARIOS:
        if one.group:
            parts.append(f"## {one.group}\n")
        parts.append(
            f"### {one.title}\n\n{textwrap.fill(one.text, 120, break_long_words=False, break_on_hyphens=False)}\n"
        )
        parts += [f"```python\n# services/{name}.py\n{source}```\n" for name, source in one.files.items()]
        parts.append(f"```text\n$ {one.command}\n{said[one.title]}\n```\n")
    return "\n".join(parts)


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
