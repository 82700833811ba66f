"""A process that is asked to stop ends, whatever its services do, and says who kept it and where."""

from __future__ import annotations

import itertools
import os
import re
import signal
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from tests.conformance.program import App, Result

TIMEOUT = 1.0  # seconds, RUNNER_SHUTDOWNTIMEOUT
LONG = 3.0  # the same where several signals come
LATEST = LONG + 2.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the second waits, else it would be one with the first

CALM = """
@service
async def base(serving: Serving[int]) -> None:
    async with serving(1):
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.info("closed calmly")
"""


@attrs.frozen
class Hang:
    """One way to hang.

    Args:
        body: What `hung` does when it serves; in the end it hangs.
        codes: The exit codes after one, two and three signals.
        spares: Whether those below it are closed calmly, when one signal came.
        begins: What is said when the first signal may come.
        shows: What is said when that has had its effect; empty where nothing can be said.
        stands: The comment at the end of the line where it stands.
        on_trio: The exit codes there, where they differ.

    """

    body: str
    codes: tuple[int, int, int] = (3, 130, 130)
    spares: bool = True
    begins: str = "holding"
    shows: str = "stopping: SIGTERM"
    stands: str = "here"
    on_trio: tuple[int, int, int] | None = None


HANGS = {
    "shield": Hang("""
        with anyio.CancelScope(shield=True):
            await anyio.sleep(20)  # here
    """),
    "thread": Hang("await anyio.to_thread.run_sync(time.sleep, 20)  # here"),
    # asyncio's worker threads keep the interpreter from ending; trio's are daemons.
    "thread left behind": Hang(
        "await anyio.to_thread.run_sync(block, abandon_on_cancel=True)",
        begins="blocks",
        stands="in a thread",
        on_trio=(0, 0, 0),
    ),
    "swallowed cancellation": Hang("""
        while True:
            try:
                await anyio.sleep(1)  # here
            except BaseException:
                time.sleep(0.001)
    """),
    "blocked clean-up": Hang(
        """
        try:
            await anyio.sleep_forever()
        finally:
            log.info("blocks")
            time.sleep(20)  # here
        """,
        spares=False,
        shows="blocks",
    ),
    "blocked work": Hang(
        """
        log.info("blocks")
        time.sleep(20)  # here
        """,
        spares=False,
        begins="blocks",
        shows="",
    ),
    # The interpreter waits for native code that does not look for signals: for a connection, a query, a lock.
    "native call": Hang(
        """
        log.info("blocks")
        deadlock(ctypes.CDLL(None))
        """,
        spares=False,
        begins="blocks",
        shows="",
        stands="in native code",
    ),
    # While native code holds the interpreter's lock, nothing of Python's can count further signals.
    "held lock": Hang(
        """
        await anyio.sleep(1.2)  # from then on the exit code is right as well
        log.info("settled")
        try:
            await anyio.sleep_forever()
        finally:
            log.info("blocks")
            deadlock(ctypes.PyDLL(None))
        """,
        codes=(3, 3, 3),
        spares=False,
        begins="settled",
        shows="blocks",
        stands="in native code",
    ),
}
HELPERS = """
import ctypes

def block() -> None:
    log.info("blocks")
    time.sleep(20)  # in a thread

def deadlock(libc: ctypes.CDLL) -> None:
    lock = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)  # in native code
"""


@attrs.frozen
class Case:
    """One run: a way to hang, how many signals come, and the backend."""

    hang: str
    signals: int
    backend: str

    def __str__(self) -> str:
        return f"{self.hang}, {self.signals} signals, {self.backend}"


CASES = [
    Case(hang, signals, backend)
    for hang in (*HANGS, "blocked import")
    for signals, backend in ((1, "asyncio"), (1, "trio"), (2, "asyncio"), (3, "trio"))
]


def way_of(case: Case) -> Hang:
    """How it hangs."""
    return HANGS.get(case.hang, Hang("", spares=False, shows=""))


def codes(case: Case) -> set[int]:
    """The exit codes that are right."""
    way = way_of(case)
    right = {way.on_trio[case.signals - 1] if way.on_trio and case.backend == "trio" else way.codes[case.signals - 1]}
    # A further signal may come before what it should come into.
    return right | {130} if case.signals > 1 else right


def hang(app: App, case: Case) -> Result:
    """Do it."""
    app.service("base", CALM)
    if case.hang == "blocked import":
        app.service("hung", 'print("holding", file=sys.stderr, flush=True)\ntime.sleep(20)  # here')
    else:
        body = textwrap.indent(textwrap.dedent(HANGS[case.hang].body).strip(), "        ")
        app.service("hung", HELPERS + service(body))
    timeout = TIMEOUT if case.signals == 1 else LONG  # or a machine that is loaded misses the moment between them
    run = app.run(RUNNER_SHUTDOWNTIMEOUT=f"{timeout:g}s", KERNEL_BACKEND=case.backend)
    way = way_of(case)
    run.wait_for(way.begins)
    for number in SIGNALS[: case.signals]:
        run.send(number, further=number == signal.SIGINT)
        if way.shows:
            run.wait_for(way.shows)
    return run.result()


def service(body: str) -> str:
    """The source of `hung`."""
    head = '@service(depends=["base"])\nasync def hung(base: int, serving: Serving[None]) -> None:\n'
    return f'{head}    async with serving():\n        log.info("holding")\n{body}\n'


def here(app: App, case: Case) -> int:
    """The line at which `hung` stands."""
    mark = f"# {way_of(case).stands}"
    lines = (app.root / "services/hung.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(mark))


Ends = Callable[[Case], tuple[Result, str]]


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """All of them hang at once, since they do little but wait; gives what became of one, and the line it stood at."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = {item.callspec.params.get("case") for item in items if hasattr(item, "callspec")}
    apps = {case: App(tmp_path_factory.mktemp("hang") / "tree") for case in CASES if case in wanted}
    with ThreadPoolExecutor(12) as pool:
        runs = {case: pool.submit(hang, app, case) for case, app in apps.items()}
        yield lambda case: (runs[case].result(), f"services/hung.py:{here(apps[case], case)}")
    for app in apps.values():
        app.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ends_in_time(case: Case, ends: Ends) -> None:
    """Ends within two seconds of the deadline, and with the code of the table."""
    result, _ = ends(case)
    assert result.code in codes(case), result.stderr
    assert result.own_seconds < LATEST, result.stderr


@pytest.mark.parametrize("case", [case for case in CASES if case.signals == 1 and 3 in codes(case)], ids=str)
def test_says_who_and_where(case: Case, ends: Ends) -> None:
    """Names the service and the line where it stands."""
    result, line = ends(case)
    if case.hang == "held lock":
        assert re.search(rf'services/hung.py", line {line.partition(":")[2]} in deadlock', result.stderr)
    else:
        last = result.records[-1]
        assert last["exit_code"] == 3
        assert line in last["message"]
        assert case.hang == "blocked import" or "hung" in last["message"].replace(line, "")


@pytest.mark.parametrize("case", [case for case in CASES if case.signals == 1], ids=str)
def test_spares_those_below(case: Case, ends: Ends) -> None:
    """Those below the hung one are closed calmly; where nothing can run any more, it is said that they are not."""
    result, _ = ends(case)
    if way_of(case).spares:
        assert result.said("base: closed calmly"), result.stderr
        assert result.ending("base") == "stopped"
    elif case.hang not in {"held lock", "blocked import"}:
        assert result.said("not closed: base, hung"), result.stderr


@pytest.mark.parametrize("case", [case for case in CASES if case.signals == 3 and codes(case) == {130}], ids=str)
def test_third_signal_ends_at_once(case: Case, ends: Ends) -> None:
    """Nothing is waited for any more, not even the deadline."""
    result, _ = ends(case)
    assert result.own_seconds < LONG
    (told,) = (one for one in result.records if "exiting now without clean-up" in one["message"])
    assert told["exit_code"] == 130


@pytest.mark.parametrize("case", [case for case in CASES if case.signals == 2 and "blocked work" in case.hang], ids=str)
def test_says_that_it_was_forced(case: Case, ends: Ends) -> None:
    """Where a further signal ends a process that blocks, it is not blamed on the deadline, which is still to come."""
    result, line = ends(case)
    words = f"exit 130: received another signal, but service hung blocks the event loop at {line} in hung; not closed: "
    assert result.records[-1]["message"].startswith(words), result.stderr


def test_nobody_reads_what_it_says(app: App) -> None:
    """A full pipe blocks the event loop like anything else, and the watchdog's own words: it ends all the same."""
    app.service(
        "loud",
        """
        @service
        async def loud() -> None:
            print("begins", flush=True)
            for number in range(10_000):
                log.info("line %s", number)
        """,
    )
    pipes = [os.pipe(), os.pipe()]
    env = {"RUNNER_SHUTDOWNTIMEOUT": f"{TIMEOUT:g}s"}
    runs = [app.open(("run",), env, stderr=writer) for _, writer in pipes]
    for run, signals in zip(runs, (SIGNALS, SIGNALS[:1]), strict=True):
        run.wait_for("begins")
        for number in signals:
            run.send(number, further=number == signal.SIGINT)
    at_once, late = (run.result() for run in runs)
    for end in itertools.chain(*pipes):
        os.close(end)
    assert at_once.code == 130
    assert at_once.own_seconds < 1.5
    assert late.code == 3
    assert late.own_seconds < LATEST


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_was_printed_is_not_lost(app: App, backend: str) -> None:
    """Also where the process ends without the interpreter's own clean-up; a service that may fail counts as well."""
    app.service(
        "hung",
        """
        @service(allowed_failure=True)
        async def hung() -> None:
            print("printed")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(20)
        """,
    )
    result = app.run(KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="300ms").stop()
    assert result.code == 3
    assert result.stdout == "printed\n"
