"""`just check`: run all checks in parallel, and report every problem."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
SCRIPT = str(ROOT / "scripts" / "kernel" / "script")  # prefers a script of the user with the same name
RULES, MAIN = str(ROOT / "kernel" / "ruff.toml"), "app/__main__.py"  # the framework's only file in a user's folder
CHECKS = {
    "types": [str(PROGRAMS / "mypy"), "--no-error-summary"],  # the slowest comes first
    "awaits in clean-up": [SCRIPT, "check_clean_up"],
    "layers": [str(PROGRAMS / "lint-imports"), "--no-logo"],
    "lint": [str(PROGRAMS / "ruff"), "check", "--quiet"],
    "format": [str(PROGRAMS / "ruff"), "format", "--check", "--quiet"],
    "lint of app/__main__.py": [str(PROGRAMS / "ruff"), "check", "--quiet", "--config", RULES, MAIN],
    "format of app/__main__.py": [str(PROGRAMS / "ruff"), "format", "--check", "--quiet", "--config", RULES, MAIN],
    "project": [SCRIPT, "check_project"],
}
COLOURS = {"FORCE_COLOR": "1", "MYPY_FORCE_COLOR": "1"}


def run(name: str, command: list[str], failed: list[str], lock: threading.Lock) -> None:
    """Run a check. Report when it is done, with its output if it failed."""
    began = time.monotonic()
    env = {**os.environ, **COLOURS} if sys.stdout.isatty() else None
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        code, output = done.returncode, done.stdout
    except OSError as error:
        code, output = 2, f"{error}\n"
    with lock:
        if code:
            failed.append(name)
            sys.stdout.write(output)
        print(f"{'FAILED' if code else 'ok    '} {name} ({time.monotonic() - began:.1f} s)", flush=True)


def main() -> int:
    """Run all checks, and return the exit code."""
    failed: list[str] = []
    lock = threading.Lock()
    threads = [threading.Thread(target=run, args=(*check, failed, lock)) for check in CHECKS.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
