"""`just build`, `just build-binary` and `just image`: what they make runs where there is neither tree nor .venv."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.program import OURS, REPO, Process
from tests.scripts.projects import Machine, Project

OTHERS = [*sorted(Path.home().glob(".pyenv/versions/3.1[1-9].*/bin/python")), Path("/usr/bin/python3")]
NARROW = ("SERVICES=hello-world",)
STATUS = f"{sys.implementation.cache_tag}-"


@pytest.fixture(scope="session")
def built(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with build/app.pyz; for tests that read it."""
    project = machine.clone(tmp_path_factory.mktemp("built") / "app")
    done = project.just("build")
    assert done.code == 0, done.err
    assert done.out.startswith("build/app.pyz: app 0.1.0 (commit ")
    return project


@pytest.fixture(scope="session")
def binary(built: Project) -> Path:
    """The binary of that clone, whose frozen Python this tree keeps for the next time."""
    home = runpy.run_path(str(REPO / "scripts" / "kernel" / "change.py"))["home"]  # made so that git does not see it
    kept, used = home(REPO), home(built.root)
    for one in kept.glob("runtime-*"):
        shutil.copy2(one, used)
    done = built.just("build-binary", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if "check the network" in done.err:
        pytest.skip(f"PyInstaller cannot be had: {done.err.splitlines()[-1]}")
    assert done.code == 0, done.err
    for one in used.glob("runtime-*"):
        shutil.copy2(one, kept)
    return built.root / "build" / "app"


@pytest.fixture
def bare(built: Project, tmp_path: Path) -> Path:
    """A folder that holds the .pyz, and nothing else."""
    shutil.copy2(built.root / "build" / "app.pyz", tmp_path)
    return tmp_path


@pytest.fixture
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a home of its own, and without what is ours."""
    kept = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name) and "COV" not in name}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("home")), "XDG_CACHE_HOME": "", "LOG_FORMAT": "json"}


def pythons() -> Iterator[Path]:
    """A Python of each version that is here."""
    seen: set[str] = set()
    for python in [Path(sys.executable).resolve(), *OTHERS]:
        if not python.exists():
            continue
        words = [str(python), "-c", "import sys; print(sys.version_info >= (3, 11), '%d.%d' % sys.version_info[:2])"]
        fits, version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        if fits == "True" and version not in seen:
            seen.add(version)
            yield python


def call(argv: list[str | Path], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def core(argv: list[str], folder: Path, env: dict[str, str], how: str) -> None:
    """Names, help, filter, lazy import, a command, values and drain, spans, a signal, an error: as in the tree."""
    version = call([*argv, "version"], folder, env)
    assert version.stdout.startswith("app 0.1.0 (commit ")
    assert version.stdout.endswith(f", {how})\n")
    listed = call([*argv, "list"], folder, {**env, "SERVICES_ENABLED": "hello-*"})
    assert [line.split()[:2] for line in listed.stdout.splitlines()][-1] == ["hello-world", "enabled"]
    assert len(listed.stdout.splitlines()) == 7
    text = call([*argv, "--help"], folder, env).stdout
    assert "Serves items over HTTP" in text
    status = call([*argv, "example-migrator", "--help"], folder, env)
    assert status.returncode == 0
    bad = call([*argv, "run", "helo-world"], folder, env)
    assert bad.returncode == 2
    assert "hello-world" in bad.stderr
    given = {"EXAMPLE_API_PORT": "0", "OTEL_TRACES_EXPORTER": "console", "ADMIN_ADDR": "127.0.0.1:0"}
    run = Process([*argv, "run", "!example-crasher"], folder, {**env, **given})
    try:
        result = run.stop(signal.SIGTERM)
    finally:
        run.kill()
    assert result.code == 0, result.stderr
    assert result.ending("example-api") == "stopped"
    assert result.ending("example-database") == "stopped"
    crash = call([*argv, "run", "example-crasher"], folder, {**env, "EXAMPLE_CRASHER_AFTER": "0"})
    assert crash.returncode == 1
    assert "services/example_crasher.py" in crash.stderr


@pytest.mark.parametrize("python", [*pythons()], ids=lambda path: path.parent.parent.name)
def test_the_file_runs_on_each_python(bare: Path, env: dict[str, str], python: Path) -> None:
    """The .pyz, copied to where there is nothing, does what the tree does."""
    core([str(python), "-I", str(bare / "app.pyz")], bare, env, "pyz")


def test_the_binary_runs_without_python(binary: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """So does the binary, where no Python is on PATH."""
    shutil.copy2(binary, tmp_path)
    core([str(tmp_path / "app")], tmp_path, {**env, "PATH": str(tmp_path)}, "binary")


def test_two_builds_are_equal(built: Project, machine: Machine, tmp_path: Path) -> None:
    """In another folder, at another time, with other seeds for hashes."""
    other = machine.clone(tmp_path / "other folder")
    assert other.just("build", PYTHONHASHSEED="7").code == 0
    assert (other.root / "build/app.pyz").read_bytes() == (built.root / "build/app.pyz").read_bytes()


def test_twenty_at_once_unpack_once(bare: Path, env: dict[str, str]) -> None:
    """On an empty cache all come up; one folder is left, for this user alone, and the next start leaves it as it is."""
    argv = [sys.executable, str(bare / "app.pyz"), "version"]
    many = [
        subprocess.Popen(argv, env=env, cwd=bare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(20)
    ]
    said = {one.communicate(timeout=60)[0] for one in many}
    assert len(said) == 1
    assert all(one.returncode == 0 for one in many)
    cache = Path(env["HOME"], ".cache", "pyz")
    (folder,) = cache.iterdir()
    assert {cache.stat().st_mode & 0o777, folder.stat().st_mode & 0o777} == {0o700}
    before = folder.stat().st_ino, folder.stat().st_ctime_ns
    assert call(list(argv), bare, env).returncode == 0
    assert (folder.stat().st_ino, folder.stat().st_ctime_ns) == before
    assert folder.name.count(STATUS) == 1


def test_a_killed_start_leaves_no_half(bare: Path, env: dict[str, str]) -> None:
    """Whatever the moment: the next start comes up."""
    argv = [sys.executable, str(bare / "app.pyz"), "version"]
    for moment in (0.05, 0.1, 0.15, 0.2):
        one = subprocess.Popen(argv, env=env, cwd=bare, stdout=subprocess.DEVNULL)
        try:
            one.wait(moment)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
        done = call(list(argv), bare, env)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(Path(env["HOME"], ".cache"), ignore_errors=True)


def test_a_cache_that_others_can_write_to_is_not_used(bare: Path, env: dict[str, str]) -> None:
    """Nobody else's code is loaded; without a place of one's own, one error says so."""
    open_to_all = bare / "cache"
    (open_to_all / "pyz").mkdir(parents=True)
    (open_to_all / "pyz").chmod(0o777)
    (bare / "tmp").mkdir()
    given = {**env, "XDG_CACHE_HOME": str(open_to_all), "TMPDIR": str(bare / "tmp")}
    argv: list[str | Path] = [sys.executable, bare / "app.pyz", "version"]
    assert call(argv, bare, given).returncode == 0
    assert not list((open_to_all / "pyz").iterdir())
    (unpacked,) = (bare / "tmp").glob("cache-*/pyz/*")
    unpacked.parent.chmod(0o777)
    done = call(argv, bare, given)
    assert done.returncode == 2
    assert "let XDG_CACHE_HOME name a folder that you can write to" in done.stderr


def test_a_subset_has_only_its_own(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """Neither the others' code and helpers, nor the packages that only they import; never a tool of the developers."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    assert project.just("build", *NARROW).code == 0
    names = zipfile.ZipFile(project.root / "build/app.pyz").namelist()
    whole = zipfile.ZipFile(built.root / "build/app.pyz").namelist()
    services = {name for name in names if name.startswith("services/") and name.endswith(".py")}
    assert services == {"services/hello_world.py"}
    assert "services/_pool.py" in whole
    top, all_top = ({name.split("/")[0] for name in some} for some in (names, whole))
    assert "starlette" in all_top - top
    assert not all_top & {"pytest", "mypy", "ruff", "hypothesis", "httpx", "coverage"}
    done = call([sys.executable, project.root / "build/app.pyz", "list"], tmp_path, env)
    assert done.stdout.split()[:2] == ["hello-world", "enabled"]


def test_a_changed_tree_is_marked(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """The build says so, and so does the app."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    project.write("services/new.py", "from kernel import service\n\n\n@service\nasync def new() -> None: ...\n")
    done = project.just("build")
    assert done.code == 0
    assert "warning: there are changes that are not committed" in done.err
    done_version = call([sys.executable, project.root / "build/app.pyz", "version"], tmp_path, env)
    assert " with changes, pyz)" in done_version.stdout


@pytest.mark.parametrize("words", [("SERVICES=nosuch",), ("FOO=1",), ("a", "b")])
def test_bad_words_are_refused(built: Project, words: tuple[str, ...]) -> None:
    """With one error, and exit code 2."""
    done = built.just("build", *words)
    assert done.code == 2
    assert done.err.startswith("just build: ")


def test_a_project_of_ones_own_builds(owned: Project, env: dict[str, str]) -> None:
    """Under its own name."""
    assert owned.just("build").code == 0
    done = call([sys.executable, owned.root / "build/my-app.pyz", "version"], owned.root, env)
    assert done.stdout.startswith("my-app 0.1.0 (commit ")


BUILDER = """#!/bin/sh
echo "$@" >> {log}
for last; do :; done
[ ! -f "$last/app/build.json" ] || cp "$last/app/build.json" "$last/requirements.txt" {folder}
"""


def test_the_image_is_built_by_what_is_there(built: Project, tmp_path: Path) -> None:
    """The framework's first, then the user's on it; with labels, and a base of the user's choice."""
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(BUILDER.format(log=tmp_path / "log", folder=tmp_path))
    program.chmod(0o755)
    path = f"{program.parent}:{built.machine.env['PATH']}"
    done = built.just("image", *NARROW, "BASE=here:1", PATH=path)
    assert done.code == 0, done.err
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.startswith("build --tag app-base:0.1.0 --build-arg BASE=here:1 --file ")
    assert "--build-arg BASE=app-base:0.1.0" in second
    commit = built.git("rev-parse", "HEAD").strip()
    assert f"org.opencontainers.image.revision={commit}" in second
    assert "org.opencontainers.image.version=0.1.0" in second
    assert json.loads((tmp_path / "build.json").read_text())["built"] == "image"
    assert "starlette==" not in (tmp_path / "requirements.txt").read_text()
    assert "anyio==" in (tmp_path / "requirements.txt").read_text()
