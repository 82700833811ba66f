"""Dangerous lines of a project: which of them are news, and which of them somebody has excused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.imported import Imported
from tests.scripts.projects import PROGRAMS

SHELL = 'import subprocess; subprocess.run("ls", shell=True)'


@pytest.fixture
def sec_code(imported: Imported) -> Any:
    """The module, in a project with ruff."""
    imported.write("pyproject.toml", "[tool.ruff]\nlint.select = []\n")
    imported.write(".venv/bin/x", "")
    (imported.root / ".venv" / "bin" / "ruff").symlink_to(PROGRAMS / "ruff")
    imported.git("init", "-q")
    imported.write(".gitignore", "/.venv\n/scripts/kernel\n")
    return imported.load("sec_code")


def places(dangers: list[Any]) -> list[str]:
    """Return where the dangers are."""
    return [f"{danger.path}:{danger.line} {danger.rule}" for danger in dangers]


def test_whose_code_it_is(sec_code: Any, imported: Imported) -> None:
    """The framework, scripts and tests may choose programs and modules; a shell is news everywhere."""
    lines = f"{SHELL}\nsubprocess.run([word])\nimportlib.import_module(word)\n"
    for path in ("app/__main__.py", "app/mine.py", "kernel/mine.py", "scripts/mine.py", "tests/mine.py", "gone.py"):
        imported.write(path, lines)
    imported.git("add", "gone.py")
    (imported.root / "gone.py").unlink()
    imported.write("services/broken.py", f"def broken(\n    {SHELL}\n")
    found, excused = sec_code.dangers([])
    everywhere = ("app/__main__.py", "app/mine.py", "kernel/mine.py", "scripts/mine.py", "tests/mine.py")
    assert places(found) == sorted(
        [
            *(f"{path}:1 {rule}" for path in everywhere for rule in ("S602", "S607")),
            *("app/mine.py:2 S603", "app/mine.py:3 module"),
        ]
    )
    assert excused == []


def test_excuses(sec_code: Any, imported: Imported) -> None:
    """They name the rule, or how its name begins, on the line itself; a bare one is none."""
    ends = ("", "  # noqa", "  # noqa: S602", "  #NOQA:s602, S607  (ours)", "  # noqa: E501 S6", "  # noqa: S607,E501")
    imported.write("services/x.py", "".join(f"{SHELL}{end}\n" for end in ends))
    imported.write("services/y.py", "# noqa: S602\n\n" + SHELL)
    found, excused = sec_code.dangers([])
    assert places(found) == [
        *("services/x.py:1 S602", "services/x.py:1 S607", "services/x.py:2 S602", "services/x.py:2 S607"),
        *("services/x.py:3 S607", "services/x.py:6 S602"),
        *("services/y.py:3 S602", "services/y.py:3 S607"),
    ]
    assert places(excused) == [
        *("services/x.py:3 S602", "services/x.py:4 S602", "services/x.py:4 S607"),
        *("services/x.py:5 S602", "services/x.py:5 S607", "services/x.py:6 S607"),
    ]


def test_rules_that_the_project_ignores(sec_code: Any, imported: Imported) -> None:
    """They are not looked for; but programs that are chosen at run time always are."""
    imported.write("services/x.py", f"{SHELL}\nsubprocess.run([word])\n")
    found, _ = sec_code.dangers(["S602", "S603", "S607"])
    assert places(found) == ["services/x.py:2 S603"]


def test_ruff_that_fails(sec_code: Any, imported: Imported) -> None:
    """The error has its last words."""
    imported.write("pyproject.toml", "[tool.ruff]\nnonsense = 1\n")
    with pytest.raises(sec_code.NotLooked, match=r"^ruff fails \(.*unknown field `nonsense`.*\)$"):
        sec_code.dangers([])
