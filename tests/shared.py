"""How several workers share one run: what takes long is made once, and each worker gets whole units of tests."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

everything = False
"""Whether this is `just test-all`, or somebody has named the tests: conftest.py sets it before a test is imported."""

PART = 5  # one of so many examples or cases is for `just test`

SINGLY = {"conformance", "docs", "examples", "scripts"}
"""Folders whose tests start programs, so that each of them is worth a worker's turn; of the others, a whole file is."""


def examples(many: int) -> int:
    """Return how many examples hypothesis tries: *many*, or a fifth of them in `just test`."""
    return many if everything else many // PART


def left_out(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the cases of tests with many that `just test` leaves to `just test-all`: all but each fifth."""
    met: Counter[str] = Counter()
    found = []
    for item in items:
        if not item.get_closest_marker("many"):
            continue
        test = item.nodeid.partition("[")[0]
        if met[test] % PART:
            found.append(item)
        met[test] += 1
    return found


def import_share(root: Path, worker: Mapping[str, Any]) -> None:
    """Import a worker's share of the tests before it collects all of them, for the others find them rewritten then.

    On a fresh clone each worker would rewrite the assertions of every file, which takes longer than all the rest of the
    collection. What cannot be imported is left to pytest, which says why.

    Args:
        root: The project's folder.
        worker: What pytest-xdist tells the worker.

    """
    files = sorted(path for path in (root / "tests").rglob("test_*.py") if path.parent.name != "cookbook")
    with warnings.catch_warnings(action="error"):  # as pytest does when it imports them
        for path in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder *name*, which the first of all workers that comes here makes; the others wait for it.

    Whoever uses it changes nothing in it.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, made = base / f"shared-{name}", base / f"shared-{name}.made"
    with (base / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # where somebody failed to make it
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@functools.cache
def unit(test: str) -> str:
    """Return the unit to which *test*, an id of pytest's, belongs: a worker runs all of it."""
    file = test.partition("::")[0]
    singly = Path(file).parent.name in SINGLY and not _shares_a_fixture(file)
    return test if singly else file


@functools.cache
def _shares_a_fixture(file: str) -> bool:
    return 'scope="module"' in Path(file).read_text()


def turn(item: pytest.Item) -> int:
    """Return the turn of a test: what takes long comes first, so that in the end no worker is alone with it."""
    if item.get_closest_marker("long"):
        return 0
    return 1 if item.path.parent.name in SINGLY else 2
