"""The end of an update: its review, its merge and its revert, with updates that are only a branch and a note."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.scripts.imported import Commit, Imported, make_commits

BRANCH = "kernel_update_to_0.4.0"
MOVES = "".join(f"line {number}\n" for number in range(20))
OLD = {"a.txt": "1\n2\n3\n", "b.txt": "1\n2\n3\n", "goes.txt": "old\n", "moves.txt": MOVES, ".gitignore": "/.venv\n"}
NEW = {"a.txt": "1\n2\nnew\n", "goes.txt": None, "moves.txt": None, "moved.txt": MOVES, "folder/comes.txt": "new\n"}
MARKED = "<<<<<<< yours\nmine\n=======\ntheirs\n>>>>>>> kernelpack-0.4.0\n"
BACKUP = ".kernel/backups/2026-01-31T08-15-00-before-update.tar.gz"


class Pending:
    """A project with an update that is checked out.

    Args:
        imported: The project.
        commits: Commits after the first one, on the update's branch unless they say otherwise.

    """

    def __init__(self, imported: Imported, *commits: Commit) -> None:
        self.ids = make_commits(imported.root, Commit(OLD), *commits)
        imported.write(".git/info/exclude", "/scripts/\n/.kernel/\n")
        imported.git("symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")
        imported.git("reset", "-q", "--hard")
        imported.write("scripts/just", '#!/bin/sh\necho "$*" >> "${0%/*}/../.kernel/called"\n').chmod(0o755)
        imported.write(BACKUP, "")
        self.imported = imported
        self.module = imported.load("update_end")
        self.note: dict[str, Any] = {
            "template": "kernelpack",
            "base_version": "0.1.0",
            "version": "0.4.0",
            "branch": BRANCH,
            "onto": "main",
            "start": self.ids[0],
            "backup": BACKUP,
            "clashes": [],
            "merged": [],
            "opted_out": [],
            "tests": {"code": 0, "seconds": 2.04, "said": ["2 passed", ""]},
        }
        self.write()

    def write(self, **changes: object) -> None:
        """Write the note, with changes."""
        self.note |= changes
        self.imported.write(".kernel/update.json", json.dumps(self.note))

    def over(self, branch: str = "main") -> None:
        """Check that nothing is left of the update, and which branch is checked out."""
        assert self.imported.git("branch", "--show-current") == f"{branch}\n"
        assert BRANCH not in self.imported.git("for-each-ref")
        assert self.imported.git("status", "--porcelain") == ""
        assert not (self.imported.root / ".kernel" / "update.json").exists()
        assert not (self.imported.root / BACKUP).exists()
        assert (self.imported.root / ".kernel" / "called").read_text() == "--version\n"


UPDATE = Commit(NEW, [0], f"refs/heads/{BRANCH}")
ON = "refs/heads/main"


@pytest.fixture
def pending(imported: Imported) -> Pending:
    """An update of one commit, on top of main."""
    return Pending(imported, UPDATE)


# -- review --------------------------------------------------------------------------------------------------------


def test_the_review(pending: Pending, capsys: pytest.CaptureFixture[str]) -> None:
    """All that has changed, what was merged or left, the conflicts, and the tests, with what to do next."""
    pending.write(merged=["a.txt"], opted_out=["docs/x.md"])
    pending.module.review({})
    assert capsys.readouterr().out == (
        f"kernelpack 0.1.0 -> 0.4.0, on the branch {BRANCH}\n\n"
        "changed   a.txt\n"
        "new       folder/comes.txt\n"
        "deleted   goes.txt\n"
        "renamed   moves.txt -> moved.txt\n"
        "merged    a.txt: your changes are in it\n"
        "left      docs/x.md: .kernelupdateignore names it\n"
        "\nNo conflicts.\n"
        "\n`just test` passed after 2.0 s:\n    2 passed\n\n"
        "\nNow `just kernel-update-merge`, or `just kernel-update-revert`. All changes: git diff main\n"
    )


CLASHES = [
    {"path": "a.txt", "why": "both have changed it", "aside": ""},
    {"path": "b.txt", "why": "both have changed it", "aside": ""},
    {"path": "pyproject.toml", "why": "tool.x: yours is 1", "aside": "a.txt"},
    {"path": "gone.txt", "why": "both have changed it", "aside": ""},
    {"path": "goes.txt", "why": "deleted", "aside": "goes.txt.conflict"},
]


@pytest.mark.parametrize(
    ("text", "clashes", "told"),
    [
        (f"1\n{MARKED}", CLASHES[:2], ["1 conflict:", "- a.txt: both have changed it; see the markers in it"]),
        (MARKED, CLASHES[:1], ["1 conflict:", "- a.txt: both have changed it; see the markers in it"]),
        (f"x {MARKED}", CLASHES[:2], ["No conflicts."]),
        (
            MARKED,
            CLASHES,
            [
                *("2 conflicts:", "- a.txt: both have changed it; see the markers in it"),
                "- pyproject.toml: tool.x: yours is 1; see a.txt, and delete it when you are done",
            ],
        ),
    ],
    ids=["markers", "at the start", "resolved", "aside"],
)
def test_conflicts(
    imported: Imported, capsys: pytest.CaptureFixture[str], text: str, clashes: list[Any], told: list[str]
) -> None:
    """Those that are resolved are not repeated: without markers, or without the file beside them."""
    pending = Pending(imported, Commit({**NEW, "a.txt": text}, [0], f"refs/heads/{BRANCH}"))
    pending.write(clashes=clashes, tests={"code": 7, "seconds": 0.0, "said": []})
    pending.module.review({})
    said = capsys.readouterr().out
    lines = said.splitlines()
    begin = lines.index("", 3) + 1
    assert lines[begin : lines.index("", begin)] == told
    assert "`just test` FAILED with exit code 7 after 0.0 s:\n" in said
    assert ("\nResolve and commit, then `just kernel-update-merge`" in said) == (len(told) > 1)
    if len(told) == 1:
        pending.module.merge({})
        return
    names = {1: "a.txt", 2: "a.txt and 1 more"}[len(told) - 1]
    with pytest.raises(
        pending.module.Refusal, match=rf"there are conflicts \({names}\); .* says what to do on {BRANCH}"
    ):
        pending.module.merge({})


@pytest.mark.parametrize("word", ["review", "merge", "revert"])
def test_nothing_is_pending(pending: Pending, word: str) -> None:
    """The error says how an update is made; a branch without a note is somebody else's."""
    act = getattr(pending.module, word)
    (pending.imported.root / ".kernel" / "update.json").unlink()
    with pytest.raises(pending.module.Refusal, match=f"describes the branch {BRANCH}, is missing; another clone or"):
        act({})
    pending.imported.git("checkout", "-q", "main")
    pending.imported.git("branch", "-q", "-D", BRANCH)
    for _ in range(2):
        with pytest.raises(pending.module.Refusal, match="no update is pending; `just kernel-update` makes one"):
            act({})
        pending.write()


# -- merge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["main", BRANCH])
def test_a_merge(pending: Pending, capsys: pytest.CaptureFixture[str], begin: str) -> None:
    """The branch that the update was made from gets it, whichever of the two is checked out."""
    pending.imported.git("checkout", "-q", begin)
    pending.module.merge({})
    assert capsys.readouterr().out == "main has kernelpack 0.4.0.\n"
    pending.over()
    assert pending.imported.git("rev-parse", "HEAD").strip() == pending.ids[1]
    assert (pending.imported.root / "a.txt").read_text() == "1\n2\nnew\n"
    assert not (pending.imported.root / "goes.txt").exists()


def test_a_merge_with_work_that_went_on(imported: Imported) -> None:
    """Both are in it, and both are parents of the commit."""
    pending = Pending(imported, UPDATE, Commit({"b.txt": "mine\n", "c.txt": "mine\n"}, [0], ON))
    pending.module.merge({})
    pending.over()
    assert imported.git("log", "-1", "--format=%P%n%an %s") == (
        f"{pending.ids[2]} {pending.ids[1]}\nAnn Other Merge branch '{BRANCH}'\n"
    )
    assert (imported.root / "a.txt").read_text() == "1\n2\nnew\n"
    assert (imported.root / "b.txt").read_text() == (imported.root / "c.txt").read_text() == "mine\n"


def test_a_merge_that_somebody_has_made(imported: Imported) -> None:
    """The branch has the update already, and more; so it stays."""
    pending = Pending(imported, UPDATE, Commit({"c.txt": "mine\n"}, [1], ON))
    pending.module.merge({})
    pending.over()
    assert imported.git("rev-parse", "HEAD").strip() == pending.ids[2]


def test_a_merge_is_signed_as_always(imported: Imported) -> None:
    """With the user's key, if the user signs commits; here there is none."""
    pending = Pending(imported, UPDATE, Commit({"c.txt": "mine\n"}, [0], ON))
    imported.git("config", "gpg.program", "/nowhere")
    imported.git("config", "commit.gpgSign", "true")
    with pytest.raises(pending.module.Refusal, match="git cannot sign the commit"):
        pending.module.merge({})
    imported.git("config", "commit.gpgSign", "false")
    pending.module.merge({})
    pending.over()


def _other_branch(pending: Pending) -> None:
    pending.imported.git("checkout", "-q", "-b", "other")


def _no_onto(pending: Pending) -> None:
    pending.imported.git("branch", "-q", "-D", "main")


def _dirty(pending: Pending) -> None:
    pending.imported.write("new", "")


def _elsewhere(pending: Pending) -> None:
    pending.imported.git("worktree", "add", "-q", str(pending.imported.root / ".kernel" / "other"), "main")


@pytest.mark.parametrize(
    ("commits", "spoil", "told"),
    [
        ((), _other_branch, f"another branch is checked out; `git checkout {BRANCH}` first"),
        ((), _no_onto, "the branch main, from which the update was made, is gone; `git branch main` brings it back"),
        ((), _dirty, r"there are uncommitted changes \(new\)"),
        ((), _elsewhere, "the branch main is checked out in .*/other; check out another one there first"),
        ((Commit({"a.txt": "1\n2\nmine\n"}, [0], ON),), None, r"main has changed since, in the same places \(a.txt\);"),
        ((Commit({"c.txt": ""}, [], ON),), None, "git merge-tree failed .*unrelated histories"),
    ],
    ids=["other branch", "no branch", "uncommitted", "worktree", "conflict", "unrelated"],
)
def test_what_cannot_be_merged(
    imported: Imported, commits: tuple[Commit, ...], spoil: Callable[[Pending], None] | None, told: str
) -> None:
    """The error says what to do, and nothing is changed."""
    pending = Pending(imported, UPDATE, *commits)
    if spoil:
        spoil(pending)
    before = imported.git("for-each-ref"), imported.git("status")
    with pytest.raises(pending.module.Refusal, match=told):
        pending.module.merge({})
    assert (imported.git("for-each-ref"), imported.git("status")) == before
    assert (imported.root / ".kernel" / "update.json").exists()


# -- revert --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [BRANCH, "main", "other"])
def test_a_revert(pending: Pending, capsys: pytest.CaptureFixture[str], begin: str) -> None:
    """It leaves no trace; the branch that the update was made from is checked out, unless another one is."""
    pending.imported.git("branch", "other", "main")
    pending.imported.git("checkout", "-q", begin)
    pending.module.revert({})
    assert capsys.readouterr().out == "The update to 0.4.0 is reverted.\n"
    pending.over("other" if begin == "other" else "main")
    assert (pending.imported.root / "a.txt").read_text() == OLD["a.txt"]
    assert (pending.imported.root / "goes.txt").exists()


def test_a_revert_of_own_work(imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """What the user has committed on the branch can be brought back."""
    pending = Pending(imported, UPDATE, Commit({"c.txt": "mine\n"}, [1], f"refs/heads/{BRANCH}"))
    pending.module.revert({})
    pending.over()
    assert capsys.readouterr().out == (
        "The update to 0.4.0 is reverted.\n"
        f"You had commits of your own on its branch: `git branch NAME {pending.ids[2][:12]}` brings them back.\n"
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_no_onto, r"the branch main is gone; `git branch main [0-9a-f]{12}` brings it back"),
        (_dirty, r"there are uncommitted changes \(new\)"),
        (_elsewhere, "the branch main is checked out in .*/other; check out another one there first"),
    ],
)
def test_what_cannot_be_reverted(pending: Pending, spoil: Callable[[Pending], None], told: str) -> None:
    """The error says what to do, and nothing is changed; it does not matter if another branch is checked out."""
    spoil(pending)
    with pytest.raises(pending.module.Refusal, match=told):
        pending.module.revert({})
    assert re.search(f"refs/heads/{BRANCH}$", pending.imported.git("for-each-ref"), re.MULTILINE)
    pending.imported.git("checkout", "-q", "--detach")
    pending.module.revert({})
    assert BRANCH not in pending.imported.git("for-each-ref")
