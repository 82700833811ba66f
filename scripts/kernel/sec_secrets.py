"""Find keys and passwords in the project's files. Nothing is sent anywhere, and no secret is printed.

Kingfisher finds the formats of well-known services, with its 500 rules, also in base64; secrets.yml adds hand-written
secrets. Binary key files are recognized by their first bytes, whatever their names are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recipe import ROOT, project_files

RULES = Path(__file__).with_name("secrets.yml")
EXCUSE = "pragma: allowlist secret"  # on a line that only looks like a secret
ENDS = {0, 200, 205}  # exit codes: nothing found, secrets found, working secrets found
AT_ONCE = 500  # files per call, since command lines are limited
BEGINS = {
    "private-key": re.compile(
        rb"\x30(?:\x82..|\x81.|[\x20-\x7f])\x02\x01[\x00\x01](?:\x30.\x06|\x02[\x81\x82]|\x04)", re.DOTALL
    ),
    "private-key-with-a-password": re.compile(
        rb"\x30(?:\x82..|\x81.)\x30.\x06.\x2a\x86\x48\x86\xf7\x0d\x01(?:\x05|\x0c\x01)", re.DOTALL
    ),
    "key-store": re.compile(
        rb"\x30(?:\x82..|\x83...|\x80)\x02\x01\x03\x30|\xfe\xed\xfe\xed|\xce\xce\xce\xce|\x03\xd9\xa2\x9a", re.DOTALL
    ),
}


class Secret(NamedTuple):
    """A place that looks like a secret."""

    rule: str
    path: str
    line: int


class NotLooked(Exception):
    """Raised if the scanner is missing or fails; the message says why."""


def secrets() -> Iterator[Secret]:
    """Yield each place once, in the order of the files.

    Raises:
        NotLooked: The check could not run.

    """
    paths = [path for path in project_files() if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]
    found = {secret for begin in range(0, len(paths), AT_ONCE) for secret in _scan(paths[begin : begin + AT_ONCE])}
    for path in paths:
        with (ROOT / path).open("rb") as file:
            head = file.read(64)
        found |= {Secret(rule, path, 1) for rule, begins in BEGINS.items() if begins.match(head)}
    return iter(sorted(found, key=lambda secret: (secret.path, secret.line, secret.rule)))


def _scan(paths: list[str]) -> Iterator[Secret]:
    options = ["--no-validate", "--no-update-check", "--git-history=none", "--format=jsonl", "--confidence=medium"]
    options += ["--quiet", "--rules-path", str(RULES), "--ignore-comment", EXCUSE, "--no-dedup"]
    command = [sys.executable, "-m", "kingfisher", "scan", *options, "--", *(f"./{path}" for path in paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, errors="replace", check=False)
    if done.returncode not in ENDS:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        missing = "No module named kingfisher" in done.stderr or "may not match your platform" in done.stderr
        raise NotLooked("kingfisher is missing, or not for this platform" if missing else f"kingfisher: {said[-1]}")
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if "finding" in told:
            path = told["finding"]["path"].removeprefix("./")
            yield Secret(told["rule"]["id"].rpartition(".")[2], path, told["finding"]["line"])
