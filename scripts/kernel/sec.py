"""`just sec`: known vulnerabilities in the lock, secrets in the tree, and what ruff's S rules find.

All of it goes into one SARIF file, for the tools that show such; the terminal has a line for each finding. It fails on
a finding. What cannot be done, as without network, is said, and the rest is done.

    just sec                                    asks the public database of vulnerabilities, osv.dev
    just sec SERVICE=https://osv.example.com    asks another one that speaks as that does
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

from bootstrap import LOCK, NO_NETWORK, VENV, VENV_UV, reason
from kernel_files import SHIPPED
from lock import PIN, read_project
from recipe import ROOT, Refusal, in_git, run, show

USE = "just sec"
FOUND = 1  # exit code
REPORT = "build/sec.sarif"
PLACE = "scripts/requirements.lock"
HASHES = frozenset({PLACE, SHIPPED})  # they look like secrets, and are none
EXCUSE = "# pragma: allowlist secret"  # on a line that only looks as if it held one


class NotDone(Exception):
    """A part could not be done; the text says why."""


@attrs.frozen
class Finding:
    """One thing that was found.

    Args:
        rule: What kind it is.
        text: What it is, and what to do.
        path: The file, from the project's folder.
        line: From 1.

    """

    rule: str
    text: str
    path: str
    line: int


def check(words: Mapping[str, str]) -> None:
    """Does each part, writes the report, and ends the process with 1 where something was found."""
    service = words["SERVICE"]
    if service and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]/_-]+", service):
        raise Refusal(f"SERVICE={show(service)} is no address; as in: SERVICE=https://osv.example.com")
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "known vulnerabilities": lambda: vulnerabilities(service),
        "secrets": secrets,
        "ruff's S rules": dangerous_code,
    }
    found: dict[str, list[Finding]] = {}
    missing: dict[str, str] = {}
    for part, look in parts.items():
        try:
            found[part] = list(look())
        except NotDone as error:
            missing[part] = str(error)
    report = ROOT / REPORT
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(sarif(found, missing), indent=1) + "\n")
    for part, findings in found.items():
        for one in findings:
            print(f"{one.path}:{one.line}: {one.rule}: {one.text}")
        print(f"{part}: {len(findings) or 'none'} found")
    for part, why in missing.items():
        print(f"{part}: NOT LOOKED FOR: {why}")
    print(f"The report is {REPORT}.")
    if any(found.values()):
        sys.exit(FOUND)


def vulnerabilities(service: str = "") -> Iterator[Finding]:
    """Those that are known of the versions in the lock, on any platform."""
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
        mended = " or ".join(facts.get("uv/fixVersions") or [])
        what_to_do = f"mended in {mended}: just deps-update {name}" if mended else "not mended yet: do without, or wait"
        yield Finding(result["ruleId"], f"{result['message']['text']}; {what_to_do}", PLACE, pins[name, version])


def _as_uv_lock(pins: Sequence[tuple[str, str]]) -> str:
    """The pins as a lock of uv's own kind, which is all that it audits; it names no index, for none is asked."""
    source = 'source = { registry = "." }'
    needs = [f'    {{ name = "{name}", version = "{version}", {source} }},\n' for name, version in pins]
    packages = [f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n{source}\n' for name, version in pins]
    audited = '[[package]]\nname = "audited"\nversion = "0"\nsource = { virtual = "." }\n'
    head = f"version = 1\nrequires-python = {json.dumps(read_project()['project']['requires-python'])}\n\n"
    return f"{head}{audited}dependencies = [\n{''.join(needs)}]\n{''.join(packages)}"


def _json(command: list[str], folder: Path) -> Any:
    """What uv says, as JSON.

    Raises:
        NotDone: It fails in another way than by finding something.

    """
    env = {"UV_HTTP_RETRIES": "0", **os.environ}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in {0, FOUND} or not done.stdout:
        why = reason(done.stderr)
        raise NotDone(
            f"the database of vulnerabilities does not answer ({why})" if NO_NETWORK.search(done.stderr) else why
        )
    return json.loads(done.stdout)


def secrets() -> Iterator[Finding]:
    """What looks like a key or a password, in files that git tracks or would track. Nothing is sent anywhere."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    with default_settings():
        for path in in_git("--cached", "--others", "--exclude-standard"):
            if path in HASHES or not (ROOT / path).is_file():
                continue
            for secret in scan_file(str(ROOT / path)):
                rule = secret.type.lower().replace(" ", "-")
                text = f"looks like a secret; take it out and change it, or write `{EXCUSE}` behind it"
                yield Finding(rule, text, path, secret.line_number)


def dangerous_code() -> Iterator[Finding]:
    """What flake8-bandit's rules find, less what the project's own settings of ruff allow."""
    lint = read_project().get("tool", {}).get("ruff", {}).get("lint", {})
    allowed = [code for code in [*lint.get("ignore", []), *lint.get("extend-ignore", [])] if code.startswith("S")]
    ruff = [str(VENV / "bin" / "ruff"), "check", "--output-format=json", "--exit-zero", "--extend-select=S"]
    done = subprocess.run(
        [*ruff, *(f"--ignore={code}" for code in allowed)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotDone(f"ruff fails ({done.stderr.strip().splitlines()[-1]})")
    for one in json.loads(done.stdout):
        if re.fullmatch(r"S\d+", one["code"] or ""):
            path = Path(one["filename"]).relative_to(ROOT).as_posix()
            yield Finding(one["code"], one["message"], path, one["location"]["row"])


def sarif(found: Mapping[str, list[Finding]], missing: Mapping[str, str]) -> dict[str, Any]:
    """The report: a run for each part, also for one that could not be done."""
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [*(_run(part, findings) for part, findings in found.items()), *(_run(*one) for one in missing.items())],
    }


def _run(part: str, outcome: list[Finding] | str) -> dict[str, Any]:
    findings = outcome if isinstance(outcome, list) else []
    invocation: dict[str, Any] = {"executionSuccessful": isinstance(outcome, list)}
    if isinstance(outcome, str):
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": {"text": outcome}}]
    return {
        "tool": {
            "driver": {
                "name": f"just sec: {part}",
                "rules": [{"id": rule} for rule in sorted({one.rule for one in findings})],
            }
        },
        "invocations": [invocation],
        "results": [
            {
                "ruleId": one.rule,
                "level": "error",
                "message": {"text": one.text},
                "locations": [
                    {
                        "physicalLocation": {
                            "artifactLocation": {"uri": one.path},
                            "region": {"startLine": one.line},
                        }
                    }
                ],
            }
            for one in findings
        ],
    }


if __name__ == "__main__":
    run("sec", USE, check, "SERVICE")
