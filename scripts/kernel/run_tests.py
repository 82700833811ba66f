"""`just test`: run all checks and all tests in parallel, and report every problem.

With arguments, as in `just test -k billing`, only pytest runs with these arguments, without checks and coverage. Two
settings in `[tool.kernel]` of pyproject.toml are for slow suites: with `test-workers-per-core = 2` pytest-xdist runs
two tests at a time per core, which then must not share anything; with `test-coverage = false`, coverage is measured
only by `just test-all`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

from recipe import is_help, tell_use

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
ALL = "--all"  # passed by `just test-all`


def workers(each: float) -> list[str]:
    """Return the options of pytest-xdist for *each* workers per core; nothing for none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ["--numprocesses", str(round(each * cores)), "--dist", "loadscope", "--no-loadscope-reorder"] if each else []


@contextlib.contextmanager
def checks(found: list[int]) -> Iterator[None]:
    """Run `just check` beside the block. At the end print its output, and add its exit code to *found*."""
    with tempfile.TemporaryFile("w+") as said:
        check = subprocess.Popen([PROGRAMS / "just", "check"], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        screen = os.dup(1)  # the real stdout, which pytest does not capture

        def tell() -> None:
            found.append(check.wait())
            said.seek(0)
            start = "\r\x1b[K" if os.isatty(screen) else ""
            with contextlib.suppress(OSError):
                os.write(screen, f"{start}{said.read()}".encode())

        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield
        except BaseException:
            check.terminate()
            raise
        finally:
            teller.join()
            os.close(screen)


def run_pytest(words: list[str]) -> int:
    """Run all tests in this process, and show the progress."""
    import pytest

    from progress import Progress

    sys.path.remove(str(Path(__file__).parent))  # tests should see the same path as under pytest
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text()).get("tool", {}).get("kernel", {})
    distributed = workers(settings.get("test-workers-per-core", 0))
    if words == [ALL] or settings.get("test-coverage", True):
        words = [*words, "--cov"]
    return int(pytest.main([*distributed, *words], plugins=[Progress(workers=bool(distributed))]))


def main() -> int:
    """Run what was requested, and return the exit code."""
    words = sys.argv[1:]
    if is_help(words):
        recipe = "test-all" if ALL in words else "test"
        tell_use(recipe, f"just {recipe}, or just test -k billing; `.venv/bin/pytest --help` lists pytest's options")
        return 0
    if words not in ([], [ALL]):
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *words])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found: list[int] = []
    with checks(found):
        code = run_pytest(words)
    if found != [0]:
        print("`just check` has found problems: see above.")
    return code or found[0]


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
