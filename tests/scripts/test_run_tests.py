"""`just test` and `just check`: all that they find is told, and the screen says how far a run is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.scripts.projects import REPO, Project
from tests.shared import made_once, unit

sys.path.append(str(REPO / "scripts" / "kernel"))

import progress
import run_checks

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
