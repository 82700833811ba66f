"""How a change is prepared and made, and what of one that was killed the next one meets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import staging
from change import fingerprint
from staging import Change


def names(root: Path) -> set[str]:
    """What is in the framework's own folder."""
    return {path.name for path in (root / ".kernel").iterdir()}


def test_all_that_a_change_can_do(tmp_path: Path) -> None:
    """Files, links and folders, each in place of what was there; what goes is kept where the change says so."""
    for path in ("changed.txt", "deep/er/gone.txt", "folder/old.txt", "away/old.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("old")
    with Change("test", tmp_path) as change:
        (change.folder / "moved.txt").write_text("moved")
        (change.folder / "moved.txt").chmod(0o600)
        (change.folder / "link").symlink_to("nowhere")
        (change.folder / "fresh").mkdir()
        change.put("changed.txt", b"new", 0o755)
        change.put("new/er/a.txt", change.folder / "moved.txt")
        change.put("new/er/b", change.folder / "link")
        change.remove("deep/er/gone.txt")
        change.replace_folder("folder", change.folder / "fresh", ".kernel/before")
        change.take_away("away", ".kernel/taken")
        change.make("it is done.")
    assert (tmp_path / "changed.txt").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new" / "er" / "a.txt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new" / "er" / "a.txt").read_text() == "moved"
    assert (tmp_path / "new" / "er" / "b").readlink() == Path("nowhere")
    assert not (tmp_path / "deep" / "er").exists()
    assert (tmp_path / "folder").is_dir()
    assert not (tmp_path / "folder" / "old.txt").exists()
    assert not (tmp_path / "away").exists()
    for kept in ("before", "taken"):
        assert (tmp_path / ".kernel" / kept / "old.txt").read_text() == "old"
    assert names(tmp_path) == {".gitignore", "lock", "before", "taken"}


def test_one_after_the_other_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed while it was made is completed by the next, whatever that does."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(staging, "finish", killed)
        with Change("first", tmp_path) as change:
            change.put("a", b"first")
            change.put("b", b"first")
            with pytest.raises(KeyboardInterrupt):
                change.make("it is done.")
    assert names(tmp_path) == {".gitignore", "lock", "change"}
    with Change("second", tmp_path) as change:
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "first"
        change.put("b", b"second")
        change.make("it is done.")
    assert (tmp_path / "b").read_text() == "second"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        third = Change("third", tmp_path)
        with pytest.raises(KeyboardInterrupt):
            third.__enter__()
        os.close(third.turn)
    assert len(names(tmp_path)) == 3
    with Change("fourth", tmp_path):
        assert (tmp_path / ".kernel" / "change" / "what").read_text() == "fourth"
    assert names(tmp_path) == {".gitignore", "lock"}


def test_what_was_planned_for_other_files(tmp_path: Path) -> None:
    """What differs from what the change expects was somebody else's work: it is set aside."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("mine")
    with Change("test", tmp_path) as change:
        (change.folder / "known").write_text("known")
        change.expected = {"a": fingerprint(change.folder / "known"), "c": None}
        for name in ("a", "b", "c"):
            change.put(name, b"new")
        change.make("it is done.")
    assert {(tmp_path / name).read_text() for name in ("a", "b", "c")} == {"new"}
    aside = tmp_path / ".kernel" / "set-aside"
    assert {path.name: path.read_text() for path in aside.iterdir()} == {"a": "mine"}


def test_a_link_to_a_folder_is_replaced(tmp_path: Path) -> None:
    """It is no folder itself."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with Change("test", tmp_path) as change:
        change.put("link", b"new")
        change.make("it is done.")
    assert (tmp_path / "link").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()
