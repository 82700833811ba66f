"""The groups that `just bench` compares, and the contestants of each."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs

from tests.conformance.program import REPO, App
from tests.ports import free_port

SCRIPTS = REPO / "scripts" / "template"
KERNEL, BY_HAND = "kernel", "anyio, by hand"
SERVING = "kernel, with `Serving`"
WRK = "wrk"  # Debian's package of that name
LOGGING, BY_HAND_LOGGING = "kernel, LOG_LEVEL=info", "anyio, by hand, each step logged"


@attrs.frozen
class Outcome:
    """The duration and the output of a process."""

    seconds: float
    stdout: str
    stderr: str


def told(outcome: Outcome) -> dict[str, float]:
    """Return the numbers that the program has measured and printed.

    Raises:
        ValueError: It printed something else, perhaps to stderr.

    """
    if outcome.stderr:
        raise ValueError(outcome.stderr.splitlines()[-1])
    found: dict[str, float] = json.loads(outcome.stdout)
    return found


def whole(outcome: Outcome) -> dict[str, float]:
    """Return the time from the start of the process to its end."""
    return {"ms": outcome.seconds * 1000}


Parse: TypeAlias = Callable[[Outcome], dict[str, float]]


@attrs.frozen
class Case:
    """A contestant in a group.

    Args:
        name: The name of the contestant.
        command: The arguments of `python`.
        parse: Converts the outcome of a run to numbers.
        env: Additional variables.
        cwd: The folder in which it runs.
        peer: The package that it needs, in a separate environment; empty for the project's environment.

    """

    name: str
    command: tuple[str, ...]
    parse: Parse = told
    env: Mapping[str, str] = attrs.field(factory=dict)
    cwd: Path | None = None
    peer: str = ""


@attrs.frozen
class Group:
    """Cases that are compared. The numbers of each case are compared with those of the case named *base*."""

    name: str
    text: str
    base: str
    cases: tuple[Case, ...]


GREETER = '''
    """Looks after greeter."""

    import anyio.lowlevel

    from kernel import service


    @service
    async def greeter() -> None:
        """Do nothing."""


    @greeter.command
    async def status() -> None:
        """Show its status."""
        await anyio.lowlevel.checkpoint()
        print("well")
'''


ANSWER = '''
    """The smallest ASGI app."""


    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
'''
API = '''
    """Serves it."""

    import attrs

    from kernel import Serving, serve_asgi, service
    from services._answer import answer


    @attrs.frozen
    class ApiConfig:
        port: int  # API_PORT


    @service
    async def api(config: ApiConfig, serving: Serving[None]) -> None:
        """Answer every request."""
        await serve_asgi(answer, port=config.port, serving=serving)
'''


def program(name: str, module: str, *words: object, parse: Parse = told, peer: str = "") -> Case:
    """Return a case that runs a program in `scripts/template/contestants`."""
    paths = [SCRIPTS] if peer else [REPO, SCRIPTS]
    env = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    return Case(name, ("-P", "-m", f"contestants.{module}", *map(str, words)), parse, env, peer=peer)


def groups(folder: Path, *, short: bool, peers: Sequence[str]) -> Iterator[Group]:
    """Yield everything that can be measured. Apps are created in *folder*."""
    for number in (10, 100) if short else (10, 100, 1000, 10_000):
        words: tuple[object, ...] = ("noop", number)
        yield Group(
            f"noop-{number}",
            f"{number:,} services that do nothing until they are stopped: time from the first launch until all are "
            "ready, from the request to stop until all have ended, the peak of memory, and what each has added to it.",
            BY_HAND,
            (
                program(KERNEL, "kernel", *words),
                program(SERVING, "kernel", *words, "serving"),
                program(BY_HAND, "anyio", *words),
                program(LOGGING, "kernel", *words, "info", "log", "watch"),
                program(BY_HAND_LOGGING, "anyio", *words, "info"),
                *(program(name, name.removesuffix("-streaming"), *words, peer=name) for name in peers),
            ),
        )
    for kind, seconds, what in (
        ("uniform", 0.1, "ten levels, each service needs two of the level above, and all sleep for as long"),
        ("skewed", 0.02, "six chains, each with one service, at a level of its own, that sleeps 40 times as long"),
    ):
        words = kind, seconds / 10 if short else seconds
        yield Group(
            f"sleepy-{kind}",
            f"60 services that sleep to open and to close: {what}. The optimum is the critical path; an edge is "
            "violated where a service opens before one that it needs is ready, or outlives it.",
            BY_HAND,
            (
                program(KERNEL, "kernel", *words),
                program(BY_HAND, "anyio", *words),
                *(program(name, name.removesuffix("-streaming"), *words, peer=name) for name in peers),
            ),
        )
    yield from _processes(folder)
    times = 2000 if short else 100_000
    yield Group(
        "storm",
        f"A service that crashes at once, {times:,} times: restarts a second, each logged as a warning with its "
        "traceback (quiet: not logged; by hand: as one line), and what each of the last 90 % has left in memory.",
        BY_HAND,
        (
            program(KERNEL, "storm", "kernel", times),
            program("kernel, quiet", "storm", "kernel-quiet", times),
            program(BY_HAND, "storm", "anyio", times),
        ),
    )
    for kind in ("text", "json"):
        yield Group(
            f"lines-{kind}",
            f"1,000 services that log, as {kind}: lines a second through the kernel's pipeline, and through `logging` "
            "with one handler and a formatter that makes the same lines.",
            "logging",
            tuple(
                program(name, "lines", word, kind, 2 if short else 100)
                for name, word in ((KERNEL, "kernel"), ("logging", "plain"))
            ),
        )
    yield from _calls(short=short)
    yield from _requests(folder / "http", short=short)
    number = 100 if short else 1000
    yield Group(
        "observers",
        f"What each observer costs: {number:,} no-op services without any, and with one.",
        "none",
        tuple(
            program(name, "kernel", "noop", number, "serving", *words)
            for name, words in (
                ("none", ["none"]),
                ("log, LOG_LEVEL=warning", ["log"]),
                ("log, LOG_LEVEL=info", ["log", "info"]),
                ("watch on the loop", ["watch"]),
                ("what /status keeps", ["stats"]),
                ("traces, sent by OTLP", ["traces"]),
            )
        ),
    )


def _calls(*, short: bool) -> Iterator[Group]:
    """Yield the groups about calls between services."""
    times = 100 if short else 50_000
    yield Group(
        "calls-local",
        "One call of a service in the same process, which gives a small record: awaited as it is, by way of an"
        " interface, and checked as if it went elsewhere.",
        "a plain await",
        tuple(
            program(name, "calls", "local", word, times)
            for name, word in (("a plain await", "plain"), (KERNEL, "thin"), ("kernel, checked", "checked"))
        ),
    )
    for in_flight, size in ((1, 32),) if short else ((n, size) for size in (32, 10_000) for n in (1, 16, 64, 256)):
        times = 50 if short else 1000 if in_flight == 1 else 10_000
        yield Group(
            f"calls-nats-{size}-{in_flight}",
            f"Calls over NATS to another process, {in_flight} in flight, with {size:,} bytes each way, against request"
            " and reply by the raw client.",
            "nats-py",
            tuple(
                program(name, "calls", "remote", word, in_flight, size, times)
                for name, word in ((KERNEL, "kernel"), ("nats-py", "raw"))
            ),
        )


def _requests(folder: Path, *, short: bool) -> Iterator[Group]:
    """HTTP, on each event loop; nothing where there is no wrk."""
    if not shutil.which(WRK):
        return
    tree = App(folder)
    tree.write("services/_answer.py", ANSWER)
    tree.write("services/api.py", API)
    for loop in ("asyncio", "uvloop"):
        raw = ("-m", "uvicorn", "services._answer:answer", "--loop", loop, "--lifespan", "off", "--no-access-log")

        def case(name: str, *words: str, loop: str = loop) -> Case:
            port = str(free_port())
            words = tuple(word.replace("PORT", port) for word in words)
            driver = program(name, "requests", port, 1 if short else 5, "--", sys.executable, *words)
            env = {"API_PORT": port, "KERNEL_BACKEND": loop, "PYTHONPATH": f"{folder}{os.pathsep}{SCRIPTS}"}
            return attrs.evolve(driver, env=env, cwd=folder)

        yield Group(
            f"http-{loop}",
            f"Requests a second that the smallest ASGI app answers on {loop}, sent by wrk over 32 connections: under"
            " `app run` by `serve_asgi`, and by uvicorn alone.",
            "uvicorn",
            (
                case(KERNEL, "-m", "app", "run"),
                case("uvicorn", *raw, "--log-level", "warning", "--port", "PORT"),
            ),
        )


def _processes(folder: Path) -> Iterator[Group]:
    """Yield the groups about whole processes: users' apps, compared with minimal programs that do the same."""
    trees = {1: App(folder / "one"), 200: App(folder / "many")}
    for number, tree in trees.items():
        tree.write("services/greeter.py", GREETER)
        for place in range(1, number):
            tree.write(f"services/service_{place}.py", GREETER.replace("greeter", f"service-{place}", 1))

    def app(*words: str, services: int = 1) -> Case:
        return Case(KERNEL, ("-m", "app", *words), whole, cwd=trees[services].root)

    def minimal(*words: str, services: int = 1) -> Case:
        case = program("cyclopts", "cli_minimal", *words, parse=whole)
        return attrs.evolve(case, env={**case.env, "SERVICES": str(services)})

    bare = Case("python -c pass", ("-c", "pass"), whole)
    minimal_text = "beside a cyclopts program with the same commands, which has the names of its services in a list."

    def command(name: str, text: str, *words: str, services: int = 1) -> Group:
        cases = app(*words, services=services), bare, minimal(*words, services=services)
        return Group(name, f"{text}, {minimal_text}", "cyclopts", cases)

    yield Group(
        "hello",
        "`app run` with one service that returns at once, from the start of the process to its end, beside programs "
        "that run one task: on anyio alone, with the kernel's libraries imported (minimal), and as a command of "
        "cyclopts.",
        "minimal",
        (
            app("run"),
            bare,
            program("anyio", "hello_anyio", parse=whole),
            program("minimal", "hello_minimal", parse=whole),
            minimal("run"),
        ),
    )
    yield from _artifacts()
    yield command("help", "`app --help` with one service", "--help")
    yield command("help-200", "`app --help` with 200 services", "--help", services=200)
    yield command("list", "`app list`", "list")
    yield command("command", "A command of a service that asks for no value", "greeter", "status")


def _artifacts() -> Iterator[Group]:
    """Yield the groups about the output of `just build` and `just build-binary`, as far as it exists."""
    name = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["name"]
    file, binary = REPO / "build" / f"{name}.pyz", REPO / "build" / name
    made = {"tree": (sys.executable, "-m", "app"), "pyz": (sys.executable, str(file)), "binary": (str(binary),)}
    made = {kind: words for kind, words in made.items() if Path(words[-1]).exists() or kind == "tree"}
    told_of = (
        "of this tree, and of what `just build` and `just build-binary` have made of it, where they have; what has to "
        "be unpacked once was unpacked before."
    )
    program_of = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    help_cases = [Case(kind, ("-c", program_of, *words, "--help"), whole, cwd=REPO) for kind, words in made.items()]
    yield Group("cold-help", f"`app --help` {told_of} Each is started by a bare Python.", "tree", tuple(help_cases))
    until = str(SCRIPTS / "contestants" / "until_hello.py")
    env = {"LOG_LEVEL": "info"}
    hello = [Case(kind, (until, *words, "run", "hello-world"), told, env, REPO) for kind, words in made.items()]
    yield Group("cold-hello", f"`app run hello-world` until it says hello, {told_of}", "tree", tuple(hello))
