"""Who the app is: its name and version, written once, in pyproject.toml."""

from __future__ import annotations

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
    import tomllib

    project = tomllib.loads(text).get("project", {})
    return (project["name"], project.get("version", "0")) if "name" in project else None


def _installed(app: ModuleType) -> tuple[str, str] | None:
    """As the distribution says whose script starts the app."""
    from importlib.metadata import entry_points  # 39 ms, and only where there is no tree

    for script in entry_points(group="console_scripts"):
        if script.module == f"{app.__name__}.__main__" and script.dist is not None:
            return script.dist.name, script.dist.version
    return None
