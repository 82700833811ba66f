"""Name and version of the app, as pyproject.toml says in whatever way TOML allows, and its commit."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from kernel.identity import Identity, identify


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
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("app", tmp_path / "app" / "__init__.py")
    assert spec is not None
    identity = identify(importlib.util.module_from_spec(spec))
    assert (identity.name, identity.version, identity.root) == (name, version, str(tmp_path))


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
