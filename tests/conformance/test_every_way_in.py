"""What is wrong is found by every way in: `run`, `run --with-dependencies`, a command that needs it, `app check`."""

from __future__ import annotations

import re

import attrs
import pytest

from tests.conformance.program import NewApp

ASK = """
@service(depends=["{0}"])
async def ask({0}: object) -> None:
    log.info("asks with %s", {0})
    await anyio.sleep_forever()

@ask.command
async def tell({0}: object) -> None:
    print("told", {0})
"""
SERVES = """
@service({options})
async def api({parameters}serving: Serving[int]) -> None:
    async with serving(7):
        await anyio.sleep_forever()
"""
CONFIG = """
@attrs.frozen
class ApiConfig:
    port: int{default}
    mode: str = attrs.field(default="a", validator=attrs.validators.in_(["a", "b"]))
"""


def api(head: str = "", parameters: str = "", options: str = "") -> str:
    """The source of a service that serves a value."""
    return head + SERVES.format(parameters=parameters, options=options)


@attrs.frozen
class Mistake:
    """One thing that is wrong with what `ask` needs.

    Args:
        files: The services beside `ask`.
        error: A regular expression for the one error.
        env: The environment.
        ways: The command lines by which it can be met.

    """

    files: dict[str, str]
    error: str
    env: dict[str, str] = attrs.field(factory=dict)
    ways: tuple[str, ...] = ("run", "run ask --with-dependencies", "ask tell", "check")


WITH_CONFIG = CONFIG.format(default=" = 80")
MISTAKES = {
    "a wrong value": Mistake(
        {"api": api(WITH_CONFIG, "config: ApiConfig, ")},
        r"API_PORT is 'http'; expected a whole number",
        env={"API_PORT": "http"},
    ),
    "a value that is missing": Mistake(
        {"api": api(CONFIG.format(default=""), "config: ApiConfig, ")}, r"API_PORT is (not set|missing)"
    ),
    "a value that a validator refuses": Mistake(
        {"api": api(WITH_CONFIG, "config: ApiConfig, ")}, r"API_MODE is 'c'", env={"API_MODE": "c"}
    ),
    "no import": Mistake({"api": "import nosuch\n"}, r".*service 'api' cannot be imported: ModuleNotFoundError"),
    "an exception at import": Mistake(
        {"api": "raise OSError('no')\n"}, r".*service 'api' cannot be imported: OSError: no"
    ),
    "no service in the file": Mistake({"api": "x = 1\n"}, r".*api.py: contains no service"),
    "an unknown dependency": Mistake(
        {"api": api(options="depends=['nobody']")}, r".*api depends on 'nobody', which does not exist"
    ),
    "a parameter that nothing fills": Mistake(
        {"api": api(parameters="what: int, ")}, r".*api has a parameter 'what' that nothing can fill"
    ),
    "no value": Mistake(
        {"api": "@service\nasync def api() -> None:\n    await anyio.sleep_forever()\n"},
        r".*ask takes the value of api",
    ),
    "a cycle": Mistake(
        {
            "api": api(options="depends=['other']"),
            "other": "@service(depends=['api'])\nasync def other() -> None:\n    await anyio.sleep_forever()\n",
        },
        r".*(dependency cycle|wait for each other)",
    ),
    "a wrong value further down": Mistake(
        {
            "api": api(options="depends=['base']"),
            "base": WITH_CONFIG.replace("Api", "Base")
            + "@service\nasync def base(config: BaseConfig) -> None:\n    await anyio.sleep_forever()\n",
        },
        r"BASE_PORT is 'http'; expected a whole number",
        env={"BASE_PORT": "http"},
    ),
    "a typo in SERVICES_ENABLED": Mistake(
        {"api": api()},
        r"SERVICES_ENABLED: no service is named 'apy'; did you mean 'api'\?",
        env={"SERVICES_ENABLED": "apy"},
        ways=("run", "check"),
    ),
    "a wrong setting of the kernel": Mistake(
        {"api": api()}, r"RUNNER_SHUTDOWNTIMEOUT is 'soon'", env={"RUNNER_SHUTDOWNTIMEOUT": "soon"}
    ),
}


@pytest.mark.many
@pytest.mark.parametrize("name", MISTAKES)
def test_it_is_found_by_every_way_in(new_app: NewApp, name: str) -> None:
    """Exit code 2, the same one error, and nothing has started."""
    mistake = MISTAKES[name]
    app = new_app()
    app.service("ask", ASK.format("api"))
    for service, source in mistake.files.items():
        app.service(service, source)
    runs = {way: app.start(*way.split(), LOG_FORMAT="text", COLUMNS="200", **mistake.env) for way in mistake.ways}
    for way, run in runs.items():
        result = run.result()
        told = f"{name} by {way}:\n{result.stdout}{result.stderr}"
        assert result.code == 2, told
        assert "told" not in result.stdout, told
        assert "asks with" not in result.stderr, told
        assert "Traceback" not in result.stderr, told
        assert [bool(re.match(mistake.error, error)) for error in result.errors] == [True], told


def test_what_is_right_is_right_by_every_way_in(new_app: NewApp) -> None:
    """The same services without a mistake: or the tests above would prove nothing."""
    app = new_app()
    app.service("ask", ASK.format("api"))
    app.service("api", api(WITH_CONFIG, "config: ApiConfig, "))
    runs = [app.run(), app.start("run", "ask", "--with-dependencies")]
    for run in runs:
        result = run.stop(after="asks with 7")
        assert result.code == 0
    assert app.call("ask", "tell").stdout == "told 7\n"
    assert app.call("check").code == 0


ORDER = """
@service(depends=["local"])
async def api(serving: Serving[int]) -> None:
    async with serving(7):
        await anyio.sleep_forever()
"""
LOCAL = """
@service(oneshot=True)
async def local() -> None:
    log.warning("local was run")
"""


def test_what_is_left_out_does_not_run_for_the_order(new_app: NewApp) -> None:
    """A value is needed, an order is not: neither a command nor `--with-dependencies` starts what is excluded."""
    app = new_app()
    app.service("ask", ASK.format("api"))
    app.service("api", ORDER)
    app.service("local", LOCAL)
    for ways, runs in (({}, True), ({"SERVICES_ENABLED": "!local"}, False), ({"SERVICES_ENABLED": "ask"}, True)):
        told = app.call("ask", "tell", **ways)
        assert told.stdout == "told 7\n"
        assert told.said("local was run") is runs, ways
    assert app.start("run", "ask", "--with-dependencies").stop(after="asks with 7").said("local was run")
    without = app.start("run", "ask", "!local", "--with-dependencies").stop(after="asks with 7")
    assert not without.said("local was run")
    assert without.said("api does not wait for local, which is not enabled")


def test_a_command_finds_a_wrong_selection(new_app: NewApp) -> None:
    """Else a misspelt exclusion would start what it should keep out."""
    app = new_app()
    app.service("ask", ASK.format("api"))
    app.service("api", ORDER)
    app.service("local", LOCAL)
    told = app.call("ask", "tell", SERVICES_ENABLED="!lokal")
    assert told.code == 2
    assert told.said("no service is named 'lokal'; did you mean 'local'")
    assert app.call("ask", "tell", SERVICES_ENABLED="!*").stdout == "told 7\n"


def test_a_dotenv_that_was_not_loaded_is_told(new_app: NewApp) -> None:
    """By every way in, where it would help; its values are not shown."""
    app = new_app()
    app.service("ask", ASK.format("api"))
    app.service("api", api(CONFIG.format(default=""), "config: ApiConfig, "))
    told = ".env sets API_PORT, but is not loaded; recipes such as `just run` load it"
    for words in (("run",), ("ask", "tell"), ("check",)):
        assert ".env" not in app.call(*words).stderr
    app.write(".env", "API_PORT=8123\nAPI_MODE=b\n")
    for words in (("run",), ("ask", "tell"), ("check",)):
        result = app.call(*words)
        assert result.code == 2
        assert result.stderr.count(told) == 1
        assert "8123" not in result.stderr
    assert app.call("check", API_PORT="1").code == 0
    assert ".env" not in app.call("check", API_PORT="a").stderr  # it is set, and so is the one to change
