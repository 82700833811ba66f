"""`just build`, `just build-binary` and `just image`: what they make runs where there is neither tree nor .venv."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import pythons
from tests.conformance.program import OURS, Process
from tests.scripts.projects import REPO, Machine, Project

pytestmark = pytest.mark.minutes

NARROW = ("SERVICES=hello-world",)
STATUS = f"{sys.implementation.cache_tag}-"


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


def call(argv: list[str | Path], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def examples(argv: list[str], folder: Path, env: dict[str, str], how: str) -> None:
    """The template's own services; for the rest there are the conformance tests that are marked as the core."""
    version = call([*argv, "version"], folder, env)
    assert version.stdout.startswith("app 0.1.0 (commit ")
    assert version.stdout.endswith(f", {how})\n")
    given = {"EXAMPLE_API_PORT": "0", "OTEL_TRACES_EXPORTER": "console", "ADMIN_ADDR": "127.0.0.1:0"}
    run = Process([*argv, "run", "example-api", "--with-dependencies"], folder, {**env, **given})
    try:
        result = run.stop(signal.SIGTERM)
    finally:
        run.kill()
    assert result.code == 0, result.stderr
    assert result.ending("example-api") == "stopped"
    assert result.ending("example-database") == "stopped"


@pytest.mark.parametrize("python", [*pythons()], ids=str)
def test_the_file_runs_on_each_python(bare: Path, env: dict[str, str], python: Path) -> None:
    """The .pyz, copied to where there is nothing, does what the tree does."""
    examples([str(python), "-I", str(bare / "app.pyz")], bare, env, "pyz")


def test_the_binary_runs_without_python(binary: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """So does the binary, where no Python is on PATH."""
    shutil.copy2(binary, tmp_path)
    examples([str(tmp_path / "app")], tmp_path, {**env, "PATH": str(tmp_path)}, "binary")


def test_two_builds_are_equal(built: Project, machine: Machine, tmp_path: Path) -> None:
    """In another folder, at another time, with other seeds for hashes."""
    other = machine.clone(tmp_path / "other folder")
    assert other.just("build", PYTHONHASHSEED="7").code == 0
    assert (other.root / "build/app.pyz").read_bytes() == (built.root / "build/app.pyz").read_bytes()


def test_twenty_at_once_unpack_once(bare: Path, env: dict[str, str]) -> None:
    """On an empty cache all come up; two folders are left, for this user alone, and the next start changes neither."""
    argv = [sys.executable, str(bare / "app.pyz"), "version"]
    many = [
        subprocess.Popen(argv, env=env, cwd=bare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(20)
    ]
    said = {one.communicate(timeout=60)[0] for one in many}
    assert len(said) == 1
    assert all(one.returncode == 0 for one in many)
    cache = Path(env["HOME"], ".cache", "pyz")
    folders = sorted(cache.iterdir())
    assert [folder.name.partition("-")[0] for folder in folders] == ["app", "packages"]
    assert {folder.stat().st_mode & 0o777 for folder in (cache, *folders)} == {0o700}
    before = [(folder.stat().st_ino, folder.stat().st_ctime_ns) for folder in folders]
    assert call(list(argv), bare, env).returncode == 0
    assert [(folder.stat().st_ino, folder.stat().st_ctime_ns) for folder in folders] == before
    assert all(folder.name.count(STATUS) == 1 for folder in folders)


def test_a_new_version_unpacks_only_itself(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """Where it needs the same packages."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    project.write("services/new.py", "from kernel import service\n\n\n@service\nasync def new() -> None: ...\n")
    assert project.just("build").code == 0
    for root in (built.root, project.root):
        assert call([sys.executable, root / "build/app.pyz", "version"], tmp_path, env).returncode == 0
    names = [folder.name.partition("-")[0] for folder in Path(env["HOME"], ".cache", "pyz").iterdir()]
    assert sorted(names) == ["app", "app", "packages"]


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
    unpacked, *_ = (bare / "tmp").glob("cache-*/pyz/*")
    unpacked.parent.chmod(0o777)
    done = call(argv, bare, given)
    assert done.returncode == 2
    assert "let XDG_CACHE_HOME name a folder that you can write to" in done.stderr


def _remove(file: Path) -> None:
    file.unlink()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _open(file: Path) -> None:
    file.chmod(0o666)


def _lead_away(file: Path) -> None:
    elsewhere = file.rename(file.parents[1] / "elsewhere")
    file.symlink_to(elsewhere)


def _remove_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


@pytest.mark.parametrize("spoil", [_remove, _cut, _open, _lead_away, _remove_folder])
def test_a_cache_that_is_not_whole_is_made_anew(bare: Path, env: dict[str, str], spoil: Callable[[Path], None]) -> None:
    """Who cleans caches takes some of the files, and a crash the end of one: the next start heals it."""
    argv: list[str | Path] = [sys.executable, bare / "app.pyz", "version"]
    first = call(argv, bare, env)
    assert first.returncode == 0, first.stderr
    cache = Path(env["HOME"], ".cache", "pyz")
    for pattern in ("app-*/kernel/cli/program.py", "packages-*/anyio/abc/__init__.py"):
        (file,) = cache.glob(pattern)
        content = file.read_bytes()
        spoil(file)
        again = call(argv, bare, env)
        assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
        assert file.read_bytes() == content
        assert not file.is_symlink()
        assert not file.stat().st_mode & 0o022
    assert not list(cache.glob(".new-*"))


def test_what_is_unpacked_is_for_nobody_else(bare: Path, env: dict[str, str]) -> None:
    """Whatever the umask, which the app itself keeps; also the folders above, where they are made."""
    given = {**env, "XDG_CACHE_HOME": str(bare / "deep" / "down" / "cache")}
    words = f"umask 000; exec {sys.executable} {bare}/app.pyz version"
    assert call(["sh", "-c", words], bare, given).returncode == 0
    made = [bare / "deep", *(bare / "deep").rglob("*")]
    assert len(made) > 100
    assert not [path for path in made if not path.is_symlink() and path.stat().st_mode & 0o077]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make what is somebody else's")
@pytest.mark.parametrize("what", ["link", "folder", "open"])
def test_what_somebody_else_has_put_into_the_temporary_folder(bare: Path, env: dict[str, str], what: str) -> None:
    """It is never used, also where it leads to a folder of this user's own, full of another user's choice."""
    shared = bare / "tmp"
    shared.mkdir()
    shared.chmod(0o777 if what == "open" else 0o1777)
    mine = bare / "mine"
    (mine / "pyz").mkdir(parents=True, mode=0o700)
    mine.chmod(0o700)
    trap = shared / f"cache-{os.getuid()}"
    if what == "link":
        trap.symlink_to(mine)
        os.lchown(trap, 65534, 65534)
    elif what == "folder":
        trap.mkdir(0o700)
        os.chown(trap, 65534, 65534)
    given = {**env, "XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": str(shared)}
    done = call([sys.executable, bare / "app.pyz", "version"], bare, given)
    assert done.returncode == 2
    assert "finds no place that is yours alone" in done.stderr
    assert not list((mine / "pyz").iterdir())


@pytest.mark.parametrize("target", ["outside", "secret"])
def test_a_link_to_what_is_not_the_projects_is_not_shipped(built: Project, tmp_path: Path, target: str) -> None:
    """A commit could bring one that leads to a key of whoever builds; one to another file of the project is fine."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    project.write("../outside/id_ed25519", "a key")
    project.write(".env", "TOKEN=1")
    link = project.root / "services" / "_data.txt"
    link.symlink_to("../../outside/id_ed25519" if target == "outside" else "../.env")
    done = project.just("build")
    assert done.code == 2
    assert "just build: services/_data.txt is a link to ../" in done.err
    link.unlink()
    link.symlink_to("../README.md")
    assert project.just("build").code == 0


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
    top, all_top = (
        {name.split("/")[1] for name in some if name.startswith("__packages__/")} for some in (names, whole)
    )
    assert "starlette" in all_top - top
    assert not all_top & {"pytest", "mypy", "ruff", "hypothesis", "httpx", "coverage"}
    file = project.root / "build/app.pyz"
    done = call([sys.executable, file, "list"], tmp_path, {**env, "SERVICES_ENABLED": "!example-api"})
    assert done.stdout.split()[:2] == ["hello-world", "enabled"]
    done = call([sys.executable, file, "run", "example-api"], tmp_path, env)
    assert done.returncode == 2
    assert "example-api is not in this artifact; remove it, or build an artifact with it" in done.stderr


def test_a_subset_that_could_never_start_is_refused(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """It says whose value is missing, and what to say; a parameter with a default can do without."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    (project.root / "build/app.pyz").unlink()
    done = project.just("build", "SERVICES=example-catalog,hello-world")
    assert (done.code, done.out) == (2, "")
    assert "example-catalog needs the value of example-database, which SERVICES excludes" in done.err
    assert "set SERVICES=example-catalog,example-database,hello-world, or give" in done.err
    assert not (project.root / "build/app.pyz").exists()
    assert project.just("build", "SERVICES=example-api").code == 0  # the catalog is an interface, and may run elsewhere
    text = (project.root / "services/example_catalog.py").read_text()
    optional = text.replace("(example_database: Pool, serving:", "(*, example_database: Pool = None, serving:")
    assert optional != text
    project.write("services/example_catalog.py", optional)
    assert project.just("build", "SERVICES=example-catalog").code == 0
    project.write("services/broken.py", "import nosuch\n")
    done = project.just("build", "SERVICES=broken")
    assert done.code == 0
    assert "could not check whether the services have everything they need: services/broken.py:1" in done.err


def test_a_subset_has_the_data_of_its_folders(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """Data lies beside the code: what is left of a folder's code keeps the folder's data. Editors' leftovers stay."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    service = "from kernel import service\n\n\n@service\nasync def {}() -> None: ...\n"
    for name in ("top", "billing/worker", "billing/clerk", "shop/till"):
        project.write(f"services/{name}.py", service.format(name.partition("/")[2] or name))
    data = ["top.txt", "maps/a.json", "billing/schema.sql", "billing/mail/dear.txt", "shop/prices.csv"]
    leftovers = [".#top.py", "#top.py#", "top.py~", ".top.py.swp", "._top.py", "billing/.DS_Store"]
    for name in (*data, *leftovers):
        project.write(f"services/{name}", "")
    (project.root / "services/.#dangling.py").symlink_to("ann@host.1234")
    for services, expected in {
        "top": data[:2],
        "billing-worker": data[2:4],
        "shop-till,billing-clerk": data[2:],
        "": data,
    }.items():
        assert project.just("build", f"SERVICES={services}").code == 0
        names = zipfile.ZipFile(project.root / "build/app.pyz").namelist()
        found = [name for name in names if name.startswith("services/") and not name.endswith((".py", ".pyc", "/"))]
        assert sorted(name.removeprefix("services/") for name in found) == sorted(expected)


@pytest.mark.minutes
def test_a_subset_has_what_its_helpers_import(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """A helper of a helper, also when it is imported late, by another name, or is a folder; no other one."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    helpers = {
        "_first": "from services._second import two\n\n\ndef one() -> str:\n    return two()\n",
        "_second": "def two() -> str:\n    import services._third.deep as x\n\n    return x.TEXT\n",
        "_third/__init__": "",
        "_third/deep": "from . import deeper\n\nTEXT = deeper.TEXT\n",
        "_third/deeper": "TEXT = 'from far below'\n",
        "_other": "import services._unused\n",
        "_unused": "",
    }
    for name, text in helpers.items():
        project.write(f"services/{name}.py", text)
    top = "@service(oneshot=True)\nasync def top() -> None:\n    print(one())\n"
    project.write("services/top.py", f"from kernel import service\nfrom services._first import one\n\n\n{top}")
    assert project.just("build", "SERVICES=top").code == 0
    file = project.root / "build/app.pyz"
    assert call([sys.executable, file, "run"], tmp_path, env).stdout == "from far below\n"
    names = {*zipfile.ZipFile(file).namelist()}
    assert not names & {"services/_other.py", "services/_unused.py", "services/_pool.py"}


def test_a_changed_tree_is_marked(built: Project, tmp_path: Path, env: dict[str, str]) -> None:
    """The build says so, and so does the app."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    project.write("services/new.py", "from kernel import service\n\n\n@service\nasync def new() -> None: ...\n")
    done = project.just("build")
    assert done.code == 0
    assert "warning: there are uncommitted changes" in done.err
    done_version = call([sys.executable, project.root / "build/app.pyz", "version"], tmp_path, env)
    assert " with changes, pyz)" in done_version.stdout


@pytest.mark.parametrize("cache", ["file/below", "relative", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written_gives_way(bare: Path, env: dict[str, str], cache: str) -> None:
    """To the temporary folder, and what a start that was killed long ago had left there is swept."""
    (bare / "file").write_text("")
    left = bare / f"cache-{os.getuid()}" / "pyz" / ".new-long-ago"
    left.mkdir(parents=True, mode=0o700)
    left.parent.chmod(0o700)
    left.parent.parent.chmod(0o700)
    os.utime(left, (1, 1))
    place = str(bare / cache) if cache.startswith("file") else cache
    given = {**env, "XDG_CACHE_HOME": place, "TMPDIR": str(bare)}
    done = call([sys.executable, bare / "app.pyz", "version"], bare, given)
    assert done.returncode == 0, done.stderr
    assert len([*left.parent.iterdir()]) == 2
    assert all(STATUS in unpacked.name for unpacked in left.parent.iterdir())


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
    (tmp_path / "pip.conf").write_text("[global]\n")
    words = ("BUILDER=here:2", f"PIP_CONF={tmp_path}/pip.conf")
    assert built.just("image", *NARROW, *words, PATH=path).code == 0
    *_, third, _ = (tmp_path / "log").read_text().splitlines()
    assert f"--build-arg BUILDER=here:2 --secret id=pip.conf,src={tmp_path}/pip.conf " in third
    refused = built.just("image", "PIP_CONF=/nowhere", PATH=path)
    assert (refused.code, "is not a file" in refused.err) == (2, True)


def test_what_is_fetched_is_pinned() -> None:
    """Images by their digests, and the packages that freeze Python by their hashes, as the bootloader is shipped."""
    scripts = REPO / "scripts" / "kernel"
    digest = "@sha256:[0-9a-f]{64}"
    assert re.search(rf"(?m)^ARG BASE=python:[\w.-]+{digest}$", (scripts / "Containerfile").read_text())
    assert re.search(rf'/jaeger:[0-9.]+"\s+"{digest}"', (scripts / "jaeger.py").read_text())
    lock = (scripts / "pyinstaller.lock").read_text()
    blocks = re.split(r"(?m)^(?=[a-z])", lock)[1:]
    assert {"pyinstaller", "altgraph", "setuptools"} <= {block.partition("==")[0] for block in blocks}
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("index-url = https://me:hunter2@mirror.example.com/simple", 1),
        ("machine mirror login me password x", 1),
        ("index-url = https://mirror.example.com/simple", 0),
        ("cert = /etc/ssl/ca.crt", 0),
        (None, 0),
    ],
)
def test_a_base_that_holds_a_password_is_refused(tmp_path: Path, settings: str | None, code: int) -> None:
    """What the last stage of the framework's Containerfile looks for: BASE is shipped as it is."""
    text = (REPO / "scripts" / "kernel" / "Containerfile").read_text()
    (look,) = re.findall(r"(?m)^RUN (for file in (?:.*\\\n)+.*)$", text)
    if settings is not None:
        (tmp_path / "pip.conf").write_text(f"[global]\n{settings}\n")
    words = look.replace("/etc/pip.conf", str(tmp_path / "pip.conf"))
    assert "/root/.netrc" in words
    words = re.sub(r"/root/\S+?(?=[ ;])", str(tmp_path / "nothing"), words)
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert (done.returncode, "BASE holds a password in" in done.stderr) == (code, bool(code)), done.stderr


def test_a_package_that_was_installed_by_hand(built: Project, tmp_path: Path) -> None:
    """It is told how .venv is made anew, before how the accident would become permanent."""
    project = Project(built.machine, tmp_path / "app")
    shutil.copytree(built.root, project.root, symlinks=True)
    lock = project.root / "scripts" / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^attrs==\S+", "attrs==1.0", lock.read_text()))
    done = project.just("build")
    assert done.code == 2
    assert "in .venv is not the version in scripts/requirements.lock; if you installed it by hand" in done.err
    assert done.err.index("`rm -r .venv`") < done.err.index("`just lock`")


def test_a_containerfile_of_ones_own_is_not_given_secrets(owned_once: Project) -> None:
    """What no commit has, none of the user's stages can copy by accident."""
    lines = (owned_once.root / ".dockerignore").read_text().splitlines()
    assert {".env", ".git", ".kernel", ".venv"} <= set(lines)


def test_folders_that_a_newer_python_lists() -> None:
    """Python 3.14.10 and 3.15 list folders that only their files name, without facts; they are nothing to unpack."""
    tree = ast.parse((REPO / "scripts" / "kernel" / "pyz_main.py.in").read_text())
    wanted = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name == "inside")
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES")
    ]
    listed = {name: (name, 0, 0, 5) for name in ("__main__.py", "app/x.py", "__packages__/y/z.py")}
    loader = types.SimpleNamespace(_files=listed | {"app/": None, "__packages__/y/": None})
    names: dict[str, Any] = {"os": os, "__loader__": loader}
    exec(compile(ast.Module([*wanted], []), "pyz_main", "exec"), names)  # noqa: S102  (our own)
    assert names["inside"]() == [{"app/x.py": ("app/x.py", 5)}, {"y/z.py": ("__packages__/y/z.py", 5)}]
