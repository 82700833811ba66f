"""Run tests against mutants in forks of one process, for `just mutants`: what is slow to import is imported once.

A *keeper* is forked for each mutant, and a *runner*, which is pytest, for each round of tests. The runner reports each
test that begins, so that the keeper notices one that hangs. The keeper adopts whatever the tests leave behind and ends
it.
"""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any, NoReturn

import attrs
import hypothesis
import pytest
from _pytest.config import default_plugins
from mutants_lines import OPTIONS, file_of

IGNORED = (".venv", ".git", ".mutants", ".bench", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", "build")
HEAVY = (
    *(f"_pytest.{name}" for name in default_plugins),
    "_hypothesis_pytestplugin",
    "_pytest.mark.expression",
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "anyio.pytest_plugin",
    "anyio.streams.tls",
    "cyclopts",
    "h11",
    "httpx",
    "hypothesis.stateful",
    "nats.aio.client",
    "nkeys",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.prometheus",
    "opentelemetry.sdk.metrics.export",
    "opentelemetry.sdk.trace.export",
    "pytest_cov.plugin",
    "rich.console",
    "tomlkit",
    "trio.testing",
    "xdist.plugin",
    "xdist.scheduler",
    "yaml",
)
"""What the tests import and what takes long to import; none of it may import the code that is mutated."""

PATIENCE = 15.0  # seconds that a test may take, and SLOWER times what it took when it was measured
SLOWER = 5.0
START = 4  # times as long until the first test begins: many files are imported
GRACE = 5.0  # seconds in which a runner closes what its tests have opened
ADOPTS = 36  # PR_SET_CHILD_SUBREAPER of Linux
CHILDREN = Path("/proc/thread-self/children")
TOO_LONG = "takes too long"
ENDED_WELL = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


@attrs.frozen
class Run:
    """How a run of tests went.

    Args:
        ran: How many tests have begun.
        test: The one that did not pass, or the file that cannot be imported; empty if all passed, or if it is unknown.
        how: What happened to it; empty if all passed.

    """

    ran: int
    test: str = ""
    how: str = ""


@attrs.define
class Outcome:
    """What came of a mutant.

    Args:
        noticed: The test that noticed it, and how; empty if none did.
        sound: The tests that were seen to pass without the mutant.
        broken: The tests that fail even without it.
        slow: The tests that take too long even without it, for the load it may be.
        ran: How many tests have begun.
        cpu: What the tests took of a processor, in seconds.

    """

    noticed: str = ""
    sound: list[str] = attrs.field(factory=list)
    broken: list[str] = attrs.field(factory=list)
    slow: list[str] = attrs.field(factory=list)
    ran: int = 0
    cpu: float = 0.0


def preload() -> None:
    """Import what is heavy."""
    for name in HEAVY:
        with contextlib.suppress(ImportError):  # a project need not have all of it
            importlib.import_module(name)
    calm = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # the first failure counts, not the smallest
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=calm)
    hypothesis.settings.load_profile("mutants")
    gc.collect()
    gc.freeze()  # a fork does not copy what nobody touches


class Copy:
    """A copy of the tree, in which tests run and mutants live.

    Python trusts the .pyc of each file there without a look at the source, but for those that `put` has written.

    Args:
        tree: The tree.
        folder: The folder for the copy.

    """

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree, self.folder, self.root = tree, folder, folder / "tree"
        shutil.copytree(tree, self.root, symlinks=True, ignore=shutil.ignore_patterns(*IGNORED))
        # As a link it would lead tests that make a .venv into the tree's, which they clear.
        (self.root / ".venv").mkdir()
        for path in (tree / ".venv").glob("*"):
            (self.root / ".venv" / path.name).symlink_to(path)
        for words in ["git", "init", "-q"], ["git", "add", "-A"]:  # tests clone the tracked files
            subprocess.run(words, cwd=self.root, check=True)
        compileall.compile_dir(self.root, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)

    def put(self, path: str, text: str) -> None:
        """Write a file so that no .pyc of another text counts for it, also one that a program writes too late."""
        file = self.root / path
        stamp = int(file.stat().st_mtime) + 1  # different each time; a .pyc has the one of its source, in seconds
        file.write_text(text)
        os.utime(file, (stamp, stamp))
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
            compiled.unlink(missing_ok=True)

    def keep(self, path: str, texts: tuple[str, str], rounds: Sequence[Mapping[str, float]], sound: set[str]) -> int:
        """Try a mutant in a keeper, and return its process id; `outcome` reads what came of it.

        Args:
            path: The file of the module.
            texts: Its source, without and with the mutant.
            rounds: Tests to run, with their durations in seconds; the first that fails decides.
            sound: Tests that are known to pass without a mutant.

        """
        (self.folder / "outcome.json").unlink(missing_ok=True)
        if pid := os.fork():
            return pid
        code = 1
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever starts it ends it
            os.setsid()
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(ADOPTS, 1, 0, 0, 0)
            outcome = self._try_out(path, texts, rounds, {*sound})
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            outcome.cpu = round(used.ru_utime + used.ru_stime, 2)
            (self.folder / "outcome.json").write_text(json.dumps(attrs.asdict(outcome)))
            code = 0
        except SystemExit:
            pass
        except BaseException:  # noqa: BLE001  (nothing of a fork may reach what the parent does next)
            traceback.print_exc()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_children()
            os._exit(code)

    def outcome(self) -> Outcome:
        """Return what came of the mutant that a keeper has tried.

        Raises:
            RuntimeError: The keeper has failed.

        """
        path = self.folder / "outcome.json"
        if not path.exists():
            raise RuntimeError("a mutant could not be tried")
        return Outcome(**json.loads(path.read_text()))

    def _try_out(
        self, path: str, texts: tuple[str, str], rounds: Sequence[Mapping[str, float]], sound: set[str]
    ) -> Outcome:
        before, after = texts
        outcome = Outcome()
        for tests in rounds:
            while left := {
                test: seconds for test, seconds in tests.items() if test not in {*outcome.broken, *outcome.slow}
            }:
                self.put(path, after)
                run = self._run(left)
                self.put(path, before)
                outcome.ran += run.ran
                if not run.how:
                    break
                suspects = (
                    [run.test] if run.test in left else [one for one in left if file_of(one) == run.test] or [*left]
                )
                if sound.isdisjoint(suspects):
                    if how := self._run({suspects[0]: left[suspects[0]]}).how:
                        (outcome.slow if how == TOO_LONG else outcome.broken).append(suspects[0])
                        continue
                    outcome.sound.append(suspects[0])
                outcome.noticed = f"{run.test} {run.how}".strip()
                return outcome
        return outcome

    def _run(self, tests: Mapping[str, float]) -> Run:
        read, write = os.pipe()
        runner = os.fork()
        if not runner:
            os.close(read)
            self._be_runner(tests, write)
        os.close(write)
        run = None
        try:
            run = follow(read, tests)
            return run
        finally:
            os.close(read)
            if run is None or run.how == TOO_LONG:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(runner, signal.SIGINT)
            end(runner)
            shutil.rmtree(self.folder / "t", ignore_errors=True)

    def _be_runner(self, tests: Mapping[str, float], write: int) -> NoReturn:
        try:
            os.setsid()
            output = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for old, new in (os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2):
                os.dup2(old, new)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(self.root)
            ours = {str(Path(__file__).parent), str(self._tree)}
            sys.path[:] = [str(self.root), *(place for place in sys.path if place not in ours)]
            sys.argv[:] = ["pytest"]
            for name in [name for name in os.environ if name.startswith(("PYTEST_", "COVERAGE_"))]:
                del os.environ[name]
            files = " ".join(sorted({file_of(test) for test in tests}))  # as arguments they would ask for more examples
            words = ["-q", "-x", "--tb=short", *OPTIONS, f"--basetemp={self.folder}/t", "-o", f"testpaths={files}"]
            tell(write, "end", str(int(pytest.main(words, plugins=[Chosen(tests, write)]))))
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)


def tell(pipe: int, what: str, of: str) -> None:
    """Tell the keeper."""
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, f"{json.dumps([what, of])}\n".encode())


class Chosen:
    """A plugin that leaves only the chosen tests, the files with the shortest first, and tells what they do.

    Args:
        tests: The tests, with their durations in seconds.
        pipe: Where to tell it.

    """

    def __init__(self, tests: Mapping[str, float], pipe: int) -> None:
        self._tests = tests
        self._pipe = pipe

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose; the tests of a file stay together, since they may share what is slow to make."""
        items[:] = [item for item in items if item.nodeid in self._tests]
        turn: dict[str, float] = {}
        for test, seconds in self._tests.items():
            turn[file_of(test)] = turn.get(file_of(test), 0.0) + seconds
        items.sort(key=lambda item: turn[file_of(item.nodeid)])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell that a test begins."""
        tell(self._pipe, "begins", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell if a test has failed."""
        if report.failed:
            tell(self._pipe, "failed", report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell if a file cannot be imported."""
        if report.failed:
            tell(self._pipe, "failed", report.nodeid)


def follow(pipe: int, tests: Mapping[str, float]) -> Run:
    """Follow a runner of *tests* until the first of them fails, or all have ended."""
    ran, current, until = 0, "", time.monotonic() + START * PATIENCE
    for told in messages(pipe):
        if told is None:
            if time.monotonic() > until:
                return Run(ran, current, TOO_LONG)
            continue
        what, of = told
        if what == "begins":
            ran, current, until = ran + 1, of, time.monotonic() + PATIENCE + SLOWER * tests.get(of, 0.0)
        elif what == "failed":
            return Run(ran, of, "fails")
        else:
            return Run(ran) if int(of) in ENDED_WELL else Run(ran, current, f"ends pytest with {of}")
    return Run(ran, current, "ends the process")


def messages(pipe: int) -> Iterator[list[Any] | None]:
    """Yield what is told through *pipe*, and None ten times a second; reap what was adopted."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], 0.1)
        if ready:
            more = os.read(pipe, 1 << 16)
            if not more:
                return
            *lines, rest = (rest + more).split(b"\n")
            yield from map(json.loads, lines)
        with contextlib.suppress(ChildProcessError):
            gone, _ = os.waitpid(-1, os.WNOHANG)
            while gone:
                gone, _ = os.waitpid(-1, os.WNOHANG)
        yield None


def end(runner: int) -> None:
    """Let the runner end, and end all that its tests have left behind."""
    until = time.monotonic() + GRACE
    with contextlib.suppress(ChildProcessError):  # it may have been reaped
        while os.waitpid(runner, os.WNOHANG) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
    if not CHILDREN.exists():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(runner, signal.SIGKILL)
    end_children()


def end_children() -> None:
    """End all children of this process, and theirs, which it then adopts."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in CHILDREN.read_text().split() if CHILDREN.exists() else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)
