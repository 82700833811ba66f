"""`just sec` on real findings; the database of vulnerabilities is a fake on loopback, and then is not there."""

from __future__ import annotations

import base64
import http.server
import json
import re
import secrets
import shutil
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scripts.projects import REPO, Project

sys.path.append(str(REPO / "scripts" / "kernel"))

from sec_code import inspect

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
    assert set(runs) == {"known vulnerabilities", "secrets", "dangerous code"}
    for run in runs.values():
        rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
        for result in run["results"]:
            assert result["ruleId"] in rules
            assert result["message"]["text"]
            place = result["locations"][0]["physicalLocation"]
            assert (project.root / place["artifactLocation"]["uri"]).is_file()
            assert place["region"]["startLine"] > 0
    return runs


@pytest.mark.minutes
@pytest.mark.parametrize("service", ["nothing"], indirect=True)
def test_nothing_is_found(project: Project, service: str) -> None:
    """In the template as it is."""
    done = project.just("sec", f"SERVICE={service}")
    assert done.code == 0, done.out + done.err
    assert done.out.count(": none found") == 3
    assert not any(run["results"] for run in report(project).values())


@pytest.mark.minutes
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
    assert re.search("services/leak.py:5: [a-z-]+: looks like a secret", done.out)
    assert "services/leak.py:6: S602: " in done.out
    assert "idna 3" in done.out
    assert "is vulnerable to PYSEC-2099-1: Reads more than it should; fixed in 99.1: just deps-update idna" in done.out
    assert ".env" not in done.out
    assert key not in done.out + (owned.root / "build" / "sec.sarif").read_text()
    runs = report(owned)
    assert all(run["results"] for run in runs.values())
    (vulnerable,) = runs["known vulnerabilities"]["results"]
    place = vulnerable["locations"][0]["physicalLocation"]
    lock = (owned.root / place["artifactLocation"]["uri"]).read_text().splitlines()
    assert lock[place["region"]["startLine"] - 1].startswith("idna==")
    owned.write("services/leak.py", f'KEY = "{key}"  # pragma: allowlist secret\n')
    assert "secrets: none found" in owned.just("sec", f"SERVICE={NOBODY}").out


@pytest.mark.minutes
def test_without_network_it_says_what_it_could_not_do(owned: Project) -> None:
    """The rest is done, and the report tells that a part is missing."""
    done = owned.just("sec", f"SERVICE={NOBODY}")
    assert done.code == 3, "what was not looked for was not found to be right"
    assert "known vulnerabilities: NOT CHECKED: the vulnerability database does not respond (" in done.out
    assert "secrets: none found\ndangerous code: none found\n" in done.out
    runs = report(owned)
    (missing,) = runs["known vulnerabilities"]["invocations"]
    assert missing["executionSuccessful"] is False
    assert runs["secrets"]["invocations"] == [{"executionSuccessful": True}]
    owned.write("services/leak.py", 'import subprocess\n\nsubprocess.run("ls", shell=True)\n')
    assert owned.just("sec", f"SERVICE={NOBODY}").code == 1, "a finding counts all the same"


@pytest.mark.minutes
def test_who_knows_that_there_is_no_network_says_so(owned: Project) -> None:
    """Then nobody is asked, and that is no failure; a finding is one all the same."""
    done = owned.just("sec", "OFFLINE=1", "SERVICE=http://127.0.0.1:9")
    assert done.code == 0, done.out + done.err
    assert "known vulnerabilities: NOT CHECKED: OFFLINE=1 says so\n" in done.out
    (missing,) = report(owned)["known vulnerabilities"]["invocations"]
    assert missing["executionSuccessful"] is False
    owned.write("services/leak.py", 'import subprocess\n\nsubprocess.run("ls", shell=True)\n')
    assert owned.just("sec", "OFFLINE=1").code == 1


def test_an_address_that_is_none(owned: Project) -> None:
    with owned.unchanged():
        done = owned.just("sec", "SERVICE=http://x/$(id)")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "is not an address" in done.err


# -- secrets -------------------------------------------------------------------------------------------------------


def word(length: int, letters: str = string.ascii_letters + string.digits) -> str:
    """A word that nobody has made up."""
    return "".join(secrets.choice(letters) for _ in range(length))


def planted() -> dict[str, bytes]:
    """A file with a secret of each kind."""
    texts = {
        "database.py": f'URL = "postgresql://shop:{word(12)}@db.example.com/shop"',
        "ampersand.py": f'URL = "postgresql://shop:p&{word(9)}&x@db.example.com:5432/shop"',
        "redis.ini": f"REDIS_URL=redis://:{word(16)}@cache:6379/0",
        "nats.yaml": f"nats: nats://shop:{word(14)}@nats:4222",
        "remote.sh": f"git push https://me:{word(14)}@git.example.com/x.git",
        "google.py": f'KEY = "AIza{word(35)}"',
        "pgpass": f"db.example.com:5432:shop:shop:{word(16)}",
        ".pgpass": f"# passwords\n*:*:shop:shop:{word(16)}",
        "netrc": f"machine git.example.com login me password {word(14)}",  # pragma: allowlist secret
        "npmrc": f"//registry.example.com/:_authToken={word(36)}",
        "docker.json": json.dumps({"auths": {"x": {"auth": base64.b64encode(f"me:{word(16)}".encode()).decode()}}}),
        "otel.service": f"Environment=OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20{word(40)}",
        "aws.txt": f"aws_access_key_id = AKIA{word(16, string.ascii_uppercase + '234567')}\n"
        f"aws_secret_access_key = {word(39)}7",
        "github.md": f"token: ghp_{word(36)}",
        "slack.py": f'T = "xoxb-{word(12, string.digits)}-{word(12, string.digits)}-{word(24)}"',
        "stripe.py": f'S = "sk_live_{word(24)}"',
        "gitlab.txt": f"glpat-{word(20)}",
        "settings.yaml": f"database:\n  password: {word(17)}7",
        "config.toml": f'api_key = "{word(32)}"',  # pragma: allowlist secret
        "hex.py": f'KEY = "{word(64, "0123456789abcdef")}"',
        "aws.py": f'KEY = "AKIA{word(16, string.ascii_uppercase + "234567")}"',
        "constant.py": f'DB_PASSWORD: str = "{word(14)}"',  # pragma: allowlist secret
        "scripts/requirements.lock": f"# token: ghp_{word(36)}",
        "front/package-lock.json": f'{{"resolved": "https://me:{word(20)}@npm.example.com/x.tgz"}}',
    }
    found = {path: f"{text}\n".encode() for path, text in texts.items()}
    commands = {
        "key.pem": "openssl genrsa 2048",
        "key.bin": "openssl genpkey -algorithm ed25519",
        "key": "openssl ecparam -genkey -name prime256v1 -noout",
        "rsa.der": "openssl genrsa -traditional 2048 | openssl rsa -traditional -outform DER",
        "pkcs8.dat": "openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -outform DER",
        "ed25519.der": "openssl genpkey -algorithm ed25519 -outform DER",
        "locked.der": "openssl genrsa 2048 | openssl pkcs8 -topk8 -outform DER -passout pass:x",
        "store.p12": "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -subj /CN=x 2>k.log >c"
        " && openssl pkcs12 -export -inkey k -in c -passout pass:x && rm k k.log c",
    }
    for path, command in commands.items():
        done = subprocess.run(command, shell=True, capture_output=True, check=True, cwd="/tmp")  # noqa: S602, S108
        found[path] = done.stdout
    return found


@pytest.mark.minutes
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the keys")
def test_secrets_of_each_kind(owned: Project) -> None:
    """None is missed, and none is repeated."""
    files = planted()
    for path, content in files.items():
        file = owned.root / "planted" / path if "requirements" not in path else owned.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((file.read_bytes() if file.exists() else b"") + content)
    done = owned.just("sec", f"SERVICE={NOBODY}")
    assert done.code == 1
    told = {line.split(":")[0].removeprefix("planted/") for line in done.out.splitlines() if "like a secret" in line}
    assert told == set(files)
    report_text = (owned.root / "build" / "sec.sarif").read_text()
    for content in files.values():
        for secret in re.findall(rb"[A-Za-z0-9]{14,}", content):
            assert secret.decode() not in done.out + report_text


@pytest.mark.minutes
def test_what_only_looks_like_a_secret(owned: Project) -> None:
    """Code and settings without one, and keys that are public."""
    lines = [
        "password = get_password()",
        "token: str = config.token",
        'secret = os.environ["SECRET_VARIABLE_1"]',
        "api_key: Secret[str]",
        'url = "http://127.0.0.1:8000/items?page=2"',
        "class TokenBucket2(Limiter): ...",
        'where = "git@git.example.com:team/x.git"',
    ]
    owned.write("services/calm.py", "\n".join(lines))
    owned.write("calm.yaml", "password: ${PASSWORD_1}\nsecretName: shop\ntoken: null\n")
    owned.write(
        "build.json", json.dumps({"sha256": word(64, "0123456789abcdef"), "commit": word(40, "0123456789abcdef")})
    )
    done = owned.just("sec", f"SERVICE={NOBODY}")
    assert "secrets: none found" in done.out, done.out


# -- dangerous code ------------------------------------------------------------------------------------------------

DANGEROUS = {
    "shell": [
        'anyio.run_process(f"ls {x}")',
        "anyio.open_process(x)",
        'anyio.run_process("ls " + x)',
        'run_it(command="tar xf " + x)',
        'asyncio.create_subprocess_shell("ls")',
        "asyncio.subprocess.create_subprocess_shell(x)",
        "loop.subprocess_shell(protocol, x)",
        "trio.run_process(x)",
    ],
    "program": [
        'anyio.run_process([x, "--help"])',
        "asyncio.create_subprocess_exec(x)",
        "asyncio.create_subprocess_exec(*x)",
        "asyncio.create_subprocess_exec(program=x)",
        "anyio.run_process([x] + x)",
        'anyio.run_process(x + ["status"])',
        "anyio.run_process([word for word in x])",
        "anyio.run_process(x.split())",
        "anyio.run_process(list(x))",
        'words = [x]; words += ["y"]; anyio.run_process(words)',
        "loop.subprocess_exec(x)",
        'word = "ls"; word = x; asyncio.create_subprocess_exec(word)',
    ],
    "module": [
        "import_module(name=x)",
        "import_module()",
        "y: str = x; import_module(y)",
        "(y := x); import_module(y)",
        "logging.config.listen(x)",
        "(lambda: import_module(x))()",
        "import_module(x)",
        "importlib.import_module(f'{x}.y')",
        "__import__(x)",
        "runpy.run_path(x)",
    ],
    "sql": [
        'db.execute("SELECT * FROM t WHERE a = " + x)',
        'db.execute(f"DELETE FROM t WHERE a = {x}")',
        'db.executemany("UPDATE t SET a = %s" % x, rows)',
        'await db.fetchrow("SELECT a FROM {}".format(x))',
        'db.execute(sqlalchemy.text("SELECT a FROM " + x))',
        'query = "SELECT a FROM t WHERE b = " + x; db.execute(query)',
        'query = "SELECT a FROM t"; query += x; db.fetch(query)',
    ],
}
HARMLESS = [
    'anyio.run_process(["git", "status"])',
    'anyio.run_process(("git", x))',
    "anyio.run_process()",
    "asyncio.create_subprocess_exec()",
    'asyncio.create_subprocess_exec(*["git", x])',
    "asyncio.create_subprocess_exec(sys.executable, x)",
    "from .helpers import run_process; run_process(x)",
    'def inner(): words = f"{x}"; anyio.run_process(["git"])',
    'words = ["git", x]; anyio.run_process(words)',
    'asyncio.create_subprocess_exec("git", x)',
    'import_module("kernel.cli")',
    'db.execute("SELECT a FROM t WHERE b = ?", (x,))',
    'query = "SELECT a FROM t"; db.execute(query)',
    "db.execute(query)",
    "db.execute()",
    'query = "choose " + x; db.execute(query)',
    'db.execute(sqlalchemy.text("SELECT a"))',
    'db.execute("SELECT a " + "FROM t")',
    'db.execute(f"SELECT a FROM t")',
    "work.execute(task)",
    'print("ls " + x)',
]
HEAD = "import anyio, asyncio, importlib, runpy, trio, sqlalchemy\nfrom importlib import import_module\n"
HEAD += "from anyio import run_process as run_it\nasync def work(x, db, rows, loop, protocol, task, words=None):\n    "


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule, lines in DANGEROUS.items() for line in lines])
def test_a_dangerous_line(rule: str, line: str) -> None:
    """Each is found, under whatever name it was imported, with its line."""
    assert [(one.rule, one.line) for one in inspect("services/x.py", HEAD + line)] == [(rule, 5)]


@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_line(line: str) -> None:
    """It is not."""
    assert list(inspect("services/x.py", HEAD + line)) == []


@pytest.mark.minutes
def test_excuses(owned: Project) -> None:
    """A bare `# noqa` hides nothing; one that names the rule is counted."""
    owned.write(
        "services/shells.py",
        "import subprocess\n"
        'subprocess.run("ls", shell=True)  # noqa\n'
        'subprocess.run("ls", shell=True)  # noqa: E501\n'
        'subprocess.run("ls", shell=True)  # noqa: S602, S607  (it is ours)\n'
        "def start(words):\n    subprocess.run(words)\n",
    )
    done = owned.just("sec", f"SERVICE={NOBODY}")
    assert done.code == 1
    assert re.findall(r"shells.py:(\d+): (S60[23])", done.out) == [("2", "S602"), ("3", "S602"), ("6", "S603")]
    assert re.search(r"dangerous code: 5 found\n(.*\n)*\d+ dangerous lines are excused by a `# noqa`", done.out)
    assert len(report(owned)["dangerous code"]["results"]) == 5
