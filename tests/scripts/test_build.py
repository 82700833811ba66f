"""The steps of `just build` and `just build-binary`, with a stand-in for PyInstaller."""

from __future__ import annotations

import json
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import build
from artifact import Contents, File
from recipe import Refusal

STAMP = {
    "name": "my-app",
    "version": "1.2",
    "commit": "0123456789abcdef",
    "dirty": False,
    "time": 1769840100,
    "services": ["top"],
    "platform": "linux-x86_64",
}
NEEDED = b"\0GLIBC_2.9\0"


def contents(**stamp: object) -> Contents:
    """An artifact of one module and no package."""
    return Contents({**STAMP, **stamp}, {"app/__init__.py": File(b"")}, ())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "collect", lambda root, services: contents(services=[services]))
    return tmp_path


def test_a_file_for_python(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is executable, and replaces the one before; processes that run that one keep it."""
    for services in ("a", "b"):
        build.build("pyz", {"SERVICES": services})
        file = root / "build" / "my-app.pyz"
        assert file.stat().st_mode & 0o777 == 0o755
        assert file.read_bytes().startswith(b"#!/usr/bin/env python3\nPK")
        stamp = json.loads(zipfile.ZipFile(file).read("build.json"))
        assert (stamp["built"], stamp["services"]) == ("pyz", [services])
    assert [path.name for path in (root / "build").iterdir()] == ["my-app.pyz"]
    said = "build/my-app.pyz: my-app 1.2 (commit 0123456789ab), 1 service, 0 packages, 0.0 MB\n"
    assert capsys.readouterr().out == said * 2


@pytest.mark.parametrize(
    ("needs", "said"),
    [("[2, 0]", "; it needs linux-x86_64 with glibc 2.0 or newer\n"), ("[0, 0]", "0.0 MB\n")],
    ids=["glibc", "nothing"],
)
def test_a_binary(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], needs: str, said: str
) -> None:
    """It begins with the frozen interpreter, and it is told what that needs."""
    (root / "frozen").write_bytes(b"\x7fELF")
    (root / "frozen.needs").write_text(needs)
    monkeypatch.setattr(build, "runtime", lambda: root / "frozen")
    build.build("binary", {"SERVICES": ""})
    file = root / "build" / "my-app"
    assert file.read_bytes().startswith(b"\x7fELFPK")
    assert json.loads(zipfile.ZipFile(file).read("build.json"))["built"] == "binary"
    assert capsys.readouterr().out.endswith(said)


def test_what_is_told_of_an_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    """How many services, which commit, and whether anybody could build it again."""
    assert build.tell(contents(services=["a", "b"], commit="", version="2")) == (
        "my-app 2 (commit unknown), 2 services, 0 packages"
    )
    assert capsys.readouterr().err == ""
    assert "(commit 0123456789ab, changed)" in build.tell(contents(dirty=True))
    assert "warning: there are uncommitted changes" in capsys.readouterr().err


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing beside it."""
    build.write(tmp_path / "new" / "app", b"old")

    def fail(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError):
        build.write(tmp_path / "new" / "app", b"new")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("app", b"old")]


def test_the_newest_glibc_counts() -> None:
    """By its number: 2.10 is newer than 2.9."""
    assert build.glibc(b"x\0GLIBC_2.9\0GLIBC_2.10\0GLIBC_1.99\0GLIBC_3.x\0GLIBC_PRIVATE\0") == (2, 10)
    assert build.glibc(b"GLIBC_2.9") == (0, 0)


@pytest.mark.parametrize(
    ("compiled", "needs"),
    [((NEEDED, b"\0GLIBC_2.2\0"), [2, 9]), ((b"", NEEDED), [2, 9]), ((b"", b""), [0, 0])],
    ids=["frozen modules", "the loader", "neither"],
)
def test_python_is_frozen_once(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiled: tuple[bytes, bytes],
    needs: list[int],
) -> None:
    """PyInstaller comes from its lock, into an environment that is gone afterwards; the result is kept."""
    steps: dict[str, list[str]] = {}
    inside, outside = compiled

    def step(what: str, command: list[str]) -> bytes:
        steps[what] = command
        if what == "Python":
            (path,) = [word.removeprefix("--distpath=") for word in command if word.startswith("--distpath=")]
            Path(path, "runtime").write_bytes(b"\x7fELF" + outside + build.SAID)
        return inside

    monkeypatch.setattr(build, "_step", step)
    monkeypatch.setattr(build, "standard_modules", lambda: ["json.tool"])
    made = build.runtime()
    assert made.parent == root / ".kernel"
    assert made.read_bytes() == b"\x7fELF" + outside + build.SAYS
    assert json.loads(made.with_name(f"{made.name}.needs").read_text()) == needs
    assert list(steps) == ["the environment of PyInstaller", "PyInstaller", "Python", "the list of frozen modules"]
    python = steps["Python"][0]
    assert steps["the environment of PyInstaller"][1:-1] == ["venv", "-q", "--python", sys.executable]
    assert f"{steps['the environment of PyInstaller'][-1]}/bin/python" == python
    install = ["--python", python, "--require-hashes", "--no-deps", "-r", str(build.PYINSTALLER)]
    assert steps["PyInstaller"][-6:] == install
    assert {"--onefile", "--hidden-import=json.tool", str(build.LAUNCHER)} <= {*steps["Python"]}
    assert not Path(python).parents[2].exists()
    steps.clear()
    assert build.runtime() == made
    assert not steps
    other = root / "elsewhere"
    other.mkdir()
    assert build.runtime(other).parent == other
    for lost in made, made.with_name(f"{made.name}.needs"):
        lost.unlink()
        steps.clear()
        assert build.runtime() == made
        assert steps, "it is made anew if one of the two is gone"
    assert capsys.readouterr().err.count("freezing Python by PyInstaller, once") == 4


def test_the_modules_that_are_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the standard library but its tests, what draws windows, and what is private."""
    for path in ("json/__init__.py", "json/tool.py", "json/tests/test_x.py", "idlelib/x.py", "email/mime/__init__.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "x.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    names = build.standard_modules()
    assert names == sorted(names)
    assert {"json", "json.tool", "email", "email.mime", "os", "zipfile"} <= {*names}
    assert not [name for name in names if name.startswith(("_", "json.tests", "idlelib", "test", "tkinter", "site-"))]
    assert {*names} <= {*sys.stdlib_module_names, "json.tool", "email.mime"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('of no use'); sys.exit('error: no such index\\nand more')", "error: no such index"),
        ("print('said on stdout'); sys.exit(3)", "said on stdout"),
        ("sys.exit(3)", "exit code 3"),
    ],
    ids=["stderr", "stdout", "silent"],
)
def test_a_step_that_fails(code: str, said: str) -> None:
    """The reason is the program's own."""
    with pytest.raises(Refusal) as refused:
        build._step("It", [sys.executable, "-ISc", f"import sys; {code}"])
    assert str(refused.value) == f"It could not be prepared ({said}); check the network and the index, and try again"


def test_a_step_that_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it prints is the result; the settings of pip are given to it."""
    monkeypatch.setattr(build, "settings_of_pip", lambda: {"UV_DEFAULT_INDEX": "here"})
    code = "import os; print(os.environ['UV_DEFAULT_INDEX'], 'PATH' in os.environ)"
    assert build._step("It", [sys.executable, "-ISc", code]) == b"here True\n"
