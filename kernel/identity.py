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
    path = os.path.join(root, "pyproject.toml")  # noqa: PTH118
    try:
        loader = getattr(app.__spec__, "loader", None)
        text = loader.get_data(path).decode() if loader is not None else ""
    except OSError:
        text = ""
    import tomllib

    project = tomllib.loads(text).get("project", {})
    fallback = os.path.basename(sys.argv[0]) or "app"  # noqa: PTH119
    return Identity(project.get("name", fallback), project.get("version", "0"), root)
