"""`just deps-add`, `-remove` and `-update`, against an index on loopback that knows when a version came out."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from tests.scripts.projects import Done, Project

pytestmark = pytest.mark.minutes


def wheel(name: str, version: str, requires: str = "") -> bytes:
    """A package with nothing in it."""
    content = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


@attrs.define
class Index:
    """Two packages: `aged` came out in three versions, and `needy` needs it."""

    address: str = ""
    files: dict[str, tuple[bytes, int]] = attrs.field(factory=dict)

    def add(self, name: str, version: str, days: int, requires: str = "") -> None:
        """Takes in a version that came out so many *days* ago."""
        self.files[f"{name}-{version}-py3-none-any.whl"] = (wheel(name, version, requires), days)

    def page(self, name: str) -> bytes:
        """What the index says of a package; nothing where it does not know it."""
        now = datetime.now(UTC)
        listed = [
            {
                "filename": file,
                "url": f"{self.address}/{file}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
                "core-metadata": True,
                "upload-time": f"{now - timedelta(days=days):%Y-%m-%dT%H:%M:%S.%fZ}",
            }
            for file, (content, days) in self.files.items()
            if file.startswith(f"{name}-")
        ]
        return json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": listed}).encode() if listed else b""


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    index.add("steady", "1.0", 100)
    index.add("aged", "1.0", 100)
    index.add("aged", "1.4.2", 30)
    index.add("aged", "2.0", 1)
    index.add("needy", "3.1.0", 30, "aged<3")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").split("/")[-1]
            wheel = name.removesuffix(".metadata")
            content = index.page(name) if wheel not in index.files else index.files[wheel][0]
            if wheel != name:
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    content = archive.read(archive.namelist()[0])
            self.send_response(200 if content else 404)
            kind = "octet-stream" if wheel in index.files else "vnd.pypi.simple.v1+json"
            self.send_header("Content-Type", f"application/{kind}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index.address = f"http://127.0.0.1:{server.server_port}"
        yield index
        server.shutdown()


FEW = """dependencies = [
    "steady>=1",  # it needs no other
]

[project.scripts]
my-app = "app.__main__:main"

[dependency-groups]
dev = [
    "steady>=1",  # nor does this
]
"""


class Deps:
    """A project with few dependencies, all of them from that index."""

    def __init__(self, project: Project, index: Index) -> None:
        self.project = project
        self.index = index
        file = project.root / "pyproject.toml"
        text, changes = re.subn(r"(?ms)^dependencies = .*?(?=\n\[build-system)", FEW, file.read_text())
        assert changes == 1
        file.write_text(text)
        self.just("lock")
        self.just("--version")

    def just(self, *words: str) -> Done:
        """Runs a recipe; it must succeed."""
        done = self.project.just(*words, UV_DEFAULT_INDEX=f"{self.index.address}/simple")
        assert done.code == 0, done.err
        return done

    @property
    def texts(self) -> tuple[str, str]:
        """pyproject.toml and the lock."""
        lock = (self.project.root / "scripts" / "requirements.lock").read_text()
        assert "://" not in lock
        for block in re.split(r"(?m)^(?=[a-z0-9].*==)", lock)[1:]:
            assert "--hash=sha256:" in block
        return (self.project.root / "pyproject.toml").read_text(), lock

    def locked(self, name: str) -> str:
        """The version in the lock; empty where it is not there."""
        found = re.search(rf"(?m)^{name}==(\S+)", self.texts[1])
        return found[1] if found else ""

    def asks_for(self, group: str = "") -> list[str]:
        """What pyproject.toml asks for, or a group in it."""
        project = tomllib.loads(self.texts[0])
        asked: list[str] = project["dependency-groups"][group] if group else project["project"]["dependencies"]
        return asked


@pytest.fixture
def deps(owned: Project, index: Index) -> Deps:
    return Deps(owned, index)


def test_add_takes_nothing_young_and_remove_undoes_it(deps: Deps) -> None:
    """The newest version that is a week old, with itself as the least; and not a byte is left when it goes."""
    before = deps.texts
    done = deps.just("deps-add", "aged")
    assert done.out == "aged: not locked -> 1.4.2\naged is a dependency.\n"
    assert deps.asks_for()[0] == "aged>=1.4"
    assert deps.project.just("--version").err == "", ".venv is up to date already"
    assert deps.just("deps-remove", "aged").out == "aged: 1.4.2 -> gone\naged is no longer a direct dependency.\n"
    assert deps.texts == before


def test_several_at_once(deps: Deps) -> None:
    """All in one step, or none of them."""
    before = deps.texts
    done = deps.just("deps-add", "needy", "aged<1.4", "GROUP=dev")
    assert done.out == "aged: not locked -> 1.0\nneedy: not locked -> 3.1.0\nneedy and aged are dependencies.\n"
    assert {"needy>=3.1", "aged<1.4"} < {*deps.asks_for("dev")}
    assert deps.just("deps-remove", "needy", "aged").out.endswith("are no longer direct dependencies.\n")
    assert deps.texts == before
    with deps.project.unchanged():
        done = deps.project.just("deps-add", "aged", "nosuch", UV_DEFAULT_INDEX=f"{deps.index.address}/simple")
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_age_0_takes_the_newest(deps: Deps) -> None:
    """And what was taken so is kept by all that comes after."""
    deps.just("AGE=0", "deps-add", "aged")
    assert deps.locked("aged") == "2.0"
    deps.just("deps-add", "needy", "GROUP=dev")
    assert deps.locked("aged") == "2.0"
    assert "needy>=3.1" in deps.asks_for("dev")
    deps.just("deps-update")
    assert deps.locked("aged") == "2.0", "it never goes back to an older one"
    deps.just("deps-remove", "needy")
    assert "needy>=3.1" not in deps.asks_for("dev")
    assert deps.locked("aged") == "2.0"


def test_a_version_that_was_asked_for(deps: Deps) -> None:
    """It stands as it was written; comments and order stay."""
    before = deps.texts[0]
    deps.just("deps-add", "aged[extra]>=1,<1.4")
    assert deps.locked("aged") == "1.0"
    assert deps.texts[0] == before.replace("dependencies = [\n", 'dependencies = [\n    "aged[extra]>=1,<1.4",\n', 1)


def test_update_takes_what_has_come_of_age(deps: Deps) -> None:
    """All, or one; it says what has changed."""
    deps.just("deps-add", "aged<1.4")
    deps.just("deps-add", "aged>=1")
    assert deps.locked("aged") == "1.0"
    assert deps.just("deps-update", "aged").out.startswith("aged: 1.0 -> 1.4.2\n")
    assert deps.just("deps-update", "aged", "AGE=0").out.startswith("aged: 1.4.2 -> 2.0\n")


def test_one_that_needs_a_young_one_is_refused(deps: Deps) -> None:
    """The words are uv's own, and ours the way out."""
    with deps.project.unchanged():
        done = deps.project.just("deps-add", "aged>=2", UV_DEFAULT_INDEX=f"{deps.index.address}/simple")
    assert done.code == 2
    assert done.err.startswith("just deps-add: ")
    assert done.err.count("\n") == 1
    assert "aged" in done.err
    assert "AGE=0" in done.err


def test_without_network_nothing_is_changed(owned: Project) -> None:
    """One line says so."""
    with owned.unchanged():
        done = owned.just(
            "deps-add", "aged", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_NO_CACHE="1", UV_HTTP_RETRIES="0"
        )
    assert done.code == 2
    assert done.err.startswith("just deps-add: the package index does not answer (")
    assert done.err.count("\n") == 1


def test_a_name_that_nobody_has(deps: Deps) -> None:
    """Perhaps a typing error; nothing is changed."""
    with deps.project.unchanged():
        done = deps.project.just("deps-add", "agedd-nobody-has-this", UV_DEFAULT_INDEX=f"{deps.index.address}/simple")
    assert done.code == 2
    assert "agedd-nobody-has-this" in done.err
    assert done.err.count("\n") == 1
