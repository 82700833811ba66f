"""`just mutants`: what it changes, what it leaves alone, and what it makes of the tests."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "template"))

import mutants
from mutants import Module

CODE = '''\
"""A docstring with 1 number."""

import logging

log = logging.getLogger()


def least(numbers: list[int | None], *, limit: int = 7) -> int | None:
    """Another docstring."""
    log.info("the limit is %s", limit)
    if (
        not numbers
        or limit < 0
    ):
        return None
    return min(number for number in numbers if number is not None)
'''

SMALL = "def good(number):\n    return number > 0 or number == -7\n"

TESTS = """
from kernel.plan.some import good

def test_good():
    assert good(3)
    assert not good(-1)
"""


def test_every_mutant_is_one_change() -> None:
    """It compiles, differs, and all lines below stay where they are, so that what names lines is not disturbed."""
    made = Module("some.py", CODE).mutants()
    whats = {mutant.what for mutant in made}
    assert {
        "limit < 0  ->  (limit <= 0)",
        "not numbers or limit < 0  ->  (not numbers and limit < 0)",
        "number is not None  ->  (number is None)",
        "7  ->  (8)",
        "return min(number for number in numbers if number is not None)  ->  return None",
    } <= whats
    for mutant in made:
        assert mutant.source.count("\n") == CODE.count("\n")
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(CODE))


def test_what_is_only_read_is_left_alone() -> None:
    """Docstrings, annotations, and what is said in the log."""
    told = " ".join(mutant.what for mutant in Module("some.py", CODE).mutants())
    assert "docstring" not in told
    assert "log.info" not in told
    assert "int | None" not in told


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with one module and its test."""
    root = tmp_path / "here"
    for path, text in {
        "kernel/plan/some.py": SMALL,
        "tests/plan/test_some.py": TESTS,
        "tests/conftest.py": ARTIFACT,
        "kernel/__init__.py": "",
        "kernel/plan/__init__.py": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "pyproject.toml").write_text('[tool.pytest]\npythonpath = ["."]\n')
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setattr(mutants, "RESULTS", root / ".mutants")
    return root


ARTIFACT = "def pytest_addoption(parser):\n    parser.addoption('--artifact')\n"


@pytest.mark.minutes
def test_it_says_who_lives_and_goes_on_where_it_was(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run tries nothing again, until the module changes; the tree itself is never touched."""
    words = ["MODULE=kernel/plan/some.py", "N=2", "SEED=3"]
    code = mutants.main(words)
    said = capsys.readouterr().out
    tried = [line for line in said.splitlines() if line.startswith(("noticed", "LIVES"))]
    assert len(tried) == 2
    living = [line for line in tried if line.startswith("LIVES")]
    assert code == (1 if living else 0)
    assert f"{2 - len(living)} of 2 noticed" in said
    assert (tree / "kernel/plan/some.py").read_text() == SMALL
    assert mutants.main(words) == code
    assert "LIVES" not in capsys.readouterr().out, "they are told once; the count says the rest"
    (tree / "kernel/plan/some.py").write_text(f"{SMALL}\n")
    assert mutants.main(words) == code
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith(("noticed", "LIVES"))]) == 2


@pytest.mark.minutes
def test_a_mutant_that_hurts_nobody_lives(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No test looks at 0."""
    assert mutants.main(["MODULE=kernel/plan", "N=99"]) == 1
    said = capsys.readouterr().out
    assert "LIVES   kernel/plan/some.py:2: number > 0  ->  (number >= 0)" in said
    assert "noticed kernel/plan/some.py:2: number > 0 or number == -7  ->  (number > 0 and number == -7)" in said
    (result,) = (tree / ".mutants").iterdir()
    told = json.loads(result.read_text())["mutants"]
    assert (
        told["2: number > 0 or number == -7  ->  (number > 0 and number == -7)"]["noticed"]
        == "tests/plan/test_some.py::test_good"
    )


def test_tests_that_fail_anyway_prove_nothing(tree: Path) -> None:
    """It is said at once which one."""
    (tree / "tests/plan/test_some.py").write_text(f"{TESTS}\ndef test_broken():\n    assert False\n")
    with pytest.raises(SystemExit, match="test_broken fails without any mutant"):
        mutants.main(["MODULE=kernel/plan/some.py", "N=1"])


@pytest.mark.parametrize("word", ["N=x", "HOW=1", "kernel", "MODULE=nowhere", "SEED=-1"])
def test_a_word_that_is_none(tree: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is tried; the use is told."""
    assert mutants.main([word]) == 2
    assert "use: just mutants" in capsys.readouterr().err


def test_tests_are_found_where_the_module_is() -> None:
    """Its own first, then its room's, then the others'; those that start programs only where they are asked for."""
    own, room, others = mutants.stages("kernel/lifecycle/graph.py", deep=False)
    assert own == ["tests/lifecycle/test_graph.py"]
    assert room == ["tests/lifecycle", "--ignore=tests/lifecycle/test_graph.py"]
    assert "tests/plan" in others
    assert not {"tests/conformance", "tests/scripts"} & {*others}
    assert "tests/conformance" in mutants.stages("kernel/cli.py", deep=True)[-1]
    assert mutants.stages("kernel/cli.py", deep=True, programs="tests/a,tests/b")[-1] == ["tests/a", "tests/b"]
