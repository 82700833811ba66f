"""How the lock is made, with a stand-in for uv that writes what the test says."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.scripts.projects import REPO
from tests.scripts.small import PROJECT, Small

sys.path.append(str(REPO / "scripts" / "kernel"))

import lock
from lock import Unsolved, header, pins, read_age, resolve, run_uv, without
from recipe import Refusal

LOCK = "a==1.0\nb==1.0\nc==1.0\n"


def test_the_first_line_shows_whether_the_dependencies_have_changed() -> None:
    """In whatever order the groups are, since that changes nothing."""

    def project(**groups: list[str]) -> dict[str, object]:
        return {"project": {"requires-python": ">=3.11", "dependencies": ["a"]}, "dependency-groups": groups}

    text = header(project(dev=["b"], docs=["c"]))
    assert re.fullmatch(r"# Made by `just lock` .* \(sha256 [0-9a-f]{16}\)\.\n", text)
    assert header(project(docs=["c"], dev=["b"])) == text
    assert header(project(dev=["b"], docs=["d"])) != text


def test_versions_that_are_locked() -> None:
    """Several of one package are for several platforms."""
    assert pins("# a==0\na==1.0 \\\n    --hash=sha256:1\nb-c==2.0 ; x\na==1.1\n") == {"a": "1.0 and 1.1", "b-c": "2.0"}


@pytest.mark.parametrize(("text", "age"), [("", 7), ("0", 0), ("30", 30)])
def test_ages(text: str, age: int) -> None:
    """A number of days, or the default."""
    assert read_age(text) == age


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "12345"])
def test_what_is_no_age(text: str) -> None:
    """It is told how to write one."""
    with pytest.raises(Refusal, match=rf"^AGE='{text}' is not a number of days; example: AGE=7"):
        read_age(text)


class Uv:
    """What is called instead of uv: each call writes the next of some locks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
        self.texts = list(texts)
        self.calls: list[list[str]] = []
        monkeypatch.setattr(lock, "run_uv", self.run)

    def run(self, command: Sequence[str], folder: Path) -> None:
        """Write a lock where uv would."""
        self.calls.append(list(command))
        file = Path(command[command.index("--output-file") + 1])
        assert file.parent == folder
        assert file.read_text() == LOCK, "the versions to keep"
        file.write_text(self.texts.pop(0))

    def exempt(self) -> list[set[str]]:
        """The packages whose age does not count, by call."""
        option = "--exclude-newer-package="
        return [
            {word.removeprefix(option).partition("=")[0] for word in call if word.startswith(option)}
            for call in self.calls
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    return tmp_path


def test_what_uv_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All groups, the oldest Python, every platform, hashes; and nothing that is younger than a week."""
    uv = Uv(monkeypatch, LOCK)
    before = datetime.now(UTC)
    text = resolve(folder, LOCK, ["--verbose"], 7, Path("/bin/uv"))
    assert text == header(lock.read_project(folder)) + LOCK
    (call,) = uv.calls
    assert call[:3] == ["/bin/uv", "pip", "compile"]
    wanted = {"--universal", "--generate-hashes", "--no-header", "--python-version=3.11", "--verbose"}
    assert wanted | {"--group=dev", "--group=docs"} <= {*call}
    assert call[-1] == "pyproject.toml"
    (newest,) = [word.partition("=")[2] for word in call if word.startswith("--exclude-newer=")]
    age = before - datetime.fromisoformat(newest)
    assert timedelta(days=6, hours=23) < age < timedelta(days=7, minutes=1)
    assert uv.exempt() == [{"a", "b", "c"}]


def test_age_0_and_any_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then neither is asked for."""
    (folder / "pyproject.toml").write_text(PROJECT.replace(">=3.11", "!=3.12"))
    uv = Uv(monkeypatch, LOCK)
    resolve(folder, LOCK, [], 0)
    assert not [word for word in uv.calls[0] if word.startswith(("--exclude", "--python-version"))]


@pytest.mark.parametrize(
    ("words", "exempt"),
    [
        (["--upgrade"], set()),
        (["-U"], set()),
        (["--upgrade-package", "a", "--annotation-style", "c"], {"b", "c"}),
        (["-P", "a", "-P", "b"], {"c"}),
    ],
    ids=["all", "all, briefly", "one", "two"],
)
def test_what_is_upgraded_must_be_of_age(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], exempt: set[str]
) -> None:
    """What is locked and stays was looked at before."""
    uv = Uv(monkeypatch, LOCK)
    resolve(folder, LOCK, words, 7)
    assert uv.exempt() == [exempt]


def test_a_version_that_must_change_must_be_of_age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again until nothing moves; what is no longer needed does not move."""
    uv = Uv(monkeypatch, "a==1.0\nb==2.0\n", "a==1.0\nb==1.5\n")
    assert resolve(folder, LOCK, [], 7).endswith("\na==1.0\nb==1.5\n")
    assert uv.exempt() == [{"a", "b", "c"}, {"a", "c"}]


def test_a_lock_that_would_name_a_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirement that is an address, say."""
    Uv(monkeypatch, "a @ https://example.com/a.whl\n")
    with pytest.raises(Refusal, match=r"^the lock would name a host \(a @ https://example\.com/a\.whl\)"):
        resolve(folder, LOCK, [], 7)


# -- how uv is run -------------------------------------------------------------------------------------------------


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes down its settings, says what `said` holds, and ends with its last argument."""
    monkeypatch.setattr(lock, "settings_of_pip", lambda: {"UV_DEFAULT_INDEX": "pip's", "SSL_CERT_FILE": "pip's"})
    monkeypatch.setenv("UV_INDEX_URL", "here")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    program = tmp_path / "uv"
    program.write_text(
        '#!/bin/sh\necho "$UV_INDEX_URL,$UV_DEFAULT_INDEX,$SSL_CERT_FILE,$UV_OFFLINE" > told\n'
        'cat said >&2; for code; do :; done; exit "$code"\n'
    )
    program.chmod(0o755)
    (tmp_path / "said").touch()
    return program


@pytest.mark.parametrize(("word", "told"), [("pip", "here,pip's,pip's,1"), ("add", ",,,1")])
def test_which_index_uv_uses(uv: Path, word: str, told: str) -> None:
    """That of the environment or of pip; `uv add` is not told, since it would write it into pyproject.toml."""
    run_uv([str(uv), word, "0"], uv.parent)
    assert (uv.parent / "told").read_text() == f"{told}\n"


def test_what_the_environment_says_goes_first(uv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the settings of pip."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mine")
    run_uv([str(uv), "pip", "0"], uv.parent)
    assert (uv.parent / "told").read_text() == "here,mine,pip's,1\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"error: Failed to fetch: x\n  cause: refused\n", "the package index does not answer (refused); check"),
        (
            "  \N{BALLOT X} No solution\n  \N{BOX DRAWINGS LIGHT UP AND RIGHT} since\n hint: x".encode(),
            "No solution since",
        ),
        (b"error: caf\xe9 is wrong.\n", "caf is wrong"),
        (b"error: x exceeds exclude-newer\n", "x exceeds exclude-newer; it may be too young: set AGE=0, or AGE=n"),
        (b"", "uv failed without a message"),
    ],
    ids=["network", "no solution", "encoding", "age", "nothing"],
)
def test_uv_fails(uv: Path, said: bytes, told: str) -> None:
    """Its own words in one line, and what to do."""
    (uv.parent / "said").write_bytes(said)
    with pytest.raises(Refusal) as refused:
        run_uv([str(uv), "pip", "2"], uv.parent)
    assert str(refused.value).startswith(told)
    assert isinstance(refused.value, Unsolved) is ("network" not in told and "index" not in told)


# -- the lock without groups ---------------------------------------------------------------------------------------

WHOLE = """\
# header
a==1.0 \\
    --hash=sha256:1
    # via
    #   app (pyproject.toml)
    #   app (pyproject.toml:dev)
    #   b
b==1.0 \\
    --hash=sha256:2
    # via app (pyproject.toml:dev)
c==1.0
    # via b
d==1.0
    # via
    #   a
    #   c
e==1.0
    # via app (pyproject.toml:docs)
"""


def test_what_only_groups_need() -> None:
    """It goes with them, and so does what it needs; the project gets its own name."""
    assert without(WHOLE, {"dev"}, "mine") == (
        "a==1.0 \\\n    --hash=sha256:1\n    # via mine (pyproject.toml)\n"
        "d==1.0\n    # via a\n"
        "e==1.0\n    # via mine (pyproject.toml:docs)\n"
    )
    assert without(WHOLE, set(), "app") == WHOLE.removeprefix("# header\n")


# -- the recipe ----------------------------------------------------------------------------------------------------


def test_the_recipe(tmp_path: Path) -> None:
    """Its words are uv's, but for AGE; the lock is replaced when it is whole."""
    project = Small(tmp_path / "my-app")
    project.write("scripts/requirements.lock", "a==0.9\n")
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec sed -i s/0.9/1.0/ requirements.lock\n'
    project.write(".venv/bin/uv", script, 0o755)
    done = project.run("lock", "--upgrade", "AGE=0")
    assert (done.code, done.out, done.err) == (0, "", "")
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith(" --group=docs --upgrade pyproject.toml")
    text = (project.root / "scripts" / "requirements.lock").read_text()
    assert text == header(lock.read_project(project.root)) + "a==1.0\n"
    assert {path.name for path in (project.root / ".kernel").iterdir()} == {".gitignore", "lock"}
    (project.root / "scripts" / "requirements.lock").unlink()
    os.truncate(tmp_path / "calls", 0)
    assert project.run("lock").code == 0, "there need not be one"
    assert "--exclude-newer=" in (tmp_path / "calls").read_text()
