"""What `just service` writes and refuses, in a small project; services are found, but none is imported."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import pytest

from tests.modules import new_module
from tests.scripts.imported import Imported
from tests.scripts.projects import REPO

PROJECT = """\
[project]
name = "my-app"
dependencies = ["Fastapi[all]>=1"]

[dependency-groups]
dev = ["httpx ; python_version > '3'", { include-group = "docs" }]
docs = ["redis"]
"""
SERVICE = '"""A service."""\n\nfrom kernel import service\n\n\n@service\nasync def {}() -> None: ...\n'


@pytest.fixture
def service(imported: Imported) -> Any:
    """The module, in a project of two services."""
    imported.write("pyproject.toml", PROJECT)
    imported.write("services/hello_world.py", SERVICE.format("hello_world"))
    imported.write("services/group/worker.py", SERVICE.format("worker"))
    imported.write("services/whole/__init__.py", SERVICE.format("whole"))
    return imported.load("service")


def add(service: Any, name: str, kind: str = "", age: str = "") -> None:
    """Make a service."""
    service.add({"NAME": name, "KIND": kind, "AGE": age})


@pytest.mark.parametrize("kind", ["", "plain", "http", "worker", "periodic", "program"])
def test_a_service_and_its_test(
    service: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Both have its name in each of its forms, and are formatted; packages that are missing are added first."""
    added: list[Any] = []
    monkeypatch.setattr(service, "add_packages", added.append)
    add(service, "big-billing", kind, "3")
    assert added == ([{"PKG": "uvicorn", "GROUP": "", "AGE": "3"}] if kind == "http" else [])
    texts = {}
    for path in ("services/big_billing.py", "tests/services/test_big_billing.py"):
        texts[path] = (imported.root / path).read_text()
        assert "my_service" not in texts[path].replace("-", "_").lower()
        assert "MyService" not in texts[path]
        compile(texts[path], path, "exec")
    code, test = texts.values()
    assert "def big_billing(" in code
    assert "from services.big_billing import" in test
    about = {"http": "fastapi", "worker": "redis", "periodic": "at regular intervals", "program": "program"}
    assert about.get(kind, "") in code
    assert capsys.readouterr().out == (
        "services/big_billing.py\ntests/services/test_big_billing.py\n"
        "The next `just run` starts big-billing; `just run big-billing` starts nothing else.\n"
    )


def test_packages_that_are_missing(service: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the service, and those of its test, in their groups."""
    imported.write("pyproject.toml", '[project]\nname = "my-app"\ndependencies = ["fast"]\n')
    added: list[Any] = []
    monkeypatch.setattr(service, "add_packages", added.append)
    add(service, "billing", "http")
    assert [(one["PKG"], one["GROUP"]) for one in added] == [("fastapi uvicorn", ""), ("httpx", "dev")]


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("", "", "a service needs a name; usage: just service NAME=billing KIND=http"),
        ("a_b", "", "is not a valid name for a service"),
        ("x", "periodical", "there is no kind 'periodical' of service; did you mean 'periodic'?"),
        ("x", "grpc", "there is no kind 'grpc' of service; there are: plain, http, worker, periodic, program"),
        ("class", "", "'class' is a word of Python, which the service's function would hide"),
        ("print", "", "'print' is a word of Python"),
        ("test-x", "", "'test-x' would count as a test, since it begins with `test`"),
        ("log", "", "the name 'log' is reserved by the kernel"),
        ("version", "", "the app has a command named 'version'"),
        ("anyio", "", "the service's file imports something named 'anyio'"),
        ("hello-world", "", r"there is a service 'hello-world' already, in services/hello_world\.py"),
        ("group-worker", "", r"there is a service 'group-worker' already, in services/group/worker\.py"),
        ("whole", "", "there is a service 'whole' already, in services/whole$"),
        ("group", "", "services/group exists already; choose another name, or move it away"),
        ("kept", "", r"tests/services/test_kept\.py exists already"),
    ],
)
def test_what_is_refused(service: Any, imported: Imported, name: str, kind: str, told: str) -> None:
    """The error says why; nothing is written."""
    imported.write("tests/services/test_kept.py", "")
    with pytest.raises(service.Refusal, match=told.replace("?", r"\?")):
        add(service, name, kind)
    assert {path.name for path in (imported.root / "services").iterdir()} == {"hello_world.py", "group", "whole"}
    assert [path.name for path in (imported.root / "tests" / "services").iterdir()] == ["test_kept.py"]


def test_commands_of_the_app(service: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service cannot have the name of one; commands that cannot be imported have to be fixed first."""
    monkeypatch.setitem(service.EXTENSIONS.commands, "seed", None)
    monkeypatch.setitem(sys.modules, "app", new_module("app"))
    monkeypatch.setitem(sys.modules, "app.commands", None)
    with pytest.raises(service.Refusal, match="the app has a command named 'seed'; choose another name"):
        add(service, "seed")
    imported.write("app/commands.py", "")
    with pytest.raises(
        service.Refusal, match=r"cannot import app/commands\.py \(ModuleNotFoundError: .*; fix it first"
    ):
        add(service, "billing")
    monkeypatch.setitem(sys.modules, "app.commands", new_module("app.commands"))
    add(service, "billing")


def test_services_that_cannot_be_found(service: Any, imported: Imported) -> None:
    """What is wrong is told, and has to be fixed first."""
    imported.write("services/hello-world.py", "")
    with pytest.raises(service.Refusal, match="; fix that first"):
        add(service, "billing")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("helo-world", "there is no service 'helo-world'; did you mean 'hello-world'"),
        ("zzz", "there is no service 'zzz'; there are: group-worker, hello-world, whole"),
        ("", "a service needs a name; usage: just service-remove NAME=billing"),
    ],
)
def test_a_service_that_is_not_there(service: Any, name: str, told: str) -> None:
    """The error says which ones are."""
    with pytest.raises(service.Refusal, match=told):
        service.remove({"NAME": name, "FORCE": ""})


def remove(service: Any, name: str, force: str = "") -> None:
    """Remove a service on which nobody depends."""
    service.remove({"NAME": name, "FORCE": force})


@pytest.mark.parametrize("name", ["hello-world", "whole"])
def test_a_removal(
    service: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The service and its test go, and nothing else; what is not committed goes by force, and is in a backup."""
    monkeypatch.setattr(service, "load_all", lambda _: ({}, []))
    for path in ("services/whole/helper.py", "services/wholesale.py", "tests/services/test_hello_world.py"):
        imported.write(path, SERVICE.format("wholesale"))
    imported.init()
    imported.write("services/hello_world.py", "# mine\n")
    imported.write("services/whole/helper.py", "# mine\n")
    mine, other = {
        "hello-world": ("services/hello_world.py", "tests/services/test_hello_world.py"),
        "whole": ("services/whole/helper.py", "services/whole/__init__.py"),
    }[name]
    with pytest.raises(service.Refusal, match=f"{mine} would be lost, since they are not committed; commit, or set"):
        remove(service, name)
    before = {path for path in imported.root.glob("*s/**/*") if path.is_file()}
    remove(service, name, "1")
    after = {path for path in imported.root.glob("*s/**/*") if path.is_file()}
    assert sorted(path.relative_to(imported.root).as_posix() for path in before - after) == sorted([mine, other])
    said = capsys.readouterr().out
    assert said.startswith("kept in a backup first: .kernel/backups/")
    assert sorted(said.splitlines()[1:]) == sorted([f"removed {mine}", f"removed {other}"])
    imported.commit()
    remove(service, "group-worker")
    assert "kept in a backup" not in capsys.readouterr().out


def test_a_removal_where_nothing_is_committed(
    service: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a commit, all of it would be lost."""
    monkeypatch.setattr(service, "load_all", lambda _: ({}, []))
    for _ in range(2):
        with pytest.raises(service.Refusal, match=r"hello_world\.py would be lost"):
            remove(service, "hello-world")
        imported.git("init", "-q")
    remove(service, "hello-world", "1")


def test_where_services_are_imported_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the project, before all else; once."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(REPO)])
    before = [*sys.path]
    for _ in range(2):
        runpy.run_path(str(REPO / "scripts" / "kernel" / "service.py"))
        assert sys.path == [str(REPO), *before]
