"""`just sec` on real findings; the database of vulnerabilities is a fake on loopback, and then is not there."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scripts.projects import Project

VULNERABILITY = {
    "id": "PYSEC-2099-1",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "Reads more than it should",
    "details": "It does.",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database that knows of one vulnerability, in the package that the test names."""
    vulnerable: str = request.param

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            known = {"vulns": [{"id": VULNERABILITY["id"], "modified": VULNERABILITY["modified"]}]}
            self.reply({"results": [known if one["package"]["name"] == vulnerable else {} for one in queries]})

        def do_GET(self) -> None:
            self.reply(VULNERABILITY)

        def reply(self, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def report(project: Project) -> dict[str, dict[str, Any]]:
    """The runs of the SARIF file by the name of their part."""
    sarif = json.loads((project.root / "build" / "sec.sarif").read_text())
    assert sarif["version"] == "2.1.0"
    runs = {run["tool"]["driver"]["name"].removeprefix("just sec: "): run for run in sarif["runs"]}
    assert set(runs) == {"known vulnerabilities", "secrets", "ruff's S rules"}
    for run in runs.values():
        rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
        for result in run["results"]:
            assert result["ruleId"] in rules
            assert result["message"]["text"]
            place = result["locations"][0]["physicalLocation"]
            assert (project.root / place["artifactLocation"]["uri"]).is_file()
            assert place["region"]["startLine"] > 0
    return runs


@pytest.mark.parametrize("service", ["nothing"], indirect=True)
def test_nothing_is_found(project: Project, service: str) -> None:
    """In the template as it is."""
    done = project.just("sec", f"SERVICE={service}")
    assert done.code == 0, done.out + done.err
    assert done.out.count(": none found") == 3
    assert not any(run["results"] for run in report(project).values())


@pytest.mark.parametrize("service", ["idna"], indirect=True)
def test_it_fails_on_each_kind_of_finding(owned: Project, service: str) -> None:
    """Each has its line, and its place in the report; what is ignored by git is not looked at."""
    key = "AKIA" + "QZ7J2VKD5M3XW9RT"
    owned.write(
        "services/leak.py", f'"""Leaks."""\n\nimport subprocess\n\nKEY = "{key}"\nsubprocess.run("ls", shell=True)\n'
    )
    owned.write(".env", f'KEY="{key}"\n')
    done = owned.just("sec", f"SERVICE={service}")
    assert done.code == 1, done.out + done.err
    assert "services/leak.py:5: aws-access-key: looks like a secret" in done.out
    assert "services/leak.py:6: S602: " in done.out
    assert "idna 3" in done.out
    assert "is vulnerable to PYSEC-2099-1: Reads more than it should; mended in 99.1: just deps-update idna" in done.out
    assert ".env" not in done.out
    assert key not in done.out + (owned.root / "build" / "sec.sarif").read_text()
    runs = report(owned)
    assert all(run["results"] for run in runs.values())
    (vulnerable,) = runs["known vulnerabilities"]["results"]
    place = vulnerable["locations"][0]["physicalLocation"]
    lock = (owned.root / place["artifactLocation"]["uri"]).read_text().splitlines()
    assert lock[place["region"]["startLine"] - 1].startswith("idna==")
    owned.write("services/leak.py", f'KEY = "{key}"  # pragma: allowlist secret\n')
    assert "aws-access-key" not in owned.just("sec", f"SERVICE={NOBODY}").out


def test_without_network_it_says_what_it_could_not_do(owned: Project) -> None:
    """The rest is done, and the report tells that a part is missing."""
    done = owned.just("sec", f"SERVICE={NOBODY}")
    assert done.code == 0
    assert "known vulnerabilities: NOT LOOKED FOR: the database of vulnerabilities does not answer (" in done.out
    assert "secrets: none found\nruff's S rules: none found\n" in done.out
    runs = report(owned)
    (missing,) = runs["known vulnerabilities"]["invocations"]
    assert missing["executionSuccessful"] is False
    assert runs["secrets"]["invocations"] == [{"executionSuccessful": True}]
    owned.write("services/leak.py", 'import subprocess\n\nsubprocess.run("ls", shell=True)\n')
    assert owned.just("sec", f"SERVICE={NOBODY}").code == 1, "a finding counts all the same"


@pytest.mark.parametrize("address", ["ftp://x", "http://x/$(id)", "x", "http://a b"])
def test_an_address_that_is_none(owned: Project, address: str) -> None:
    with owned.unchanged():
        done = owned.just("sec", f"SERVICE={address}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "is no address" in done.err
