"""Find services by their files without importing them, and import the enabled ones.

One module or package in `services/` is one service, named after the file in kebab-case. A folder without
``__init__.py`` is a group: `services/billing/worker.py` is `billing-worker`. Names that begin with ``_`` and hidden
files are ignored. This works in a source tree and inside a zip file.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import keyword
import os
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from kernel.declare.service import SERVICE_NAME, Service
from kernel.errors import DeclarationError, NamingError, NotImportable, PlanError, Problems
from kernel.stacks import shorten

RESERVED = frozenset({"admin", "kernel", "log", "nats", "otel", "runner", "services", "env"})
"""Names that services cannot have, since the kernel uses them for variables or commands."""

PACKAGE = "services"


@attrs.frozen(repr=False)
class ServiceFile:
    """The file of a service.

    Args:
        name: The service's name.
        module: The module to import.
        path: Its file, as shown to people; a file in a zip has the zip's path as a prefix.
        folder: The path of `services`.
        read: Returns the source of the file.

    """

    name: str
    module: str
    path: str
    folder: str
    read: Callable[[], bytes] = attrs.field(eq=False, repr=False)

    @property
    def summary(self) -> str:
        """The first line of the module's docstring, without importing it; empty if there is none."""
        try:
            text = self.read()[:2000].decode("utf-8", "replace")
        except OSError:
            return ""
        found = re.match(r'(?:\s*#[^\n]*\n|\s*\n)*\s*[rR]?("""|\'\'\'|"|\')(.*?)(\1|\n|$)', text)
        return found[2].strip().rstrip(".") if found else ""


class _Folder:
    """The files below a folder, in a source tree or a zip, as relative paths with forward slashes.

    Hidden files are ignored: editors and operating systems leave locks and metadata.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def files(self) -> Iterable[str]:
        if os.path.isdir(self.path):  # noqa: PTH112  (pathlib costs 5 ms at every start)
            yield from self._walk("", (_identity(self.path),))
            return
        archive, inner = self._archive()
        if archive:
            import zipfile

            with zipfile.ZipFile(archive) as opened:
                prefix = f"{inner}/" if inner else ""
                names = sorted(name.removeprefix(prefix) for name in opened.namelist() if name.startswith(prefix))
            yield from (name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def _walk(self, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterable[str]:
        """Yield the files below *prefix*; *above* identifies its parent folders, which no link may lead back to."""
        folder = os.path.join(self.path, prefix)  # noqa: PTH118
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            where = shorten(folder.rstrip(os.sep))
            raise NamingError("the folder cannot be read", where=where, hint="let the app's user read it") from None
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                identity = _identity(entry.path)
                if identity in above:
                    hint = "delete it, or point it to a folder that does not contain it"
                    raise NamingError("the link leads back to a parent folder", where=shorten(entry.path), hint=hint)
                if not entry.name.startswith("__"):
                    yield from self._walk(f"{prefix}{entry.name}/", (*above, identity))
            else:
                if entry.name.endswith(".py"):
                    _refuse_no_file(entry)
                yield prefix + entry.name

    def _archive(self) -> tuple[str, str]:
        """Return the zip file that contains the folder, and the path inside it; empty strings if there is none."""
        head, inner = self.path, ""
        while head and not os.path.exists(head):  # noqa: PTH110
            head, _, tail = head.rpartition(os.sep)
            inner = f"{tail}/{inner}" if inner else tail
        return (head, inner) if os.path.isfile(head) else ("", "")  # noqa: PTH113

    def as_path(self) -> Any:
        """Return the folder as a `pathlib.Path`, or as a `zipfile.Path` if it is inside a zip file."""
        archive, inner = self._archive()
        if archive:
            import zipfile

            return zipfile.Path(archive, f"{inner}/")
        from pathlib import Path

        return Path(self.path)

    def read(self, relative: str) -> bytes:
        if os.path.isdir(self.path):  # noqa: PTH112
            with open(os.path.join(self.path, relative), "rb") as file:  # noqa: PTH118, PTH123
                return file.read()
        import zipfile

        archive, inner = self._archive()
        with zipfile.ZipFile(archive) as opened:
            return opened.read(f"{inner}/{relative}" if inner else relative)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _refuse_no_file(entry: os.DirEntry[str]) -> None:
    """Raise `NamingError` if reading the module would block forever, or fail with an obscure error."""
    where = shorten(entry.path)
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
        raise NamingError("the link is broken", where=where, hint="delete it, or point it to a file")
    if not entry.is_file():
        hint = "delete it, or give it a name that does not end with .py"
        raise NamingError("this is not a file but a pipe, a socket or a device", where=where, hint=hint)


def to_name(module: str) -> str:
    """Return the service's name for a dotted module name below `services`."""
    return module.replace(".", "-").replace("_", "-")


class Catalogue(dict[str, ServiceFile]):
    """The services by name, and the names of services that the artifact was built without (`absent`).

    Absent services count as existing: depending on one, or excluding it, is not a spelling mistake.
    """

    def __init__(self, files: Mapping[str, ServiceFile], absent: Iterable[str] = ()) -> None:
        super().__init__(files)
        self.absent = tuple(absent)


def find_services(root: str, taken: Collection[str] = ()) -> dict[str, ServiceFile]:
    """Return every service below ``<root>/services`` by name, sorted by name, without importing any.

    Args:
        root: The folder, or the path in a zip file, that holds `services`.
        taken: The names of the app's commands.

    Raises:
        NamingError: A name is malformed, reserved, taken or used twice, or part of the folder cannot be read.

    """
    folder = _Folder(os.path.join(root, PACKAGE))  # noqa: PTH118
    files = [name for name in folder.files() if name.endswith(".py")]
    packages = {name.removesuffix("/__init__.py") for name in files if name.endswith("/__init__.py")}
    found: dict[str, ServiceFile] = {}
    errors: list[PlanError] = []
    for file in files:
        parts = file.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        inside = any("/".join(parts[:depth]) in packages for depth in range(1, len(parts)))
        if inside or not parts or any(part.startswith("_") for part in parts):
            continue
        module = ".".join(parts)
        path = os.path.join(folder.path, *file.split("/"))  # noqa: PTH118
        read = functools.partial(folder.read, file)
        service = ServiceFile(to_name(module), f"{PACKAGE}.{module}", shorten(path), folder.path, read)
        error = _refuse_name(service, parts, taken) or _refuse_twin(service, found.get(service.name))
        if error:
            errors.append(error)
        else:
            found[service.name] = service
    Problems.raise_any(errors)
    return dict(sorted(found.items()))


def _refuse_name(service: ServiceFile, parts: Iterable[str], taken: Collection[str]) -> NamingError | None:
    name, where = service.name, service.path
    for part in parts:
        if not part.isidentifier() or keyword.iskeyword(part):
            return NamingError(
                f"{part!r} is not a valid module name", where=where, hint="rename it, for example to my_service.py"
            )
    if not SERVICE_NAME.fullmatch(name):
        return NamingError(
            f"{name!r} is not a valid service name", where=where, hint="use lower-case letters, digits and underscores"
        )
    if name in RESERVED:
        return NamingError(f"the name {name!r} is reserved", where=where, hint="rename the file")
    if name in taken:
        return NamingError(f"the app has a command named {name!r}", where=where, hint="rename the file")
    return None


def _refuse_twin(service: ServiceFile, twin: ServiceFile | None) -> NamingError | None:
    if twin is None:
        return None
    return NamingError(
        f"two services are named {service.name!r}", where=f"{twin.path} and {service.path}", hint="rename one of them"
    )


def load(file: ServiceFile) -> Service[..., Any]:
    """Import the module of *file*, and return its service under the file's name.

    Raises:
        NotImportable: The import failed; the cause is chained.
        DeclarationError: The module contains no service, several, or one that is declared wrongly.

    """
    try:
        module = _import(file)
    except PlanError:
        raise  # errors from the decorator already say where
    except Exception as error:
        raise not_importable(f"service {file.name!r}", file.module, file.path, error) from error
    except SystemExit as error:
        raise NotImportable(
            f"service {file.name!r} called sys.exit({error.code}) when imported", where=file.path
        ) from error
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, Service) and _belongs(value.fn.__module__, file.module)
    ]
    services = list(dict.fromkeys(own))
    if len(services) > 1:
        names = ", ".join(service.fn.__name__ for service in services)
        raise DeclarationError(
            f"{len(services)} services in one file: {names}", where=file.path, hint="move each to a separate file"
        )
    if not services:
        raise _no_service(file)
    return services[0].named(file.name)


def _belongs(module: str, owner: str) -> bool:
    return module == owner or module.startswith(f"{owner}.")


def _import(file: ServiceFile) -> types.ModuleType:
    """Import the module from the file that was found, instead of searching sys.path.

    The parent packages are created here, not searched for: another folder on sys.path may also be called `services`,
    and a zip file need not contain entries for folders.
    """
    groups = file.module.split(".")[:-1]  # `services` itself, and the folders in it
    for depth in range(1, len(groups) + 1):
        name = ".".join(groups[:depth])
        if name not in sys.modules:
            sys.modules[name] = _make_group(name, os.sep.join((file.folder, *groups[1:depth])))  # noqa: PTH118
    return importlib.import_module(file.module)


def _find_nothing(*_: Any) -> Any:
    """Find nothing: used as the path finder of a group, whose path never changes."""


class _GroupLoader(importlib.machinery.NamespaceLoader):
    """Makes a folder without ``__init__.py`` a package, with data files for `importlib.resources.files`."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, [path], _find_nothing)
        self._folder = _Folder(path)

    def get_resource_reader(self, module: types.ModuleType) -> Any:  # noqa: ARG002  (each group has its own loader)
        """Return the resource reader of the folder, for `importlib.resources`."""
        return types.SimpleNamespace(files=self._folder.as_path)


def _make_group(name: str, path: str) -> types.ModuleType:
    spec = importlib.machinery.ModuleSpec(name, _GroupLoader(name, path), is_package=True)
    spec.submodule_search_locations = [path]
    return importlib.util.module_from_spec(spec)


def not_importable(what: str, module: str, path: str, error: Exception) -> NotImportable:
    """Return the error that explains why *module* cannot be imported.

    Args:
        what: What the module contains; if that is a service, the hint mentions that it can be excluded.
        module: Its dotted name.
        path: Its file, as shown to people.
        error: The exception from the import.

    """
    hint = "install the missing package" if isinstance(error, ModuleNotFoundError) else "fix the file"
    if what:
        hint += ", or exclude the service by SERVICES_ENABLED"
    why = error.msg if isinstance(error, SyntaxError) else error  # str(error) would repeat the file and the line
    return NotImportable(
        f"{what} cannot be imported: {type(error).__name__}: {why}".lstrip(),
        where=_line_in(module, path, error),
        hint=hint,
    )


def _line_in(module: str, path: str, error: BaseException) -> str:
    """Return the file and the line in the module that failed; only the file if there is no such line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shorten(error.filename)}:{error.lineno}"
    line: int | None = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == module:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{path}:{line}" if line else path


def _no_service(file: ServiceFile) -> DeclarationError:
    """Return the error for a file without a service. For a package, name the services hidden by its ``__init__.py``."""
    if file.path.endswith("__init__.py"):
        folder = _Folder(os.path.join(file.folder, *file.module.split(".")[1:]))  # noqa: PTH118
        hidden = [name for name in folder.files() if name.endswith(".py") and name != "__init__.py"]
        hidden = [name for name in hidden if re.search(rb"^\s*@(kernel\.)?service\b", folder.read(name), re.MULTILINE)]
        if hidden:
            return DeclarationError(
                f"contains no service, and hides the services in {', '.join(hidden)}",
                where=file.path,
                hint="delete the __init__.py to make the folder a group, or import one service in it",
            )
    return DeclarationError(
        "contains no service",
        where=file.path,
        hint="decorate an async function with @service, or begin the file's name with _ if it is a helper module",
    )


def load_all(files: Mapping[str, ServiceFile]) -> tuple[dict[str, Service[..., Any]], list[PlanError]]:
    """Load all *files*; return the services by name, and the errors of the files that could not be loaded."""
    services: dict[str, Service[..., Any]] = {}
    errors: list[PlanError] = []
    for name, file in files.items():
        try:
            services[name] = load(file)
        except PlanError as error:
            errors.append(error)
    return services, errors
