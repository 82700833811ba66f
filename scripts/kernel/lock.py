"""Makes scripts/requirements.lock from pyproject.toml: every group, every platform, with hashes, naming no host.

Versions that still fit are kept. Arguments go to uv: `just lock --upgrade`, `just lock --upgrade-package anyio`.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from typing import Any

from bootstrap import LOCK, ROOT, VENV, VENV_UV, settings_of_pip


def read_project() -> dict[str, Any]:
    """Return pyproject.toml as a dict."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def header(project: dict[str, Any]) -> str:
    """The lock's first line, which shows whether the dependencies have changed since."""
    table = project["project"]
    inputs = [table["requires-python"], table["dependencies"], project["dependency-groups"]]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return f"# Made by `just lock` from the dependencies in pyproject.toml (sha256 {digest[:16]}).\n"


def hosts(text: str) -> list[str]:
    """The lines of a lock that name a host."""
    return [line.strip() for line in text.splitlines() if "://" in line]


def main() -> None:
    """Resolves, checks, and only then replaces the lock."""
    project = read_project()
    made = VENV / LOCK.name
    made.write_text(LOCK.read_text() if LOCK.exists() else "")  # uv keeps the versions that it finds here
    options = ["--quiet", "--universal", "--generate-hashes", "--no-header", "--output-file", str(made)]
    groups = [f"--group={name}" for name in project["dependency-groups"]]
    command = [str(VENV_UV), "pip", "compile", *options, *groups, *sys.argv[1:], "pyproject.toml"]
    if subprocess.run(command, cwd=ROOT, env={**settings_of_pip(), **os.environ}, check=False).returncode:
        sys.exit(2)
    text = made.read_text()
    if named := hosts(text):
        print(f"scripts/lock.py: the lock would name a host ({named[0]}); take that package by name.", file=sys.stderr)
        sys.exit(2)
    made.write_text(header(project) + text)
    made.replace(LOCK)


if __name__ == "__main__":
    main()
