"""Name and version of the app, as pyproject.toml says in whatever way TOML allows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kernel.identity import identify


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
