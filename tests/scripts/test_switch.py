"""How a project comes to another commit: files, index and branches by one change; nothing of the user's is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.imported import Imported


@pytest.fixture
def switch(imported: Imported) -> Any:
    """The module, in a repository of a few files and two commits; the first is checked out, on main."""
    for path in ("stays.txt", "changes.txt", "goes/deep/gone.txt", "program"):
        imported.write(path, f"{path}\nold\n")
    imported.init()
    imported.git("checkout", "-q", "-b", "new")
    for path in ("changes.txt", "program", "deep/er/added.txt"):
        imported.write(path, f"{path}\nnew\n")
    (imported.root / "program").chmod(0o755)
    (imported.root / "link").symlink_to("changes.txt")
    (imported.root / "goes" / "deep" / "gone.txt").unlink()
    imported.commit()
    imported.git("checkout", "-q", "main")
    return imported.load("switch")


def make(imported: Imported, *steps: Callable[[Any], object]) -> None:
    """Make a change of these steps."""
    with imported.load("staging").Change("just test") as change:
        for step in steps:
            step(change)
        change.make("it is done.")


# -- files ---------------------------------------------------------------------------------------------------------


def test_another_commit(switch: Any, imported: Imported) -> None:
    """Files and index are as git would have checked it out, and what is not in git stays."""
    new = switch.commit_of("new")
    imported.write("mine.txt", "not in git\n")
    os.utime(imported.root / "changes.txt", (1, 1))  # it seems to have changed
    make(imported, lambda change: switch.put_files(change, new), lambda change: switch.put_head(change, "new"))
    assert imported.git("status", "--porcelain") == "?? mine.txt\n"
    assert imported.git("branch", "--show-current") == "new\n"
    assert (imported.root / "changes.txt").read_text() == "changes.txt\nnew\n"
    assert os.access(imported.root / "program", os.X_OK)
    assert (imported.root / "link").readlink() == Path("changes.txt")
    assert not (imported.root / "goes" / "deep").exists()
    assert not (imported.root / ".kernel" / "set-aside").exists()
    make(imported, lambda change: switch.put_files(change, switch.commit_of("main")))
    assert not (imported.root / "deep" / "er").exists()
    assert not (imported.root / "link").is_symlink()


def test_edits_that_are_not_committed(switch: Any, imported: Imported) -> None:
    """Those of other files stay; one of a file that the commit changes stops it, with all intact."""
    imported.write("stays.txt", "mine\n")
    new = switch.commit_of("new")
    make(imported, lambda change: switch.put_files(change, new), lambda change: switch.put_head(change, "new"))
    assert imported.git("status", "--porcelain") == " M stays.txt\n"
    imported.write("changes.txt", "mine\n")
    with pytest.raises(switch.Refusal, match=r"Entry 'changes.txt' not uptodate"):
        make(imported, lambda change: switch.put_files(change, switch.commit_of("main")))
    assert (imported.root / "changes.txt").read_text() == "mine\n"
    assert imported.git("branch", "--show-current") == "new\n"


def test_edits_while_it_is_prepared(switch: Any, imported: Imported) -> None:
    """They are set aside."""

    def edit(_: object) -> None:
        imported.write("changes.txt", "meanwhile\n")

    make(imported, lambda change: switch.put_files(change, switch.commit_of("new")), edit)
    assert (imported.root / "changes.txt").read_text() == "changes.txt\nnew\n"
    assert (imported.root / ".kernel" / "set-aside" / "changes.txt").read_text() == "meanwhile\n"


def test_other_line_endings_are_no_edit(switch: Any, imported: Imported) -> None:
    """An editor has written them, and git changes them in what is committed."""
    imported.git("config", "core.autocrlf", "input")
    imported.write("changes.txt", "changes.txt\r\nold\r\n")
    make(imported, lambda change: switch.put_files(change, switch.commit_of("new")))
    assert (imported.root / "changes.txt").read_bytes() == b"changes.txt\nnew\n"
    assert not (imported.root / ".kernel" / "set-aside").exists()


def test_a_repository_within(switch: Any, imported: Imported) -> None:
    """A commit that names one says which commit it is, and has no file for it."""
    new = switch.commit_of("new")
    imported.git("update-index", "--add", "--cacheinfo", f"160000,{new},inner")
    commit = imported.git("commit-tree", "-p", "main", "-m", "x", imported.git("write-tree").strip()).strip()
    imported.git("reset", "-q", "--hard")
    make(imported, lambda change: switch.put_files(change, commit))
    assert not (imported.root / "inner").exists()
    assert imported.git("ls-files", "--stage", "inner").startswith(f"160000 {new}")


def test_a_folder_of_a_larger_repository(imported: Imported) -> None:
    """Only that folder is changed; a commit that differs elsewhere, too, is refused."""
    switch = imported.load("switch")
    name = imported.root.name
    with imported.around() as top:

        def commit(path: str, text: str) -> str:
            Path(top, path).write_text(text)
            imported.git("add", path, root=top)
            imported.git("commit", "-qm", "x", root=top)
            return imported.git("rev-parse", "HEAD", root=top).strip()

        first = commit(f"{name}/x.txt", "1\n")
        assert switch.prefix() == f"{name}/"
        second = commit(f"{name}/x.txt", "2\n")
        make(imported, lambda change: switch.put_files(change, first))
        assert (imported.root / "x.txt").read_text() == "1\n"
        imported.git("reset", "-q", "--hard", root=top)
        try:
            third = commit("x.txt", "3\n")
            imported.git("reset", "-q", "--hard", second, root=top)
            with pytest.raises(switch.Refusal, match=f"differs from {third[:12]} outside of this folder, too .x.txt.;"):
                make(imported, lambda change: switch.put_files(change, third))
        finally:
            Path(top, "x.txt").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("known", "now", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\r\n", True),
        ("a\r\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n", None, False),
        (None, "a\n", False),
        ("a\0\n", "a\0\r\n", False),
        ("a\n", "x a\r\n", False),
        ("a\n", "-> a\r\n", False),
        ("-> a\r\n", "a\n", False),
    ],
)
def test_what_counts_as_unchanged(
    imported: Imported, tmp_path: Path, known: str | None, now: str | None, same: bool
) -> None:
    """A text in other line endings; not another mode, and neither a link nor a file that is not there."""
    switch = imported.load("switch")
    for name, text in (("known", known), ("now", now)):
        if text is not None:
            file = tmp_path / name
            content = tmp_path / f"{name}-content" if text.startswith("-> ") else file
            content.write_bytes(text.removeprefix("-> ").removeprefix("x ").encode())
            content.chmod(0o755 if text.startswith("x ") else 0o644)
            if content != file:
                file.symlink_to(content)
    expected = switch.fingerprint(tmp_path / ("now" if same else "known"))
    assert switch.as_in(tmp_path / "known", tmp_path / "now") == expected


# -- branches ------------------------------------------------------------------------------------------------------


def test_branches(switch: Any, imported: Imported) -> None:
    """They come and go, packed or not, with their log; others stay."""
    old, new = switch.commit_of("main"), switch.commit_of("new")
    assert switch.commit_of("none") == ""
    make(imported, lambda change: switch.put_branch(change, "a/b", new))
    assert switch.commit_of("a/b") == new
    for branch in ("a/b", "b"):
        imported.git("branch", "-f", branch, old)
    imported.git("pack-refs", "--all")
    assert (imported.root / ".git" / "logs" / "refs" / "heads" / "a" / "b").exists()
    make(imported, lambda change: switch.remove_branch(change, "b"), lambda change: switch.put_branch(change, "c", new))
    assert imported.git("for-each-ref", "--format=%(refname)") == "".join(
        f"refs/heads/{branch}\n" for branch in ("a/b", "c", "main", "new")
    )
    for branch in ("a/b", "c"):
        make(imported, lambda change, branch=branch: switch.remove_branch(change, branch))  # type: ignore[misc]
    assert imported.git("for-each-ref", "--format=%(objectname) %(refname)") == (
        f"{old} refs/heads/main\n{new} refs/heads/new\n"
    )
    assert not (imported.root / ".git" / "logs" / "refs" / "heads" / "a" / "b").exists()


def test_a_branch_that_is_checked_out_elsewhere(switch: Any, imported: Imported) -> None:
    """It would not notice; the error says where that is. Here it is no obstacle."""
    switch.refuse_elsewhere("main")
    switch.refuse_elsewhere("new")
    other = imported.root.parent / "other tree"
    imported.git("worktree", "add", "-q", str(other), "new")
    try:
        switch.refuse_elsewhere("main")
        with pytest.raises(
            switch.Refusal, match=f"the branch new is checked out in {other}; check out another one there"
        ):
            switch.refuse_elsewhere("new")
    finally:
        imported.git("worktree", "remove", str(other))


# -- git's own folder ----------------------------------------------------------------------------------------------


def test_usual_repositories(switch: Any, imported: Imported) -> None:
    """A clone, a folder of one, one whose git folder is elsewhere."""
    switch.refuse_unusual_git()
    assert switch.prefix() == ""
    imported.git("init", "-q", "--separate-git-dir", str(imported.root / ".kernel-git"))
    switch.refuse_unusual_git()
    (imported.root / ".git").unlink()
    with imported.around():
        switch.refuse_unusual_git()


def test_no_repository(imported: Imported) -> None:
    """The error says how to make one."""
    switch = imported.load("switch")
    with pytest.raises(switch.Refusal, match="this folder is not in a repository; `git init` and a commit create one"):
        switch.refuse_unusual_git()


def test_a_git_folder_that_git_does_not_take(imported: Imported) -> None:
    """It takes the repository around."""
    switch = imported.load("switch")
    (imported.root / ".git").mkdir()
    with imported.around() as top, pytest.raises(switch.Refusal) as caught:
        switch.refuse_unusual_git()
    expected = f"git's own folder is {top}/.git, but should be {imported.root}/.git; run this in a clone"
    assert str(caught.value) == expected


def test_a_git_folder_on_another_file_system(switch: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared there could not be moved here in one step."""
    real = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result((*found[:2], found.st_dev + (path.name == ".git"), *found[3:]))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(switch.Refusal, match=f"{imported.root}/.git is on another file system than this folder; run"):
        switch.refuse_unusual_git()


@pytest.mark.parametrize(("answer", "refused"), [("reftable\n", True), ("files\n", False)])
def test_branches_in_a_table(switch: Any, monkeypatch: pytest.MonkeyPatch, answer: str, refused: bool) -> None:
    """The error says how to change that; git itself has to be new enough to have one."""
    real = switch.git
    asked = ("config", "--get", "extensions.refstorage")
    monkeypatch.setattr(switch, "git", lambda *words, **options: answer if words == asked else real(*words, **options))
    if not refused:
        switch.refuse_unusual_git()
        return
    with pytest.raises(
        switch.Refusal, match="git stores its branches in a table; `git refs migrate --ref-format=files`"
    ):
        switch.refuse_unusual_git()
