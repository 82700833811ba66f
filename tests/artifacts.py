"""What `just build` and `just build-binary` make of a clone, and the conformance tests run by it.

Tests marked `core` are run by the tree; with `--all`, as `just test-all` says, also by the .pyz on this Python,
the .pyz on another Python that is here, and by the binary.
`pytest tests/conformance --artifact=pyz` runs all of them by one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.scripts.projects import Machine, Project
from tests.shared import made_once

REPO = Path(__file__).parents[1]
TREE = "tree"
SHIPPED = re.compile(r"[^\s\"']*/pyz/app-[^/\s]*/")  # where an artifact was unpacked: what follows is as in the tree
USERS = re.compile(r"build\.json|services/|app/(__pycache__/)?(init|commands)\.")
KINDS = (TREE, "pyz", "pyz on another Python", "binary")
PLACES = (*sorted(Path.home().glob(".pyenv/versions/3.1[1-9].*/bin/python")), Path("/usr/bin/python3"))


def pythons() -> Iterator[Path]:
    """A Python of each version that is here and new enough, the one behind this .venv first."""
    seen: set[str] = set()
    for python in [Path(sys.executable).resolve(), *PLACES]:
        if not python.exists():
            continue
        words = [str(python), "-c", "import sys; print(sys.version_info >= (3, 11), '%d.%d' % sys.version_info[:2])"]
        fits, version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        if fits == "True" and version not in seen:
            seen.add(version)
            yield python


@attrs.frozen
class Artifact:
    """An artifact without services, to be made a test's own.

    Args:
        path: The file.
        words: What stands before it on the command line.
        cache: The folder into which it unpacks.
        stamp: Its build.json.

    """

    path: Path
    words: tuple[str, ...]
    cache: Path
    stamp: dict[str, object]

    def holding(self, code: dict[str, bytes], folder: Path) -> list[str]:
        """Puts it into *folder* with *code*, by path, and gives the words that start it."""
        folder.mkdir()
        made = folder / f"shipped{self.path.suffix}"
        shutil.copy2(self.path, made)
        digest = hashlib.sha256(repr(sorted(code.items())).encode())
        with zipfile.ZipFile(made, "a") as archive:
            there = {*archive.namelist()}
            for path, content in sorted(code.items()):
                if path not in there:
                    archive.writestr(path, content)
            archive.writestr("build.json", json.dumps({**self.stamp, "code": digest.hexdigest()}))
        return [*self.words, str(made)]


def without_services(path: Path, folder: Path, words: tuple[str, ...] = ()) -> Artifact:
    """A copy of the artifact at *path*, without what of the app is the user's."""
    made = folder / path.name
    with zipfile.ZipFile(path) as archive:
        start = min(info.header_offset for info in archive.infolist())
        made.write_bytes(path.read_bytes()[:start])
        made.chmod(0o755)
        with zipfile.ZipFile(made, "a") as copy:
            for info in archive.infolist():
                if not USERS.match(info.filename):
                    copy.writestr(info, archive.read(info))
        return Artifact(made, words, folder, json.loads(archive.read("build.json")))


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A home, and this template in a repository: made once; a test clones it, and changes nothing of it."""
    return Machine(made_once(tmp_path_factory, "machine", Machine))


@pytest.fixture(scope="session")
def built(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with build/app.pyz; for tests that read it."""

    def build(folder: Path) -> None:
        done = machine.clone(folder / "app").just("build")
        assert done.code == 0, done.err
        assert done.out.startswith("build/app.pyz: app 0.1.0 (commit ")

    return Project(machine, made_once(tmp_path_factory, "built", build) / "app")


@pytest.fixture(scope="session")
def binary(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary of that clone, whose frozen Python this tree keeps for the next time."""
    made_once(tmp_path_factory, "binary", lambda _: build_binary(built))
    return built.root / "build" / "app"


def build_binary(built: Project) -> None:
    """Build it, from the frozen Python that this tree has kept, where it has."""
    home = runpy.run_path(str(REPO / "scripts" / "kernel" / "change.py"))["home"]  # made so that git does not see it
    kept, used = home(REPO), home(built.root)
    for one in kept.glob("runtime-*"):
        shutil.copy2(one, used)
    done = built.just("build-binary", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if "check the network" in done.err:
        pytest.skip(f"PyInstaller cannot be used: {done.err.splitlines()[-1]}")
    assert done.code == 0, done.err
    for one in used.glob("runtime-*"):
        shutil.copy2(one, kept)


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact | None:
    """What the tests of the real program run; None: the tree."""
    kind = getattr(request, "param", TREE)
    if kind == TREE:
        return None
    folder = tmp_path_factory.mktemp("bare")
    if kind == "binary":
        return without_services(request.getfixturevalue("binary"), folder)
    python, *others = pythons()
    if kind != "pyz":
        if not others:
            pytest.skip("there is one Python only")
        python = others[-1]
    path = request.getfixturevalue("built").root / "build" / "app.pyz"
    return without_services(path, folder, (str(python), "-I"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the choice of what is run."""
    parser.addoption("--all", action="store_true", help="run also the tests that take minutes")
    parser.addoption("--artifact", choices=KINDS, help="what the tests of the real program run")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the real program by what was chosen, and else the core by everything."""
    if "artifact" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("artifact")
        core = metafunc.definition.get_closest_marker("core") is not None
        if chosen or core:
            kinds = [chosen] if chosen else KINDS if metafunc.config.getoption("--all") else KINDS[:1]
            metafunc.parametrize("artifact", kinds, indirect=True, scope="session")
