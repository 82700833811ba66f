"""The app's identity: its name and version from pyproject.toml, and its commit."""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType
from typing import Any

import attrs


@attrs.frozen(slots=False)
class Identity:
    """The app's name, version and location.

    Args:
        name: `[project] name` in pyproject.toml.
        version: `[project] version`.
        root: The folder, or the path in a zip file, that contains `app`, `services` and pyproject.toml.
        loader: The loader that imports the app and reads its files.

    """

    name: str
    version: str
    root: str
    loader: Any = attrs.field(default=None, eq=False, repr=False)

    @functools.cached_property
    def stamp(self) -> dict[str, Any]:
        """The contents of an artifact's build.json: commit, dirty, built, left-out. Empty in a source tree."""
        try:
            text = self.loader.get_data(os.path.join(self.root, "build.json")) if self.loader else b"{}"  # noqa: PTH118
        except OSError:
            return {}
        import json

        stamp: dict[str, Any] = json.loads(text)
        return stamp

    @property
    def origin(self) -> str:
        """The commit, and how the app was built: tree, pyz, binary or image. In a source tree, git knows the commit."""
        commit, dirty = self.stamp.get("commit", ""), self.stamp.get("dirty", False)
        if not self.stamp and _git(self.root, "ls-files", "pyproject.toml"):  # works in a subfolder of a repository too
            commit = _git(self.root, "rev-parse", "HEAD")
            dirty = bool(_git(self.root, "status", "--porcelain", "--", "."))
        mark = " with changes" if dirty else ""
        built = self.stamp.get("built", "tree")
        if self.stamp and not commit:
            return f"commit unknown, {built}"
        return f"commit {commit[:12]}{mark}, {built}" if commit else built


def _git(root: str, *words: str) -> str:
    """Return the output of git; an empty string if it fails."""
    import subprocess

    try:
        done = subprocess.run(["git", "--no-optional-locks", *words], cwd=root, capture_output=True, check=False)  # noqa: S607
    except OSError:
        return ""
    return done.stdout.decode().strip()


@functools.cache
def instance() -> str:
    """Return a UUID that distinguishes this process from others of the same app."""
    import uuid  # takes 3 ms, so only when needed

    return str(uuid.uuid4())


def identify(app: ModuleType) -> Identity:
    """Return the identity of the app whose package is *app*, using its loader, so that it works in a zip too."""
    assert app.__file__ is not None
    root = os.path.dirname(os.path.dirname(os.path.abspath(app.__file__)))  # noqa: PTH100, PTH120  (pathlib: 5 ms)
    name, version = _in_tree(app, root) or _installed(app) or (os.path.basename(sys.argv[0]) or "app", "0")  # noqa: PTH119
    return Identity(name, version, root, getattr(app.__spec__, "loader", None))


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
    """Return the ``key = "text"`` lines of *table*. A TOML parser is not used, since loading one takes 4 ms."""
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
    """Return the name and version from the distribution whose script starts the app."""
    from importlib.metadata import entry_points  # takes 39 ms, so only without a source tree

    for script in entry_points(group="console_scripts"):
        if script.module == f"{app.__name__}.__main__" and script.dist is not None:
            return script.dist.name, script.dist.version
    return None
