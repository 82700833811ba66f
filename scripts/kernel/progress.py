"""Show the progress of the tests: how many are done, which have failed, and which are running.

On a terminal this is one line that is updated; elsewhere it is a line every 15 s. A share of the time is shown only if
an earlier run has recorded how long each test takes: the times differ by a factor of a thousand, so the number of tests
says little.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

KEY = "kernel/durations"  # the key in pytest's cache
EVERY = 0.5  # seconds between two updates on a terminal
RARELY = 15.0  # seconds between two lines elsewhere


class Progress:
    """A pytest plugin that shows the progress of a run instead of dots.

    Args:
        workers: Whether pytest-xdist distributes the tests.

    """

    def __init__(self, *, workers: bool) -> None:
        self._workers = workers
        self._screen = os.dup(1)  # not affected when pytest captures output
        self._terminal = os.isatty(self._screen)
        self._began = time.monotonic()
        self._total = 0
        self._done = 0
        self._failed = 0
        self._running: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._all_before = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()  # protects the output
        self._teller = threading.Thread(target=self._tell, daemon=True)

    # -- what pytest calls ---------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Read the durations of the last run, and hide file names and percentages of pytest's own reporter."""
        if reporter := config.pluginmanager.get_plugin("terminalreporter"):
            reporter.showfspath = False
            reporter._show_progress_info = False  # noqa: SLF001  (there is no public way)
        if (cache := getattr(config, "cache", None)) is not None:
            self._before = cache.get(KEY, {})

    def pytest_sessionstart(self) -> None:
        """Start to show the progress."""
        self._teller.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record the tests of a run without workers."""
        if not self._workers:
            self._begin([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Record the tests that each worker has found, which are the same for all."""
        if not self._total:
            self._begin(ids)

    def _begin(self, ids: list[str]) -> None:
        self._total = len(ids)
        self._before = {name: self._before[name] for name in ids if name in self._before}
        if len(self._before) < 0.9 * self._total:  # a share of the time would be misleading
            self._before = {}
        self._all_before = sum(self._before.values())

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record that a test begins."""
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the result of a phase of a test."""
        self._took[report.nodeid] = self._took.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed += 1
            self._write(f"FAILED {report.nodeid}" + ("" if report.when == "call" else f" ({report.when})"))
        if report.when == "teardown":
            self._done += 1
            self._running.pop(report.nodeid, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Let pytest count, but without its dots."""
        category, *_ = yield
        return category, "", ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Stop showing the progress, and store the duration of each test."""
        self._over.set()
        if self._teller.is_alive():
            self._teller.join(1)
        if self._terminal:
            self._write("")
        os.close(self._screen)
        cache = getattr(session.config, "cache", None)
        if cache is not None and self._done == self._total:
            cache.set(KEY, {name: round(took, 2) for name, took in self._took.items()})

    # -- what is told --------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        while not self._over.wait(EVERY if self._terminal else RARELY):
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                self._put(f"\r\x1b[K{self.line()[:width]}")
            else:
                self._put(f"{self.line()}\n")

    def _write(self, line: str) -> None:
        """Write a line in place of the status line."""
        self._put((f"\r\x1b[K{line}" if self._terminal else line) + ("\n" if line else ""))

    def _put(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # the reader may be gone
            os.write(self._screen, text.encode())

    def line(self) -> str:
        """Return the status line."""
        now = time.monotonic()
        passed = divmod(int(now - self._began), 60)
        text = f"{passed[0]}:{passed[1]:02}  "
        if not self._total:
            return f"{text}looking for tests"
        text += f"{self._done} of {self._total} tests"
        if self._before and self._done < self._total:
            done = sum(took for name, took in self._before.items() if name in self._took)
            text += f", {100 * done / (self._all_before or 1):.0f} % of the time that the last run took"
        if self._failed:
            text += f", {self._failed} failed"
        running = sorted(self._running.copy().items(), key=lambda item: item[1])
        names = [f"{_short(name)} {now - began:.0f} s" for name, began in running]
        return text + (f"; running: {', '.join(names)}" if names else "")


def _short(nodeid: str) -> str:
    file, _, name = nodeid.partition("::")
    return f"{os.path.basename(file).removeprefix('test_').removesuffix('.py')}::{name.removeprefix('test_')[:40]}"  # noqa: PTH119
