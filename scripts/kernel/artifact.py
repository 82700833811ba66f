"""Collect the contents of an artifact: the app's code, its packages, and a stamp that describes it.

The code is what git tracks or would track. The packages come from .venv; each of their files must match the RECORD of
its wheel. Code and packages that only excluded services import are left out, as are packages that only the groups `dev`
and `template` require.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path, PurePosixPath
from typing import Any, Self

import attrs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lock import pins, read_project
from recipe import Refusal, commit_of_head, git, project_files

NEVER = frozenset({"dev", "template"})  # groups of packages that only tests and tools need
UNWANTED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")  # they depend on this machine
STAMP = "build.json"
LEFTOVER = re.compile(
    r"(^|/)(\.#[^/]*|#[^/]*#|\._[^/]*|\.[^/]*\.sw[a-p]|[^/]*~|\.DS_Store)$"
)  # files left by editors and operating systems


class File(bytes):
    """The content of a file, and whether it is executable."""

    executable = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the file at *path*."""
        file = cls(path.read_bytes())
        file.executable = bool(path.stat().st_mode & 0o100)
        return file

    @classmethod
    def of(cls, stamp: Mapping[str, object]) -> Self:
        """Return *stamp* as build.json."""
        return cls(json.dumps(stamp, indent=1, sort_keys=True).encode() + b"\n")


@attrs.frozen
class Contents:
    """The contents of an artifact.

    Args:
        stamp: The contents of build.json.
        code: The app's own files by path, including the metadata of an installed distribution.
        packages: The distributions it needs, in alphabetical order.

    """

    stamp: Mapping[str, object]
    code: Mapping[str, File]
    packages: tuple[Distribution, ...]

    @property
    def time(self) -> datetime:
        """The time of the commit, which all files in the artifact get."""
        return datetime.fromtimestamp(int(str(self.stamp["time"])), UTC)


def collect(root: Path, services: str) -> Contents:
    """Return the contents of an artifact of the project at *root*.

    Args:
        root: The project.
        services: Names and patterns like in SERVICES_ENABLED; empty for all.

    Raises:
        Refusal: There is no commit, no such service, or a package differs from the lock.

    """
    if str(root) not in sys.path:  # a script has its own folder on the path
        sys.path.append(str(root))
    from kernel.errors import PlanError
    from kernel.plan.discovery import Catalogue, find_services
    from kernel.plan.selection import select

    own = [path for path in project_files(root) if (root / path).is_file()]
    own = [path for path in own if path.split("/")[0] in {"kernel", "app", "services"} and not LEFTOVER.search(path)]
    _refuse_links(root, own)
    try:
        files = find_services(str(root))
        tracked = Catalogue({name: file for name, file in files.items() if _path_of(file.module, own)})
        patterns = [pattern.strip() for pattern in services.split(",") if pattern.strip()] or None
        kept = select(tracked, patterns, "SERVICES")
    except PlanError as error:
        raise Refusal(str(error)) from None
    code = {path: File.read(root / path) for path in own}
    others = sorted(set(tracked) - set(kept))
    if others:
        _refuse_without_values(root, kept, others)
        begin = [path for path in code if not path.startswith("services/")]
        begin += [path for name in kept for path in _files_of(tracked[name].module, own)]
        code = {path: code[path] for path in _with_data(_with_helpers(begin, code), own)}
    left_out = {path: (root / path).read_bytes() for path in own if path not in code}
    packages = _packages(root, code, left_out)
    code["pyproject.toml"] = File.read(root / "pyproject.toml")
    code |= _metadata(read_project(root)["project"])
    return Contents(_stamp(root, own, kept, others), dict(sorted(code.items())), packages)


def _refuse_links(root: Path, own: Iterable[str]) -> None:
    """Raise `Refusal` for a link to a file outside the project, or to one that the project must not ship."""
    known: set[Path] = set()
    for path in own:
        if (root / path).is_symlink():
            known = known or {(root / file).resolve() for file in project_files(root) if not (root / file).is_symlink()}
            if (root / path).resolve() not in known:
                raise Refusal(
                    f"{path} is a link to {(root / path).readlink()}, which git does not track here, and which would"
                    " be shipped; put a file in its place"
                )


def _refuse_without_values(root: Path, kept: Sequence[str], others: Collection[str]) -> None:
    """Raise `Refusal` if a service needs the value of an excluded service: it could never start.

    Values that are interfaces may be called in another process.

    The services are imported in a separate process to find out. If that fails, for example because a device exists only
    on the server, warn that this was not checked.
    """
    command = [sys.executable, "-m", "app", "graph", "--format=json", *kept]
    env = {name: value for name, value in os.environ.items() if name not in {"LOG_FORMAT", "PYTHONPATH"}}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        why = next((line for line in done.stderr.splitlines() if line.startswith("error: ")), "error: it fails")
        say = f"could not check whether the services have everything they need: {why.removeprefix('error: ')}"
        print(f"warning: {say}", file=sys.stderr)
        return
    graph = json.loads(done.stdout[done.stdout.index("{\n") :])  # skip what services print when imported
    missing = {
        name: [
            at
            for at, kind in facts["depends"].items()
            if kind == "value" and at in {*others} - {*facts["optional"], *facts["interfaces"]}
        ]
        for name, facts in graph.items()
    }
    told = [f"{name} needs the value of {' and '.join(some)}" for name, some in missing.items() if some]
    if told:
        wanted = ",".join(sorted({*kept, *(name for some in missing.values() for name in some)}))
        raise Refusal(
            f"{'; '.join(told)}, which SERVICES excludes, so it could not start; set SERVICES={wanted}, or give the"
            " parameter a default"
        )


def _metadata(project: Mapping[str, Any]) -> dict[str, File]:
    """Return the app's metadata as a distribution, so that importlib.metadata finds it as in .venv."""
    version = str(project.get("version", "0"))
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {version}"]
    lines += [f"Summary: {project['description']}"] if "description" in project else []
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", ())]
    groups = {"console_scripts": project.get("scripts", {}), "gui_scripts": project.get("gui-scripts", {})}
    groups |= project.get("entry-points", {})
    points = [
        "".join([f"[{group}]\n", *(f"{name} = {value}\n" for name, value in names.items())])
        for group, names in groups.items()
        if names
    ]
    folder = f"{re.sub('[-_.]+', '_', project['name'])}-{version}.dist-info"
    files = {"METADATA": "\n".join([*lines, ""]), "entry_points.txt": "\n".join(points)}
    return {f"{folder}/{name}": File(text.encode()) for name, text in files.items()}


def _stamp(root: Path, own: Iterable[str], kept: list[str], others: list[str]) -> dict[str, object]:
    commit = commit_of_head(root)
    project = read_project(root)["project"]
    newest = max(int((root / path).stat().st_mtime) for path in own)
    return {
        "name": project["name"],
        "version": str(project.get("version", "0")),
        "commit": commit,
        "dirty": bool(commit and git("status", "--porcelain", "--", ".", root=root).strip()),
        "time": _time_of(git("cat-file", "commit", commit, root=root)) if commit else newest,
        "services": kept,
        "left-out": others,
        "python": project["requires-python"].removeprefix(">="),
        "platform": sysconfig.get_platform(),
    }


def _time_of(commit: str) -> int:
    """Return the time of a commit, in seconds since 1970, from the object itself, which no git setting changes."""
    return next(int(line.split()[-2]) for line in commit.splitlines() if line.startswith("committer "))


# -- the app's own code ------------------------------------------------------------------------------------------


def _path_of(module: str, paths: Iterable[str]) -> str:
    base = module.replace(".", "/")
    return next((path for path in paths if path in {f"{base}.py", f"{base}/__init__.py"}), "")


def _files_of(module: str, paths: Iterable[str]) -> list[str]:
    """Return the file of a module, or all files in the folder of a package."""
    base = module.replace(".", "/")
    return [path for path in paths if path == f"{base}.py" or path.startswith(f"{base}/")]


def _with_helpers(begin: Iterable[str], code: Mapping[str, bytes]) -> list[str]:
    """Return the files *begin*, and the modules in `services` that they import, directly or indirectly."""
    found = dict.fromkeys(begin)
    todo = list(found)
    while todo:
        path = todo.pop()
        for name in imports(path, code[path]):
            target = _path_of(name, code)
            files = _files_of(name, code) if target.endswith("__init__.py") else [target]
            for file in files if target.startswith("services/") else ():
                if file not in found:
                    found[file] = None
                    todo.append(file)
    return list(found)


def _with_data(kept: Collection[str], own: Iterable[str]) -> list[str]:
    """Return the files *kept*, and the data files beside them, including folders below them that contain no code."""
    code = [PurePosixPath(path) for path in own if path.endswith(".py")]
    folders = {path.parent for path in code}
    staying = {path.parent for path in code if str(path) in kept}
    found = list(kept)
    for path in own:
        home = next((folder for folder in PurePosixPath(path).parents if folder in folders), PurePosixPath("services"))
        if not path.endswith(".py") and path not in kept and home in staying:
            found.append(path)
    return found


def imports(path: str, source: bytes) -> set[str]:
    """Return the dotted names that a Python file imports, including names imported from a module."""
    if not path.endswith(".py"):
        return set()
    try:
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise Refusal(f"{path}:{error.lineno}: {error.msg}; fix the file, and build again") from None
    package = PurePosixPath(path).parent.parts
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


# -- the packages ------------------------------------------------------------------------------------------------


def _packages(root: Path, code: Mapping[str, bytes], left_out: Mapping[str, bytes]) -> tuple[Distribution, ...]:
    """Return the packages that the kept code or pyproject.toml requires, without those only for excluded services."""
    project = read_project(root)
    groups = project.get("dependency-groups", {})
    always = [Requirement(text) for text in project["project"].get("dependencies", ())]
    grouped = [
        Requirement(text)
        for name, texts in groups.items()
        if name not in NEVER
        for text in texts
        if isinstance(text, str)
    ]
    providers = _providers()
    used = {name for path, source in code.items() for name in _provided(imports(path, source), providers)}
    unused = {name for path, source in left_out.items() for name in _provided(imports(path, source), providers)} - used
    allowed = _closure([*always, *grouped])
    wanted = [requirement for requirement in always if canonicalize_name(requirement.name) not in unused]
    wanted += [requirement for requirement in grouped if canonicalize_name(requirement.name) in used]
    named = {canonicalize_name(requirement.name) for requirement in wanted}
    wanted += [Requirement(name) for name in sorted(used & allowed.keys() - named)]
    found = _closure(wanted)
    locked = pins((root / "scripts" / "requirements.lock").read_text())
    for name, package in found.items():
        if package.version not in locked.get(name, "").split(" and "):
            raise Refusal(
                f"{name} {package.version} in .venv is not the version in scripts/requirements.lock; if"
                " you installed it by hand, `rm -r .venv`, and the next recipe recreates it; if the lock should"
                " contain it, `just lock`"
            )
    return tuple(found[name] for name in sorted(found))


def _providers() -> dict[str, set[str]]:
    """Return, by dotted name, the distributions that have files of a top-level module or of a package in it."""
    found: dict[str, set[str]] = {}
    for package in distributions():
        distribution_name = canonicalize_name(package.name)  # reads a file each time
        for file in package.files or ():
            parts = file.with_suffix("").parts if file.suffix in {".py", ".so"} else ()
            for depth in range(1, min(len(parts), 4) + 1):
                name = ".".join(part.split(".")[0] for part in parts[:depth])
                found.setdefault(name, set()).add(distribution_name)
    return found


def _provided(names: Iterable[str], providers: Mapping[str, set[str]]) -> set[str]:
    """Return the distributions of the imported *names*; in a shared namespace, the one with the longest match."""
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts), 0, -1):
            if owners := providers.get(".".join(parts[:depth])):
                found |= owners if len(owners) == 1 else set()
                break
    return found


def _closure(wanted: Iterable[Requirement]) -> dict[str, Distribution]:
    """Return the *wanted* distributions and all their requirements on this platform, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = list(wanted)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            raise Refusal(f"{name} is not in .venv; run `scripts/just --version`, which brings it up to date") from None
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in found[name].requires or ():
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    need.marker = None
                    todo.append(need)
    return found


def files_of(package: Distribution) -> dict[str, File]:
    """Return a distribution's files by path, as listed in its RECORD, without those that depend on this machine.

    Raises:
        Refusal: A file was changed since its installation, or the code is elsewhere on this machine.

    """
    if '"editable": true' in (package.read_text("direct_url.json") or ""):
        raise Refusal(
            f"{package.name} is installed as editable: its code is elsewhere on this machine; install its wheel"
        )
    found: dict[str, File] = {}
    for file in package.files or ():
        in_info = file.parts[0].endswith(".dist-info")
        if (
            ".." in file.parts
            or "__pycache__" in file.parts
            or (in_info and file.name in UNWANTED)
            or file.suffix == ".pyi"
        ):
            continue
        content = File.read(Path(str(package.locate_file(file))))
        if file.hash is not None:
            digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).decode().rstrip("=")
            if digest != file.hash.value:
                raise Refusal(f"{file} in .venv was changed since it was installed; delete .venv, and build again")
        found[file.as_posix()] = content
    return found
