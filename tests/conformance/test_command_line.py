"""The command line: what each command prints and imports, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.program import CALM, App

BACKENDS = ["asyncio", "trio"]
TELLTALE = 'print("imported", __name__, file=sys.stderr)\n'

DATABASE = (
    TELLTALE
    + """
@attrs.frozen
class DatabaseConfig:
    path: str = "app.db"

@service
async def database(config: DatabaseConfig, serving: Serving[str]) -> None:
    log.info("database opens")
    async with serving(f"connection to {config.path}"):
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    log.info("database closes")

@database.command
async def dump(database: str, config: DatabaseConfig, *, rows: int = 10) -> None:
    \"""Print what is in it.\"""
    print(f"{rows} rows by the {database}, {config.path}")

@database.command
def where(config: DatabaseConfig) -> None:
    \"""Print where it is.\"""
    print(config.path)

@database.command
def clash(config: DatabaseConfig, *, table: str, verbose: bool = False) -> None:
    raise OSError(f"no table {table}")
"""
)
API = (
    TELLTALE
    + """
@service(depends=["database", "broken"])
async def api(database: str) -> None:
    await anyio.sleep_forever()

@api.command
async def ask(database: str, question: str, *, wait: float = 0) -> int:
    \"""Ask a question.\"""
    try:
        log.warning("asking")
        await anyio.sleep(wait)
        print(f"{question}: the {database} says no")
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        log.warning("asked")
    return 7

@api.command
async def wait() -> None:
    try:
        log.warning("waiting")
        await anyio.sleep(20)
    finally:
        log.warning("cleaned up")

@api.command
def block() -> None:
    try:
        log.warning("waiting")
        time.sleep(20)
    finally:
        log.warning("cleaned up")
"""
)


@pytest.fixture
def shop(app: App) -> App:
    """An app with a provider, a taker, and a service that does not import."""
    app.service("database", DATABASE)
    app.service("api", API)
    app.service("broken", "raise OSError('no route')")
    return app


def imported(stderr: str) -> list[str]:
    """What was imported."""
    return [line.removeprefix("imported services.") for line in stderr.splitlines() if line.startswith("imported")]


@pytest.mark.core
def test_help_imports_nothing(shop: App) -> None:
    """It lists the services with the first lines of their files, and the app's own commands."""
    shop.commands("@command\ndef seed(*, users: int = 10) -> None:\n    'Fill the database.'\n    print(users)")
    runs = [shop.start(*words, COLUMNS="100") for words in (("--help",), (), ("-h",))]
    for run in runs:
        result = run.result()
        assert result.code == 0, result.stderr
        assert result.stderr == ""
        for text in ("run", "list", "graph", "check", "version", "seed", "Fill the database", "Looks after database"):
            assert text in result.stdout
        for name in ("api", "broken", "database"):
            assert name in result.stdout


@pytest.mark.core
def test_help_of_a_service_imports_only_that(shop: App) -> None:
    """Its commands with their options, without what the kernel fills."""
    whole, one = shop.start("database", "--help"), shop.start("database", "dump", "--help")
    result = whole.result()
    assert result.code == 0
    assert imported(result.stderr) == ["database"]
    for text in ("dump", "where", "Print what is in it"):
        assert text in result.stdout
    result = one.result()
    assert result.code == 0
    assert imported(result.stderr) == ["database"]
    assert "--rows" in result.stdout
    assert "--config" not in result.stdout
    assert "--database" not in result.stdout.lower().replace("app database", "")


@pytest.mark.core
def test_list_and_version(shop: App) -> None:
    """Neither imports a service."""
    listing, enabled, version = shop.start("list"), shop.start("list", SERVICES_ENABLED="!a*"), shop.start("version")
    result = listing.result()
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == "".join(
        f"{name:<8}  enabled   Looks after {name}\n" for name in ("api", "broken", "database")
    )
    assert enabled.result().stdout.startswith("api       left out  Looks after api\nbroken    enabled ")
    result = version.result()
    assert (result.code, result.stderr) == (0, "")
    assert re.fullmatch(r"app 0\.1\.0 \((tree|commit \w+( with changes)?, (pyz|binary))\)\n", result.stdout)


@pytest.mark.core
def test_graph(shop: App) -> None:
    """All formats, of what is enabled or named; what is depended on but left out is marked."""
    shop.service("nightly", "@service(depends=[started('api')], oneshot=True)\nasync def nightly() -> None: ...")
    formats = ("text", "mermaid", "dot", "json")
    runs = {style: shop.start("graph", "--format", style, SERVICES_ENABLED="!broken") for style in formats}
    some = shop.start("graph", "database")
    results = {style: run.result() for style, run in runs.items()}
    assert {result.code for result in results.values()} == {0}, results["text"].stderr
    assert results["text"].stdout == (
        "database\napi       <- database, broken (order) (left out)\nnightly   <- api (started)  [one-shot]\n"
    )
    assert "    database --> api\n    broken -.-> api\n    api -. started .-> nightly\n" in results["mermaid"].stdout
    assert '"database" -> "api" [style=solid];' in results["dot"].stdout
    drawn = json.loads(results["json"].stdout)
    assert drawn["api"]["depends"] == {"database": "value", "broken": "order"}
    assert drawn["nightly"]["oneshot"] is True
    assert some.result().stdout == "database\n"


@pytest.mark.core
def test_check(app: App) -> None:
    """It imports all, also what is not enabled, and says all that is wrong: exit 2, else 0."""
    app.service("database", DATABASE)
    for commands in ("", "@command\ndef seed() -> None: ..."):
        app.commands(commands)
        result = app.call("check")
        assert result.code == 0
        assert result.stdout == "1 service checked, no problems\n"
    app.service("broken", "raise OSError('no route')")
    app.service("typo", "@service(depends=['databse'])\nasync def typo() -> None: ...")
    result = app.call("check", SERVICES_ENABLED="database", RUNNER_DRAINDELAY="soon", LOG_FORMAT="text")
    assert result.code == 2
    assert len(result.errors) == 3
    for text in ("RUNNER_DRAINDELAY is 'soon'", "services/broken.py:7", "did you mean 'database'?"):
        assert text in result.stderr
    assert "3 problems" in result.stderr


def test_check_warns(app: App) -> None:
    """Of each thing that works, but not as its author may think."""
    app.service(
        "pool",
        """
        @service(allowed_failure=True)
        async def pool(serving: Serving[int]) -> None:
            async with anyio.create_task_group():
                async with serving(1):
                    await anyio.sleep_forever()
        """,
    )
    app.service(
        "consumer",
        """
        @service(depends=["pool"])
        async def consumer(pool: str) -> None:
            async with anyio.open_file("data") as file:
                await anyio.sleep_forever()
        """,
    )
    app.service("waiter", "@service(depends=['left_out'.replace('_', '-')])\nasync def waiter() -> None: ...")
    app.service("left_out", "@service\nasync def left_out() -> None: ...")
    result = app.call("check", SERVICES_ENABLED="!left-out", SERVICES_ENABELD="x")
    assert result.code == 0, result.stderr
    warnings = [line.removeprefix("warning: ") for line in result.stdout.splitlines() if line.startswith("warning: ")]
    for text in (
        "SERVICES_ENABELD is set, but nothing reads it; did you mean SERVICES_ENABLED?",
        "consumer is not allowed to fail, but needs the value of pool, whose failure is allowed",
        "consumer takes 'pool' as str, but pool serves int",
        "services/consumer.py:9: consumer holds a resource but takes no `Serving`",
        "services/pool.py:9: pool opens a task group around its serving block",
        "waiter does not wait for left-out, which is not enabled",
    ):
        assert any(text in warning for warning in warnings), (text, warnings)
    assert len(warnings) == 6
    assert result.stdout.endswith("4 services checked, no problems, 6 warnings\n")


@pytest.mark.core
@pytest.mark.parametrize("backend", BACKENDS)
def test_command_that_asks_for_values(shop: App, backend: str) -> None:
    """Its providers are started first and stopped after, whatever SERVICES_ENABLED says, and hooks do not run."""
    shop.init("@lifespan\nasync def hook() -> AsyncGenerator[None, None]:\n    log.warning('x')\n    yield")
    env = {"SERVICES_ENABLED": "api", "KERNEL_BACKEND": backend, "DATABASE_PATH": "other.db"}
    own = shop.start("database", "dump", "--rows", "3", **env)
    others = shop.start("api", "ask", "why", "--wait", "0.01", **env, LOG_LEVEL="info")
    result = own.result()
    assert result.code == 0, result.stderr
    assert result.stdout == "3 rows by the connection to other.db, other.db\n"
    assert "kernel" not in {one["logger"] for one in result.records}, "its output is what it prints"
    assert imported(result.stderr) == ["database"]
    result = others.result()
    assert result.code == 7, result.stderr
    assert result.stdout == "why: the connection to other.db says no\n"
    assert result.in_order("database opens", "asking", "asked", "database closes")
    assert not result.said("^x$")
    assert imported(result.stderr) == ["api", "database"]


@pytest.mark.core
def test_command_that_asks_for_no_value(shop: App) -> None:
    """It starts no kernel, and may be a plain `def`; its config is read and checked."""
    right, wrong = (
        shop.start("database", "where", DATABASE_PATH="x.db"),
        shop.start("database", "where", KERNEL_BACKEND="x"),
    )
    result = right.result()
    assert (result.code, result.stdout) == (0, "x.db\n")
    assert result.records == []
    result = wrong.result()
    assert result.code == 2
    assert result.said("KERNEL_BACKEND is 'x'")


@pytest.mark.core
def test_user_commands(app: App) -> None:
    """`app/commands.py` adds commands of the app, async ones too; an exception is exit 1, with the traceback."""
    app.commands(
        """
        @command
        async def seed(*, users: int = 10) -> None:
            await anyio.sleep(0)
            print(users)

        @command
        def answer() -> int:
            return 42

        @command
        def crash() -> None:
            raise OSError("no route")
        """
    )
    words = [("seed", "--users", "3"), ("answer",), ("crash",), ("seed", "--users", "many"), ("seed", "--user", "3")]
    seed, answer, crash, wrong, unknown = [run.result() for run in [app.start(*one) for one in words]]
    assert (seed.code, seed.stdout, seed.stderr) == (0, "3\n", "")
    assert (answer.code, answer.stdout) == (42, "")
    assert crash.code == 1
    assert crash.messages == ["exit 1: OSError: no route"]
    assert "app/commands.py" in crash.records[0]["exception"]
    assert "kernel/" not in crash.records[0]["exception"]
    assert wrong.code == unknown.code == 2
    assert "many" in wrong.stderr
    assert "--user" in unknown.stderr
    assert wrong.stdout == unknown.stdout == ""


def test_command_of_a_service_that_fails(shop: App) -> None:
    """An exception is exit 1 with the traceback; a provider that crashes ends the command; usage errors are exit 2."""
    shop.service(
        "fragile",
        "@service\nasync def fragile(serving: Serving[int]) -> None:\n    raise OSError('no disk')\n"
        "@fragile.command\nasync def use(fragile: int) -> None:\n    print('used')",
    )
    crash = shop.start("database", "clash", "--table", "users")
    fragile = shop.start("fragile", "use")
    usage = shop.start("database", "clash")
    unknown = shop.start("database", "nothing")
    result = crash.result()
    assert result.code == 1
    assert result.messages == ["exit 1: OSError: no table users"]
    result = fragile.result()
    assert (result.code, result.stdout) == (1, "")
    assert result.messages[-1] == "exit 1: fragile failed: OSError: no disk"
    for run in (usage, unknown):
        result = run.result()
        assert result.code == 2
        assert result.stdout == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_clean_up_after_a_command(shop: App, backend: str, number: signal.Signals) -> None:
    """With or without a kernel, async or not: it is cancelled, cleans up, and ends as a shell would tell it."""
    kernel = shop.start("api", "ask", "why", "--wait", "20", KERNEL_BACKEND=backend, LOG_LEVEL="info")
    alone = shop.start("api", "wait", KERNEL_BACKEND=backend)
    plain = shop.start("api", "block", KERNEL_BACKEND=backend)
    for run, begun in ((kernel, "asking"), (alone, "waiting"), (plain, "waiting")):
        run.wait_for(begun)
        run.send(number)
    result = kernel.result()
    assert result.code == 128 + number, result.stderr
    assert result.stdout == ""
    assert result.in_order("asked", "database closes")
    for run in (alone, plain):
        result = run.result()
        assert result.code == 128 + number, result.stderr
        assert result.said("cleaned up")
        assert f"stopped by {number.name}" in result.lines
        assert "Traceback" not in result.stderr


AWAY = """
@service(retries=Retry(times=None, delay=0.1, on=OSError), start_timeout={timeout}{more})
async def {name}({takes}serving: Serving[int]) -> None:
    raise OSError("no route")

@{name}.command
async def use({name}: int) -> None:
    print("used")
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("below", [False, True])
def test_a_command_whose_provider_never_becomes_ready(app: App, backend: str, below: bool) -> None:
    """Without a limit of its own, it is retried for as long as its start_timeout: the command fails and says why."""
    app.service("database", AWAY.format(name="database", timeout=1, takes="", more=""))
    cache = AWAY.format(name="cache", timeout=1, takes="database: int, ", more=', depends=["database"]')
    app.service("cache", cache)
    result = app.call("cache" if below else "database", "use", KERNEL_BACKEND=backend)
    assert result.code == 1
    assert result.said(r"database: OSError: no route; retry 1 of 3 in 0\.\d+ s")  # 0.1 + 0.2 + 0.4
    assert result.messages[-1] == "exit 1: database failed after 4 attempts: OSError: no route"
    assert not result.stdout


def test_a_command_that_waits_for_ever(app: App) -> None:
    """With start_timeout=None it does, as a service does; a signal ends it."""
    app.service("database", AWAY.format(name="database", timeout=None, takes="", more=""))
    run = app.start("database", "use")
    run.wait_for("retry 4 in")
    run.send(signal.SIGINT)
    assert run.result().code == 130


def test_a_service_is_still_retried_for_ever(app: App) -> None:
    """What holds for a command's provider does not for `app run`."""
    app.service("database", AWAY.format(name="database", timeout=0.5, takes="", more=""))
    run = app.run()
    run.wait_for("retry 4 in")
    run.send(signal.SIGTERM)
    assert run.result().code == 0


def test_closed_pipe(shop: App) -> None:
    """`app list | head -0` is no error."""
    reader, writer = os.pipe()
    os.close(reader)
    result = shop.open(("list",), {}, stdout=writer).result()
    os.close(writer)
    assert result.code == 0
    assert result.stderr == ""


def test_ctrl_c_before_anything_runs(app: App) -> None:
    """No traceback; and what was interrupted did not go well."""
    app.service("slow", 'print("importing", file=sys.stderr, flush=True)\ntime.sleep(20)')
    run = app.start("check")
    run.wait_for("importing")
    run.send(signal.SIGINT)
    result = run.result()
    assert result.code == 130
    assert result.stderr == "importing\n"


def test_closed_streams(app: App) -> None:
    """A parent that has closed stdout and stderr loses what is said, and nothing else."""
    app.service("calm", "@service(oneshot=True)\nasync def calm() -> None:\n    print('said')\n    os.open('x', 65)")
    result = app.open(("run",), {}, stdout=None, stderr=None, preexec_fn=lambda: os.closerange(1, 3)).result()
    assert result.code == 0
    assert (app.folder / "x").read_text() == ""


KINDS = """
    def show(*values: Any) -> None:
        print(*values)

    @command
    def kinds(first: int, /, second: int = 2, *rest: int, flag: bool = False, **more: str) -> None:
        print(first, second, rest, flag, more)

    @command
    def only(first: int, second: int = 2, /) -> None:
        print(first, second)
"""
VALUED = """
@service
async def store(serving: Serving[str]) -> None:
    async with serving("kept"):
        await anyio.sleep_forever()

@store.command
async def kinds(store: str, first: int, /, *rest: int, flag: bool = False, **more: str) -> None: ...

@store.command
async def put(first: int, store: str, *rest: int, flag: bool = False, **more: str) -> int:
    print(first, store, rest, flag, more)
    return 3

@store.command
async def quit(store: str) -> None:
    sys.exit(4)
"""


@pytest.mark.core
def test_every_kind_of_parameter(app: App) -> None:
    """All that cyclopts knows: only by position, as many as there are, and any options, with values and without."""
    app.commands(KINDS)
    app.service(
        "store", VALUED.replace("async def kinds(store: str, first: int, /", "async def kinds(store: str, first: int")
    )
    calls = {
        ("kinds", "1"): "1 2 () False {}",
        ("kinds", "1", "3", "4", "5", "--flag", "--colour", "red"): "1 3 (4, 5) True {'colour': 'red'}",
        ("only", "1"): "1 2",
        ("only", "1", "3"): "1 3",
        ("store", "put", "1"): "1 kept () False {}",
        ("store", "put", "1", "2", "3", "--flag", "--colour=red"): "1 kept (2, 3) True {'colour': 'red'}",
    }
    runs = {words: app.start(*words) for words in calls}
    for words, run in runs.items():
        result = run.result()
        assert (result.code, result.stdout) == (3 if words[0] == "store" else 0, f"{calls[words]}\n"), result.stderr
        assert result.stderr == ""


@pytest.mark.core
def test_the_exit_code_is_the_commands(app: App) -> None:
    """What it returns, or gives to `sys.exit`, also in a task; a text is printed, and means 1."""
    ways = {
        "returned": ("return 3", 3),
        "nothing": ("return None", 0),
        "yes": ("return True", 0),
        "large": ("return 256", 1),
        "exited": ("sys.exit(4)", 4),
        "well": ("sys.exit(0)", 0),
        "bare": ("sys.exit()", 0),
        "text": ("sys.exit('no such user')", 1),
    }
    store = VALUED
    code = ""
    for name, (what, _) in ways.items():
        code += f"@command\ndef plain_{name}() -> Any:\n    {what}\n\n"
        code += f"@command\nasync def async_{name}() -> Any:\n    await anyio.sleep(0)\n    {what}\n\n"
        store += f"@store.command\nasync def {name}(store: str) -> Any:\n    {what}\n\n"
    app.commands(code)
    app.service("store", store)
    runs = {}
    for name in ways:
        for words in ((f"plain-{name}",), (f"async-{name}",), ("store", name)):
            runs[words] = app.start(*words)
        for words in ((f"plain-{name}",), (f"async-{name}",), ("store", name)):
            result = runs[words].result()
            assert result.code == ways[name][1], (words, result.stderr)
            assert result.stderr == ("no such user\n" if name == "text" else ""), words


def test_one_that_is_broken_breaks_only_itself(app: App) -> None:
    """An annotation that cannot be evaluated, a value that only a service's command gets, a name that is taken."""
    app.service("store", VALUED + "@store.command\ndef bad(what: 'Nowhere') -> None: ...\n")
    app.commands(
        """
        @command
        def good(*, count: int = 1) -> None:
            "Does good."
            print("good", count)

        @command
        def bad(what: "Nowhere") -> None: ...

        @command
        def valued(store) -> None: ...

        @command
        def optional(store: str = "none") -> None:
            print(store)

        @command
        def run() -> None: ...
        """
    )
    words = ["--help", "good", "optional", "store put 1", "bad", "valued", "store bad", "check"]
    runs = [app.start(*one.split(), LOG_FORMAT="text") for one in words]
    help_, good, optional, put, bad, valued, store_bad, check = [run.result() for run in runs]
    assert help_.code == 0
    assert "Does good." in help_.stdout
    assert "valued" in help_.stdout
    (warning,) = help_.lines
    assert warning.startswith("warning: app/commands.py defines 'run', but a command has that name")
    assert (good.code, good.stdout, good.stderr) == (0, "good 1\n", "")
    assert (optional.code, optional.stdout) == (0, "none\n")
    assert put.code == 3
    cannot = r"app/commands.py:\d+: command 'bad': the annotation of parameter 'what' cannot be evaluated"
    gets = r"app/commands.py:\d+: command 'valued' has a parameter 'store', which is the name of a service; only"
    for result, pattern in ((bad, cannot), (valued, gets)):
        assert result.code == 2
        assert len(result.errors) == 1
        assert re.match(pattern, result.errors[0]), result.errors
        assert "Traceback" not in result.stderr
    assert store_bad.code == 2
    assert re.match(r"services/store.py:\d+: command 'bad': the annotation", store_bad.errors[0]), store_bad.errors
    assert check.code == 2
    assert len(check.errors) == 4, check.errors


def test_check_of_some(app: App) -> None:
    """Those named, as `run` and `graph` take them; what they need is not missed, what others lack is not told."""
    app.service("store", VALUED)
    app.service("api", "@service(depends=['store'])\nasync def api(store: str) -> None: ...")
    app.service("needy", "@attrs.frozen\nclass C:\n    key: str\n\n@service\nasync def needy(c: C) -> None: ...")
    app.service("broken", "raise OSError('no route')")
    calls = {
        ("api",): (0, []),
        ("api", "store"): (0, []),
        ("s*",): (0, []),
        ("needy",): (2, ["NEEDY_KEY"]),
        ("needy", "--no-settings"): (0, []),
        ("broken",): (2, ["no route"]),
        ("apy",): (2, [r"did you mean 'api'\?"]),
        ("--no-settings",): (2, ["no route"]),
        (): (2, ["no route", "NEEDY_KEY"]),
    }
    runs = {words: app.start("check", *words, LOG_FORMAT="text") for words in calls}
    for words, (code, patterns) in calls.items():
        result = runs[words].result()
        assert result.code == code, (words, result.stderr)
        assert len(result.errors) == len(patterns), (words, result.stderr)
        assert all(re.search(pattern, error) for pattern, error in zip(patterns, result.errors, strict=True)), (
            result.stderr
        )


def test_a_library_that_needs_asyncio_is_told(app: App) -> None:
    """On trio: in a service, in its commands, and in the app's; not on asyncio, where a thread has no loop either."""
    app.service(
        "store",
        """
        import asyncio

        @service
        async def store() -> None:
            asyncio.get_running_loop()

        @store.command
        async def ask() -> None:
            asyncio.get_running_loop()

        @store.command
        async def thread() -> None:
            await anyio.to_thread.run_sync(asyncio.get_running_loop)
        """,
    )
    hint = "no running event loop; the library needs asyncio, but KERNEL_BACKEND is trio"
    for words, backend, told in (
        (("run",), "trio", True),
        (("store", "ask"), "trio", True),
        (("store", "thread"), "asyncio", False),
    ):
        result = app.call(*words, KERNEL_BACKEND=backend)
        assert result.code == 1
        assert (hint in result.messages[-1]) is told, result.stderr


def test_completion(app: App, tmp_path: Path) -> None:
    """Scripts for bash, zsh and fish know services and commands; names are asked for; no service is imported."""
    app.service("store", f"raise OSError('imported')\n{VALUED}")
    app.service("billing/clerk", "raise OSError('imported')")
    app.commands("@command\ndef seed(*, users: int = 10) -> None:\n    'Fill the database.'")
    for shell in ("bash", "zsh", "fish"):
        result = app.call("--show-completion", shell)
        assert (result.code, result.stderr) == (0, "")
        assert {"store", "billing-clerk", "put", "seed", "--users", "graph"} <= set(
            re.findall(r"[\w-]+", result.stdout)
        )
    result = app.call("__complete", "check", "")
    assert re.findall(r"(?m)^([\w-]+)\t", result.stdout) == ["billing-clerk", "store"]
    result = app.call("--install-completion", "--shell", "fish", HOME=str(tmp_path / "home"), XDG_CONFIG_HOME="")
    assert result.code == 0, result.stderr
    assert (tmp_path / "home/.config/fish/completions/app.fish").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_in_a_shell(app: App, tmp_path: Path) -> None:
    """The script, loaded into bash, completes what was begun."""
    app.service("store", VALUED)
    app.service("stock", CALM)
    program = tmp_path / "bin" / "app"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncd "{app.root}" && exec "{sys.executable}" -m app "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(app.call("--show-completion", "bash").stdout)
    ask = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        handler=$(complete -p app); handler=${handler#*-F }
        "${handler%% *}" app "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    for words, expected in {
        ("app", "st"): {"stock", "store"},
        ("app", "run", "st"): {"stock", "store"},
        ("app", "store", "p"): {"put"},
    }.items():
        argv = ["bash", "-c", ask, "bash", str(tmp_path / "script"), *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert {word.strip() for word in done.stdout.split()} == expected, (words, done)


def test_a_service_by_its_file(app: App) -> None:
    """As an editor knows it: relative or absolute, in a folder that groups; a command of it; a file that is none."""
    source = (
        "@service(oneshot=True)\nasync def worker() -> None: ...\n\n@worker.command\ndef tell() -> None: print('hi')"
    )
    app.service("billing/worker", source)
    assert app.run("services/billing/worker.py").result().said("billing-worker: done")
    assert app.call(str(app.root / "services" / "billing" / "worker.py"), "tell").stdout == "hi\n"
    wrong = app.call("run", "services/billing/nobody.py")
    assert wrong.code == 2
    assert "nobody.py" in wrong.stderr
