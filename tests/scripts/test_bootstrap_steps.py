"""The steps in which .venv is made, without running any of the programs."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import bootstrap

UV = "uv==0.11.1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n"
LOCK = f"# header\nuvicorn==1.0\n{UV}    # via my-app\nzz==1.0\n"
NO_NETWORK = "error: Failed to fetch: x\n  cause: refused\n"


class Bench:
    """A project without .venv, and what is run to make it.

    Attributes:
        calls: The commands, each by the word that tells them apart, with its variables.
        fails: What a command says that fails, by that word.

    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.venv = root, root / ".venv"
        self.fails: dict[str, str] = {}
        self.calls: list[tuple[str, Mapping[str, str] | None]] = []
        self.words: dict[str, list[str]] = {}
        self.required = ""
        self.own_uv: str | None = "/bin/uv"
        self._patch = monkeypatch
        self.really_take_turn = bootstrap.take_turn
        self._turns: list[int] = []
        lock = root / "scripts" / "requirements.lock"
        lock.parent.mkdir(parents=True)
        lock.write_text(LOCK)
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(sys.executable)
        places = {"ROOT": root, "LOCK": lock, "VENV": self.venv, "STAMP": self.venv / ".stamp"}
        places |= {"VENV_PYTHON": self.venv / "bin" / "python", "VENV_UV": self.venv / "bin" / "uv"}
        for name, value in {**places, "run": self.run, "take_turn": self.take_turn}.items():
            monkeypatch.setattr(bootstrap, name, value)
        monkeypatch.setattr(bootstrap, "bundled_pips", lambda: iter([Path("/pips/pip-1.whl"), Path("/pips/pip-2.whl")]))
        monkeypatch.setattr(bootstrap, "settings_of_pip", lambda: {"UV_DEFAULT_INDEX": "pip's"})
        monkeypatch.setattr(shutil, "which", lambda name, path: self.own_uv if name == "uv" and path else None)

    def run(self, command: list[str], turn: int, environment: Mapping[str, str] | None = None) -> str:
        """Be the program, and return what it says if it fails."""
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        word = next(word for word in ("venv", "sync", "--editable", "install") if word in command)
        self.calls.append((word, environment))
        self.words[word] = command
        if word == "venv" and word not in self.fails:
            shutil.rmtree(self.venv)
            (self.venv / "bin").mkdir(parents=True)
            (self.venv / "bin" / "python").symlink_to(sys.executable)
        if word == "install":
            self.required = Path(command[-1]).read_text()
        return self.fails.get(word, "")

    def take_turn(self) -> int:
        """Take the lock."""
        self._turns.append(self.really_take_turn())
        return self._turns[-1]

    def make(self, stamp: str = "one") -> list[str]:
        """Bring .venv up to date, and return what was run."""
        self.calls.clear()
        self._patch.setattr(sys, "argv", ["bootstrap.py", self.stamp(stamp).rstrip("\n")])
        try:
            bootstrap.main()
        finally:
            os.close(self._turns.pop())  # as the end of the process would
        assert (self.venv / ".stamp").read_text() == self.stamp(stamp)
        return [word for word, _ in self.calls]

    def stamp(self, stamp: str) -> str:
        """The stamp as it is written."""
        return f"{stamp}\n{self.root}\n"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A project without .venv."""
    return Bench(tmp_path / "my-app", monkeypatch)


def test_with_a_uv_on_path(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It installs the packages, with its own settings; the project is installed by the lock's."""
    assert bench.make() == ["venv", "sync", "--editable"]
    assert bench.words["venv"][1:] == ["-I", "-m", "venv", "--without-pip", "--clear", str(bench.venv)]
    assert bench.words["venv"][0] == str(Path(sys.executable).resolve())
    assert bench.words["sync"][0] == "/bin/uv"
    assert bench.words["--editable"][0] == str(bench.venv / "bin" / "uv")
    assert [environment for _, environment in bench.calls] == [None, {}, {}]
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"scripts/just: making .venv with Python {sys.version.split()[0]}, once; ")
    assert last.startswith("scripts/just: .venv is ready after ")


def test_without_a_uv(bench: Bench) -> None:
    """The lock's is installed first, by the pip that comes with Python, whose settings are passed on."""
    bench.own_uv = None
    assert bench.make() == ["venv", "install", "sync", "--editable"]
    assert bench.words["install"][:4] == [str(bench.venv / "bin" / "python"), "-I", "/pips/pip-1.whl/pip", "install"]
    assert {"--no-deps", "--require-hashes"} <= {*bench.words["install"]}
    assert bench.required == UV.rstrip("\n")
    assert bench.words["sync"][0] == str(bench.venv / "bin" / "uv")
    settings = {"UV_DEFAULT_INDEX": "pip's"}
    assert [environment for _, environment in bench.calls] == [None, {"PIP_USER": "0"}, settings, settings]


def test_one_that_is_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It is brought up to date; if it is, nothing is done; one of another Python or place is made anew."""
    bench.make()
    assert bench.make() == []
    capsys.readouterr()
    bench.own_uv = None
    assert bench.make("two") == ["sync", "--editable"]
    assert capsys.readouterr().err.startswith("scripts/just: bringing .venv up to date\n")
    for spoil in "python", "stamp":
        if spoil == "python":
            (bench.venv / "bin" / "python").unlink()
            (bench.venv / "bin" / "python").symlink_to("/bin/sh")
        else:
            (bench.venv / ".stamp").write_text("two\n/elsewhere\n")
        assert bench.make("two") == ["venv", "install", "sync", "--editable"]


@pytest.mark.parametrize(
    ("word", "said", "told"),
    [
        (
            "venv",
            "python: No module named venv",
            " comes without venv; install it (on Debian: apt install python3-venv)",
        ),
        (
            "venv",
            "error: no space left",
            ".venv could not be made: error: no space left; fix that, and run this again.",
        ),
        ("install", "error: x", "uv could not be installed: error: x; fix that, and run this again."),
        ("install", "error: (from versions: none)", "uv could not be downloaded, the package index does not answer; "),
        (
            "sync",
            NO_NETWORK,
            "requirements.lock could not be downloaded, the package index does not answer (refused); ",
        ),
        ("--editable", "x\nerror: y\nz", "the project of pyproject.toml could not be installed: error: y; fix that"),
    ],
    ids=["no venv", "no space", "pip", "pip without network", "uv without network", "the project"],
)
def test_a_step_fails(bench: Bench, capsys: pytest.CaptureFixture[str], word: str, said: str, told: str) -> None:
    """What it was, why, and what to do; the next attempt begins again."""
    bench.own_uv, bench.fails = None, {word: said}
    with pytest.raises(SystemExit) as ended:
        bench.make()
    assert ended.value.code == 2
    _, error = capsys.readouterr().err.splitlines()
    assert told in error
    assert not (bench.venv / ".stamp").exists()
    bench.fails = {}
    assert bench.make() == ["venv", "install", "sync", "--editable"]


def test_an_update_fails(bench: Bench) -> None:
    """What is there stays, so that the next attempt only updates."""
    bench.make()
    bench.fails = {"sync": "error: x"}
    with pytest.raises(SystemExit):
        bench.make("two")
    assert (bench.venv / ".stamp").read_text() == bench.stamp("one")
    bench.fails = {}
    assert bench.make("two") == ["sync", "--editable"]


def test_what_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The pip that comes with Python, or uv in the lock."""
    bench.own_uv = None
    (bench.root / "scripts" / "requirements.lock").write_text("uvicorn==1.0\n")
    with pytest.raises(SystemExit):
        bench.make()
    assert "requirements.lock does not name uv; restore it, for example with git." in capsys.readouterr().err
    monkeypatch.setattr(bootstrap, "bundled_pips", lambda: iter([]))
    with pytest.raises(SystemExit):
        bench.make()
    assert f"{sys.executable} comes without ensurepip; install it" in capsys.readouterr().err


def test_two_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The second waits, and says so; where there are no locks, both go on."""
    monkeypatch.setattr(bootstrap, "take_turn", bench.really_take_turn)
    bench.venv.mkdir()
    asked: list[int] = []
    answers: list[type[OSError] | None] = [BlockingIOError, None, None, OSError]

    def flock(_: int, operation: int) -> None:
        asked.append(operation)
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(fcntl, "flock", flock)
    waits = [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    for operations, said in (
        (waits, "another process is making .venv; waiting for it"),
        (waits[:1], ""),
        (waits[:1], ""),
    ):
        os.close(bootstrap.take_turn())
        assert asked == operations
        assert said in capsys.readouterr().err
        asked.clear()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("a\nb\n", "b"),
        ("a\nERROR: b\nerror: c\nd", "ERROR: b"),
        ("error: a\n  cause: b\n  cause: c\nd", "c"),
        ("cause: a\nerror: b", "a"),
    ],
    ids=["last", "error", "cause", "order"],
)
def test_the_most_informative_line(said: str, reason: str) -> None:
    """The innermost cause, the first error, or the last line."""
    assert bootstrap.reason(said) == reason


def test_the_path_without_the_venv(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its uv may be replaced."""
    (bench.root / "link").symlink_to(bench.venv / "bin")
    monkeypatch.setenv("PATH", f"/a:{bench.venv}/bin:{bench.root}/link:/b")
    assert bootstrap.path_without_venv() == "/a:/b"


# -- pip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "env"),
    [
        ("Library/Application Support/pip/pip.conf", {}),
        (".pip/pip.conf", {}),
        (".config/pip/pip.conf", {}),
        ("elsewhere/pip/pip.conf", {"XDG_CONFIG_HOME": "{}/elsewhere"}),
        ("mine.conf", {"PIP_CONFIG_FILE": "{}/mine.conf"}),
    ],
    ids=["macOS", "old", "home", "XDG", "variable"],
)
def test_where_pip_has_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, env: dict[str, str]
) -> None:
    """In any of its files; those for installing go first, and what uv was told itself stays."""
    for name in (
        "XDG_CONFIG_HOME",
        "PIP_CONFIG_FILE",
        "PIP_INDEX_URL",
        "PIP_CERT",
        "UV_DEFAULT_INDEX",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "{}", **env}.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("[global]\nindex-url = all\ncert = all.pem\n[install]\nindex-url = this\n")
    assert bootstrap.settings_of_pip() == {"UV_DEFAULT_INDEX": "this", "SSL_CERT_FILE": "all.pem"}
    monkeypatch.setenv("PIP_INDEX_URL", "first")
    assert bootstrap.settings_of_pip()["UV_DEFAULT_INDEX"] == "first"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mine")
    assert bootstrap.settings_of_pip() == {"SSL_CERT_FILE": "all.pem"}
    (tmp_path / file).write_text("no section = here\n")
    assert bootstrap.settings_of_pip().get("SSL_CERT_FILE") != "all.pem"


def test_the_pips_that_come_with_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In ensurepip, or where the system has put them."""
    ensurepip = pytest.importorskip("ensurepip")
    monkeypatch.setattr(ensurepip, "__file__", str(tmp_path / "__init__.py"))
    for folder in ("_bundled", "wheels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"pip-{folder}.whl").touch()
        (tmp_path / folder / "setuptools-1.whl").touch()
    for place, found in ((str(tmp_path / "wheels"), ["_bundled", "wheels"]), (None, ["_bundled"])):
        monkeypatch.setattr(sysconfig, "get_config_var", lambda _, place=place: place)
        assert [path.name for path in bootstrap.bundled_pips()] == [f"pip-{folder}.whl" for folder in found]


# -- programs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [("echo out; echo err >&2", ""), ("echo out; echo err >&2; exit 1", "out\nerr"), ("exit 3", "exit code 3")],
    ids=["well", "badly", "silently"],
)
def test_a_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    """Silently, with the lock; what it says counts if it fails."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    with (tmp_path / "lock").open("w") as turn:
        check = f'test "$(pwd)" = "{tmp_path}" -a "$NEW" = new -a -n "$PATH" -a -e /dev/fd/{turn.fileno()} || exit 9; '
        assert bootstrap.run(["/bin/sh", "-c", check + code], turn.fileno(), {"NEW": "new"}) == said
