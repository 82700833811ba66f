"""Name and version of the app, as pyproject.toml says in whatever way TOML allows, and its commit."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

import pytest

from kernel.identity import Identity, identify, instance


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ('[project]\nname = "shop"\nversion = "1.2"\n', "shop", "1.2"),
        ('[project]\nversion="1.2"\nname="shop"\n[tool.x]\nname = "other"\n', "shop", "1.2"),
        ("[project]\nname = 'shop'\nversion = '1.2'\n", "shop", "1.2"),
        ('[project] # ours\nname = "shop" # it is\nversion = """1.2"""\n', "shop", "1.2"),
        ('project.name = "shop"\nproject.version = "1.2"\n', "shop", "1.2"),
        ('[project]\nname = "sh\\u006fp"\nversion = "1.2"\n', "shop", "1.2"),
        ('[project]\nname = "shop"\ndynamic = ["version"]\n', "shop", "0"),
        ('[tool.x]\nname = "other"\nversion = "9"\n[project]\nversion = "1.2"\nname = "shop"\n', "shop", "1.2"),
    ],
)
def test_name_and_version(tmp_path: Path, text: str, name: str, version: str) -> None:
    identity = identify(app_in(tmp_path, text))
    assert (identity.name, identity.version, identity.root) == (name, version, str(tmp_path))


def test_plain_strings_need_no_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What most apps have is read without loading one, also beside what only it can read."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    text = '[tool.x]\nname = "other"\n[project]\nname = "shop"\nkeywords = ["a", "b"]\nversion = "1.2"\n'
    identity = identify(app_in(tmp_path, text))
    assert (identity.name, identity.version) == ("shop", "1.2")


class Distribution:
    """A package that is installed."""

    name = "shop-till"
    version = "3.4"


def script(name: str, module: str, distribution: object) -> importlib.metadata.EntryPoint:
    """Return a script that is installed, by a distribution or not."""
    entry = importlib.metadata.EntryPoint(name, f"{module}.__main__:main", "console_scripts")
    entry.__dict__["dist"] = distribution
    return entry


@pytest.mark.parametrize(
    ("text", "installed", "program", "told"),
    [
        (None, 3, "/bin/other", ("shop-till", "3.4")),
        (None, 2, "/bin/other", ("other", "0")),
        (None, 2, "", ("app", "0")),
        ("[tool.x]\n", 3, "/bin/other", ("shop-till", "3.4")),
        ("[tool.x]\n", 0, "/bin/other", ("other", "0")),
    ],
)
def test_without_a_name_in_the_tree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    installed: int,
    *,
    program: str,
    told: tuple[str, str],
) -> None:
    """It is what the distribution is called that has the app's script; or else the program."""
    found = [
        script("shop", "app", None),
        script("other", "other", Distribution()),
        script("till", "app", Distribution()),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found[:installed])
    monkeypatch.setattr(sys, "argv", [program])
    identity = identify(app_in(tmp_path, text))
    assert (identity.name, identity.version) == told


def app_in(folder: Path, text: str | None) -> ModuleType:
    """Return the package `app` in *folder*, with *text* as pyproject.toml."""
    if text is not None:
        (folder / "pyproject.toml").write_text(text)
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("app", folder / "app" / "__init__.py")
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def test_the_commit_of_a_tree(tmp_path: Path) -> None:
    """What git says of this folder: its commit, and whether it has changes; nothing where git does not know the app."""
    app = tmp_path / "shop"
    app.mkdir()
    identity = Identity("shop", "1.2", str(app))
    assert identity.origin == "tree", "it is no repository"
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    (app / "pyproject.toml").write_text("")
    assert identity.origin == "tree", "it is not tracked: the repository around it is another's"
    subprocess.run([*git, "add", "shop"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "All"], cwd=tmp_path, check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    (tmp_path / "beside").write_text("another's change")
    assert identity.origin == f"commit {done.stdout[:12]}, tree"
    (app / "new").write_text("")
    assert identity.origin == f"commit {done.stdout[:12]} with changes, tree"


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        ('{"commit": "0123456789abcdef", "dirty": false, "built": "pyz"}', "commit 0123456789ab, pyz"),
        ('{"commit": "0123456789abcdef", "dirty": true, "built": "image"}', "commit 0123456789ab with changes, image"),
        ('{"commit": "", "dirty": false, "built": "binary"}', "commit unknown, binary"),
    ],
)
def test_the_commit_of_an_artifact(tmp_path: Path, stamp: str, told: str) -> None:
    """What was written into it when it was built; nobody asks git, which may know another app around it."""

    class Loader:
        def get_data(self, path: str) -> bytes:
            assert path == str(tmp_path / "build.json")
            return stamp.encode()

    assert Identity("shop", "1.2", str(tmp_path), Loader()).origin == told


def test_where_git_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is not known, and nothing fails."""
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Identity("shop", "1.2", str(tmp_path)).origin == "tree"


def test_an_artifact_without_a_stamp(tmp_path: Path) -> None:
    """A loader that finds none is that of a source tree."""

    class Loader:
        def get_data(self, path: str) -> bytes:
            raise FileNotFoundError(path)

    identity = Identity("shop", "1.2", str(tmp_path), Loader())
    assert (identity.stamp, identity.origin) == ({}, "tree")


def test_each_process_is_an_instance() -> None:
    """Its id is asked for often, and stays the same."""
    assert instance() == instance()
    assert uuid.UUID(instance()).version == 4
