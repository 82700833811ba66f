"""The steps of `just deps-add`, `-remove` and `-update`: uv itself edits pyproject.toml, and the test solves."""

from __future__ import annotations

import functools
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scripts.projects import REPO
from tests.scripts.small import PROJECT

sys.path.append(str(REPO / "scripts" / "kernel"))

import deps
from lock import Unsolved
from recipe import Refusal
from staging import Change

LOCK = "# header\nsteady==1.0\ntool==1.2.3\n"


class Bench:
    """A project, and the locks that its requirements are to have, one after the other."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        (root / "scripts").mkdir(parents=True)
        (root / "scripts" / "requirements.lock").write_text(LOCK)
        (root / "pyproject.toml").write_text(PROJECT)
        self.solutions: list[str | Exception] = []
        self.asked: list[tuple[str, list[str], int]] = []
        self.updated = 0
        monkeypatch.setenv("UV_PYTHON", sys.executable)  # otherwise uv looks for one each time
        monkeypatch.setattr(deps, "ROOT", root)
        monkeypatch.setattr(deps, "LOCK", root / "scripts" / "requirements.lock")
        monkeypatch.setattr(deps, "Change", functools.partial(Change, root=root))
        monkeypatch.setattr(deps, "resolve", self.resolve)
        monkeypatch.setattr(deps, "bring_venv_up_to_date", self.update)

    def resolve(self, folder: Path, before: str, words: Sequence[str], age: int) -> str:
        """Return the next solution, and note for what it is."""
        assert folder.is_relative_to(self.root / ".kernel"), "it is worked on aside"
        self.asked.append((before, list(words), age))
        solution = self.solutions.pop(0)
        if isinstance(solution, Exception):
            raise solution
        return solution

    def update(self) -> None:
        """Note that .venv was brought up to date."""
        self.updated += 1

    def groups(self) -> dict[str, list[str]]:
        """What pyproject.toml requires, by group."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text())
        return {"": project["project"]["dependencies"], **project["dependency-groups"]}

    def locked(self) -> str:
        """The lock."""
        return (self.root / "scripts" / "requirements.lock").read_text()


GROUPS = {"": ["steady>=1"], "dev": ["steady>=1", "tool"], "docs": []}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A project with two packages."""
    return Bench(tmp_path / "my-app", monkeypatch)


def words(packages: str, group: str = "", age: str = "") -> dict[str, str]:
    """The arguments of a recipe."""
    return {"PKG": packages, "GROUP": group, "AGE": age}


def test_one_is_added(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It is solved twice: to find its version, and with that as the least."""
    solved = LOCK.replace("tool==1.2.3\n", "") + "new-one==3.4.5\nnew-one==3.4.6\nsteady==2.0\n"
    bench.solutions = ["new-one==3.4.5\nnew-one==3.4.6\n", solved.replace("steady==1.0\n", "")]
    deps.add(words("New_One[x]", age="3"))
    assert bench.groups() == {**GROUPS, "": ["new-one[x]>=3.4", "steady>=1"]}
    assert bench.asked == [(LOCK, [], 3), ("new-one==3.4.5\nnew-one==3.4.6\n", [], 3)]
    assert bench.locked() == "# header\nnew-one==3.4.5\nnew-one==3.4.6\nsteady==2.0\n"
    assert bench.updated == 1
    assert capsys.readouterr().out == (
        "new-one: not locked -> 3.4.5 and 3.4.6\nsteady: 1.0 -> 2.0\ntool: 1.2.3 -> gone\nNew_One is a dependency.\n"
    )


def test_several_are_added_to_a_group(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """One with a version stands as it was written."""
    bench.solutions = ["a==1.2.3\nb==1.0\nc==7\n"] * 2
    deps.add(words("a b<2 c a", group="docs"))
    assert bench.groups() == {**GROUPS, "docs": ["a>=1.2", "b<2", "c>=7"]}
    assert [age for *_, age in bench.asked] == [7, 7]
    assert capsys.readouterr().out.endswith("a, b and c are dependencies.\n")


def test_one_is_removed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """From the only group that requires it, whose name need not be given, at any age."""
    bench.solutions = ["steady==1.0\n"]
    deps.remove(words("Tool"))
    assert bench.groups() == {**GROUPS, "dev": ["steady>=1"]}
    assert bench.asked == [(LOCK, [], 0)]
    assert capsys.readouterr().out == "tool: 1.2.3 -> gone\nTool is no longer a direct dependency.\n"


def test_several_are_removed_from_a_group(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The other groups keep them."""
    bench.solutions = [LOCK]
    deps.remove(words("steady tool", group="dev"))
    assert bench.groups() == {**GROUPS, "dev": []}
    assert capsys.readouterr().out == "steady and tool are no longer direct dependencies.\n"


@pytest.mark.parametrize(
    ("package", "group", "said"),
    [
        ("steady", "", "steady is required in several places; set GROUP=dev"),
        ("nosuch", "", "pyproject.toml does not require nosuch; see `dependencies`"),
        ("a;b", "", "'a;b' is not a requirement; usage: just deps-remove"),
        ("./a", "", "'./a' is not a requirement"),
        ("", "", "it needs the name of a package; usage: just deps-remove httpx"),
        ("steady", "no group", "GROUP='no group' is not a valid name for a group"),
    ],
    ids=["several groups", "none", "marker", "path", "nothing", "group"],
)
def test_what_is_refused(bench: Bench, package: str, group: str, said: str) -> None:
    """Nothing is changed, and nothing is left aside."""
    with pytest.raises(Refusal) as refused:
        deps.remove(words(package, group))
    assert str(refused.value).startswith(said)
    assert (bench.groups(), bench.locked(), bench.updated) == (GROUPS, LOCK, 0)
    assert not (bench.root / ".kernel" / "change").exists()


def test_all_are_updated(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """With what their requirements need; pyproject.toml stays."""
    bench.solutions = ["new==1\nsteady==1.10\n"]
    deps.update(words(""))
    assert bench.asked == [(LOCK, ["--upgrade-package", "steady", "--upgrade-package", "tool"], 7)]
    assert (bench.groups(), bench.locked(), bench.updated) == (GROUPS, "new==1\nsteady==1.10\n", 1)
    assert capsys.readouterr().out == (
        "new: not locked -> 1\nsteady: 1.0 -> 1.10\ntool: 1.2.3 -> gone\nscripts/requirements.lock is up to date.\n"
    )


def test_one_is_updated(bench: Bench) -> None:
    """It must be locked."""
    bench.solutions = [LOCK]
    deps.update(words("Tool", age="0"))
    assert bench.asked == [(LOCK, ["--upgrade-package", "tool"], 0)]
    with pytest.raises(Refusal, match=r"^'nosuch' is not in scripts/requirements.lock; `just deps-add` adds it$"):
        deps.update(words("nosuch"))


def test_what_is_younger_than_age_stays(bench: Bench) -> None:
    """Without a solution, or with one of an older version: it is not upgraded then."""
    older = LOCK.replace("1.2.3", "1.2.0")
    bench.solutions = [Unsolved("since steady is too young"), older, LOCK]
    deps.update(words(""))
    assert [asked for _, asked, _ in bench.asked] == [
        *(["--upgrade-package", "steady", "--upgrade-package", "tool"], ["--upgrade-package", "tool"], [])
    ]
    bench.solutions = [Unsolved("since un-steady and tool2 are too young")]
    with pytest.raises(Unsolved, match="un-steady"):
        deps.update(words(""))


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [("1.9", "1.10", True), ("1.10", "1.9", False), ("1.0", "1.0", False), ("1.0 and 2.0", "3.0", False)],
)
def test_which_version_is_older(version: str, other: str, *, older: bool) -> None:
    """By number; several at once cannot be compared."""
    assert deps._is_older(version, other) is older
