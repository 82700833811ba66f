"""Where `just commit-hook` writes git's hook, and what it leaves alone."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import commit_hook
import recipe
from recipe import Refusal


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository, without a folder for hooks."""
    top = tmp_path / "top"
    subprocess.run(["git", "init", "-q", "--template=", top], check=True)
    return top


class Hook:
    """The hook of a project that is in a repository."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root.mkdir(exist_ok=True)
        monkeypatch.setattr(commit_hook, "ROOT", root)
        monkeypatch.setattr(commit_hook, "git", functools.partial(recipe.git, root=root))

    def install(self) -> None:
        """Install it."""
        commit_hook.hook({"REMOVE": ""})

    def remove(self) -> None:
        """Remove it."""
        commit_hook.hook({"REMOVE": "1"})


@pytest.mark.parametrize("place", [".", "it's a folder"])
def test_it_is_installed_and_removed(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """Also again and again, and in a folder of a larger repository."""
    hook = Hook(top / place, monkeypatch)
    file = top / ".git" / "hooks" / "pre-commit"
    hook.remove()
    assert not file.exists()
    for _ in range(2):
        hook.install()
        assert file.stat().st_mode & 0o777 == 0o755
        first, *_, last = file.read_text().splitlines()
        assert (first, last) == ("#!/bin/sh", "exec scripts/kernel/script pre-commit")
        assert ("\ncd -- 'it'\"'\"'s a folder' || exit\n" in file.read_text()) is (place != ".")
    hook.remove()
    assert not file.exists()
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told] == [
        "Commits are not tested any more.",
        *["Before each commit"] * 2,
        "Commits are not tested any more.",
    ]


def test_one_of_somebody_elses(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text, in whatever encoding, or a link, even to the same text."""
    hook = Hook(top, monkeypatch)
    hook.install()
    file = top / ".git" / "hooks" / "pre-commit"
    file.rename(top / "shared")
    file.symlink_to(top / "shared")
    with pytest.raises(Refusal, match=r"pre-commit is there already, and is not ours"):
        hook.remove()
    file.unlink()
    file.write_bytes(b"#!/bin/sh\n# caf\xe9\n")
    for act in hook.install, hook.remove:
        with pytest.raises(Refusal, match=r"pre-commit is there already, and is not ours"):
            act()
    assert file.read_bytes() == b"#!/bin/sh\n# caf\xe9\n"


def test_hooks_elsewhere(top: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that other repositories may share is refused, and one within this one is not."""
    hook = Hook(top, monkeypatch)
    for folder, refused in ((tmp_path / "shared", True), ("own/hooks", False)):
        subprocess.run(["git", "config", "core.hooksPath", folder], cwd=top, check=True)
        if refused:
            with pytest.raises(Refusal, match=f"^git's hooks are in {folder} "):
                hook.install()
        else:
            hook.install()
    assert (top / "own" / "hooks" / "pre-commit").exists()
    assert not (tmp_path / "shared").exists()


def test_a_second_worktree(top: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its hooks are those of the first one, which is the same repository."""
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "First"], cwd=top, check=True)
    subprocess.run(["git", "worktree", "add", "-q", tmp_path / "second"], cwd=top, check=True)
    Hook(tmp_path / "second", monkeypatch).install()
    assert (top / ".git" / "hooks" / "pre-commit").exists()
