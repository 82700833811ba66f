"""What goes into an artifact, and the one file of it: the app's code, its packages, and a stamp that says what it is.

Code is what git tracks or would track. Packages come from .venv, where each file has to be as its wheel's RECORD says.
What only left-out services import stays out, as does what only a group named `dev` or `template` asks for.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.machinery
import io
import json
import marshal
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path, PurePosixPath

import attrs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lock import pins, read_project
from recipe import Refusal, commit_of_head, git, project_files

NEVER = frozenset({"dev", "template"})  # groups of what only tests and tools need
UNWANTED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")  # they tell of this machine
STAMP = "build.json"
MAIN = Path(__file__).with_name("pyz_main.py.in")
CODE = "__code__"  # the folder of bytecode in the file
NATIVE = "__native__"  # the folder of what has to be unpacked


@attrs.frozen
class Contents:
    """What an artifact holds.

    Args:
        stamp: What build.json says.
        code: The app's own files, by path.
        packages: The distributions it needs, in the order of their names.

    """

    stamp: Mapping[str, object]
    code: Mapping[str, bytes]
    packages: tuple[Distribution, ...]

    @property
    def time(self) -> datetime:
        """When the commit was made; all that is in the file bears it."""
        return datetime.fromtimestamp(int(str(self.stamp["time"])), UTC)


def collect(root: Path, services: str) -> Contents:
    """What the artifact of the project at *root* holds.

    Args:
        root: The project.
        services: Names and patterns as in SERVICES_ENABLED; empty for all.

    Raises:
        Refusal: There is no commit, no such service, or a package is not as the lock says.

    """
    if str(root) not in sys.path:  # as a script, this has its own folder there
        sys.path.append(str(root))
    from kernel.errors import PlanError
    from kernel.plan.discovery import Catalogue, find_services
    from kernel.plan.selection import select

    own = [path for path in project_files(root) if (root / path).is_file()]
    own = [path for path in own if path.split("/")[0] in {"kernel", "app", "services"}]
    try:
        files = find_services(str(root))
        tracked = Catalogue({name: file for name, file in files.items() if _path_of(file.module, own)})
        patterns = [one.strip() for one in services.split(",") if one.strip()] or None
        kept = select(tracked, patterns, "SERVICES")
    except PlanError as error:
        raise Refusal(str(error)) from None
    code = {path: (root / path).read_bytes() for path in own}
    if len(kept) < len(tracked):
        begin = [path for path in code if not path.startswith("services/")]
        begin += [path for name in kept for path in _files_of(tracked[name].module, own)]
        code = {path: code[path] for path in _with_helpers(begin, code)}
    others = sorted(set(tracked) - set(kept))
    left_out = {path: (root / path).read_bytes() for path in own if path not in code}
    packages = _packages(root, code, left_out)
    code["pyproject.toml"] = (root / "pyproject.toml").read_bytes()
    return Contents(_stamp(root, own, kept, others), dict(sorted(code.items())), packages)


def _stamp(root: Path, own: Iterable[str], kept: list[str], others: list[str]) -> dict[str, object]:
    commit = commit_of_head(root)
    project = read_project(root)["project"]
    newest = max(int((root / path).stat().st_mtime) for path in own)
    return {
        "name": project["name"],
        "version": str(project.get("version", "0")),
        "commit": commit,
        "dirty": bool(commit and git("status", "--porcelain", "--", ".", root=root).strip()),
        "time": int(git("log", "-1", "--format=%ct", root=root)) if commit else newest,
        "services": kept,
        "left-out": others,
        "python": project["requires-python"].removeprefix(">="),
        "platform": sysconfig.get_platform(),
    }


# -- the app's own code ------------------------------------------------------------------------------------------


def _path_of(module: str, paths: Iterable[str]) -> str:
    base = module.replace(".", "/")
    return next((path for path in paths if path in {f"{base}.py", f"{base}/__init__.py"}), "")


def _files_of(module: str, paths: Iterable[str]) -> list[str]:
    """The files of a module; of a package, all that is in its folder."""
    base = module.replace(".", "/")
    return [path for path in paths if path == f"{base}.py" or path.startswith(f"{base}/")]


def _with_helpers(begin: Iterable[str], code: Mapping[str, bytes]) -> list[str]:
    """The files *begin*, and the modules of `services` that they import, and those import."""
    found = dict.fromkeys(begin)
    todo = list(found)
    while todo:
        path = todo.pop()
        for name in imports(path, code[path]):
            target = _path_of(name, code)
            files = _files_of(name, code) if target.endswith("__init__.py") else [target]
            for one in files if target.startswith("services/") else ():
                if one not in found:
                    found[one] = None
                    todo.append(one)
    return list(found)


def imports(path: str, source: bytes) -> set[str]:
    """The dotted names that a file of Python imports, wherever in it; what it takes from a module counts as well."""
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
    """What the kept code imports or pyproject.toml asks for, less what only left-out services import."""
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
    wanted = [one for one in always if canonicalize_name(one.name) not in unused]
    wanted += [one for one in grouped if canonicalize_name(one.name) in used]
    named = {canonicalize_name(one.name) for one in wanted}
    wanted += [Requirement(name) for name in sorted(used & allowed.keys() - named)]
    found = _closure(wanted)
    locked = pins((root / "scripts" / "requirements.lock").read_text())
    for name, one in found.items():
        if one.version not in locked.get(name, "").split(" and "):
            raise Refusal(f"{name} {one.version} in .venv is not what scripts/requirements.lock says; run `just lock`")
    return tuple(found[name] for name in sorted(found))


def _providers() -> dict[str, set[str]]:
    """The distributions that have files of a top-level module or of a package in it, by its dotted name."""
    found: dict[str, set[str]] = {}
    for one in distributions():
        distribution_name = canonicalize_name(one.name)  # each time that it is asked for, it reads a file anew
        for file in one.files or ():
            parts = file.with_suffix("").parts if file.suffix in {".py", ".so"} else ()
            for depth in range(1, min(len(parts), 4) + 1):
                name = ".".join(part.split(".")[0] for part in parts[:depth])
                found.setdefault(name, set()).add(distribution_name)
    return found


def _provided(names: Iterable[str], providers: Mapping[str, set[str]]) -> set[str]:
    """The distributions of imported *names*; of a namespace that several share, the one that has the longest part."""
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts), 0, -1):
            if owners := providers.get(".".join(parts[:depth])):
                found |= owners if len(owners) == 1 else set()
                break
    return found


def _closure(wanted: Iterable[Requirement]) -> dict[str, Distribution]:
    """What is *wanted* and what that needs on this platform, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = list(wanted)
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            raise Refusal(f"{name} is not in .venv; run `scripts/just --version`, which brings it up to date") from None
        for extra in ("", *one.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in found[name].requires or ():
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    need.marker = None
                    todo.append(need)
    return found


def files_of(package: Distribution) -> dict[str, bytes]:
    """A distribution's files by path, each as its RECORD says; without what tells of this machine.

    Raises:
        Refusal: A file is not as it was installed.

    """
    found: dict[str, bytes] = {}
    for file in package.files or ():
        in_info = file.parts[0].endswith(".dist-info")
        if (
            ".." in file.parts
            or "__pycache__" in file.parts
            or (in_info and file.name in UNWANTED)
            or file.suffix == ".pyi"
        ):
            continue
        if file.suffix == ".pth":
            raise Refusal(f"{package.name} needs {file}, which Python reads in a site-packages only; leave it out")
        content = Path(str(package.locate_file(file))).read_bytes()
        if file.hash is not None:
            digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).decode().rstrip("=")
            if digest != file.hash.value:
                raise Refusal(f"{file} in .venv was changed since it was installed; delete .venv, and build again")
        found[file.as_posix()] = content
    return found


def is_native(paths: Iterable[str]) -> bool:
    """Whether a distribution with these files has to lie in a folder."""
    return any(path.endswith((*importlib.machinery.EXTENSION_SUFFIXES, ".so")) or ".so." in path for path in paths)


# -- the file ----------------------------------------------------------------------------------------------------


def as_zip(contents: Contents, built: str, prefix: bytes = b"") -> bytes:
    """The artifact's one file: the same bytes for the same contents.

    Args:
        contents: What it holds.
        built: How, as `app version` tells.
        prefix: What stands before it, such as a line that names an interpreter.

    """
    entries = dict(contents.code)
    native: dict[str, bytes] = {}
    for package in contents.packages:
        files = files_of(package)
        (native if is_native(files) else entries).update(files)
    digest = hashlib.sha256()
    for path, content in sorted(native.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    stamp = {**contents.stamp, "built": built, "native": digest.hexdigest() if native else ""}
    tag = sys.implementation.cache_tag
    for path, content in sorted(entries.items()):
        if path.endswith(".py"):
            entries[f"{CODE}/{tag}/{path}c"] = _compiled(path, content)
    entries |= {f"{NATIVE}/{path}": content for path, content in native.items()}
    entries[STAMP] = (json.dumps(stamp, indent=1, sort_keys=True) + "\n").encode()
    entries["__main__.py"] = MAIN.read_bytes()
    folders = {f"{parent}/" for path in entries for parent in PurePosixPath(path).parents if parent.name}
    target = io.BytesIO()
    target.write(prefix)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted([*entries, *folders]):
            info = zipfile.ZipInfo(path, contents.time.timetuple()[:6])
            info.compress_type = zipfile.ZIP_STORED if path.endswith("/") else zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = (0o40755 << 16 | 0x10) if path.endswith("/") else 0o100644 << 16
            archive.writestr(info, entries.get(path, b""))
    return target.getvalue()


def _compiled(path: str, source: bytes) -> bytes:
    """The bytecode of a file; empty where this Python cannot compile it, as with one that is meant for another."""
    try:
        return marshal.dumps(compile(source, path, "exec", dont_inherit=True, optimize=0))
    except (SyntaxError, ValueError):
        return b""
