"""What goes into an artifact: the code of a small project, and distributions that exist only as metadata."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import artifact
from artifact import Contents, File, collect, files_of, imports
from recipe import Refusal

PROJECT = """
[project]
name = "my-app"
version = "1.2"
description = "Mine"
requires-python = ">=3.11"
dependencies = {needs}
scripts = {{ my-app = "app.__main__:main" }}

[dependency-groups]
extra = {extra}
dev = ["tool", {{ include-group = "extra" }}]
"""

# -- code ----------------------------------------------------------------------------------------------------------

GRAPH = """
import sys

sys.stdout.buffer.write(b"caf\\xe9 {}\\n" + open("graph.json", "rb").read())
sys.exit(" ".join(sys.argv[1:]) != "graph --format=json top")
"""
CODE = {
    "app/__init__.py": "",
    "app/__main__.py": GRAPH,
    "services/top.py": "from services import _first\n",
    "services/_first.py": "import services._second.deep, services.top, json\n",
    "services/_second/__init__.py": "",
    "services/_second/deep.py": "from . import _third\nfrom .._first import x\n",
    "services/_second/other.py": "import services._first\n",
    "services/_second/data.csv": "import services._unused\n",
    "services/_unused.py": "",
    "services/other/worker.py": "import services._unused\n",
    "services/other/worker.txt": "",
    "services/words.txt": "",
    "services/top.py~": "",
    "notes.txt": "",
    ".env": "TOKEN=1",
    ".gitignore": ".env\n__pycache__\n",
}


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below *root*."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def depends(**names: str) -> str:
    """What `app graph` tells of a service that depends on others."""
    facts = {"depends": names, "optional": ["maybe"], "interfaces": ["elsewhere"]}
    return json.dumps({"top": facts}, indent=1)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without packages, to be copied."""
    root = tmp_path_factory.mktemp("committed")
    write(root, CODE)
    write(root, {"pyproject.toml": PROJECT.format(needs=[], extra=[]), "scripts/requirements.lock": ""})
    write(root, {"graph.json": depends()})
    who = {f"GIT_{role}_{what}": "Ann" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **who, "GIT_COMMITTER_DATE": "2026-01-31T08:15:00 +0200"}
    for words in ["init", "-q", "--template="], ["add", "-A"], ["commit", "-qm", "All"]:
        subprocess.run(["git", *words], cwd=root, env=env, check=True)
    return root


@pytest.fixture
def root(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to do with as one likes."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(artifact, "distributions", list)
    return shutil.copytree(committed, tmp_path / "my-app")


def test_the_whole_project(root: Path) -> None:
    """All code that git has, without what editors leave, with the time of the commit and the app's metadata."""
    (root / "services" / "new.py").write_text("")
    (root / "services" / "new.py").chmod(0o755)
    (root / "services" / "link.txt").symlink_to("words.txt")
    contents = collect(root, "")
    app = {path for path in CODE if path.startswith(("app", "services")) and not path.endswith("~")}
    info = {f"my_app-1.2.dist-info/{name}" for name in ("METADATA", "entry_points.txt")}
    assert {*contents.code} == app | info | {"pyproject.toml", "services/new.py", "services/link.txt"}
    assert list(contents.code) == sorted(contents.code)
    assert [path for path, file in contents.code.items() if file.executable] == ["services/new.py"]
    assert contents.code["my_app-1.2.dist-info/METADATA"].decode().splitlines() == [
        *("Metadata-Version: 2.1", "Name: my-app", "Version: 1.2", "Summary: Mine", "Requires-Python: >=3.11"),
    ]
    points = contents.code["my_app-1.2.dist-info/entry_points.txt"]
    assert points == b"[console_scripts]\nmy-app = app.__main__:main\n"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    platform = contents.stamp["platform"]
    assert isinstance(platform, str)
    assert contents.stamp == {
        "name": "my-app",
        "version": "1.2",
        "commit": commit.strip(),
        "dirty": True,
        "time": 1769840100,
        "services": ["new", "other-worker", "top"],
        "left-out": [],
        "python": "3.11",
        "platform": platform,
    }
    assert contents.time == datetime(2026, 1, 31, 6, 15, tzinfo=UTC)
    assert contents.packages == ()


def test_a_subset_has_its_helpers_and_their_data(root: Path) -> None:
    """A helper of a helper, relative imports, whole packages, and data beside code that stays."""
    contents = collect(root, " top ,")
    left = {"services/_unused.py", "services/other/worker.py", "services/other/worker.txt", "services/top.py~"}
    services = {path for path in contents.code if path.startswith("services/")}
    assert services == {path for path in CODE if path.startswith("services/")} - left
    assert (contents.stamp["services"], contents.stamp["left-out"]) == (["top"], ["other-worker"])
    assert contents.stamp["dirty"] is False


@pytest.mark.parametrize(
    ("kinds", "refused"),
    [
        ({"other-worker": "value"}, "top needs the value of other-worker, which SERVICES excludes"),
        ({"other-worker": "value", "top": "value"}, "set SERVICES=other-worker,top, or give"),
        ({"other-worker": "order"}, ""),
        ({"top": "value", "maybe": "value", "elsewhere": "value"}, ""),
    ],
    ids=["needed", "several", "order alone", "can do without"],
)
def test_a_subset_without_a_value(root: Path, kinds: dict[str, str], refused: str) -> None:
    """It could never start, unless the service can do without it."""
    for name in ("maybe", "elsewhere"):
        (root / "services" / f"{name}.py").touch()
    (root / "graph.json").write_text(depends(**kinds))
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    if refused:
        with pytest.raises(Refusal, match=refused):
            collect(root, "top")
    else:
        collect(root, "top")


def test_a_subset_that_cannot_be_imported_here(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is built, with a warning."""
    (root / "app" / "__main__.py").write_text("import sys\nprint('x', file=sys.stderr)\nsys.exit('error: no device')\n")
    collect(root, "top")
    assert capsys.readouterr().err == (
        "warning: could not check whether the services have everything they need: no device\n"
    )


def test_what_is_refused(root: Path) -> None:
    """A service that does not exist, a file that is not Python, and a link to what git does not track here."""
    with pytest.raises(Refusal, match="nosuch"):
        collect(root, "nosuch")
    (root / "services" / "top.py").write_text("x = (\n")
    with pytest.raises(Refusal, match=r"^services/top\.py:1: .*; fix the file, and build again$"):
        collect(root, "")
    (root / "services" / "top.py").write_text("")
    for target in ("../.env", "/etc/passwd"):
        (root / "services" / "link.txt").symlink_to(target)
        with pytest.raises(Refusal, match=rf"^services/link\.txt is a link to {target}, which git does not track"):
            collect(root, "")
        (root / "services" / "link.txt").unlink()


def test_without_a_commit_the_newest_file_gives_the_time(root: Path) -> None:
    """In a downloaded archive, say."""
    shutil.rmtree(root / ".git")
    contents = collect(root, "")
    times = [int((root / path).stat().st_mtime) for path in CODE]
    assert (contents.stamp["commit"], contents.stamp["dirty"]) == ("", False)
    assert min(times) <= contents.time.timestamp() <= max(times)


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("services/a.py", "import x.y as z, w", {"x.y", "w"}),
        ("services/a.py", "def f():\n    from x.y import z, w", {"x.y", "x.y.z", "x.y.w"}),
        ("services/a/b.py", "from . import c", {"services.a", "services.a.c"}),
        ("services/a/b.py", "from ..d import c", {"services.d", "services.d.c"}),
        ("services/a.txt", "import x", set()),
    ],
    ids=["import", "late", "relative", "further up", "no Python"],
)
def test_imports(path: str, source: str, found: set[str]) -> None:
    """Dotted names, also of what is imported from a module, which may itself be one."""
    assert imports(path, source.encode()) == found


# -- packages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with distributions."""
    site = tmp_path / "site"
    site.mkdir()

    def distribution(name: str) -> Distribution:
        for found in importlib.metadata.distributions(name=name, path=[str(site)]):
            return found
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(artifact, "distributions", lambda: importlib.metadata.distributions(path=[str(site)]))
    monkeypatch.setattr(artifact, "distribution", distribution)
    return site


def install(site: Path, name: str, files: Mapping[str, str] | None = None, needs: tuple[str, ...] = ()) -> Distribution:
    """Install version 1.0 of a distribution with one module, or other files."""
    files = {f"{name}.py": "", **(files or {})}
    info = f"{name}-1.0.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {need}" for need in needs)]
    files[f"{info}/METADATA"] = "\n".join([*lines, ""])
    write(site, files)
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record.append(f"{path},sha256={digest},{len(text)}")
    write(site, {f"{info}/RECORD": "\n".join([*record, f"{info}/RECORD,,", f"{info}/REQUESTED,,"])})
    write(site, {f"{info}/REQUESTED": ""})
    return Distribution.at(site / info)


def names(contents: Contents) -> list[str]:
    """The packages of an artifact."""
    return [package.name for package in contents.packages]


def test_what_is_required_and_what_is_imported(root: Path, site: Path) -> None:
    """Not what only services that are left out import, what nothing imports, or what only tools need."""
    for name in ("always", "unused", "grouped", "idle", "tool", "both", "elsewhere", "indirect"):
        install(site, name, needs=("indirect",) if name == "always" else ())
    needs = ["always", "unused", "both", "absent; python_version < '3'"]
    project = PROJECT.format(needs=needs, extra=["grouped", "idle"])
    lock = "".join(f"{name}==1.0\n" for name in ("always", "unused", "both", "grouped", "indirect"))
    write(root, {"pyproject.toml": project, "scripts/requirements.lock": lock + "both==2.0\n"})
    write(root, {"services/top.py": "import grouped.deep, both, tool, elsewhere, json"})
    write(root, {"services/other/worker.py": "import unused, both, idle"})
    assert names(collect(root, "top")) == ["always", "both", "grouped", "indirect"]
    write(root, {"services/top.py": "import indirect"})
    assert names(collect(root, "top")) == ["always", "indirect"]


def test_a_package_that_is_not_as_locked(root: Path, site: Path) -> None:
    """Another version, or none at all: it is refused, with what to do."""
    install(site, "always")
    write(root, {"pyproject.toml": PROJECT.format(needs=["always"], extra=[])})
    for lock in ("always==1.0.1\n", "other==1.0\n"):
        write(root, {"scripts/requirements.lock": lock})
        with pytest.raises(Refusal, match=r"^always 1\.0 in \.venv is not the version in scripts/requirements\.lock"):
            collect(root, "")
    write(root, {"pyproject.toml": PROJECT.format(needs=["absent"], extra=[])})
    with pytest.raises(Refusal, match=r"^absent is not in \.venv"):
        collect(root, "")


def test_requirements_of_requirements(site: Path) -> None:
    """On this platform, with the extras that are wanted, also those of a package that is known already."""
    install(site, "a", needs=("b", "c; extra == 'more'", "d; python_version < '3'", "b[full]; extra == 'full'"))
    install(site, "b", needs=("a", "e; extra == 'full'"))
    for name in ("c", "d", "e"):
        install(site, name)
    assert sorted(artifact._closure([Requirement("a")])) == ["a", "b"]
    assert sorted(artifact._closure([Requirement("a[more]")])) == ["a", "b", "c"]
    assert sorted(artifact._closure([Requirement("b"), Requirement("a[full]")])) == ["a", "b", "e"]
    assert sorted(
        artifact._closure([Requirement("c; python_version < '3'"), Requirement("d; python_version > '3'")])
    ) == ["d"]


def test_a_namespace_that_several_share(site: Path) -> None:
    """The longest name decides; what several have is nobody's."""
    install(site, "one", {"shared/one/x.py": "", "shared/common.py": "", "native.cpython-311.so": "", "data.txt": ""})
    install(site, "two", {"shared/two/y.py": "", "shared/common.py": ""})
    providers = artifact._providers()
    wanted = {"shared.one.x.f": {"one"}, "shared.two": {"two"}, "shared.common": set(), "shared": set()}
    wanted |= {"native": {"one"}, "data": set(), "one.deep": {"one"}, "json": set()}
    assert {name: artifact._provided([name], providers) for name in wanted} == wanted


def test_the_files_of_a_package(site: Path) -> None:
    """As its RECORD lists them, without what depends on this machine."""
    outside = {"../bin/program": "#!", "__pycache__/x.cpython-311.pyc": "", "x.pyi": "", "pkg/__pycache__/y.pyc": ""}
    package = install(site, "x", {**outside, "pkg/REQUESTED": "kept", "pkg/y.py": "y"})
    (site / "pkg" / "y.py").chmod(0o755)
    found = files_of(package)
    assert found == {"x.py": b"", "pkg/REQUESTED": b"kept", "pkg/y.py": b"y"} | {
        "x-1.0.dist-info/METADATA": found["x-1.0.dist-info/METADATA"]
    }
    assert [path for path, file in found.items() if file.executable] == ["pkg/y.py"]
    (site / "x.py").write_text("changed")
    with pytest.raises(Refusal, match=r"^x\.py in \.venv was changed since it was installed"):
        files_of(package)


def test_a_package_whose_code_is_elsewhere(site: Path) -> None:
    """It cannot be shipped."""
    package = install(site, "x", {"x-1.0.dist-info/direct_url.json": '{"dir_info": {"editable": true}}'})
    with pytest.raises(Refusal, match=r"^x is installed as editable"):
        files_of(package)


def test_build_json() -> None:
    """It is the same for the same stamp."""
    assert File.of({"b": 1, "a": [2]}) == b'{\n "a": [\n  2\n ],\n "b": 1\n}\n'
