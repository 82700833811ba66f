"""`just mutants`: what it changes, what it leaves alone, which tests it runs, and what it makes of them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

import pytest

from tests.scripts.projects import REPO, Done

sys.path.append(str(REPO / "scripts" / "template"))

import mutants
import mutants_forks
from mutants import choose, draw
from mutants_changes import Module, Mutant
from mutants_forks import Copy, Run, follow, tell
from mutants_lines import WAITS, Durations, Lines, Seen

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

SMALL = """\
def good(number):
    return number > 0 or number == -7


def told(word):
    return word + "!"


def alone():
    return 1
"""

TESTS = """
import os, pathlib, subprocess, sys
import pytest
from kernel.plan.some import good

def test_good():
    assert good(3)
    assert not good(-1)

@pytest.mark.parametrize("word", ["a[b]::c", "one two"])
def test_a_program(word):
    code = "import sys; from kernel.plan.some import told; print(told(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True)
    assert done.stdout == f"{word}!\\n"
    if "COVERAGE_PROCESS_START" not in os.environ:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        with open(os.environ["LEFT"], "a") as file:
            file.write(f"{left.pid}\\n")
"""


def test_every_mutant_is_one_change() -> None:
    """It compiles, differs, and all lines below stay where they are, so that what names lines is not disturbed."""
    code = f"{CODE}\n\nwhile True:\n    least([])\n"
    made = Module("some.py", code).mutants()
    whats = {mutant.what for mutant in made}
    assert {
        "limit < 0  ->  (limit <= 0)",
        "not numbers or limit < 0  ->  (not numbers and limit < 0)",
        "number is not None  ->  (number is None)",
        "7  ->  (8)",
        "return min(number for number in numbers if number is not None)  ->  return None",
    } <= whats
    for mutant in made:
        assert mutant.source.count("\n") == code.count("\n")
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(code))


def test_what_is_only_read_is_left_alone() -> None:
    """Docstrings, annotations, what is said in the log, what an attrs class takes, and how strict a `zip` is."""
    fields = (
        "\n\nclass Some:\n    left: int = attrs.field(default=9, init=False)\n    pairs = zip([], [], strict=False)\n"
    )
    told = " ".join(mutant.what for mutant in Module("some.py", CODE + fields).mutants())
    assert "9  ->  (10)" in told
    assert "(attrs.field(default=9))" not in told
    assert "False  ->  (True)" not in told
    assert "zip" not in told
    assert "docstring" not in told
    assert "log.info" not in told
    assert "int | None" not in told


def test_what_is_the_default_is_not_left_out() -> None:
    """The other arguments are, and it is changed like any value."""
    told = {mutant.what for mutant in Module("some.py", "done = run(words, cwd=here, check=False)\n").mutants()}
    assert told == {
        "run(words, cwd=here, check=False)  ->  (run(words, check=False))",
        "False  ->  (True)",
    }


# -- which tests -------------------------------------------------------------------------------------------------


def lines_of(text: str, lines: dict[int, set[str]], **seconds: float) -> Lines:
    """What was measured of kernel/plan/some.py: tests by their file's name."""
    tests = {f"tests/{name.replace('__', '/')}.py::test": taken for name, taken in seconds.items()}
    named = {line: {f"tests/{name.replace('__', '/')}.py::test" for name in names} for line, names in lines.items()}
    return Lines(
        tests=tests,
        files={test.partition("::")[0]: "0" for test in tests},
        modules={"kernel/plan/some.py": Seen(text, named)},
    )


def mutant_at(line: int, text: str = SMALL) -> tuple[Module, Mutant]:
    """The first mutant of a line."""
    module = Module("kernel/plan/some.py", text)
    return module, next(mutant for mutant in module.mutants() if mutant.line == line)


def chosen(lines: Lines, line: int, text: str = SMALL, limit: float = 20.0) -> tuple[list[list[str]], int]:
    """The names of the files of the tests for a mutant, and how many are left out."""
    choice = choose(lines, *mutant_at(line, text), limit)
    return [[Path(test.partition("::")[0]).stem for test in tests] for tests in choice.rounds], choice.left_out


def test_the_tests_of_the_line_run_its_own_first() -> None:
    """Then the shortest of the others, until the limit; one that is too long is left out."""
    lines = lines_of(
        SMALL,
        {2: {"plan__test_some_more", "run__test_a", "run__test_b", "run__test_long"}, 6: {"run__test_c"}},
        plan__test_some_more=3,
        run__test_a=2,
        run__test_b=1,
        run__test_c=1,
        run__test_long=30,
    )
    assert chosen(lines, 2) == ([["test_some_more"], ["test_b", "test_a"]], 1)
    assert chosen(lines, 2, limit=5) == ([["test_some_more"], ["test_b"]], 2)
    assert chosen(lines, 6) == ([["test_c"]], 0)


def test_the_tests_of_a_module_that_run_the_function() -> None:
    """They are for each of its lines, since a line that they run may not be seen; a line of another function is not."""
    text = SMALL.replace("    return number", "    number += 1\n    return number")
    lines = lines_of(text, {2: {"plan__test_some", "run__test_a"}}, plan__test_some=1, run__test_a=1)
    assert chosen(lines, 3, text) == ([["test_some"]], 0)
    assert chosen(lines, 11, text) == ([], 0)
    lines.tests["tests/plan/test_some.py::test_more"] = 2.0  # it may have found the function's result in a cache
    assert chosen(lines, 3, text) == ([["test_some", "test_some"]], 0)


def test_the_tests_of_a_package() -> None:
    """They are those of its folder."""
    lines = lines_of(SMALL, {2: {"plan__test_some", "run__test_a"}}, plan__test_some=3, run__test_a=1)
    lines.modules["kernel/plan/__init__.py"] = lines.modules["kernel/plan/some.py"]
    module = Module("kernel/plan/__init__.py", SMALL)
    choice = choose(lines, module, module.mutants()[0], 20.0)
    assert [[*tests] for tests in choice.rounds] == [["tests/plan/test_some.py::test"], ["tests/run/test_a.py::test"]]


def test_no_test_for_a_line() -> None:
    """What no test runs is not tested in vain."""
    lines = lines_of(SMALL, {2: {"plan__test_some"}}, plan__test_some=1)
    assert chosen(lines, 10) == ([], 0)


def test_what_runs_at_import_is_tested_by_whoever_runs_the_module() -> None:
    """And by the tests of its room."""
    text = f"LIMIT = 7\n\n{SMALL}"
    lines = lines_of(text, {4: {"run__test_a"}}, run__test_a=1, plan__test_other=2, calls__test_far=1)
    assert chosen(lines, 1, text) == ([["test_a", "test_other"]], 0)


def test_lines_are_followed_to_where_they_are_now() -> None:
    """A line that has changed is tested by whoever runs the module."""
    lines = lines_of(SMALL, {2: {"run__test_a"}, 6: {"run__test_b"}}, run__test_a=1, run__test_b=1)
    newer = SMALL.replace("def told", "def more():\n    return 2\n\n\ndef told").replace("number == -7", "number == -8")
    lines.follow({"kernel/plan/some.py": newer})
    assert chosen(lines, 10, newer) == ([["test_b"]], 0)
    assert chosen(lines, 2, newer) == ([["test_a", "test_b"]], 0)


def test_a_file_of_tests_that_changes_is_measured_again(tmp_path: Path) -> None:
    """And what is gone is forgotten."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_new.py").touch()
    lines = lines_of(SMALL, {2: {"test_gone"}}, test_gone=1)
    assert lines.stale(tmp_path) == ["tests/test_new.py"]
    assert lines.tests == {}
    assert lines.of("kernel/plan/some.py", None) == set()


def test_what_a_test_takes_does_not_depend_on_the_load(tmp_path: Path) -> None:
    """A test that waits, of which nobody knows for what, counts by what it uses of a processor, and a little."""
    durations = Durations(tmp_path / "report.json")
    for name, used, seconds in ("quick", 0.1, 0.2), ("waits", 0.1, 9.0):
        for when in ("setup", "call", "teardown"):
            report = pytest.TestReport(name, ("", 0, ""), {}, "passed", None, when, duration=seconds, used=used)
            durations.pytest_runtest_logreport(report)
    durations.pytest_sessionfinish()
    told = json.loads((tmp_path / "report.json").read_text())["passed"]
    assert told == pytest.approx({"quick": 0.6, "waits": 0.3 + WAITS})


@pytest.mark.parametrize(
    ("told", "test", "how"),
    [
        ([["begins", "a"], ["failed", "a"]], "a", "fails"),
        ([["begins", "a"], ["end", "0"]], "", ""),
        ([["end", "5"]], "", ""),
        ([["end", "4"]], "", "ends pytest with 4"),
        ([["begins", "a"]], "a", "takes too long"),
        ([["begins", "a"], None], "a", "ends the process"),
    ],
)
def test_what_a_runner_tells(
    told: list[list[str] | None], test: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests that fail, hang, or end the process notice a mutant."""
    monkeypatch.setattr(mutants_forks, "PATIENCE", 0.2)
    read, write = os.pipe()
    for words in told:
        if words is None:
            os.close(write)
        else:
            tell(write, *words)
    run = follow(read, {})
    assert (run.test, run.how) == (test, how)
    assert run.ran == sum(words is not None and words[0] == "begins" for words in told)


@pytest.mark.parametrize("how", ["takes too long", "fails"])
def test_a_test_that_passes_no_more_without_the_mutant(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides nothing, and is used again for other mutants if it only took too long."""
    (tmp_path / "here").mkdir()
    copy = Copy(tmp_path / "here", tmp_path / "copy")
    runs = iter([Run(1, "t::a", how), Run(1, "t::a", how), Run(1, "t::b", "fails"), Run(1)])
    ran: list[list[str]] = []

    def run(tests: dict[str, float]) -> Run:
        ran.append([*tests])
        return next(runs)

    monkeypatch.setattr(copy, "put", lambda *_: None)
    monkeypatch.setattr(copy, "_run", run)
    outcome = copy._try_out("some.py", ("a", "b"), [{"t::a": 1.0, "t::b": 1.0}], set())
    assert ran == [["t::a", "t::b"], ["t::a"], ["t::b"], ["t::b"]]
    assert outcome.noticed == "t::b fails"
    assert outcome.broken == ["t::a"] * (how == "fails")


def test_a_copy_of_the_tree_may_lose_its_packages(tmp_path: Path) -> None:
    """A test that makes a .venv clears the copy's, and no test clones it; those of the tree stay."""
    tree = Tree(tmp_path / "here").root
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").touch()
    (tree / ".gitignore").write_text(".venv/\n")
    (tmp_path / "copy").mkdir()
    copy = Copy(tree, tmp_path / "copy").root
    assert (copy / ".venv" / "bin" / "python").exists()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout
    assert "kernel/plan/some.py" in listed
    assert ".venv" not in listed
    venv.EnvBuilder(clear=True).clear_directory(copy / ".venv")
    assert not (copy / ".venv" / "bin").exists()
    assert (tree / ".venv" / "bin" / "python").exists()


def test_a_small_change_draws_most_of_the_same() -> None:
    """A module that is mended keeps its sample, so that what was found in it can be compared."""
    before = Module("kernel/some.py", CODE).mutants()
    after = Module("kernel/some.py", CODE.replace("    log.", "    extra = limit + 2\n    log.")).mutants()
    drawn = [{mutant.what for mutant in draw(of, 5, "1")} for of in (before, after)]
    assert len(drawn[0]) == 5
    assert len(drawn[0] & drawn[1]) >= 3
    assert {mutant.what for mutant in draw(before, 5, "2")} != drawn[0]
    assert len(draw(before, 999, "1")) == len(before)


def test_what_is_spared_is_there() -> None:
    """Each mutant that is spared can be made, once or more, and says why it does not matter."""
    told = tomllib.loads(mutants.SPARED.read_text())["spared"]
    known = {}
    for one in told:
        assert one.keys() == {"module", "line", "change", "why"}, one
        assert len(one["why"]) > 20, one
        module = Module.read(REPO / one["module"], REPO)
        if one["module"] not in known:
            known[one["module"]] = {(module.line(mutant), mutant.what) for mutant in module.mutants()}
        assert (one["line"], one["change"]) in known[one["module"]], f"there is no such mutant any more: {one}"
    assert len({(one["module"], one["line"], one["change"]) for one in told}) == len(told)


# -- the whole ---------------------------------------------------------------------------------------------------


class Tree:
    """A tree with one module, its tests, and the recipe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left = root / "left"
        for path, text in {
            "kernel/plan/some.py": SMALL,
            "tests/plan/test_some.py": TESTS,
            "kernel/__init__.py": "",
            "kernel/plan/__init__.py": "",
            "pyproject.toml": '[tool.pytest]\npythonpath = ["."]\naddopts = ["--import-mode=importlib"]\n',
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "scripts" / "template").mkdir(parents=True)
        for file in (REPO / "scripts" / "template").glob("mutants*.py"):
            shutil.copy(file, root / "scripts" / "template")

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the recipe, with one mutant at a time."""
        command = [sys.executable, "scripts/template/mutants.py", "JOBS=1", *words]
        env, pipe = {**os.environ, "LEFT": str(self.left)}, subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=env, stdout=pipe, stderr=pipe, text=True)

    def mutants(self, *words: str) -> Done:
        """Run the recipe to its end."""
        process = self.start(*words)
        out, err = process.communicate()
        return Done(process.returncode, out, err)

    def nothing_is_left(self) -> bool:
        """Whether all processes that tests have started, and told of, have ended."""
        pids = self.left.read_text().split()
        assert pids
        return not Path("/proc/self").exists() or not [pid for pid in pids if Path("/proc", pid).exists()]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree with one module and its test."""
    return Tree(tmp_path / "here")


def tried(done: Done) -> list[str]:
    """The mutants of a run that were not yet known."""
    return [line for line in done.out.splitlines() if line.startswith(("noticed", "LIVES"))]


def test_it_tells_who_lives(tree: Tree) -> None:
    """Whoever does not notice is told, also that nobody runs the line; programs that tests start count, and end."""
    done = tree.mutants("MODULE=kernel/plan", "N=99")
    assert done.code == 1, done.err
    path = "kernel/plan/some.py"
    assert f"LIVES   {path}:2: number > 0  ->  (number >= 0)" in done.out
    assert f"noticed {path}:2: number > 0 or number == -7  ->  (number > 0 and number == -7)" in done.out
    assert f'noticed {path}:6: return word + "!"  ->  return None' in done.out
    assert f"lives: {path}:2: number > 0  ->  (number >= 0)  (tests that do not notice: 3)" in done.out
    assert f"lives: {path}:10: 1  ->  (2)  (no test runs this line)" in done.out
    assert (tree.root / path).read_text() == SMALL
    told = json.loads((tree.root / ".mutants" / "kernel.plan.some.py-1.json").read_text())["mutants"]
    noticed = told["2: number > 0 or number == -7  ->  (number > 0 and number == -7)"]["noticed"]
    assert noticed == "tests/plan/test_some.py::test_good fails"
    assert tree.nothing_is_left()


def test_what_is_spared_is_not_tried(tree: Tree) -> None:
    """It is counted apart."""
    line, change = "return number > 0 or number == -7", "number > 0  ->  (number >= 0)"
    text = f"[[spared]]\nmodule = 'kernel/plan/some.py'\nline = '{line}'\nchange = '{change}'\nwhy = 'of a test'\n"
    (tree.root / "scripts/template/mutants_spared.toml").write_text(text)
    done = tree.mutants("MODULE=kernel/plan/some.py", "N=99")
    assert change not in done.out
    assert re.search(r"kernel/plan/some.py: (\d+) of (\d+) noticed, 1 spared; (\d+) exist", done.out)
    assert done.out.rstrip().endswith("; 1 more are spared")


def test_a_file_of_tests_that_cannot_be_imported(tree: Tree) -> None:
    """It is told, and no test of its folder counts as measured: pytest has run none."""
    (tree.root / "tests/plan/test_broken.py").write_text("import nowhere_at_all\n")
    done = tree.mutants("N=0")
    assert done.code == 1
    assert done.err == "just mutants: pytest cannot import tests/plan/test_broken.py; fix that first\n"
    (tree.root / "tests/plan/test_broken.py").unlink()
    assert "3 passed" in tree.mutants("N=0").out


@pytest.mark.minutes
def test_a_run_that_is_ended_leaves_nothing_behind(tree: Tree) -> None:
    """Neither what its tests have started, nor a mutant in the tree."""
    hangs = "\ndef test_hangs():\n    while good(3) and 'COVERAGE_PROCESS_START' not in os.environ:\n        pass\n"
    (tree.root / "tests/plan/test_some.py").write_text(TESTS.replace("def test_good", "def good_one") + hangs)
    process = tree.start("MODULE=kernel/plan/some.py", "N=99")
    until = time.monotonic() + 60
    while not tree.left.exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    process.communicate()
    assert tree.nothing_is_left()
    assert (tree.root / "kernel/plan/some.py").read_text() == SMALL


@pytest.mark.minutes
def test_it_goes_on_where_it_was(tree: Tree) -> None:
    """A second run tries nothing again, until the module or the tests of a mutant that lives change."""
    words = ["MODULE=kernel/plan/some.py", "N=99", "SEED=3"]
    first = tree.mutants(*words)
    assert "seeing which lines the tests run: tests/plan (1 of 1)" in first.out
    again = tree.mutants(*words)
    assert (again.code, tried(again)) == (first.code, [])
    assert "seeing" not in again.out
    (tree.root / "tests/plan/test_some.py").write_text(f"{TESTS}\ndef test_zero():\n    assert not good(0)\n")
    more = tree.mutants(*words)
    assert "noticed kernel/plan/some.py:2: number > 0  ->  (number >= 0)" in tried(more)
    assert len(tried(more)) < len(tried(first))
    (tree.root / "kernel/plan/some.py").write_text(f"{SMALL}\n")
    assert len(tried(tree.mutants(*words))) == len(tried(first))


@pytest.mark.minutes
def test_tests_that_fail_anyway_prove_nothing(tree: Tree) -> None:
    """They are left out, whether they fail when they are measured or later; it is told which."""
    later = "\ndef test_later():\n    good(1)\n    assert not pathlib.Path(os.environ['LEFT']).exists()\n"
    (tree.root / "tests/plan/test_some.py").write_text(TESTS + later)
    broken = tree.root / "tests/run/test_broken.py"
    broken.parent.mkdir()
    broken.write_text("from kernel.plan.some import good\n\ndef test_broken():\n    assert not good(1)\n")
    assert "once more, one at a time, since tests have failed: tests/run/test_broken.py" in tree.mutants("N=0").out
    tree.left.touch()
    done = tree.mutants("MODULE=kernel/plan/some.py", "N=99")
    assert "not used, since they fail (1): tests/run/test_broken.py::test_broken" in done.out
    assert "not used, since it fails without a mutant: tests/plan/test_some.py::test_later" in done.out
    assert "LIVES   kernel/plan/some.py:2: number > 0  ->  (number >= 0)" in done.out


@pytest.mark.parametrize("word", ["N=x", "HOW=1", "kernel", "MODULE=nowhere", "SEED=-1", "JOBS=0"])
def test_a_word_that_is_none(tree: Tree, word: str) -> None:
    """Nothing is tried; the use is told."""
    done = tree.mutants(word)
    assert done.code == 2
    assert "use: just mutants" in done.err
    assert not (tree.root / ".mutants").exists()
