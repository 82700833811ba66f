"""`just test` and `just check`: all that they find is told, and the screen says how far a run is."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scripts.projects import REPO, Project
from tests.shared import made_once, unit

sys.path.append(str(REPO / "scripts" / "kernel"))

import progress
import recipe
import run_checks
import run_tests

CHECK_FAILS = """
check:
    @echo an unused import; exit 1
"""
A_TEST = "def test_mine() -> None:\n    assert {}\n"


@pytest.fixture
def small(owned: Project) -> Project:
    """A project with one test, whose checks fail at once."""
    with (owned.root / "Justfile").open("a") as file:
        file.write(CHECK_FAILS)
    for path in ("tests/test_app.py", "tests/services/test_hello_world.py"):
        (owned.root / path).unlink()
    owned.write("tests/test_mine.py", A_TEST.format("True"))
    return owned


def test_checks_that_fail_keep_no_test_from_running(small: Project) -> None:
    """Both are told, and the exit code says that something was found."""
    done = small.just("test")
    assert done.code == 1
    assert "an unused import" in done.out
    assert "`just check` has found problems" in done.out
    assert "1 passed" in done.out


def test_tests_that_fail_are_told_at_once_and_at_the_end(small: Project) -> None:
    """Also where the checks are fine."""
    small.write("Justfile", (small.root / "Justfile").read_text().replace("exit 1", "exit 0"))
    small.write("tests/test_mine.py", A_TEST.format("False"))
    done = small.just("test")
    assert done.code == 1
    assert "\nFAILED tests/test_mine.py::test_mine\n" in done.out
    assert "1 failed" in done.out
    assert "has found problems" not in done.out


def test_with_words_it_is_pytest_at_once(small: Project) -> None:
    """Neither checks nor coverage."""
    done = small.just("test", "-k", "mine", "-q")
    assert done.code == 0, done.out
    assert "unused import" not in done.out
    assert "cover" not in done.out
    assert small.just("test", "-k", "nobody").code == 5


@pytest.mark.minutes
def test_a_project_may_want_workers(small: Project) -> None:
    """By a line of its pyproject.toml; `own` has left the template's out."""
    text = (small.root / "pyproject.toml").read_text()
    assert "test-workers" not in text
    small.write("pyproject.toml", text.replace("[tool.kernel]", "[tool.kernel]\ntest-workers-per-core = 0.5"))
    done = small.just("test")
    assert re.search(r"created: \d+/\d+ worker", done.out)
    assert "1 passed" in done.out


def test_checks_run_in_the_project(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Wherever the recipe was called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_checks, "CHECKS", {"where": ["sh", "-c", "pwd; exit 1"]})
    assert run_checks.main() == 1
    assert capsys.readouterr().out.startswith(f"{REPO}\nFAILED where (")


def test_checks_are_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is that of SIGINT."""

    def start(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(REPO / "scripts" / "kernel" / "run_checks.py"), run_name="__main__")
    assert caught.value.code == 130


# -- the parts of `just test` --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("each", "many"), [(1, "4"), (0.5, "2"), (2, "8"), (0, "")])
def test_workers(monkeypatch: pytest.MonkeyPatch, each: float, many: str) -> None:
    """So many for each core that this process may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    found = run_tests.workers(each)
    assert found[:2] == (["--numprocesses", many] if many else [])
    assert ("loadscope" in found) == bool(many)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert run_tests.workers(each) == found


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, does: str) -> None:
    """Let `just check` do this."""
    (folder / "just").write_text(f"#!/bin/sh\n{does}\n")
    (folder / "just").chmod(0o755)
    monkeypatch.setattr(run_tests, "PROGRAMS", folder)


def test_checks_beside_the_tests(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What they say is shown when they end, whole, and whether they have found something is known."""
    program(monkeypatch, tmp_path, 'pwd; echo "$*"; echo oh >&2; exit 3')
    monkeypatch.chdir(tmp_path)
    found: list[int] = []
    with run_tests.checks(found):
        pass
    assert found == [3]
    assert capfd.readouterr().out == f"{REPO}\ncheck\noh\n"


def test_checks_end_with_tests_that_are_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody waits for them."""
    program(monkeypatch, tmp_path, "exec sleep 600")
    found: list[int] = []
    with pytest.raises(KeyboardInterrupt), run_tests.checks(found):
        raise KeyboardInterrupt
    assert found == [-signal.SIGTERM]


@pytest.mark.parametrize(
    ("settings", "words", "ends"),
    [
        ("", [], ["--cov"]),
        ("[tool.kernel]\ntest-coverage = false", [], []),
        ("[tool.kernel]\ntest-coverage = false", ["--all"], ["--all", "--cov"]),
        ("[tool.kernel]\ntest-workers-per-core = 2", ["--all"], ["--all", "--cov"]),
    ],
)
def test_how_pytest_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: str, words: list[str], ends: list[str]
) -> None:
    """As the project's settings say, with the progress; tests do not see the folder of the scripts."""
    (tmp_path / "pyproject.toml").write_text(settings)
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    folder = str(REPO / "scripts" / "kernel")
    monkeypatch.setattr(sys, "path", [folder, "/x"])
    called: list[object] = []

    def main(words: list[str], plugins: list[Any]) -> int:
        (plugin,) = plugins
        called.extend([words, plugin._workers, [*sys.path]])
        os.close(plugin._screen)
        return 5

    monkeypatch.setattr(pytest, "main", main)
    assert run_tests.run_pytest(words) == 5
    many = run_tests.workers(2) if "workers" in settings else []
    assert called == [[*many, *ends], bool(many), ["/x"]]


@pytest.mark.parametrize(
    ("found", "code", "ends"),
    [([0], 0, 0), ([0], 1, 1), ([2], 0, 2), ([1], 5, 5)],
    ids=["well", "tests", "checks", "both"],
)
def test_what_just_test_comes_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: list[int], code: int, ends: int
) -> None:
    """The tests' exit code goes first; that the checks have found something is told once more at the end."""

    @contextlib.contextmanager
    def checks(told: list[int]) -> Iterator[None]:
        yield
        told += found

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["run_tests.py"])
    monkeypatch.setattr(run_tests, "checks", checks)
    monkeypatch.setattr(run_tests, "run_pytest", lambda words: code if words == [] else None)
    try:
        assert run_tests.main() == ends
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out == ("`just check` has found problems: see above.\n" if found != [0] else "")


def test_words_are_for_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process becomes it."""
    words = [sys.executable, "-m", "pytest", "-k", "billing"]

    def execv(*given: object) -> None:
        assert given == (sys.executable, words)
        raise ZeroDivisionError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["run_tests.py", "-k", "billing"])
    with pytest.raises(ZeroDivisionError):
        run_tests.main()


@pytest.mark.parametrize(("words", "name"), [(["-h"], "test"), (["--all", "--help"], "test-all")])
def test_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], name: str) -> None:
    """It runs in the project, and tests nothing."""
    told: list[str] = []
    monkeypatch.setattr(recipe, "tell_use", lambda *words: told.extend(words))
    monkeypatch.setattr(sys, "argv", ["run_tests.py", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(REPO / "scripts" / "kernel" / "run_tests.py"), run_name="__main__")
    use = f"just {name}, or just test -k billing; `.venv/bin/pytest --help` lists pytest's options"
    assert (caught.value.code, told, Path.cwd()) == (0, [name, use], REPO)


def test_all_checks_run_and_all_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever the others find; a program that is missing is a check that has failed."""
    python = [sys.executable, "-c"]
    found = {
        "good": [*python, "print('not to be told')"],
        "bad": [*python, "raise SystemExit('line 3 is wrong')"],
        "worse": [*python, "print('line 4 is wrong'); raise SystemExit(7)"],
        "missing": [str(tmp_path / "nowhere")],
    }
    monkeypatch.setattr(run_checks, "CHECKS", found)
    assert run_checks.main() == 1
    said = capsys.readouterr().out
    assert "not to be told" not in said
    assert {"line 3 is wrong", "line 4 is wrong"} <= {*said.splitlines()}
    assert str(tmp_path / "nowhere") in said
    verdicts = re.findall(r"^(ok|FAILED) +(\w+) \([\d.]+ s\)$", said, re.MULTILINE)
    assert sorted(verdicts) == [("FAILED", "bad"), ("FAILED", "missing"), ("FAILED", "worse"), ("ok", "good")]
    monkeypatch.setattr(run_checks, "CHECKS", {"good": found["good"]})
    assert run_checks.main() == 0


class Cache(dict[str, dict[str, float]]):
    """Pytest's cache."""

    def set(self, key: str, value: dict[str, float]) -> None:
        """Keep it."""
        self[key] = value


def report(name: str, *, seconds: float = 1.0, failed: bool = False) -> pytest.TestReport:
    """A test that is over."""
    outcome = "failed" if failed else "passed"
    return pytest.TestReport(name, ("", 0, ""), {}, outcome, None, "teardown", duration=seconds)  # type: ignore[arg-type]


def test_the_line_says_what_is_known_and_no_more() -> None:
    """How many are done, what failed, what runs; a share of the time only by an earlier run of about the same tests."""
    cache = Cache()
    plugins = SimpleNamespace(get_plugin=lambda _: None)
    tests = [f"tests/test_some.py::test_{number}" for number in range(10)]
    for known in (False, True):
        told = progress.Progress(workers=True)
        told.pytest_configure(SimpleNamespace(cache=cache, pluginmanager=plugins))  # type: ignore[arg-type]
        assert told.line().endswith("looking for tests")
        told.pytest_xdist_node_collection_finished(tests)
        told.pytest_runtest_logstart(tests[0])
        told.pytest_runtest_logstart(tests[1])
        assert "0 of 10 tests" in told.line()
        assert "running: some::0 0 s, some::1 0 s" in told.line()
        told.pytest_runtest_logreport(report(tests[0], seconds=11.0))
        assert "1 of 10 tests" in told.line()
        assert ("55 % of the time that the last run took" in told.line()) is known
        assert "some::0" not in told.line()
        told.pytest_runtest_logreport(report(tests[1], failed=True))
        assert "1 failed" in told.line()
        for name in tests[2:]:
            told.pytest_runtest_logreport(report(name))
        told.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace(cache=cache)))  # type: ignore[arg-type]
        assert {*cache[progress.KEY]} == {*tests}
    cache[progress.KEY].popitem()
    cache[progress.KEY].popitem()
    told = progress.Progress(workers=True)
    told.pytest_configure(SimpleNamespace(cache=cache, pluginmanager=plugins))  # type: ignore[arg-type]
    told.pytest_xdist_node_collection_finished(tests)
    told.pytest_runtest_logreport(report(tests[0]))
    assert "%" not in told.line()


class Session:
    """A run of pytest, and what it knows of the last one."""

    def __init__(self, before: dict[str, float] | None = None, *, workers: bool = False) -> None:
        self.cache = Cache({progress.KEY: before or {}})
        self.config: Any = SimpleNamespace(
            cache=self.cache, pluginmanager=SimpleNamespace(get_plugin=lambda _: self.reporter)
        )
        self.reporter: Any = SimpleNamespace(showfspath=None, _show_progress_info="count")
        self.told = progress.Progress(workers=workers)
        self.told.pytest_configure(self.config)  # type: ignore[arg-type]

    def collect(self, *names: str) -> None:
        """Find tests."""
        items = [SimpleNamespace(nodeid=name) for name in names]
        self.told.pytest_collection_finish(SimpleNamespace(items=items))  # type: ignore[arg-type]

    def report(self, name: str, when: str, seconds: float = 1.0, outcome: str = "passed") -> None:
        """End a phase of a test."""
        told = pytest.TestReport(name, ("", 0, ""), {}, outcome, None, when, duration=seconds)  # type: ignore[arg-type]
        self.told.pytest_runtest_logreport(told)

    def finish(self) -> None:
        """End the run."""
        self.told.pytest_sessionfinish(self)  # type: ignore[arg-type]


def test_pytest_counts_and_shows_nothing_of_its_own() -> None:
    """Neither dots nor names of files; also where it has neither cache nor reporter."""
    session = Session()
    assert session.reporter == SimpleNamespace(showfspath=False, _show_progress_info=False)
    status = session.told.pytest_report_teststatus()
    next(status)
    with pytest.raises(StopIteration) as caught:
        status.send(("passed", ".", "PASSED"))
    assert caught.value.value == ("passed", "", "")
    bare: Any = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda _: None))
    session.told.pytest_configure(bare)
    session.config = bare
    session.finish()


def test_who_finds_the_tests() -> None:
    """The workers, if there are any; all of them find the same."""
    session = Session(workers=True)
    session.collect()
    session.told.pytest_xdist_node_collection_finished(["a::test_x", "a::test_y"])
    session.told.pytest_xdist_node_collection_finished([])
    session.collect("a::test_x")
    assert "  0 of 2 tests" in session.told.line()
    session.finish()
    alone = Session()
    alone.collect("a::test_x")
    assert "  0 of 1 tests" in alone.told.line()
    alone.finish()


@pytest.mark.parametrize(("known", "shown"), [(10, True), (9, True), (8, False)])
def test_a_share_of_the_time(known: int, shown: bool) -> None:
    """It is shown if the last run had nine of ten tests; what that took of others does not count."""
    names = [f"a::test_{number}" for number in range(10)]
    session = Session({**dict.fromkeys(names[:known], 2.0), names[0]: 20.0, "gone": 1000.0})
    session.collect(*names)
    session.report(names[0], "setup")
    share = round(100 * 20 / (20 + 2 * (known - 1)))
    assert (f", {share} % of the time that the last run took" in session.told.line()) is shown
    for name in names:
        session.report(name, "teardown")
    assert "%" not in session.told.line()
    session.finish()


def test_durations_are_kept_of_whole_runs() -> None:
    """All phases of a test count; a run that was interrupted says too little."""
    for names in (("a::test_x", "a::test_y"), ("a::test_x",)):
        session = Session({"old": 1.0})
        session.collect("a::test_x", "a::test_y")
        for name in names:
            for when in ("setup", "call", "teardown"):
                session.report(name, when, 0.111)
        session.finish()
        kept = {"a::test_x": 0.33, "a::test_y": 0.33} if len(names) == 2 else {"old": 1.0}
        assert session.cache[progress.KEY] == kept


def test_what_is_on_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minutes, what failed, and what runs, the longest first."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    session = Session()
    session.collect("tests/test_b.py::test_x", "tests/a.py::y", "z")
    for name in ("tests/test_b.py::test_x", "tests/a.py::y"):
        session.told.pytest_runtest_logstart(name)
        clock[0] += 60
    session.report("z", "call", outcome="failed")
    session.report("z", "teardown", outcome="failed")
    assert session.told.line() == "2:00  1 of 3 tests, 2 failed; running: b::x 120 s, a::y 60 s"
    session.finish()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_written(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], terminal: bool) -> None:
    """On a terminal in place of the line, as wide as it is; elsewhere line by line, and rarely."""
    monkeypatch.setattr(os, "isatty", lambda _: terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: SimpleNamespace(columns=11))
    waits: list[float] = []
    session = Session()
    assert session.told._teller.daemon, "it keeps no process from ending"
    joined: list[float] = []
    session.told._teller = SimpleNamespace(is_alive=lambda: True, join=joined.append)  # type: ignore[assignment]

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 2

    session.told._over = SimpleNamespace(wait=wait, set=lambda: waits.append(0))  # type: ignore[assignment]
    session.told._tell()
    session.report("a::test_x", "call", outcome="failed")
    session.report("a::test_x", "setup", outcome="failed")
    session.finish()
    begin, each = ("\r\x1b[K", "\r\x1b[K0:00  look") if terminal else ("", "0:00  looking for tests\n")
    said = f"{each * 2}{begin}FAILED a::test_x\n{begin}FAILED a::test_x (setup)\n{begin}"
    assert capfd.readouterr() == (said, "")
    assert waits == [*[progress.EVERY if terminal else progress.RARELY] * 3, 0]
    assert joined == [1]


def test_a_reader_that_is_gone() -> None:
    """The tests go on."""
    session = Session()
    os.close(session.told._screen)
    session.told._screen = os.open("/dev/full", os.O_WRONLY)
    session.told._write("x")
    session.finish()


def test_what_is_shared_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever comes later gets what is there; what failed is tried anew, from nothing."""
    calls: list[Path] = []

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once(tmp_path_factory, "once", fails)
    folder = made_once(tmp_path_factory, "once", calls.append)
    assert not (folder / "half").exists()
    assert made_once(tmp_path_factory, "once", calls.append) == folder
    assert calls == [folder]


def test_units_of_tests() -> None:
    """What starts programs is handed out test by test, unless its module shares a fixture; all else goes by files."""
    assert unit("tests/conformance/test_signals.py::test_x[1]") == "tests/conformance/test_signals.py::test_x[1]"
    assert unit("tests/conformance/test_always_ends.py::test_x") == "tests/conformance/test_always_ends.py"
    assert unit("tests/lifecycle/test_clock.py::test_x") == "tests/lifecycle/test_clock.py"
