"""`just sec`: look for known vulnerabilities in the lock, secrets in the tree, and dangerous code.

All findings go into one SARIF file, for tools that read it; the terminal shows a line for each. Any finding is a
failure. A check that cannot run, for example without a network, is reported, and the others run.

    just sec                                    queries osv.dev, the public vulnerability database
    just sec SERVICE=https://osv.example.com    queries another database with the same API
    just sec OFFLINE=1                          queries none, which is not a failure

The exit code is 1 if there are findings, and 3 if a check could not run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

import sec_code
import sec_secrets
from bootstrap import LOCK, NO_NETWORK, VENV_UV, reason
from lock import PIN, read_project
from recipe import ROOT, Refusal, is_yes, run, show

USE = "just sec, or just sec OFFLINE=1 without a network"
FOUND, NOT_LOOKED = 1, 3  # exit codes
REPORT = "build/sec.sarif"
PLACE = "scripts/requirements.lock"


class NotDone(Exception):
    """A check could not run; the message says why."""


@attrs.frozen
class Finding:
    """A finding.

    Args:
        rule: The rule that found it.
        text: What it is, and what to do.
        path: The file, relative to the project's folder.
        line: The line, from 1.
        excused: Whether a comment on the line excuses it; it is then only counted.

    """

    rule: str
    text: str
    path: str
    line: int
    excused: bool = False


def check(words: Mapping[str, str]) -> None:
    """Run each check, write the report, and exit with 1 if something was found."""
    service = words["SERVICE"]
    if service and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]/_-]+", service):
        raise Refusal(f"SERVICE={show(service)} is not an address; example: SERVICE=https://osv.example.com")
    offline = is_yes(words["OFFLINE"], "OFFLINE")
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "known vulnerabilities": lambda: vulnerabilities(service),
        "secrets": secrets,
        "dangerous code": dangerous_code,
    }
    skipped = {"known vulnerabilities": "OFFLINE=1 says so"} if offline else {}
    found, missing = _look({part: look for part, look in parts.items() if part not in skipped})
    report = ROOT / REPORT
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(sarif(found, {**skipped, **missing}), indent=1) + "\n")
    for part, findings in found.items():
        counted = [finding for finding in findings if not finding.excused]
        for finding in counted:
            print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.text}")
        print(f"{part}: {len(counted) or 'none'} found")
    for part, why in {**skipped, **missing}.items():
        print(f"{part}: NOT CHECKED: {why}")
    if excused := sum(finding.excused for findings in found.values() for finding in findings):
        print(f"{excused} dangerous lines are excused by a `# noqa` that names the rule.")
    print(f"The report is {REPORT}.")
    if any(not finding.excused for findings in found.values() for finding in findings):
        sys.exit(FOUND)
    if missing:
        sys.exit(NOT_LOOKED)


def _look(parts: Mapping[str, Callable[[], Iterable[Finding]]]) -> tuple[dict[str, list[Finding]], dict[str, str]]:
    """Run the checks. Return the findings of each, and the reasons of those that could not run."""
    found: dict[str, list[Finding]] = {}
    missing: dict[str, str] = {}
    for part, look in parts.items():
        try:
            found[part] = list(look())
        except NotDone as error:
            missing[part] = str(error)
    return found, missing


def vulnerabilities(service: str = "") -> Iterator[Finding]:
    """Yield the known vulnerabilities of the versions in the lock, on any platform."""
    lines = LOCK.read_text().splitlines()
    pins = {(found[1], found[2]): number for number, line in enumerate(lines, 1) if (found := PIN.match(line))}
    folder = ROOT / "build" / "sec"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "audited"\nversion = "0"\n')
    (folder / "uv.lock").write_text(_as_uv_lock(list(pins)))
    command = [str(VENV_UV), "audit", "--frozen", "--preview-features=audit-command", "--output-format=sarif"]
    told = _json([*command, *(["--service-url", service] if service else [])], folder)
    for result in told["runs"][0]["results"]:
        facts = result["properties"]
        name, version = facts["uv/package"], facts["uv/version"]
        fixed = " or ".join(facts.get("uv/fixVersions") or [])
        what_to_do = f"fixed in {fixed}: just deps-update {name}" if fixed else "not fixed yet: remove it, or wait"
        yield Finding(result["ruleId"], f"{result['message']['text']}; {what_to_do}", PLACE, pins[name, version])


def _as_uv_lock(pins: Sequence[tuple[str, str]]) -> str:
    """Return the pins in uv's own lock format, the only one that it audits. No index is named, so none is queried."""
    source = 'source = { registry = "." }'
    needs = [f'    {{ name = "{name}", version = "{version}", {source} }},\n' for name, version in pins]
    packages = [f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n{source}\n' for name, version in pins]
    audited = '[[package]]\nname = "audited"\nversion = "0"\nsource = { virtual = "." }\n'
    head = f"version = 1\nrequires-python = {json.dumps(read_project()['project']['requires-python'])}\n\n"
    return f"{head}{audited}dependencies = [\n{''.join(needs)}]\n{''.join(packages)}"


def _json(command: list[str], folder: Path) -> Any:
    """Return uv's output as JSON.

    Raises:
        NotDone: It failed for another reason than findings.

    """
    env = {"UV_HTTP_RETRIES": "0", **os.environ}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in {0, FOUND} or not done.stdout:
        why = reason(done.stderr)
        raise NotDone(f"the vulnerability database does not respond ({why})" if NO_NETWORK.search(done.stderr) else why)
    return json.loads(done.stdout)


def secrets() -> Iterator[Finding]:
    """Yield what looks like a key or a password, in files that git tracks or would track."""
    try:
        for secret in sec_secrets.secrets():
            text = f"looks like a secret; remove and change it, or write `{sec_secrets.EXCUSE}` behind it"
            yield Finding(secret.rule, text, secret.path, secret.line)
    except sec_secrets.NotLooked as error:
        raise NotDone(str(error)) from None


def dangerous_code() -> Iterator[Finding]:
    """Yield dangerous lines of Python, except those that the project's own ruff settings allow."""
    lint = read_project().get("tool", {}).get("ruff", {}).get("lint", {})
    ignored = [code for code in [*lint.get("ignore", []), *lint.get("extend-ignore", [])] if code.startswith("S")]
    try:
        found, excused = sec_code.dangers(ignored)
    except sec_code.NotLooked as error:
        raise NotDone(str(error)) from None
    told = [Finding(danger.rule, danger.text, danger.path, danger.line) for danger in found]
    return iter(
        [*told, *(Finding(danger.rule, danger.text, danger.path, danger.line, excused=True) for danger in excused)]
    )


def sarif(found: Mapping[str, list[Finding]], missing: Mapping[str, str]) -> dict[str, Any]:
    """Return the report: a run for each check, including those that could not run."""
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            *(_run(part, findings) for part, findings in found.items()),
            *(_run(*part) for part in missing.items()),
        ],
    }


def _run(part: str, outcome: list[Finding] | str) -> dict[str, Any]:
    findings = [finding for finding in outcome if not finding.excused] if isinstance(outcome, list) else []
    invocation: dict[str, Any] = {"executionSuccessful": isinstance(outcome, list)}
    if isinstance(outcome, str):
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": {"text": outcome}}]
    return {
        "tool": {
            "driver": {
                "name": f"just sec: {part}",
                "rules": [{"id": rule} for rule in sorted({finding.rule for finding in findings})],
            }
        },
        "invocations": [invocation],
        "results": [
            {
                "ruleId": finding.rule,
                "level": "error",
                "message": {"text": finding.text},
                "locations": [
                    {
                        "physicalLocation": {
                            "artifactLocation": {"uri": finding.path},
                            "region": {"startLine": finding.line},
                        }
                    }
                ],
            }
            for finding in findings
        ],
    }


if __name__ == "__main__":
    run("sec", USE, check, "SERVICE", "OFFLINE")
