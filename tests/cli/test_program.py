"""Which command the words name, and how it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel.cli.program import Program
from kernel.config.settings import Settings
from kernel.declare.service import Service
from kernel.declare.signature import Needs
from kernel.errors import NamingError, PlanError
from kernel.identity import Identity
from kernel.observe import logs
from kernel.plan import discovery, selection
from kernel.plan.discovery import Catalogue, ServiceFile
from kernel.run import command as commands
from kernel.run import runner, standalone
from tests.modules import new_module
from tests.observe.untouched import logging_untouched


class Tool(Program):
    """A program that says what it would do."""

    def __init__(self, root: Path) -> None:
        super().__init__(new_module("tool"), Identity("tool", "1", str(root)), Settings(), (), process=True)
        self.did: list[Any] = []
        self.own: dict[str, Any] = {}
        self.broken: PlanError | None = None
        self.files = Catalogue(
            {
                name: ServiceFile(
                    name, f"services.{name}", str(root / "services" / f"{name}.py"), "", b"'Its summary.'".strip
                )
                for name in ("api", "store")
            }
        )

    def _user_commands(self) -> dict[str, Any]:
        if self.broken is not None:
            raise self.broken
        return self.own

    def _import_init(self) -> None:
        self.did.append("init")

    def _run(self, *service: str, with_dependencies: bool = False) -> int:
        """Run them."""
        self.did.append(("run", service, with_dependencies))
        return 5

    def _list(self) -> None:
        """List them."""
        self.did.append("list")

    def _version(self) -> None:
        """Show it."""
        self.did.append("version")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    """With two services."""
    monkeypatch.setenv("COLUMNS", "100")
    with logging_untouched():  # a command makes the kernel's logger quieter
        yield Tool(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "did"),
    [
        (["run"], 5, ("run", (), False)),
        (["run", "api", "s*"], 5, ("run", ("api", "s*"), False)),
        (["run", "api", "--with-dependencies"], 5, ("run", ("api",), True)),
        (["run", "services/api.py", "store"], 5, ("run", ("api", "store"), False)),
        (["list"], 0, "list"),
        (["version"], 0, "version"),
        (["--version"], 0, "version"),
    ],
)
def test_built_in_commands(tool: Tool, words: list[str], code: int, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they return is the exit code; a service may be named by its file.

    Without options there is nothing to parse, which would take a sixth of a short run.
    """
    parsed: list[Any] = []
    real = Program._parse

    def parse(*given: Any) -> int:
        parsed.append(given)
        return real(*given)

    monkeypatch.setattr(Program, "_parse", parse)
    monkeypatch.chdir(tool.identity.root)
    assert tool.dispatch(words) == code
    assert tool.did == [did]
    assert len(parsed) == any(word.startswith("-") for word in words)


@pytest.mark.parametrize("words", [["list", "more"], ["run", "--odd"], ["version", "x"]])
def test_words_that_are_too_many(tool: Tool, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """They are a mistake, and nothing is done."""
    assert tool.dispatch(words) == 2
    assert tool.did == []
    assert words[1] in capsys.readouterr().err


def test_files_are_names_only_at_the_beginning(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else ends like one is a word of the user's; so is a file of no service."""
    path = str(Path(tool.identity.root, "services", "api.py"))
    monkeypatch.chdir(tool.identity.root)
    tool.dispatch(["run", path, path])
    tool.dispatch(["run", "services/none.py"])
    assert [did[1] for did in tool.did] == [("api", path), ("services/none.py",)]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_everything(tool: Tool, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In groups; what is broken, or has a name that is taken, is a warning."""

    def seed() -> None:
        """Fill it.

        Slowly.
        """

    tool.own = {"seed": seed, "run": seed, "store": seed}
    assert tool.dispatch(words) == 0
    said = capsys.readouterr()
    lines = [line.strip("│ ") for line in said.out.splitlines()]
    assert any(line.startswith("seed") and line.endswith("Fill it.") for line in lines)
    assert [line.split() for line in lines if line.startswith("store")] == [["store", "Its", "summary"]]
    assert [line.strip("╭╮─ ") for line in lines if "╭" in line] == ["Commands", "Commands of this app", "Services"]
    assert any("--install-completion" in line for line in lines)
    assert said.err == (
        "warning: app/commands.py defines 'run', but a command has that name; rename it\n"
        "warning: app/commands.py defines 'store', but a service has that name; rename it\n"
    )
    tool.broken = NamingError("broken")
    assert tool.dispatch(words) == 0
    said = capsys.readouterr()
    assert "store" in said.out
    assert said.err == "warning: broken\n"


def test_a_name_that_nothing_has(tool: Tool) -> None:
    """The error says what is similar, or where to look."""
    tool.own = {"seed-all": print}
    for word, hint in {
        "seed_al": "did you mean 'seed-all'?",
        "stor": "did you mean 'store'?",
        "versio": "did you mean 'version'?",
        "xxxxx": "see `tool --help`",
    }.items():
        with pytest.raises(NamingError, match=f"there is no command or service named '{word}'") as caught:
            tool.dispatch([word])
        assert caught.value.hint == hint


# -- errors while words are read ---------------------------------------------------------------------------------


class Broken:
    """An app of cyclopts whose call fails."""

    def __init__(self, error: BaseException, *before: BaseException) -> None:
        last = self.error = error
        for one in before:
            last.__context__ = one
            last = one

    def __call__(self, _: list[str]) -> Any:
        raise self.error


def test_a_message_that_cannot_be_printed(tool: Tool) -> None:
    """A wrong word stays one; a pipe that is closed while help is printed is none."""
    from cyclopts import CycloptsError

    for error, code in (
        (Broken(CycloptsError()), 2),
        (Broken(SystemExit(1), BrokenPipeError(), CycloptsError()), 2),
        (Broken(OSError("full"), CycloptsError()), 2),
        (Broken(SystemExit(1), BrokenPipeError()), 0),
    ):
        app: Any = error
        assert tool._parse(app, []) == code
    for broken in (Broken(SystemExit(1)), Broken(OSError("full")), Broken(BrokenPipeError()), Broken(LookupError())):
        other: Any = broken
        with pytest.raises(type(broken.error)):
            tool._parse(other, [])


# -- commands of the app and of services -------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that take no value are called as they are."""
    monkeypatch.setattr(standalone, "run_alone", lambda call, settings: call())


@pytest.mark.usefixtures("alone")
def test_a_command_of_the_app(tool: Tool) -> None:
    """It runs when init has been imported, unless a setting is wrong."""

    def seed(*, users: int = 10) -> int:
        return users

    tool.own = {"seed": seed}
    assert tool.dispatch(["seed", "--users", "3"]) == 3
    assert tool.did == ["init"]
    tool.wrong = (NamingError("wrong"),)
    with pytest.raises(NamingError, match="wrong"):
        tool.dispatch(["seed"])
    tool.own = {"store": seed}
    tool.files.pop("store")
    tool.files = Catalogue({**tool.files, "store": tool.files["api"]})
    with pytest.raises(NamingError, match="a service has that name"):
        tool._user_command("store", seed)


def declare(**commands_of: Any) -> Service[..., Any]:
    """A service with these commands."""

    async def store() -> None:
        """Keep things.

        Long.
        """

    made: Any = SimpleNamespace(name="store", commands=commands_of, __doc__=store.__doc__)
    return made  # type: ignore[no-any-return]


@pytest.mark.usefixtures("alone")
def test_a_command_of_a_service(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the one that is named is looked at: others may be broken."""

    def put(word: str) -> int:
        """Put it in.

        There.
        """
        return len(word)

    looked: list[str] = []

    def needs_of(_: Any, fn: Any) -> Needs:
        looked.append(fn.__name__)
        return Needs()

    monkeypatch.setattr(discovery, "load", lambda _: declare(put=put, take=test_a_command_of_a_service))
    monkeypatch.setattr("kernel.cli.program.command_needs", needs_of)
    monkeypatch.setattr(Program, "_call_command", None)  # it needs nothing, so nothing is planned
    assert tool.dispatch(["store", "put", "four"]) == 4
    assert tool.did == ["init"]
    assert looked == ["put"]
    assert tool.dispatch(["store", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Its summary" in said
    assert "Put it in." in said
    assert "There." not in said
    assert looked == ["put"]
    tool.files = Catalogue({"store": ServiceFile("store", "services.store", "store.py", "", b"".strip)})
    tool.dispatch(["store", "--help"])
    assert "Keep things." in capsys.readouterr().out


def test_a_command_that_takes_a_config(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read, and nothing is started; what the command returns is the exit code; the logs are silent."""
    needs = Needs(config=("config", object))
    levels: list[str] = []
    given: list[Any] = []

    def plan_command(*args: Any, **named: Any) -> Any:
        assert args[:2] == (store, needs)
        assert named == {"enabled": ("x",), "errors": tool.wrong}
        return None, "the config"

    def put(**values: Any) -> int:
        given.append(values)
        return 6

    store = declare(put=put)
    tool.settings = Settings(enabled=("x",))
    monkeypatch.setattr(selection, "plan_command", plan_command)
    monkeypatch.setattr(standalone, "run_alone", lambda call, settings: call())
    monkeypatch.setattr(commands, "call_with", lambda fn, values: fn(**values))
    monkeypatch.setattr(logs.logger, "setLevel", levels.append)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    assert tool._call_command(store, "put", put, needs, {"word": "x"}) == 6
    monkeypatch.setenv("LOG_LEVEL", "info")
    assert tool._call_command(store, "put", put, needs, {}) == 6
    assert given == [{"word": "x", "config": "the config"}, {"config": "the config"}]
    assert levels == ["WARNING"]


@pytest.mark.parametrize("process", [True, False])
def test_a_command_that_takes_a_value(tool: Tool, monkeypatch: pytest.MonkeyPatch, process: bool) -> None:
    """Its providers run around it; no calls of others are taken."""
    needs: Any = SimpleNamespace(edges=("database",), config=None)
    tool.process = process
    store = declare()
    made: Any = SimpleNamespace(units=["database"])
    ran: list[Any] = []

    def connected(units: Any, *others: Any, export: bool) -> Any:
        assert others == (tool.settings, tool.identity, "outside")
        return [*units, f"exports {export}"]

    def execute(settings: Any, prepare: Any, outside: Any, *, to_the_end: bool, outcome: Any) -> int:
        assert isinstance(outcome, commands.Outcome)
        ran.append((prepare(), outside, to_the_end))
        return 4

    monkeypatch.setattr(Program, "_outside", lambda _, *, serve: "" if serve else "outside")
    monkeypatch.setattr(selection, "plan_command", lambda *_, **__: (made, None))
    monkeypatch.setattr(runner, "connected", connected)
    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(runner, "provider_unit", lambda unit: f"provider {unit}")
    monkeypatch.setattr(runner, "command_unit", lambda name, _, call, __: (name, call(database="d")))
    monkeypatch.setattr(commands, "call_with", lambda fn, values: fn(values))
    assert tool._call_command(store, "put", dict, needs, {"word": "x"}) == 4
    units = ["provider database", ("store put", {"word": "x", "database": "d"}), "exports False"]
    assert ran == [((units, ()), "outside", process)]
    assert tool.did == ["init"]


# -- telemetry ---------------------------------------------------------------------------------------------------


def test_what_a_command_exports(tool: Tool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing unless it is wanted; what could not be sent is told, also of a command that failed."""
    did: list[str] = []

    class Outside:
        unsent = ""

        def __enter__(self) -> Any:
            did.append("open")
            return self

        def __exit__(self, *_: object) -> None:
            did.append("end")

        def close(self) -> str:
            did.append("close")
            return self.unsent

    monkeypatch.setattr(Program, "_outside", lambda _, *, serve: None if serve else Outside())
    with tool._exporting():
        did.append("block")
    assert did == ["block"]
    tool.settings = SimpleNamespace(otel="wanted")  # type: ignore[assignment]
    with tool._exporting():
        did.append("block")
    assert did == ["block", "open", "block", "close", "end"]
    assert caplog.messages == []
    Outside.unsent = "3 spans"
    with pytest.raises(LookupError), tool._exporting():
        raise LookupError
    assert caplog.messages == ["not sent: 3 spans"]
