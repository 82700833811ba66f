"""Which tests run which line, for `just mutants`: also in the programs that the tests start.

Every Python process of the run measures its lines with coverage. A process that runs tests switches coverage's context
with each test; a program that a test starts takes its context from `PYTEST_CURRENT_TEST`. This module is also the
plugin that pytest loads for that run.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import coverage
import pytest
from coverage.numbits import numbits_to_nums

REPORT = "MUTANTS_REPORT"  # the variable with the path of the durations
OPTIONS = ("--assert=plain", "--no-header", "-p", "no:cacheprovider")  # as the mutants will be tested
WAITS = 0.5  # seconds for which a test may wait for something
PHASE = re.compile(r" \((setup|call|teardown)\)$")
ROWS = """
    SELECT path, context, numbits FROM line_bits
    JOIN file ON file.id = file_id JOIN context ON context.id = context_id WHERE context != ''
"""
CONFIG = """\
[run]
parallel = true
data_file = {folder}/data/lines
context = ${{PYTEST_CURRENT_TEST-}}
# With sys.monitoring, the default from 3.14 on, a line is seen in the first context alone.
core = ctrace
include =
    */kernel/*
    */scripts/*
    */app/*
omit = */site-packages/*
patch = _exit
disable_warnings = no-data-collected,module-not-measured,module-not-imported,trace-changed,couldnt-parse
"""


def digest(text: str) -> str:
    """Return a short hash of *text*."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@attrs.define
class Seen:
    """A module as it was when it was measured.

    Args:
        text: Its source.
        lines: The tests that run each line, from 1; 0 stands for lines that have changed since.

    """

    text: str
    lines: dict[int, set[str]]

    def follow(self, text: str) -> None:
        """Move the lines to where they are in *text*, the newer source."""
        if text == self.text:
            return
        moved: dict[int, set[str]] = {0: set().union(*self.lines.values())}
        pairs = difflib.SequenceMatcher(None, self.text.splitlines(), text.splitlines(), autojunk=False)
        for old, new, size in pairs.get_matching_blocks():
            moved |= {new + i + 1: self.lines[old + i + 1] for i in range(size) if old + i + 1 in self.lines}
        self.text, self.lines = text, moved


@attrs.define
class Lines:
    """Which tests run which line, as measured, file of tests by file of tests.

    Args:
        tests: The duration of each test that passed, in seconds.
        failed: The tests that did not.
        files: The hash of each file of tests when it was measured.
        sound: Tests that are known to pass in a mutant's place.
        modules: What was seen of each module.

    """

    tests: dict[str, float] = attrs.field(factory=dict)
    failed: set[str] = attrs.field(factory=set)
    files: dict[str, str] = attrs.field(factory=dict)
    sound: set[str] = attrs.field(factory=set)
    modules: dict[str, Seen] = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: Path) -> Lines:
        """Read what was written to *path*; nothing if that does not exist."""
        if not path.exists():
            return cls()
        told = json.loads(path.read_text())
        names = told["names"]
        modules = {
            module: Seen(seen["text"], {int(line): {names[i] for i in tests} for line, tests in seen["lines"].items()})
            for module, seen in told["modules"].items()
        }
        return cls(told["tests"], {*told["failed"]}, told["files"], {*told["sound"]}, modules)

    def write(self, path: Path) -> None:
        """Write it to *path*, all or nothing."""
        names = {name: i for i, name in enumerate(sorted({*self.tests, *self.failed}))}
        modules = {
            module: {
                "text": seen.text,
                "lines": {line: sorted(names[test] for test in tests) for line, tests in seen.lines.items() if tests},
            }
            for module, seen in self.modules.items()
        }
        told = {
            "names": [*names],
            "tests": self.tests,
            "failed": sorted(self.failed),
            "files": self.files,
            "sound": sorted(self.sound),
            "modules": modules,
        }
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(told))
        path.with_suffix(".new").replace(path)

    def stale(self, root: Path) -> list[str]:
        """Return the files of tests below *root* that are new or have changed; forget those that are gone."""
        found = {path.relative_to(root).as_posix(): digest(path.read_text()) for path in test_files(root)}
        self.forget({path for path in self.files if path not in found})
        return [path for path, text in sorted(found.items()) if self.files.get(path) != text]

    def forget(self, files: set[str]) -> None:
        """Drop what is known of the tests in *files*."""
        gone = {test for test in {*self.tests, *self.failed} if file_of(test) in files}
        self.files = {path: text for path, text in self.files.items() if path not in files}
        self.tests = {test: seconds for test, seconds in self.tests.items() if test not in gone}
        self.failed -= gone
        self.sound -= gone
        for tests in (tests for seen in self.modules.values() for tests in seen.lines.values()):
            tests.difference_update(gone)

    def follow(self, modules: Mapping[str, str]) -> None:
        """Move the lines to where they are in *modules*, the newer source of each by its path."""
        for module, text in modules.items():
            self.modules.setdefault(module, Seen(text, {})).follow(text)

    def fails(self, tests: Iterable[str]) -> None:
        """Use *tests* no more."""
        for test in tests:
            self.tests.pop(test, None)
            self.failed.add(test)

    def usable(self, rounds: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
        """Return *rounds* of tests without those that are not used any more."""
        return [{test: taken for test, taken in tests.items() if test in self.tests} for tests in rounds]

    def of(self, module: str, lines: Iterable[int] | None) -> set[str]:
        """Return the tests that run any of *lines* of *module*; None stands for all lines in functions."""
        seen = self.modules.get(module)
        if seen is None:
            return set()
        found = (seen.lines.get(line, ()) for line in (seen.lines if lines is None else lines))
        return set().union(*found) & self.tests.keys()

    def unsure(self, module: str, lines: Iterable[int]) -> bool:
        """Return whether any of *lines* may have changed since it was measured: who runs it is not known exactly."""
        seen = self.modules.get(module)
        return seen is None or (0 in seen.lines and not any(line in seen.lines for line in lines))

    def measure(self, root: Path, files: Sequence[str], modules: Mapping[str, str], workers: int) -> None:
        """Run the tests in *files* of the tree at *root*, and add what they run.

        Args:
            root: The tree.
            files: Files of tests, below it.
            modules: The source of each module of interest, by its path.
            workers: How many tests run at a time.

        Raises:
            SystemExit: pytest cannot run the tests, or cannot import a file of them.

        """
        self.forget({*files})
        self.follow(modules)
        with tempfile.TemporaryDirectory(prefix="lines-") as name:
            folder = Path(name)
            self._run(root, files, folder, workers)
            told = json.loads((folder / "report.json").read_text())
            if told["unread"]:  # then pytest has run none of the others either
                sys.exit(f"just mutants: pytest cannot import {' '.join(told['unread'])}; fix that first")
            self.tests |= told["passed"]
            self.failed |= {*told["failed"]}
            inside = {module: in_functions(text) for module, text in modules.items()}
            for module, test, lines in seen_in(folder / "data", modules):
                if test in self.tests or test in self.failed:
                    for line in inside[module].intersection(lines):
                        self.modules[module].lines.setdefault(line, set()).add(test)
        failed = {file_of(test) for test in self.failed}  # such a file is measured again next time
        self.files |= {file: digest((root / file).read_text()) for file in files if file not in failed}

    def _run(self, root: Path, files: Sequence[str], folder: Path, workers: int) -> None:
        (folder / "data").mkdir()
        (folder / "config").write_text(CONFIG.format(folder=folder))
        xdist = ["-n", str(workers), "--dist=loadscope", "--no-loadscope-reorder"] if workers > 1 else []
        words = ["-q", "--tb=no", "--no-summary", "-p", Path(__file__).stem, f"--basetemp={folder}/t"]
        # As arguments they would ask for more examples, and for what takes minutes.
        paths = f"testpaths={' '.join(files)}"
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
        env = {
            **outer,
            "PYTHONPATH": str(Path(__file__).parent),
            "COVERAGE_PROCESS_START": str(folder / "config"),
            REPORT: str(folder / "report.json"),
        }
        command = [sys.executable, "-m", "pytest", *words, *OPTIONS, *xdist, "-o", paths]
        code = subprocess.run(command, cwd=root, env=env, check=False).returncode
        if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
            sys.exit(f"just mutants: pytest cannot run {' '.join(files)}; fix that first")


def test_files(root: Path) -> Iterator[Path]:
    """Yield the files of tests below *root*."""
    yield from (root / "tests").rglob("test_*.py")


def file_of(test: str) -> str:
    """Return the file of a test."""
    return test.partition("::")[0]


def seen_in(folder: Path, modules: Iterable[str]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield each module, test, and the lines that it runs, in the data of coverage in *folder*.

    A module is recognized by the end of its path: tests also run it in copies of the tree.
    """
    longest_first = sorted(modules, key=len, reverse=True)
    known: dict[str, str] = {}
    for path in folder.iterdir():
        try:
            with contextlib.closing(sqlite3.connect(path)) as data:
                rows = data.execute(ROWS).fetchall()
        except sqlite3.Error:
            continue  # of a program that was killed while it wrote
        for file, context, numbits in rows:
            if file not in known:
                known[file] = next((module for module in longest_first if file.endswith(f"/{module}")), "")
            if known[file]:
                yield known[file], PHASE.sub("", context), numbits_to_nums(numbits)


@functools.cache
def in_functions(text: str) -> frozenset[int]:
    """Return the lines of a module that run when a function is called, rather than when it is imported."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= {*range(node.body[0].lineno, (node.end_lineno or 0) + 1)}
        elif isinstance(node, ast.Lambda):
            found |= {*range(node.body.lineno, (node.body.end_lineno or 0) + 1)}
    return frozenset(found)


# -- the plugin --------------------------------------------------------------------------------------------------


class Durations:
    """Tells how long each test took, and whether it passed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = defaultdict(float)
        self._used: dict[str, float] = defaultdict(float)
        self._passed: set[str] = set()
        self._failed: set[str] = set()
        self._unread: set[str] = set()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self._unread.add(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test."""
        self._seconds[report.nodeid] += report.duration
        self._used[report.nodeid] += getattr(report, "used", 0.0)
        if report.failed:
            self._failed.add(report.nodeid)
        elif report.passed and report.when == "call":
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write all of it."""
        passed = {test: round(self._takes(test), 4) for test in sorted(self._passed - self._failed)}
        told = {"passed": passed, "failed": sorted(self._failed), "unread": sorted(self._unread)}
        self._path.write_text(json.dumps(told))

    def _takes(self, test: str) -> float:
        """Return about how long a test takes on a machine that has nothing else to do."""
        return min(self._seconds[test], self._used[test] + WAITS)


class Contexts:
    """Tells coverage which test runs, and each report what that used of a processor."""

    def __init__(self) -> None:
        self._used = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Switch coverage's context to the test."""
        self._used = used()
        measured = coverage.Coverage.current()
        if measured is None:
            return (yield)
        measured.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            measured.switch_context("")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Tell what this phase of the test has used, in seconds, with its programs."""
        report = yield
        before, self._used = self._used, used()
        report.used = self._used - before
        return report


def used() -> float:
    """Return what this process and its children have used of a processor, in seconds."""
    return sum(os.times()[:4])


def pytest_configure(config: pytest.Config) -> None:
    """Follow the tests, also in each of several workers; the process that started those writes the durations."""
    if REPORT in os.environ:
        config.pluginmanager.register(Contexts())
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(Durations(Path(os.environ[REPORT])))
