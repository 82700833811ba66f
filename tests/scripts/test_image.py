"""The steps of `just image`, with a program that only writes down what it is called with."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import image
from artifact import Contents, File
from recipe import Refusal

LOG = 'printf "%s\\n" "$@" >> "$(dirname "$0")/log"; echo >> "$(dirname "$0")/log"; exit {code}\n'
STAMP = {
    "version": "1.2+x",
    "name": "my-app",
    "commit": "0123",
    "dirty": False,
    "time": 1769840100,
    "services": ["top"],
}
KEPT = "anyio==4.1 \\\n    --hash=sha256:1\n    # via my-app\nzope-interface==2.0 \\\n    --hash=sha256:2\n"
LOCK = f"# made\n{KEPT}other==1.0\n"
WORDS = dict.fromkeys(("SERVICES", "BASE", "BUILDER", "PIP_CONF"), "")


class Bench:
    """A project, and programs on PATH that build images."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.bin.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        (self.root / "scripts" / "requirements.lock").write_text(LOCK)
        self.stamp: dict[str, object] = {**STAMP}
        which = shutil.which
        monkeypatch.setattr(image, "ROOT", self.root)
        monkeypatch.setattr(image, "collect", lambda _root, services: self.contents(services))
        monkeypatch.setattr(shutil, "which", lambda name: which(name, path=str(self.bin)))
        self.context: dict[str, bytes] = {}

    def contents(self, services: str) -> Contents:
        """An artifact with two packages."""
        packages: Any = tuple(types.SimpleNamespace(name=name) for name in ("AnyIO", "zope.interface"))
        code = {
            path: File(f"# {services}".encode()) for path in ("app/__init__.py", "services/a/b.py", "services/a/c.py")
        }
        return Contents(self.stamp, code, packages)

    def program(self, name: str, code: int = 0) -> None:
        """Install a program; it keeps the files that it is given."""
        keep = f'for last; do :; done; cp -r "$last/." "{self.bin}/context"; '
        (self.bin / name).write_text("#!/bin/sh\n" + keep + LOG.format(code=code))
        (self.bin / name).chmod(0o755)

    def image(self, **words: str) -> list[list[str]]:
        """Run the recipe, and return the calls of the program."""
        image.image({**WORDS, **words})
        return [call.splitlines() for call in (self.bin / "log").read_text().split("\n\n")[:-1]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A project, and no program yet."""
    return Bench(tmp_path, monkeypatch)


def labels(call: list[str]) -> dict[str, str]:
    """The labels of an image."""
    pairs = [call[at + 1].partition("=") for at, word in enumerate(call) if word == "--label"]
    return {key.removeprefix("org.opencontainers.image."): value for key, _, value in pairs}


def test_the_frameworks_image(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It is built from code, stamp and locked packages in a folder that is gone afterwards."""
    bench.program("podman")
    (call,) = bench.image(SERVICES="a,b")
    assert call[:6] == ["build", "--tag", "my-app:1.2-x", "--file", str(image.OURS), "--format"]
    assert labels(call) == {
        "title": "my-app",
        "version": "1.2+x",
        "revision": "0123",
        "created": "2026-01-31T06:15:00+00:00",
    }
    assert not Path(call[-1]).exists()
    context = bench.bin / "context"
    assert (context / "app" / "services" / "a" / "c.py").read_text() == "# a,b"
    text = (context / "app" / "build.json").read_text()
    assert text == json.dumps({**STAMP, "built": "image"}, indent=1, sort_keys=True) + "\n"
    assert (context / "requirements.txt").read_text() == KEPT
    assert capsys.readouterr().out.startswith("my-app:1.2-x: my-app 1.2+x (commit 0123), 1 service, 2 packages")


def test_an_image_of_ones_own_on_top(bench: Bench) -> None:
    """Its folder is the project; what is given is given to the first build alone."""
    bench.program("buildah")
    (bench.root / "Containerfile").write_text("FROM $BASE\n")
    (bench.root / "pip.conf").write_text("")
    conf = str(bench.root / "pip.conf")
    first, second = bench.image(BASE="here:1", BUILDER="here:2", PIP_CONF=conf)
    given = ["--build-arg", "BASE=here:1", "--build-arg", "BUILDER=here:2", "--secret", f"id=pip.conf,src={conf}"]
    assert first[:9] == ["build", "--tag", "my-app-base:1.2-x", *given]
    own = ["--build-arg", "BASE=my-app-base:1.2-x", "--file", str(bench.root / "Containerfile")]
    assert second[:7] == ["build", "--tag", "my-app:1.2-x", *own]
    assert second[-1] == str(bench.root)
    assert labels(first) == labels(second)


@pytest.mark.parametrize(("program", "format_given"), [("docker", False), ("buildah", True), ("podman", True)])
def test_the_format_that_has_health_checks(bench: Bench, program: str, *, format_given: bool) -> None:
    """The program docker knows no other, and no option for it."""
    bench.program(program)
    bench.stamp |= {"commit": "", "dirty": True}
    (call,) = bench.image()
    assert ("--format" in call) is format_given
    assert not format_given or call[call.index("--format") + 1] == "docker"
    assert labels(call)["revision"] == "unknown-dirty"


def test_what_is_refused(bench: Bench) -> None:
    """No program, settings that are no file, and a build that fails."""
    with pytest.raises(Refusal, match="there is neither podman nor buildah nor docker on PATH"):
        bench.image()
    bench.program("docker", code=3)
    with pytest.raises(Refusal, match=r"PIP_CONF='/nowhere' is not a file; usage: just image"):
        bench.image(PIP_CONF="/nowhere")
    assert not (bench.bin / "log").exists()
    with pytest.raises(Refusal, match="docker failed with exit code 3; see its output above"):
        bench.image()


def test_the_lines_of_the_lock() -> None:
    """Those of the packages alone, without what stands before the first one."""
    assert image.locked(LOCK, ["other"]) == ["other==1.0\n"]
    assert image.locked(LOCK, ["oth", "made"]) == []
