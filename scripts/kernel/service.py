"""`just service` and `just service-remove`: create or remove a service and its test."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from backup import make_backup
from deps import add as add_packages
from lock import read_project
from recipe import ROOT, Refusal, commit_of_head, git, is_yes, project_files, refuse_name, run, show
from staging import Change

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from kernel.cli.built_in import BUILT_IN
from kernel.declare.app import EXTENSIONS
from kernel.errors import PlanError, did_you_mean
from kernel.plan.discovery import RESERVED, ServiceFile, find_services, load_all

STUBS = Path(__file__).with_name("stubs")
OURS = 'lint.isort.known-first-party = ["services"]'  # ruff would look for the file, which does not exist yet
USE = "just service NAME=billing KIND=http"
KINDS: Mapping[str, tuple[str, str]] = {
    "plain": ("", ""),
    "http": ("fastapi uvicorn", "httpx"),
    "worker": ("redis", ""),
    "periodic": ("", ""),
    "program": ("", ""),
}
"""The packages that each kind of service needs, and those that its test needs."""
USE_REMOVE = "just service-remove NAME=billing"


def add(words: Mapping[str, str]) -> None:
    """Write `services/<name>.py` and its test, both or neither, after adding the packages that its kind needs."""
    name, kind = words["NAME"], words["KIND"] or "plain"
    refuse_name(name, "a service", USE)
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or f"there are: {', '.join(KINDS)}"
        raise Refusal(f"there is no kind {show(kind)} of service; {hint}")
    suffix = "" if kind == "plain" else f"_{kind}"
    made = {
        f"services/{module(name)}.py": f"service{suffix}.py.in",
        f"tests/services/test_{module(name)}.py": f"test_service{suffix}.py.in",
    }
    _refuse_taken(name, made)
    for packages, group in zip(KINDS[kind], ("", "dev"), strict=True):
        if missing := " ".join(package for package in packages.split() if package not in _required()):
            add_packages({"PKG": missing, "GROUP": group, "AGE": words["AGE"]})
    with Change(f"just service NAME={name}") as change:
        for path, stub in made.items():
            change.put(path, render(stub, name, path).encode())
        change.make(f"there is a service {name}.")
    service, test = made
    print(f"{service}\n{test}\nThe next `just run` starts {name}; `just run {name}` starts nothing else.")


def module(name: str) -> str:
    """Return the name of the service's module and function."""
    return name.replace("-", "_")


def render(stub: str, name: str, path: str) -> str:
    """Return the text of *stub* for a service named *name*, fixed and formatted by the project's linter for *path*."""
    text = (STUBS / stub).read_text()
    text = (
        text.replace("my_service", module(name)).replace("my-service", name).replace("MY_SERVICE", module(name).upper())
    )
    text = text.replace("MyService", "".join(part.capitalize() for part in name.split("-")))
    ruff = str(Path(sys.executable).with_name("ruff"))
    for words in ["check", "--fix-only", "--config", OURS], ["format"]:
        command = [ruff, *words, "--quiet", "--stdin-filename", path, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    return text


def _refuse_taken(name: str, made: Mapping[str, str]) -> None:
    """Raise `Refusal` if the service could not be imported, or would be mistaken for something else."""
    identifier = module(name)
    if keyword.iskeyword(identifier) or identifier in dir(builtins):
        raise Refusal(f"{name!r} is a word of Python, which the service's function would hide; choose another name")
    if name.startswith("test"):
        raise Refusal(f"{name!r} would count as a test, since it begins with `test`; choose another name")
    if name in RESERVED:
        raise Refusal(f"the name {name!r} is reserved by the kernel; choose another name")
    if name in BUILT_IN or name in _own_commands():
        raise Refusal(f"the app has a command named {name!r}; choose another name")
    if identifier in _imported_by_the_stubs(made.values()):
        raise Refusal(f"the service's file imports something named {identifier!r}; choose another name")
    services = _services()
    if name in services:
        raise Refusal(f"there is a service {name!r} already, in {_path(services[name])}")
    for path in (*made, f"services/{identifier}"):
        if (ROOT / path).exists():
            raise Refusal(f"{path} exists already; choose another name, or move it away")


def _required() -> set[str]:
    """Return the packages that the project requires, in any group."""
    project = read_project()
    lines = [*project["project"]["dependencies"], *chain(*project.get("dependency-groups", {}).values())]
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines if isinstance(line, str)}


def _imported_by_the_stubs(stubs: Iterable[str]) -> set[str]:
    """Return the names that the files of a new service define or import."""
    names: set[str] = set()
    for stub in stubs:
        for node in ast.walk(ast.parse((STUBS / stub).read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names - {"my_service"}


def _own_commands() -> Mapping[str, object]:
    """Return the commands that app/commands.py defines."""
    if (ROOT / "app" / "commands.py").exists():
        try:
            __import__("app.commands")
        except Exception as error:
            raise Refusal(f"cannot import app/commands.py ({type(error).__name__}: {error}); fix it first") from error
    return EXTENSIONS.commands


def _services() -> dict[str, ServiceFile]:
    try:
        return find_services(str(ROOT), BUILT_IN)
    except PlanError as error:
        raise Refusal(f"{error}; fix that first") from error


def _path(file: ServiceFile) -> str:
    """Return where a service is: its file, or its folder if it is a package."""
    path = file.module.replace(".", "/")
    return f"{path}.py" if (ROOT / f"{path}.py").is_file() else path


def remove(words: Mapping[str, str]) -> None:
    """Remove a service and its test, both or neither."""
    name, force = words["NAME"], is_yes(words["FORCE"], "FORCE")
    refuse_name(name, "a service", USE_REMOVE)
    services = _services()
    if name not in services:
        hint = did_you_mean(name, services) or f"there are: {', '.join(services) or 'none'}"
        raise Refusal(f"there is no service {name!r}; {hint}")
    file = services[name]
    paths = [_path(file), f"tests/services/test_{module(name)}.py"]
    gone = [
        path for path in project_files() if any(path == folder or path.startswith(f"{folder}/") for folder in paths)
    ]
    changed = gone  # if there is no commit
    if commit_of_head():
        status = git("status", "--porcelain", "-uall", "-z", "--", *paths).split("\0")
        changed = [line[3:] for line in status if line]
    dependents = [] if force else _dependents(name, services)
    if dependents:
        raise Refusal(f"{' and '.join(dependents)} depend on {name}; change them first, or set FORCE=1")
    if changed and not force:
        raise Refusal(f"{' and '.join(changed)} would be lost, since they are not committed; commit, or set FORCE=1")
    if changed:
        print(f"kept in a backup first: {make_backup()}")
    with Change(f"just service-remove NAME={name}") as change:
        for path in gone:
            change.remove(path)
        change.make(f"the service {name} is gone.")
    print("\n".join(f"removed {path}" for path in gone))


def _dependents(name: str, services: Mapping[str, ServiceFile]) -> list[str]:
    """Return the services that depend on the service *name*. All other services are imported to find out."""
    others = {other: file for other, file in services.items() if other != name}
    loaded, errors = load_all(others)
    found: list[str] = []
    for other, service in loaded.items():
        try:
            found += [other] if name in {edge.target for edge in service.needs.edges} else []
        except PlanError as error:
            errors.append(error)
    if errors:
        raise Refusal(f"cannot tell which services depend on {name}: {errors[0]}; fix that first, or set FORCE=1")
    return found


if __name__ == "__main__":
    if sys.argv.pop(1) == "add":
        run("service", USE, add, "NAME", "KIND", "AGE")
    run("service-remove", USE_REMOVE, remove, "NAME", "FORCE")
