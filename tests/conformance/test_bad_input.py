"""What is wrong with files, names and the environment: said clearly, all in one go, before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
import pytest

from tests.conformance.program import App, NewApp, Result

IDLE = "async def {}() -> None:\n    await anyio.sleep_forever()\n"
TELLTALE = 'print("imported", __name__, file=sys.stderr)\n'


def idle(name: str, options: str = "", parameters: str = "") -> str:
    """The source of a service that tells when it is imported, and waits."""
    return f"{TELLTALE}@service({options})\nasync def {name}({parameters}) -> None:\n    await anyio.sleep_forever()\n"


@attrs.frozen
class Mistake:
    """One thing that is wrong.

    Args:
        files: The services; a path ending in ".py" is written as it is.
        errors: A regular expression for each error, in order.
        words: The command line.
        env: The environment.
        also: Regular expressions for other lines.

    """

    files: dict[str, str]
    errors: list[str]
    words: tuple[str, ...] = ("run",)
    env: dict[str, str] = attrs.field(factory=dict)
    also: list[str] = attrs.field(factory=list)


API = idle("api")
CONFIG = """
@attrs.frozen
class ApiConfig:
    port: int = 80
    token: Secret[int] = Secret(0)
    mode: str = attrs.field(default="a", validator=attrs.validators.in_(["a", "b"]))
    name: str

@service
async def api(config: ApiConfig) -> None:
    await anyio.sleep_forever()
""".replace("    name: str\n", "")

MISTAKES = {
    # -- names
    "unknown service on the command line": Mistake(
        {"api": API},
        [r"command line: no service is named 'apy'; did you mean 'api'\?"],
        words=("run", "apy"),
    ),
    "unknown service in SERVICES_ENABLED": Mistake(
        {"api": API},
        [r"SERVICES_ENABLED: no service is named 'apy'; did you mean 'api'\?"],
        env={"SERVICES_ENABLED": "api,apy"},
    ),
    "no service at all": Mistake(
        {"_helper": "x = 1"},
        [r"services: there is no service; write an async function with @service in services/hello.py"],
    ),
    "pattern that matches nothing": Mistake(
        {"api": API},
        [r"SERVICES_ENABLED: no service is named 'billing-\*'; there are: api"],
        env={"SERVICES_ENABLED": "billing-*"},
    ),
    "nothing left": Mistake(
        {"api": API},
        [r"SERVICES_ENABLED: api, !api selects no service; remove one of the exclusions"],
        env={"SERVICES_ENABLED": "api,!api"},
    ),
    "unknown dependency": Mistake(
        {"api": idle("api", "depends=['databse']"), "database": idle("database")},
        [r"services/api.py:8: api depends on 'databse', which does not exist; did you mean 'database'\?"],
    ),
    "unknown parameter": Mistake(
        {"api": idle("api", "depends=['database']", "databse: int"), "database": idle("database")},
        [r"services/api.py:8: api has a parameter 'databse' that nothing can fill; did you mean 'database'\?"],
    ),
    "unknown command": Mistake(
        {"api": API, "broken.py": "raise OSError('a typo must not import it')"},
        [r"there is no command or service named 'apy'; did you mean 'api'\?"],
        words=("apy", "migrate"),
    ),
    "a cycle": Mistake(
        {
            "a": idle("a", "depends=['b']"),
            "b": idle("b", "depends=['c']"),
            "c": idle("c", "depends=['a']"),
            "d": idle("d", "depends=['a']"),
        },
        [r"services/a\.py:8, services/b\.py:8, services/c\.py:8: dependency cycle: a -> b -> c -> a; remove"],
    ),
    "two cycles": Mistake(
        {
            "a": idle("a", "depends=['b']"),
            "b": idle("b", "depends=['a']"),
            "c": idle("c", "depends=['a', 'd']"),
            "d": idle("d", "depends=['c']"),
            "e": idle("e", "depends=['e2']"),
            "e2": idle("e2"),
        },
        [
            r"services/a\.py:8, services/b\.py:8: dependency cycle: a -> b -> a; remove",
            r"services/c\.py:8, services/d\.py:8: dependency cycle: c -> d -> c; remove",
        ],
    ),
    "two services of one name": Mistake(
        {"billing/worker": idle("worker"), "billing_worker": idle("worker")},
        [
            (
                r"services/billing/worker.py and services/billing_worker.py: two services are named 'billing-worker';"
                r" rename one of them"
            )
        ],
    ),
    "the name of a command": Mistake(
        {"list": idle("listing")}, [r"services/list.py: the app has a command named 'list'; rename the file"]
    ),
    "the name of a command of the app's own": Mistake(
        {"seed": idle("seed"), "../app/commands.py": "from kernel import command\n@command\ndef seed() -> None: ...\n"},
        [r"app/commands.py defines 'seed', but a service has that name; rename it"],
        words=("check",),
    ),
    "a reserved name": Mistake(
        {"admin": idle("admin")}, [r"services/admin.py: the name 'admin' is reserved; rename the file"]
    ),
    "malformed names": Mistake(
        {"my-api": API, "Api": API, "class": API},
        [
            r"services/Api.py: 'Api' is not a valid service name; use lower-case letters, digits and underscores",
            r"services/class.py: 'class' is not a valid module name; rename it, for example to my_service.py",
            r"services/my-api.py: 'my-api' is not a valid module name; rename it, for example to my_service.py",
        ],
    ),
    # -- files
    "syntax error": Mistake(
        {"api.py": "x = 1\nasync def api(:\n"},
        [r"services/api.py:2: service 'api' cannot be imported: SyntaxError: invalid syntax.*; fix the file"],
    ),
    "missing package": Mistake(
        {"api.py": "import os\nimport nosuch\n"},
        [
            (
                r"services/api.py:2: service 'api' cannot be imported: ModuleNotFoundError: No module named 'nosuch'"
                r"; install the missing package, or exclude the service by SERVICES_ENABLED"
            )
        ],
    ),
    "exception": Mistake(
        {
            "api.py": """
            try:
                int("seven")
            except ValueError as error:
                raise OSError("no seven") from error
            """
        },
        [r"services/api.py:4: service 'api' cannot be imported: OSError: no seven; fix the file"],
        also=[r"^  caused by ValueError: invalid literal for int\(\) with base 10: 'seven'$"],
    ),
    "sys.exit": Mistake({"api": "sys.exit(3)"}, [r"services/api.py: service 'api' called sys.exit\(3\) when imported"]),
    "no service": Mistake(
        {"api.py": "x = 1\n"},
        [r"services/api.py: contains no service; decorate an async function with @service, or begin the"],
    ),
    "two services": Mistake(
        {"api": API + API.replace("api", "other")},
        [r"services/api.py: 2 services in one file: api, other; move each to a separate file"],
    ),
    "a plain function": Mistake(
        {"api": "@service\ndef api() -> None: ..."},
        [r"services/api.py:\d+: service 'api' is not async; write `async def`; .*anyio.to_thread.run_sync"],
    ),
    "a negative retry": Mistake(
        {"api": idle("api", "retries=-1")}, [r"services/api.py:8: api: retries is -1; it must not be negative"]
    ),
    "a package that hides services": Mistake(
        {"billing/__init__.py": "", "billing/worker": idle("worker"), "billing/web": idle("web")},
        [
            (
                r"services/billing/__init__.py: contains no service, and hides the services in web.py, worker.py;"
                r" delete the"
                r" __init__.py to make the folder a group, or import one service in it"
            )
        ],
    ),
    "init that does not import": Mistake(
        {"api": API, "../app/init.py": "import nosuch\n"},
        [r"app/init.py:1: cannot be imported: ModuleNotFoundError: No module named 'nosuch'; install the .* package$"],
    ),
    # -- values
    "wrong values, all in one go": Mistake(
        {"api": CONFIG},
        [
            r"RUNNER_SHUTDOWNTIMEOUT is 'soon'; expected a duration such as 10s, 1m30s, 500ms or a number of seconds",
            r"KERNEL_BACKEND is 'curio'; expected one of asyncio, uvloop, trio",
            r"API_PORT is 'http'; expected a whole number \(ApiConfig.port, services/api.py:\d+\)",
            r"API_TOKEN is \*{8}; expected a whole number \(ApiConfig.token, services/api.py:\d+\)",
        ],
        env={"RUNNER_SHUTDOWNTIMEOUT": "soon", "KERNEL_BACKEND": "curio", "API_PORT": "http", "API_TOKEN": "hunter2"},
        also=["^4 problems; nothing was started$"],
    ),
    "a wrong value, and a near miss that would be lost": Mistake(
        {"api": CONFIG},
        [r"API_TOKEN is \*{8}; expected a whole number"],
        env={"API_PROT": "1", "API_TOKEN": "hunter2"},
        also=["^warning: API_PROT is set, but nothing reads it; did you mean API_PORT\\?$", "^nothing was started$"],
    ),
    "a value that a validator refuses": Mistake(
        {"api": CONFIG},
        [r"API_MODE is 'c': 'mode' must be in \['a', 'b'\] .*declared at ApiConfig.mode, services/api.py:\d+"],
        env={"API_MODE": "c"},
    ),
    "colliding variables": Mistake(
        {
            "api": "@attrs.frozen\nclass A:\n    v2_port: int = 1\n@service\nasync def api(config: A) -> None: ...",
            "api_v2": "@attrs.frozen\nclass B:\n    port: int = 1\n@service\nasync def api(config: B) -> None: ...",
        },
        [r"API_V2_PORT is read by api and by api-v2 \(for B.port\); rename the field or the service"],
    ),
    "a value from a service that is left out": Mistake(
        {"api": idle("api", "depends=['database']", "database: int"), "database": idle("database")},
        [
            (
                r"services/api.py:8: api needs the value of database, which is not enabled; add database to"
                r" SERVICES_ENABLED, run with --with-dependencies, or give the parameter 'database' a default"
            )
        ],
        words=("run", "api"),
    ),
    "a service link of Kubernetes": Mistake(
        {"api": CONFIG},
        [r"API_PORT is 'tcp://10.0.0.1:80'; .*Kubernetes service link: set enableServiceLinks: false"],
        env={"API_PORT": "tcp://10.0.0.1:80"},
    ),
    "a drain delay as long as the deadline": Mistake(
        {"api": API},
        [r"RUNNER_DRAINDELAY is 1 s, which leaves no time within RUNNER_SHUTDOWNTIMEOUT \(1 s\); .*raise"],
        env={"RUNNER_DRAINDELAY": "1s"},
    ),
    # -- the command line itself
    "an unknown option": Mistake({"api": API}, [], words=("run", "--fast"), also=[r"Unknown option: .*--fast"]),
}


def make(app: App, mistake: Mistake) -> None:
    """Write its files."""
    for name, source in mistake.files.items():
        if name.endswith(".py"):
            app.write(f"services/{name}", source)
        else:
            app.service(name, source)


@pytest.mark.core
def test_each_mistake(new_app: NewApp) -> None:
    """One clear error for each, exit code 2, no traceback, nothing on stdout, and nothing starts."""
    check_all(new_app, MISTAKES)


def check_all(new_app: NewApp, mistakes: Mapping[str, Mistake]) -> None:
    """Make each of them, and compare what the program says; several programs at a time."""
    names = list(mistakes)
    for some in (names[first : first + 8] for first in range(0, len(names), 8)):
        runs = {}
        for name in some:
            mistake = mistakes[name]
            app = new_app()
            make(app, mistake)
            runs[name] = app.start(*mistake.words, LOG_FORMAT="text", COLUMNS="200", **mistake.env)
        for name, run in runs.items():
            check(name, mistakes[name], run.result())


def check(name: str, mistake: Mistake, result: Result) -> None:
    """Compare."""
    told = f"{name}:\n{result.stderr}"
    assert result.code == 2, told
    assert result.stdout == "", told
    assert "Traceback" not in result.stderr, told
    assert " starting" not in result.stderr, told
    assert "hunter2" not in result.stderr, told
    assert len(result.errors) == len(mistake.errors), told
    for error, pattern in zip(result.errors, mistake.errors, strict=True):
        assert re.match(pattern, error), f"{error}\nis not {pattern}\n{told}"
    for pattern in mistake.also:
        assert re.search(pattern, result.stderr, re.MULTILINE), f"{pattern}\n{told}"


def test_as_records(app: App) -> None:
    """Where logs are JSON, each error is a record: whoever collects them gets these too."""
    app.service("api", CONFIG)
    wrong = {"API_PORT": "http", "API_TOKEN": "hunter2"}
    result = app.call("run", **wrong)
    assert result.code == 2
    assert len(result.records) == len(result.lines) == 2
    for record in result.records:
        assert record["level"] == "error"
        assert record["exit_code"] == 2
        assert record["message"].startswith("API_")


def test_a_typo_imports_nothing(app: App) -> None:
    """Neither a broken service nor a whole one is imported to say that a name is unknown."""
    app.service("broken", TELLTALE + "raise OSError")
    app.service("whole", API)
    runs = [app.start("brokn", "up"), app.start("run", "brokn")]
    for run in runs:
        result = run.result()
        assert result.code == 2
        assert "imported" not in result.stderr
        assert result.said("did you mean 'broken'?")


@pytest.mark.core
def test_what_is_left_out_is_not_imported(app: App) -> None:
    """A machine runs its subset without the other services' packages, and is warned of edges that are skipped."""
    app.service("api", idle("api", "depends=['broken', 'cache']", "cache: int = 3"))
    app.service("broken", "import nosuchpackage")
    app.service("cache", idle("cache"))
    result = app.run(SERVICES_ENABLED="api").stop()
    assert result.code == 0
    assert [line for line in result.lines if line.startswith("imported")] == ["imported services.api"]
    assert result.said("^api does not wait for broken, which is not enabled$")
    assert result.said("^api runs without the value of cache, which is not enabled: its parameter takes its default$")


def test_near_misses(app: App) -> None:
    """A variable that nearly has the name of one that is read is warned about; others are not."""
    app.service("api", CONFIG)
    env = {"API_PROT": "1", "RUNNER_SHUTDOWN_TIMEOUT": "1", "LOGLEVEL": "debug", "API_SERVICE_HOST": "x", "ANY": "1"}
    result = app.run(**env).stop()
    warnings = [one["message"] for one in result.records if one["level"] == "warning"]
    assert warnings == [
        "API_PROT is set, but nothing reads it; did you mean API_PORT?",
        "LOGLEVEL is set, but nothing reads it; did you mean LOG_LEVEL?",
        "RUNNER_SHUTDOWN_TIMEOUT is set, but nothing reads it; did you mean RUNNER_SHUTDOWNTIMEOUT?",
    ]


@pytest.mark.core
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_values_arrive(app: App, backend: str) -> None:
    """What the environment says is what the service gets; an empty variable is an unset one."""
    app.service(
        "api",
        """
        @attrs.frozen
        class ApiConfig:
            port: int = 80
            hosts: list[str] = attrs.field(factory=list)
            every: Seconds = 1.0
            debug: bool = False
            token: Secret[str] = Secret("none")

        @service(oneshot=True)
        async def api(config: ApiConfig) -> None:
            log.info("%s", config)
            print(config.token.reveal())
        """,
    )
    env = {"API_HOSTS": "a, b", "API_EVERY": "1m30s", "API_DEBUG": "on", "API_TOKEN": "hunter2", "API_PORT": ""}
    result = app.call("run", KERNEL_BACKEND=backend, **env)
    assert result.code == 0
    assert result.said(r"port=80, hosts=\['a', 'b'\], every=90.0, debug=True, token=Secret\('\*+'\)")
    assert result.stdout == "hunter2\n"


def test_hidden_files_are_no_services(app: App) -> None:
    """An editor's lock, which is a link to nowhere, its backups, and what a system notes; in packages too."""
    app.service("api", "@service(oneshot=True)\nasync def api() -> None:\n    log.info('here')")
    app.write("services/packed/__init__.py", "")
    leftovers = ["._api.py", "api.py~", "#api.py#", ".api.py.swp", ".idea/x.py", "packed/._b.py"]
    for name in leftovers:
        app.write(f"services/{name}", "\x00")
    for folder in ("", "packed/"):
        (app.root / "services" / f"{folder}.#api.py").symlink_to("ann@host.4321:1")
    result = app.run("api").result()
    assert result.code == 0, result.stderr
    assert result.said("api: here")
    listed = app.call("list")
    assert (listed.code, [line.split()[0] for line in listed.stdout.splitlines()]) == (0, ["api", "packed"])
    assert "packed/__init__.py: contains no service;" in app.call("check", LOG_FORMAT="text").stderr
