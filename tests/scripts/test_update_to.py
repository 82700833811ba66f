"""The part of an update that the new version does: one commit on top of the project's, and a report."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scripts.imported import Commit, Imported, make_commits
from tests.scripts.projects import REPO

MANIFEST = (REPO / "scripts" / "kernel" / "manifest.toml").read_text()
PROJECT = """\
[project]
name = "{name}"
version = "{version}"
requires-python = ">=3.11"
dependencies = [{needs}]

[dependency-groups]
dev = []

[tool.kernel]
template = "kernelpack"

[tool.ruff]
line-length = {length}
"""
CHANGELOG = """\
# Changelog

## Unreleased

- Soon.

## 0.3.0

- Later.

## [0.2.1]

- A fix.

### Details

## v0.2.0 (2026-01-31)

- News.

## 0.1.0

- First.
"""
BASE: dict[str, str | None] = {
    "pyproject.toml": PROJECT.format(name="kernelpack", version="0.1.0", needs='"steady"', length=100),
    "scripts/kernel/manifest.toml": MANIFEST,
    "scripts/kernel/shipped.txt": "old\n",
    "kernel/same.txt": "same\n",
    "kernel/both.txt": "1\n2\n3\n4\n5\n",
    "kernel/clash.txt": "1\n",
    "kernel/goes.txt": "old\n",
    "kernel/out.txt": "old\n",
    "app/__main__.py": "old\n",
    "services/example_x.py": "the template's\n",
    "docs/taken.md": "was theirs\n",
}
NEW: dict[str, str | None] = {
    "pyproject.toml": PROJECT.format(name="kernelpack", version="0.2.1", needs='"steady"', length=120),
    "scripts/kernel/shipped.txt": "new\n",
    "kernel/both.txt": "1\n2\n3\n4\nnew\n",
    "kernel/clash.txt": "new\n",
    "kernel/goes.txt": None,
    "kernel/out.txt": "new\n",
    "kernel/comes.txt": "new\n",
    "app/__main__.py": "new\n",
    "services/example_x.py": "new\n",
    "docs/taken.md": None,
    "CHANGELOG.md": CHANGELOG,
}
MINE: dict[str, str | None] = {
    "pyproject.toml": PROJECT.format(name="my-app", version="1.0", needs='"steady"', length=100),
    "kernel/both.txt": "mine\n2\n3\n4\n5\n",
    "services/example_x.py": None,
    "kernel/mine.txt": "mine\n",
    "scripts/just": '#!/bin/sh\necho "scripts/just: making .venv"\nfor i in 1 2 3 4 5 6 7 8 9 a b c; do echo $i; done\n'
    'echo "$* in $PWD, ${GIT_DIR:-no} ${JUSTFILE:-no}"\nexit 7\n',
}


@attrs.frozen
class Update:
    """An update.

    Args:
        module: The script.
        imported: The project.
        folder: The folder to work in.
        ids: The commits: the base, the new version, the project's.

    """

    module: Any
    imported: Imported
    folder: Path
    ids: list[str]

    def run(self, step: str = "make") -> Any:
        """Run a step, and return the report, if there is one."""
        self.module.main({"STEP": step, "ROOT": str(self.imported.root), "FOLDER": str(self.folder)})
        report = self.folder / "report.json"
        return json.loads(report.read_text()) if report.exists() else None

    def git(self, *words: str) -> str:
        """Run git in the repository of the update."""
        return self.imported.git(f"--git-dir={self.folder}/git", *words)

    def made(self, path: str) -> str:
        """Return a file of the commit that was made."""
        return self.git("cat-file", "blob", f"refs/kernel/update:{path}")

    def changed(self) -> dict[str, str]:
        """Return what the commit changes."""
        told = self.git("diff", "--name-status", "--no-renames", self.ids[2], "refs/kernel/update").splitlines()
        return {path: state for state, path in (line.split("\t") for line in told)}


def lock_of(imported: Imported, text: str) -> str:
    """Return a lock that fits a pyproject.toml."""
    return f"{imported.load('lock').header(tomllib.loads(text))}steady==1.0\n"


def prepare(
    imported: Imported,
    *,
    mine: dict[str, str | None] | None = None,
    new: dict[str, str | None] | None = None,
    **job: object,
) -> Update:
    """Prepare an update, as the old version does it."""
    change = imported.root / ".kernel" / "change"
    change.mkdir(parents=True)
    files = {**BASE, **MINE, **(mine or {})}
    files.setdefault("scripts/requirements.lock", lock_of(imported, str(files["pyproject.toml"])))
    ids = make_commits(
        imported.root, Commit(BASE), Commit({**NEW, **(new or {})}, [0], "refs/heads/upstream"), Commit(files)
    )
    imported.git("reset", "-q", "--hard")
    (imported.root / "scripts" / "just").chmod(0o755)
    imported.git("clone", "-q", "--bare", "--shared", ".", str(change / "git"))
    imported.git(f"--git-dir={change}/git", "worktree", "add", "-q", "--detach", str(change / "new"), ids[1])
    told = {"protocol": 1, "template": "kernelpack", "base_version": "0.1.0", "base": ids[0], "version": "0.2.1"}
    told |= {"told": "0.2.1", "commit": ids[1], "start": ids[2], "age": 7, **job}
    (change / "job.json").write_text(json.dumps(told))
    return Update(imported.load("update_to"), imported, change, ids)


def test_the_whole_of_it(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework's files are merged with the user's changes, and all of the user's own stays; the tests have run."""
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("JUSTFILE", "/nowhere")
    monkeypatch.delenv("GIT_DIR")
    update = prepare(imported, mine={"kernel/clash.txt": "mine\n", ".kernelupdateignore": "/kernel/out.txt\n*.md\n"})
    report = update.run()
    assert update.changed() == {
        "app/__main__.py": "M",
        "kernel/both.txt": "M",
        "kernel/clash.txt": "M",
        "kernel/comes.txt": "A",
        "kernel/goes.txt": "D",
        "pyproject.toml": "M",
        "scripts/kernel/shipped.txt": "M",
    }
    assert update.git("rev-parse", "refs/kernel/update^").strip() == update.ids[2]
    assert update.made("kernel/both.txt") == "mine\n2\n3\n4\nnew\n"
    assert update.made("kernel/clash.txt") == "<<<<<<< yours\nmine\n=======\nnew\n>>>>>>> kernelpack-0.2.1\n"
    project = tomllib.loads(update.made("pyproject.toml"))
    assert (project["project"]["name"], project["tool"]["ruff"]["line-length"]) == ("my-app", 120)
    assert project["tool"]["kernel"] == {"template": "kernelpack", "version": "0.2.1", "commit": update.ids[1]}
    shipped = re.findall(r"(?m)^[0-9a-f]{64}  (.*)$", update.made("scripts/kernel/shipped.txt"))
    assert {"kernel/out.txt", "kernel/comes.txt", "scripts/kernel/manifest.toml"} <= {*shipped}
    assert {"kernel/goes.txt", "kernel/mine.txt", "scripts/kernel/shipped.txt"}.isdisjoint(shipped)
    assert update.git("log", "-1", "--format=%an %B", "refs/kernel/update").strip() == (
        "Ann Other Update kernelpack from 0.1.0 to 0.2.1\n\n"
        "## [0.2.1]\n\n- A fix.\n\n### Details\n\n## v0.2.0 (2026-01-31)\n\n- News."
    )
    tests = report.pop("tests")
    assert report == {
        "template": "kernelpack",
        "base_version": "0.1.0",
        "version": "0.2.1",
        "clashes": [{"path": "kernel/clash.txt", "why": "both have changed it", "aside": ""}],
        "merged": ["kernel/both.txt"],
        "opted_out": ["kernel/out.txt"],
    }
    assert (tests["code"], tests["said"]) == (7, [*"23456789abc", f"test in {update.folder}/tree, no no"])
    assert 0 < tests["seconds"] < 60


def test_a_project_that_opts_out_of_nothing(imported: Imported) -> None:
    """Each file of the framework is as it is in the new version; a file that was handed over to the user stays."""
    update = prepare(imported)
    report = update.run()
    assert update.made("kernel/out.txt") == "new\n"
    assert (report["opted_out"], report["clashes"]) == ([], [])
    assert "docs/taken.md" in update.changed()


def test_a_file_that_the_user_owns_by_now(imported: Imported) -> None:
    """The new version's manifest says so: it is neither changed nor removed."""
    manifest = MANIFEST.replace('user = ["tests/test_app.py"]', 'user = ["tests/test_app.py", "kernel/both.txt"]')
    assert manifest != MANIFEST
    update = prepare(imported, new={"scripts/kernel/manifest.toml": manifest})
    update.run()
    assert "kernel/both.txt" not in update.changed()


# -- pyproject.toml and the lock -----------------------------------------------------------------------------------


def test_a_conflict_in_pyproject(imported: Imported) -> None:
    """The user's value stays, and a note beside the file says what the framework's is; line endings stay, too."""
    text = PROJECT.format(name="my-app", version="1.0", needs='"steady"', length=88)
    update = prepare(imported, mine={"pyproject.toml": text.replace("\n", "\r\n")})
    report = update.run()
    why = "tool.ruff.line-length: yours is 88, the framework's 120"
    assert report["clashes"] == [{"path": "pyproject.toml", "why": why, "aside": "pyproject.toml.conflict"}]
    made = subprocess.run(
        ["git", f"--git-dir={update.folder}/git", "cat-file", "blob", "refs/kernel/update:pyproject.toml"],
        capture_output=True,
        check=True,
    ).stdout
    assert made.count(b"\r\n") == made.count(b"\n") > 10
    assert b"line-length = 88\r\n" in made
    note = update.made("pyproject.toml.conflict")
    assert note == f"{why}; yours is in place.\nChange it if needed, then delete this note.\n"


def test_a_project_that_opts_out_of_pyproject(imported: Imported) -> None:
    """Only the record of the version is changed in it."""
    update = prepare(imported, mine={".kernelupdateignore": "pyproject.toml\n"})
    assert update.run()["clashes"] == []
    project = tomllib.loads(update.made("pyproject.toml"))
    assert project["tool"]["ruff"]["line-length"] == 100
    assert project["tool"]["kernel"]["version"] == "0.2.1"


@pytest.mark.parametrize(("ignored", "there"), [("", True), ("", False), ("scripts/requirements.lock\n", True)])
def test_the_lock(imported: Imported, monkeypatch: pytest.MonkeyPatch, ignored: str, there: bool) -> None:
    """It is recreated if the new version requires other packages, from what is locked; unless the user opts out."""
    needy = PROJECT.format(name="kernelpack", version="0.2.1", needs='"steady", "aged"', length=100)
    lock = lock_of(imported, str(MINE["pyproject.toml"]))
    mine = {".kernelupdateignore": ignored or "none\n", "scripts/requirements.lock": lock if there else None}
    update = prepare(imported, mine=mine, new={"pyproject.toml": needy})
    told: list[Any] = []

    def resolve(*words: Any) -> str:
        told.append((words, tomllib.loads((words[0] / "pyproject.toml").read_text())["project"]["dependencies"]))
        return "made anew\n"

    monkeypatch.setattr(update.module, "resolve", resolve)
    update.run()
    if ignored:
        assert told == []
        assert update.made("scripts/requirements.lock") == lock
        return
    (folder, before, words, age, uv), needs = told[0]
    assert update.made("scripts/requirements.lock") == "made anew\n"
    assert (before, words, age) == (lock if there else "", [], 7)
    assert uv == imported.root / ".venv" / "bin" / "uv"
    assert sorted(needs) == ["aged", "steady"]
    assert folder.is_relative_to(update.folder)


def test_a_lock_that_fits_stays(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for newer versions then."""
    update = prepare(imported)
    monkeypatch.setattr(update.module, "resolve", None)
    update.run()
    assert "scripts/requirements.lock" not in update.changed()


# -- the message ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "until", "titles"),
    [
        ("0.1.0", "0.2.1", ["## [0.2.1]", "## v0.2.0 (2026-01-31)"]),
        ("0.2.0", "0.2.1", ["## [0.2.1]"]),
        ("0.0.9", "0.3.0", ["## 0.3.0", "## [0.2.1]", "## v0.2.0 (2026-01-31)", "## 0.1.0"]),
        ("0.2.1.dev4", "0.3.0rc1", ["## 0.3.0"]),
        ("0.3.0", "0.3.0", []),
    ],
)
def test_the_sections_of_a_changelog(imported: Imported, after: str, until: str, titles: list[str]) -> None:
    """Those of the versions after one and up to another, each with all that is below it."""
    text = imported.load("update_to").sections(CHANGELOG, after, until)
    assert re.findall(r"(?m)^## .*", text) == titles
    assert "Soon" not in text
    assert ("### Details" in text) == ("## [0.2.1]" in titles)


def test_a_version_that_is_no_release(imported: Imported) -> None:
    """The commit has what the next release will bring, too."""
    update = prepare(imported, told="0.2.1 (commit 0123)")
    assert update.module._Update(imported.root, update.folder)._message() == (
        "Update kernelpack from 0.1.0 to 0.2.1 (commit 0123)\n\n## Unreleased\n\n- Soon.\n\n"
        "## [0.2.1]\n\n- A fix.\n\n### Details\n\n## v0.2.0 (2026-01-31)\n\n- News.\n"
    )


@pytest.mark.parametrize("changelog", ["# Changelog\n", None])
def test_a_changelog_that_says_nothing(imported: Imported, changelog: str | None) -> None:
    """The commit says that."""
    update = prepare(imported, new={"CHANGELOG.md": changelog} if changelog else {"CHANGELOG.md": "\n"})
    message = update.module._Update(imported.root, update.folder)._message()
    assert message == "Update kernelpack from 0.1.0 to 0.2.1\n\nIts changelog does not mention it.\n"


# -- what is refused, and tests that cannot run --------------------------------------------------------------------


def test_a_base_that_is_gone(imported: Imported) -> None:
    """The error says what to do."""
    update = prepare(imported)
    assert update.run("check") is None
    (update.folder / "job.json").write_text((update.folder / "job.json").read_text().replace(update.ids[0], "1" * 40))
    with pytest.raises(update.module.Refusal, match="upstream has no commit 111111111111 any more, which this project"):
        update.run("check")


@pytest.mark.parametrize(
    ("ignored", "out", "told"),
    [
        (
            "comes*\n",
            "",
            r"git would ignore kernel/comes.txt, a file of the framework, since .gitignore, line 1, has c",
        ),
        ("x\ncomes*\n!comes.txt\n", "", ""),
        ("comes*\n", "comes.txt\n", ""),
        ("mine*\n", "", ""),
    ],
)
def test_a_file_that_git_would_ignore(imported: Imported, ignored: str, out: str, told: str) -> None:
    """It would be missing in the next clone, so the update is refused; unless the project opts out of it."""
    mine: dict[str, str | None] = {".gitignore": ignored, ".kernelupdateignore": out or "none\n"}
    update = prepare(imported, mine=mine)
    if told:
        with pytest.raises(update.module.Refusal, match=told):
            update.run("check")
    else:
        update.run("check")
    assert not (update.folder / "report.json").exists()


def test_tests_that_cannot_be_started(imported: Imported) -> None:
    """The report says so."""
    update_to = imported.load("update_to")
    told = update_to._try(imported.root / "scripts")
    assert (told["code"], told["seconds"], len(told["said"])) == (2, 0.0, 1)
    assert told["said"][0].startswith("the tests cannot be started: [Errno 2] No such file or directory")
