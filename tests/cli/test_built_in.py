"""The built-in commands, without a program of their own."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel.cli.built_in import BuiltIn
from kernel.config.settings import Settings
from kernel.declare.app import EXTENSIONS
from kernel.errors import NamingError, NotImportable, PlanError, Problems
from kernel.identity import Identity
from kernel.observe import logs
from kernel.plan import check, discovery, environment, selection
from kernel.plan.discovery import Catalogue, ServiceFile
from kernel.plan.environment import Surroundings
from kernel.run import runner
from tests.modules import new_module


class Shop(BuiltIn):
    """The commands of an app in a folder, with three services."""

    def put(self, name: str, source: str) -> None:
        """Write a module of the app."""
        (Path(self.identity.root) / "shop" / f"{name}.py").write_text(source)


def service_file(name: str, summary: str = "") -> ServiceFile:
    """The file of a service."""
    source = f'"""{summary}."""'.encode()
    return ServiceFile(name, f"services.{name}", f"services/{name}.py", "services", lambda: source)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An app named shop."""
    folder = tmp_path / "shop"
    folder.mkdir()
    app = new_module("shop")
    app.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "shop", app)
    monkeypatch.setattr(logs, "add_context", lambda _: None)
    monkeypatch.setattr(logs, "keep_handlers", lambda: None)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    for part in ("commands", "lifespans", "observers"):
        monkeypatch.setattr(EXTENSIONS, part, type(getattr(EXTENSIONS, part))())
    one = Shop(app, Identity("shop", "1", str(tmp_path)), Settings(), (), process=True)
    one.files = Catalogue({name: service_file(name, f"The {name}") for name in ("api", "database")})
    yield one
    for name in [name for name in sys.modules if name.startswith("shop.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


# -- modules of the app ------------------------------------------------------------------------------------------


def test_a_module_that_is_not_there_is_not_missed(shop: Shop) -> None:
    """An app may have neither commands nor an init."""
    shop._import("init")
    assert "shop.init" not in sys.modules


def test_a_module_that_is_there_is_imported(shop: Shop) -> None:
    """Once."""
    shop.put("commands", "count = 1")
    shop._import("commands")
    shop._import("commands")
    assert sys.modules["shop.commands"].count == 1


@pytest.mark.parametrize(
    "source",
    [
        "raise OSError('no disk')",
        "import no_such_module_anywhere",
        "import shop.nothing",
        "raise ImportError('odd', name='shop.init')",
        "raise LookupError",
        "1 +",
    ],
)
def test_a_module_that_is_broken(shop: Shop, source: str) -> None:
    """The error names its file, and has the cause."""
    shop.put("init", source)
    with pytest.raises(NotImportable, match=r"shop/init\.py") as caught:
        shop._import("init")
    assert caught.value.__cause__ is not None


def test_a_module_with_a_problem_of_ours(shop: Shop) -> None:
    """It is told as it is."""
    shop.put("init", "from kernel.errors import NamingError\nraise NamingError('taken')")
    with pytest.raises(NamingError, match=r"^taken$"):
        shop._import("init")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_the_users_from_then_on(shop: Shop, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    """What the kernel itself has made is kept out of it, if it was off until now; otherwise it is left alone."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    shop.put("init", "import gc\nenabled = gc.isenabled()")
    try:
        if not enabled:
            gc.disable()
        shop._import_init()
        assert gc.isenabled()
    finally:
        gc.enable()
    assert sys.modules["shop.init"].enabled
    assert frozen == [False] * (not enabled)


# -- run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [True, False])
def test_run(shop: Shop, monkeypatch: pytest.MonkeyPatch, process: bool) -> None:
    """Everything is prepared by the run itself: init, plan, calls, lifespans; the end is the process's, or not."""
    shop.process = process
    shop.put("init", "")
    did: list[Any] = []
    made = SimpleNamespace(units=["unit"], warnings=["odd"])

    def plan(service: Any, *, with_dependencies: bool) -> Any:
        did.append(("plan", service, with_dependencies, "shop.init" in sys.modules))
        return made

    def connected(units: Any, *others: Any, export: bool) -> Any:
        assert others == (shop.settings, shop.identity, "outside")
        return [*units, f"exports {export}"]

    def execute(settings: Any, prepare: Callable[[], Any], outside: Any, **options: Any) -> int:
        assert (settings, outside) == (shop.settings, "outside")
        did.append((prepare(), options))
        return 7

    monkeypatch.setattr(Shop, "_plan", lambda _, *given, **named: plan(*given, **named))
    monkeypatch.setattr(Shop, "_outside", lambda _, *, serve: "outside" if serve else "")
    monkeypatch.setattr(runner, "connected", connected)
    monkeypatch.setattr(runner, "around", lambda units, lifespans, where: (units, lifespans, where))
    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.delenv("KERNEL_DEV_GATE", raising=False)
    assert shop._run("api", with_dependencies=True) == 7
    assert did == [
        ("plan", ("api",), True, True),
        (
            ((["unit", "exports True"], EXTENSIONS.lifespans, "shop/init.py"), ["odd"]),
            {"to_the_end": process, "observers": EXTENSIONS.observers},
        ),
    ]


def test_run_under_a_watcher_waits_for_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is prepared, and before anything begins."""
    did: list[str] = []

    class Gate:
        def __init__(self, environ: Any) -> None:
            assert environ["KERNEL_DEV_GATE"] == "7"
            did.append("gate")

        def wait(self, backend: str) -> None:
            did.append(f"waits {backend}")

    made = SimpleNamespace(units=[], warnings=[])
    monkeypatch.setenv("KERNEL_DEV_GATE", "7")
    monkeypatch.setattr("kernel.process.gate.Gate", Gate)
    monkeypatch.setattr(Shop, "_plan", lambda *_, **__: (did.append("plan"), made)[1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(Shop, "_outside", lambda *_, **__: None)
    monkeypatch.setattr(runner, "connected", lambda units, *_, **__: units)
    monkeypatch.setattr(runner, "around", lambda *_: did.append("around"))
    monkeypatch.setattr(runner, "execute", lambda _, prepare, *__, **___: len(prepare()))
    assert shop._run() == 2
    assert did == ["gate", "plan", "waits asyncio", "around"]


def test_what_a_plan_is_made_of(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names on the command line, or what is enabled; the errors of the settings are its own."""
    given: list[Any] = []
    monkeypatch.setattr(selection, "make_plan", lambda *args, **named: given.append((args[2:], named)))
    shop.settings = Settings(enabled=("database",))
    shop.wrong = (NamingError("x"),)
    shop._plan(("api",), with_dependencies=True)
    shop._plan(())
    assert given == [
        ((("api",), "command line"), {"with_dependencies": True, "errors": shop.wrong}),
        ((("database",), "SERVICES_ENABLED"), {"with_dependencies": False, "errors": shop.wrong}),
    ]


# -- list, graph, env --------------------------------------------------------------------------------------------


def test_list(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, in columns."""
    shop.files["x"] = service_file("x")
    shop.settings = Settings(enabled=("!api",))
    shop._list()
    assert capsys.readouterr().out == (
        "api       left out  The api\ndatabase  enabled   The database\nx         enabled\n"
    )


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the selection finds: services, the errors of their files, and those between them."""
    found = SimpleNamespace(services={"api": "service"}, errors=[], misfits=[], unreadable=[], loaded=[])

    def load(_: Any, names: Any, *, with_dependencies: bool) -> Any:
        found.loaded.append((list(names), with_dependencies))
        return found.services, (), found.errors

    monkeypatch.setattr(selection, "load_selected", load)
    monkeypatch.setattr(
        selection, "registry_of", lambda *_: SimpleNamespace(check=lambda: (found.misfits, ["warning"]))
    )
    monkeypatch.setattr("kernel.plan.drawing.draw", lambda services, style: f"{style} of {services}")
    monkeypatch.setattr(environment, "variables_of", lambda services, _: [*services])
    monkeypatch.setattr(environment, "unreadable", lambda _: found.unreadable)
    monkeypatch.setattr("kernel.plan.environment_formats.FORMATS", {"json": lambda *found: found})
    monkeypatch.setattr(Surroundings, "of", lambda *_: Surroundings({}, found.file))
    found.file = {}
    return found


@pytest.mark.parametrize("command", ["graph", "env"])
def test_what_is_shown(shop: Shop, plan: Any, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Of what is named alone; that others would be needed does not matter."""
    shop.settings = Settings(enabled=("database",))
    from kernel.errors import LeftOutError

    plan.misfits = [LeftOutError("left out")]
    getattr(shop, f"_{command}")("api", format="json")
    getattr(shop, f"_{command}")(format="json")
    assert plan.loaded == [(["api"], False), (["database"], False)]
    shown = "json of {'api': 'service'}" if command == "graph" else "(['api'], 'shop')"
    assert capsys.readouterr().out == f"{shown}\n" * 2


@pytest.mark.parametrize("command", ["graph", "env"])
@pytest.mark.parametrize("kind", ["errors", "misfits", "unreadable"])
def test_what_is_wrong_with_what_is_shown(
    shop: Shop, plan: Any, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    """It is reported; a drawing would be wrong, but the variables that are known are told first."""
    setattr(plan, kind, [NamingError("wrong")])
    if (command, kind) == ("graph", "unreadable"):
        shop._graph("api", format="json")
        return
    with pytest.raises(NamingError, match="wrong"):
        getattr(shop, f"_{command}")("api", format="json")
    assert bool(capsys.readouterr().out) == (command == "env")


def test_a_file_of_variables_that_is_not_loaded(shop: Shop, plan: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is worth a warning."""
    plan.file = {"API_KEY": "x", "API_URL": "y"}
    shop._env("api", format="json")
    (text,) = caplog.messages
    assert (
        text == ".env is not loaded: it contains API_KEY, API_URL, which is not set; recipes such as `just env` load it"
    )


# -- check -------------------------------------------------------------------------------------------------------


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a check finds, and what it was given."""
    found = SimpleNamespace(warnings=[], errors=[], apart="", given=[])

    def find(_: Any, __: Any, patterns: Any, deadline: float, errors: Any, *, names: Any, settings: bool) -> Any:
        found.given.append((patterns, deadline, [str(error) for error in errors], [*names], settings))
        return found

    monkeypatch.setattr(check, "check", find)
    return found


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), ["2 services checked, no problems"]),
        (("api",), ["1 service checked, no problems"]),
        (("*",), ["odd", "odder", "2 services checked, no problems, 2 warnings"]),
        ((), ["odd", "2 services checked, no problems, 1 warning; one apart"]),
    ],
)
def test_check(shop: Shop, findings: Any, capsys: pytest.CaptureFixture[str], names: Any, told: list[str]) -> None:
    """Of all, or of some; what works, but not as its author may think, comes first."""
    *findings.warnings, last = told
    findings.apart = last.partition("; ")[2]
    shop.settings = Settings(enabled=("api",), shutdown_timeout=7.0)
    assert shop._check(*names) == 0
    assert capsys.readouterr().out == "".join(f"warning: {one}\n" for one in findings.warnings) + f"{last}\n"
    chosen = [name for name in shop.files if name in names or "*" in names]
    assert findings.given == [((("api",), "SERVICES_ENABLED"), 7.0, [], chosen, True)]


def test_check_without_what_the_environment_says(shop: Shop, findings: Any) -> None:
    """Then wrong settings do not matter."""
    shop.wrong = (NamingError("setting"),)
    shop._check()
    shop._check(settings=False)
    assert [given[2:] for given in findings.given] == [(["setting"], [], True), ([], [], False)]


def test_check_finds_errors(shop: Shop, findings: Any) -> None:
    """They are raised together."""
    findings.errors = [NamingError("a"), NamingError("b")]
    with pytest.raises(Problems):
        shop._check()


def test_check_of_the_apps_own_modules(shop: Shop, findings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is broken is told, and each command that cannot be."""

    def refuse(_: Any, name: str, fn: Any) -> Any:
        if name != "good":
            raise NamingError(f"{name} is refused")
        return fn

    monkeypatch.setattr(Shop, "_user_command", refuse)
    shop.put("init", "raise OSError('one')")
    shop.put("commands", "raise OSError('two')")
    EXTENSIONS.commands |= {"good": print, "bad": print, "worse": print}
    shop._check()
    told = findings.given[0][2]
    assert len(told) == 4
    for text, error in zip(
        ("shop/init.py", "shop/commands.py", "bad is refused", "worse is refused"), told, strict=True
    ):
        assert text in error


# -- call, version -----------------------------------------------------------------------------------------------


def test_call(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With settings that are right."""
    given: list[Any] = []
    monkeypatch.setattr("kernel.calls.command.call", lambda *args: (given.append(args), 3)[1])  # type: ignore[func-returns-value]
    assert shop._call("users.get", timeout=2.0) == 3
    assert given == [(None, "shop", "users.get", "{}", 2.0)]
    shop.wrong = (PlanError("wrong"),)
    with pytest.raises(PlanError):
        shop._call("users.get")


def test_version(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, version, and where it comes from."""
    shop._version()
    assert capsys.readouterr().out == "shop 1 (tree)\n"


def test_files_are_looked_for_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the app's folder; what a build has left out counts as existing."""
    looked: list[Any] = []
    found = dict(shop.files)
    del shop.files
    monkeypatch.setattr(discovery, "find_services", lambda *where: (looked.append(where), found)[1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(Identity, "stamp", {"left-out": ["gone"]})
    assert shop.files == found
    assert shop.files.absent == ("gone",)
    assert [where[0] for where in looked] == [shop.identity.root]
    assert "run" in looked[0][1]
