"""Make scripts/requirements.lock from pyproject.toml: all groups and platforms, with hashes, without host names.

Locked versions that still fit are kept. New versions must be at least 7 days old, or AGE=n. All other arguments go to
uv: `just lock --upgrade`, `just lock --upgrade-package anyio`. `just deps-update` also lists what it has changed.
"""

import functools
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bootstrap import LOCK, NO_NETWORK, ROOT, VENV_UV, reason, settings_of_pip
from recipe import Refusal, is_help, run, show
from staging import Change

USE = "just lock --upgrade"
AGE = 7  # minimum age of a new version in days: most malicious ones are found by then
PIN = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+)")


class Unsolved(Refusal):
    """No set of versions meets the requirements."""


def read_project(root: Path = ROOT) -> dict[str, Any]:
    """Return pyproject.toml as a dict."""
    return tomllib.loads((root / "pyproject.toml").read_text())


def header(project: dict[str, Any]) -> str:
    """Return the lock's first line, which shows whether the dependencies have changed since."""
    table = project["project"]
    inputs = [table["requires-python"], table["dependencies"], project["dependency-groups"]]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return f"# Made by `just lock` from the dependencies in pyproject.toml (sha256 {digest[:16]}).\n"


def hosts(text: str) -> list[str]:
    """Return the lines of a lock that name a host."""
    return [line.strip() for line in text.splitlines() if "://" in line]


def pins(text: str) -> dict[str, str]:
    """Return the version of each package in a lock, or all versions if there are several."""
    found: dict[str, list[str]] = {}
    for name, version in PIN.findall(text):
        found.setdefault(name, []).append(version)
    return {name: " and ".join(versions) for name, versions in found.items()}


def read_age(value: str) -> int:
    """Return the number of days in AGE; the default if it is empty.

    Raises:
        Refusal: It is not a number of days.

    """
    if not value:
        return AGE
    if not re.fullmatch("[0-9]{1,4}", value):
        raise Refusal(f"AGE={show(value)} is not a number of days; example: AGE=7, or AGE=0 for the newest versions")
    return int(value)


def resolve(folder: Path, before: str, words: Sequence[str], age: int, uv: Path = VENV_UV) -> str:
    """Return the lock for the pyproject.toml in *folder*.

    Args:
        folder: The folder to work in, where uv writes too.
        before: The current lock, whose versions are kept if they fit.
        words: Options for uv, such as `--upgrade-package anyio`.
        age: Minimum age of a new version in days. Versions that are locked already are kept.
        uv: The program; the one in this project's .venv, unless the lock is for another project.

    Raises:
        Refusal: There is no solution, no index answers, or the lock would name a host.

    """
    project = read_project(folder)
    old = pins(before)
    kept = set() if {"--upgrade", "-U"}.intersection(words) else set(old)
    kept -= {word for flag, word in itertools.pairwise(words) if flag in {"--upgrade-package", "-P"}}
    while True:
        text = _compile(uv, folder, before, [*words, *_limits(age, kept)], project)
        new = pins(text)
        moved = {name for name in kept if name in new and new[name] != old[name]}
        if not moved:
            break
        kept -= moved  # a version that must change is a new one, so its age counts
    if named := hosts(text):
        raise Refusal(f"the lock would name a host ({named[0]}); require that package by its name")
    return header(project) + text


def _limits(age: int, kept: Collection[str]) -> list[str]:
    """Return the options that limit uv to versions of that age, except for packages that are locked already."""
    if not age:
        return []
    now = datetime.now(UTC)
    exempt = [f"--exclude-newer-package={name}={now:%Y-%m-%dT%H:%M:%SZ}" for name in sorted(kept)]
    return [f"--exclude-newer={now - timedelta(days=age):%Y-%m-%dT%H:%M:%SZ}", *exempt]


def _compile(uv: Path, folder: Path, before: str, words: Sequence[str], project: Mapping[str, Any]) -> str:
    least = re.search(r">=\s*([0-9.]+)", project["project"]["requires-python"])
    made = folder / LOCK.name
    made.write_text(before)  # uv keeps the versions that it finds here
    options = ["--quiet", "--universal", "--generate-hashes", "--no-header", "--output-file", str(made)]
    options += [f"--python-version={least[1]}"] if least else []  # not the version of .venv, which may be newer
    options += [f"--group={name}" for name in project["dependency-groups"]]
    command = [str(uv), "pip", "compile", *options, *words]
    run_uv([*command, "pyproject.toml"], folder)
    return made.read_text()


def run_uv(command: Sequence[str], folder: Path) -> None:
    """Run uv in *folder*.

    Raises:
        Refusal: No index answers.
        Unsolved: It fails for another reason, which the message contains.

    """
    # `uv add` would write the indexes in these variables into pyproject.toml.
    kept = {name: value for name, value in os.environ.items() if command[1] == "pip" or "INDEX" not in name}
    env = {**settings_of_pip(), **kept} if command[1] == "pip" else kept
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", check=False)
    if not done.returncode:
        return
    if NO_NETWORK.search(done.stderr):
        raise Refusal(f"the package index does not answer ({reason(done.stderr)}); check the network, and try again")
    if "exclude-newer" in done.stderr:
        hint = "; it may be too young: set AGE=0, or AGE=n for n days, if you need it now"
    else:
        hint = ""
    said = " ".join(re.sub("[^\\x20-\\x7e]", " ", done.stderr).split())  # without the frame around it
    said = said.partition(" hint: ")[0].removeprefix("error: ").removesuffix(".")
    raise Unsolved(f"{said}{hint}" or "uv failed without a message")


def without(text: str, groups: Collection[str], name: str) -> str:
    """Return the lock *text* without packages that only the *groups* need, for the project *name*; without header.

    The result is the same as uv's: removing a requirement needs no new version of any package.
    """
    blocks = [_Block(block) for block in re.split(r"(?m)^(?=[a-z0-9])", text)]  # nothing needs what comes first
    wanted: set[str] = set()
    while more := {block.name for block in blocks if block.needed_by(wanted, groups)} - wanted:
        wanted |= more
    return "".join(block.text(wanted, groups, name) for block in blocks if block.name in wanted)


class _Block:
    """A package in the lock: its pin with hashes, and the packages that need it."""

    def __init__(self, block: str) -> None:
        self.pin, _, via = block.partition("    # via")
        self.name = block.partition("==")[0]
        self.via = [line.removeprefix("    #").strip() for line in via.splitlines()]

    def needed_by(self, wanted: Collection[str], groups: Collection[str]) -> list[str]:
        """Return what needs it and stays: packages in *wanted*, and the project except for these *groups*."""
        gone = {f"(pyproject.toml:{group})" for group in groups}
        return [
            package for package in self.via if package in wanted or ("(" in package and package.split()[1] not in gone)
        ]

    def text(self, wanted: Collection[str], groups: Collection[str], name: str) -> str:
        """Return the lines as uv writes them."""
        via = [
            f"{name} {package.split()[1]}" if "(pyproject.toml" in package else package
            for package in self.needed_by(wanted, groups)
        ]
        told = f" {via[0]}" if len(via) == 1 else "".join(f"\n    #   {package}" for package in via)
        return f"{self.pin}    # via{told}\n"


def main(options: Sequence[str], words: Mapping[str, str]) -> None:
    """Resolve, check, and only then replace the lock."""
    with Change("just lock") as change:
        (change.folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
        before = LOCK.read_text() if LOCK.exists() else ""
        text = resolve(change.folder, before, options, read_age(words["AGE"]))
        change.put("scripts/requirements.lock", text.encode())
        change.make("scripts/requirements.lock was recreated.")


if __name__ == "__main__":
    ours = [word for word in sys.argv[1:] if word.startswith("AGE=") or is_help([word])]
    for_uv = [word for word in sys.argv[1:] if word not in ours]
    sys.argv[1:] = ours
    run("lock", USE, functools.partial(main, for_uv), "AGE")
