"""Who the app is: its name and version, written once, in pyproject.toml."""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType

import attrs


@attrs.frozen
class Identity:
    """The app.

    Args:
        name: `[project] name` in pyproject.toml.
        version: `[project] version`.
        root: The folder, or the path in a zip file, that holds `app`, `services` and pyproject.toml.

    """

    name: str
    version: str
    root: str


@functools.cache
def instance() -> str:
    """Tells this process from others of the same app; a UUID."""
    import uuid  # 3 ms, and only where somebody looks from outside

    return str(uuid.uuid4())


def identify(app: ModuleType) -> Identity:
    """The identity of the app whose package is *app*; read through its loader, so that it works inside a zip too."""
    assert app.__file__ is not None
    root = os.path.dirname(os.path.dirname(os.path.abspath(app.__file__)))  # noqa: PTH100, PTH120  (pathlib: 5 ms)
    name, version = _in_tree(app, root) or _installed(app) or (os.path.basename(sys.argv[0]) or "app", "0")  # noqa: PTH119
    return Identity(name, version, root)


def _in_tree(app: ModuleType, root: str) -> tuple[str, str] | None:
    loader = getattr(app.__spec__, "loader", None)
    try:
        text = loader.get_data(os.path.join(root, "pyproject.toml")).decode() if loader else ""  # noqa: PTH118
    except OSError:
        return None
    project = _plain_strings(text, "[project]")
    if not project.keys() >= {"name", "version"}:
        import tomllib

        project = tomllib.loads(text).get("project", {})
    return (project["name"], project.get("version", "0")) if "name" in project else None


def _plain_strings(text: str, table: str) -> dict[str, str]:
    """What *table* says in lines such as ``key = "text"``, which needs no TOML parser: that takes 4 ms to load."""
    found: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.rstrip() == table
        key, equals, value = line.partition("=")
        quoted = value.strip().split('"')
        if inside and equals and len(quoted) == 3 and not quoted[0] and not quoted[2] and "\\" not in value:  # noqa: PLR2004
            found[key.strip()] = quoted[1]
    return found


def _installed(app: ModuleType) -> tuple[str, str] | None:
    """As the distribution says whose script starts the app."""
    from importlib.metadata import entry_points  # 39 ms, and only where there is no tree

    for script in entry_points(group="console_scripts"):
        if script.module == f"{app.__name__}.__main__" and script.dist is not None:
            return script.dist.name, script.dist.version
    return None
