"""A change to several files is made as a whole: killed anywhere, it is finished or undone by whoever comes next."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

from change import Conflict, git_folders, home, place, recover, take_turn
from staging import Change

KILLED = str(Path(__file__).with_name("killed.py"))
SCRIPT = """
import sys
sys.path.insert(0, "scripts/kernel")
from staging import Change

with Change("just test") as change:
    change.put("changed.txt", b"new")
    change.put("program", b"#!/bin/sh", 0o755)
    change.put("folder/added.txt", b"new")
    change.remove("old/deep/removed.txt")
    fresh = change.folder / "fresh"
    fresh.mkdir()
    (fresh / "file.txt").write_text("new")
    change.replace_folder("whole", fresh, ".kernel/whole-before")
    change.make("all is new.")
"""
BEFORE = {"changed.txt": "old", "old/deep/removed.txt": "old", "whole/file.txt": "old", "other.txt": "other"}
AFTER = {"changed.txt": "new", "program": "#!/bin/sh", "folder/added.txt": "new", "whole/file.txt": "new"}
AFTER |= {"other.txt": "other"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of few files, and the script."""
    root = tmp_path / "project"
    for path, text in BEFORE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "old" / "deep" / "__pycache__").mkdir()
    (root / "old" / "deep" / "__pycache__" / "removed.pyc").touch()
    (root / "scripts" / "kernel").mkdir(parents=True)
    for name in ("change.py", "staging.py"):
        shutil.copy(REPO / "scripts" / "kernel" / name, root / "scripts" / "kernel")
    (root / "scripts" / "try.py").write_text(SCRIPT)
    return root


def files(root: Path) -> dict[str, str]:
    """The files of the project, without scripts and what the framework keeps."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {
        name: path.read_text()
        for name, path in found.items()
        if not name.startswith(("scripts", ".kernel", "old/deep/__"))
    }


def run(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in the project."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env}
    return subprocess.run([sys.executable, *words], cwd=root, env=env, capture_output=True, text=True, check=False)


def steps(root: Path, tmp_path: Path) -> int:
    """How many things the script does to files."""
    copy = shutil.copytree(root, tmp_path / "counted")
    assert run(copy, KILLED, "0", "scripts/try.py", COUNTED=str(tmp_path / "n")).returncode == 0
    assert files(copy) == AFTER
    assert os.access(copy / "program", os.X_OK)
    assert not (copy / "old" / "deep").exists(), "a folder that is empty then goes too"
    assert (copy / "old").is_dir(), "those at the top stay"
    assert (copy / ".kernel" / "whole-before" / "file.txt").read_text() == "old"
    return int((tmp_path / "n").read_text())


@pytest.mark.minutes
def test_killed_at_every_step_and_again_while_that_is_mended(root: Path, tmp_path: Path) -> None:
    """Both who makes the change and who finishes it may be killed anywhere."""
    verdicts: list[bool] = []
    for step in range(1, steps(root, tmp_path) + 1):
        copy = shutil.copytree(root, tmp_path / f"step{step}")
        assert run(copy, KILLED, str(step), "scripts/try.py").returncode == -signal.SIGKILL
        begun = (copy / ".kernel" / "change").exists()
        assert run(copy, KILLED, str(1 + step % 7), "scripts/kernel/change.py").returncode in {0, -signal.SIGKILL}
        mended = run(copy, "-I", "scripts/kernel/change.py")
        assert mended.returncode == 0, mended.stderr
        assert files(copy) in (BEFORE, AFTER)
        verdicts.append(files(copy) == AFTER)
        assert not mended.stderr or begun
        assert {path.name for path in (copy / ".kernel").iterdir()} <= {".gitignore", "lock", "whole-before"}
    assert verdicts == sorted(verdicts), "there is one step before which it is undone, and after which it is finished"
    assert verdicts.count(True) > 8
    assert verdicts.count(False) > 8


@pytest.mark.minutes
def test_what_was_changed_in_the_meantime_is_kept(root: Path, tmp_path: Path) -> None:
    """Somebody is killed half-way, edits a file, and only then runs a recipe."""
    aside = 0
    for step in range(1, steps(root, tmp_path) + 1):
        copy = shutil.copytree(root, tmp_path / f"step{step}")
        run(copy, KILLED, str(step), "scripts/try.py")
        for name in ("changed.txt", "old/deep/removed.txt"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text("mine")
        mended = run(copy, "-I", "scripts/kernel/change.py")
        for name in ("changed.txt", "old/deep/removed.txt"):
            kept = [path.read_text() for path in (copy / name, copy / ".kernel" / "set-aside" / name) if path.exists()]
            assert "mine" in kept, (step, name)
            if len(kept) == 2 or not (copy / name).exists():
                aside += 1
                assert (
                    f"{name} was changed in the meantime; your version is now .kernel/set-aside/{name}" in mended.stderr
                )
    assert aside > 5


def test_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files are put and removed, and folders replaced; a folder that is empty then goes too, but for one at the top."""
    for path in (
        "a/b/c/gone.txt",
        "a/b/stays/x.txt",
        "top/gone.txt",
        "d/e/gone.txt",
        "whole/old.txt",
        "away/old.txt",
        "link/x.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("old")
    (tmp_path / ".kernel" / "kept").mkdir(parents=True)
    with Change("test", tmp_path) as change:
        new = change.folder / "fresh"
        new.mkdir()
        (new / "new.txt").write_text("new")
        change.put("link/x.txt", b"new", 0o755)
        change.put("made/deep/x.txt", b"new")
        for path in ("a/b/c/gone.txt", "top/gone.txt", "d/e/gone.txt", "nowhere/at/all.txt"):
            change.remove(path)
        change.replace_folder("whole", new, ".kernel/kept")
        change.take_away("away", ".kernel/aside/away")
        change.make("done.")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.suffix == ".txt"} == {
        *("a/b/stays/x.txt", "made/deep/x.txt", "link/x.txt", "whole/new.txt"),
        *(f".kernel/{path.name}/old.txt" for path in (tmp_path / ".kernel").glob("kept.*")),
        ".kernel/aside/away/old.txt",
    }
    assert [(tmp_path / folder).exists() for folder in ("a/b/c", "a/b", "top", "d/e", "d")] == [
        *(False, True, True, False, True)
    ]
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "link/x.txt", tmp_path / "made/deep/x.txt")] == [
        0o755,
        0o644,
    ]
    assert not list((tmp_path / ".kernel").glob("*change*"))
    assert capsys.readouterr().err == ""


def test_what_somebody_changes_while_it_is_planned_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time, and none of it is lost."""
    for text in ("first", "second"):
        for path in ("folder/put.txt", "folder/removed.txt", "folder/same.txt"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("old")
        with Change("test", tmp_path) as change:
            change.put("folder/put.txt", b"new")
            change.put("folder/same.txt", b"new")
            change.remove("folder/removed.txt")
            (tmp_path / "folder" / "put.txt").write_text(text)
            (tmp_path / "folder" / "removed.txt").write_text(text)
            (tmp_path / "folder" / "same.txt").write_text("new")
            change.make("done.")
        assert (tmp_path / "folder" / "put.txt").read_text() == "new"
        assert not (tmp_path / "folder" / "removed.txt").exists()
    aside = [*(tmp_path / ".kernel" / "set-aside" / "folder").iterdir()]
    assert sorted((path.name[:3], path.read_text()) for path in aside) == [
        *(("put", "first"), ("put", "second"), ("rem", "first"), ("rem", "second"))
    ]
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" was changed in the meantime; your version is now ")[2] for line in told] == [
        path.relative_to(tmp_path).as_posix() for path in sorted(aside, key=lambda path: path.stat().st_ctime_ns)
    ]


def test_what_was_only_prepared_is_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever comes next says what it was, and removes it, and what is left of earlier changes."""
    for folder in ("change/files", "new-1", "old-1", "kept"):
        (tmp_path / ".kernel" / folder).mkdir(parents=True)
    (tmp_path / ".kernel" / "change" / "what").write_text("just \x1b test")
    for told in ("`just \\x1b test` had been interrupted before it changed anything, and was undone.\n", ""):
        recover(tmp_path)
        assert capsys.readouterr().err == (f"scripts/just: {told}" if told else "")
        assert {path.name for path in (tmp_path / ".kernel").iterdir()} == {"kept", ".gitignore"}


def test_an_error_undoes_what_was_begun(tmp_path: Path) -> None:
    """The block raises before the change is made."""
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with Change("test", tmp_path) as change:
            change.put("file", b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "file").read_text() == "old"
    assert {path.name for path in (tmp_path / ".kernel").iterdir()} == {".gitignore", "lock"}


def test_what_is_in_the_way_is_refused(tmp_path: Path) -> None:
    """A folder where a file is to be; a file, or a link out of the project, where a folder is to be."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path.parent)
    with Change("test", tmp_path) as change:
        for path in ("folder", "file/x", "link/x", "link/deep/x"):
            with pytest.raises(Conflict, match="cannot be written"):
                change.put(path, b"")


def test_one_at_a_time(root: Path) -> None:
    """Whoever comes second waits for its turn, and says so."""
    turn = take_turn(root)
    try:
        with subprocess.Popen(
            [sys.executable, "scripts/try.py"], cwd=root, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "scripts/just: another recipe is changing files; waiting for it\n"
            assert files(root) == BEFORE
            os.close(turn)
            turn = -1
            assert second.wait(20) == 0
    finally:
        if turn >= 0:
            os.close(turn)
    assert files(root) == AFTER


# -- the framework's folder, and git's -----------------------------------------------------------------------------


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """Git ignores what is in it; a mode that lets nobody else in stays."""
    for before, after in ((None, 0o700), (0o755, 0o700), (0o500, 0o500)):
        root = tmp_path / f"{before}"
        (root / ".kernel").mkdir(parents=True)
        if before is None:
            (root / ".kernel").rmdir()
        else:
            (root / ".kernel" / ".gitignore").write_text("mine\n")
            (root / ".kernel").chmod(before)
        assert home(root) == root / ".kernel"
        assert (root / ".kernel").stat().st_mode & 0o777 == after
        assert (root / ".kernel" / ".gitignore").read_text() == ("*\n" if before is None else "mine\n")


def test_a_folder_that_nobody_can_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a link, or what a commit has brought, whatever repository git is told to use."""
    for kind in ("file", "link", "tracked"):
        root = tmp_path / kind
        root.mkdir()
        if kind == "file":
            (root / ".kernel").touch()
        elif kind == "link":
            (root / ".kernel").symlink_to(tmp_path)
        else:
            (root / ".kernel").mkdir()
            (root / ".kernel" / "x").touch()
            for words in ["init", "-q", "--template="], ["add", ".kernel/x"]:
                subprocess.run(["git", *words], cwd=root, check=True)
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
        with pytest.raises(Conflict, match="git tracks .kernel/x, so" if kind == "tracked" else "is not a folder, but"):
            home(root)
        monkeypatch.delenv("GIT_DIR")


def test_where_git_has_its_files(tmp_path: Path) -> None:
    """In the project, above it, or, for a second worktree, in those of the first."""
    (tmp_path / "top" / ".git" / "worktrees" / "w").mkdir(parents=True)
    gits = tmp_path / "top" / ".git"
    own = gits / "worktrees" / "w"
    (own / "commondir").write_text("../..\n")
    for folder in ("top/below/deep", "second/below", "module"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "second" / ".git").write_text(f"gitdir: {own}\n")
    (tmp_path / "module" / ".git").write_text("gitdir: ../top/.git\n")
    assert git_folders(tmp_path / "top") == git_folders(tmp_path / "top" / "below" / "deep") == (gits, gits)
    assert [path.resolve() for path in git_folders(tmp_path / "second" / "below")] == [own, gits]
    assert [path.resolve() for path in git_folders(tmp_path / "module")] == [gits, gits]
    assert place(tmp_path / "second", ".git/HEAD") == own / "HEAD"
    assert place(tmp_path / "second", ".git/refs/heads/x").resolve() == gits / "refs" / "heads" / "x"


@pytest.mark.parametrize("released", [True, False])
def test_gits_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, released: bool) -> None:
    """It is waited for, and never taken away."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("old")
    lock = tmp_path / ".git" / "HEAD.lock"
    lock.write_text("git's")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if released and len(waited) == 2:
            lock.unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    with Change("test", tmp_path) as change:
        change.put(".git/HEAD", b"new")
        if not released:
            with pytest.raises(OSError, match=r"^git is running in this project, or was killed: .*/HEAD\.lock exists$"):
                change.make("done.")
        else:
            change.make("done.")
    assert (tmp_path / ".git" / "HEAD").read_text() == ("new" if released else "old")
    assert len(waited) == (2 if released else 50)
    assert not released or not lock.exists()
    if not released:
        assert lock.read_text() == "git's"
        lock.unlink()
        recover(tmp_path)
        assert (tmp_path / ".git" / "HEAD").read_text() == "new", "the next recipe completes it"
