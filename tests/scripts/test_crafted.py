"""Archives and journals that somebody else has made: whatever is in them, nothing outside the project is touched."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripts.projects import REPO, Project

sys.path.append(str(REPO / "scripts" / "kernel"))

from backup import _unpack
from change import Conflict, recover
from recipe import Refusal

PARTS = st.sampled_from(["a", "b", "..", ".", "", "link", "outside", ".git", ".GIT", "hooks", ".kernel", "x" * 255])
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
TARGETS = st.one_of(PATHS, st.sampled_from(["/", "/tmp", "../outside", "../../outside", ".", ".."]))  # noqa: S108
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])


@contextmanager
def watched() -> Iterator[tuple[Path, Path]]:
    """A folder to work in, and one outside of it that must stay as it is, as must all around."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        inner, outside = top / "project", top / "outside"
        for folder in inner, outside:
            folder.mkdir()
            (folder / "precious").write_text("as it was")
        yield inner, outside
        assert {path.name for path in top.iterdir()} <= {"project", "outside"}
        assert [path.name for path in outside.iterdir()] == ["precious"]
        assert (outside / "precious").read_text() == "as it was"


def archive(path: Path, members: list[tuple[bytes, str, str]]) -> Path:
    """An archive with members of any kind, name and target."""
    with tarfile.open(path, "w:gz") as made:
        for kind, name, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 5 if kind == tarfile.REGTYPE else 0
            made.addfile(info, io.BytesIO(b"owned"))
    return path


@pytest.mark.minutes
@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(KINDS, PATHS, TARGETS), max_size=6))
def test_generated_archives(members: list[tuple[bytes, str, str]]) -> None:
    """Each is unpacked within its folder, or refused with a reason."""
    with watched() as (inner, _):
        file = archive(inner / "backup.tar.gz", members)
        (inner / "unpacked").mkdir()
        paths: list[str] = []
        with contextlib.suppress(Refusal):
            paths = list(_unpack(file, inner / "unpacked"))
        assert all(os.path.lexists(inner / "unpacked" / path) for path in paths)


def refused(members: list[tuple[bytes, str, str]]) -> str:
    """Why an archive of *members* is not unpacked."""
    with watched() as (inner, _):
        file = archive(inner / "backup.tar.gz", members)
        (inner / "unpacked").mkdir()
        with pytest.raises(Refusal) as caught:
            list(_unpack(file, inner / "unpacked"))
        return str(caught.value)


FILE, LINK, SECOND = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [(FILE, "a", ""), (FILE, "a", "")],
        [(FILE, "x/a", ""), (FILE, "b", ""), (LINK, "x/a", "b")],
        [(LINK, "a", "b"), (LINK, "a", "b")],
        [(LINK, "a", "b"), (FILE, "a", "")],
        [(FILE, "a", ""), (FILE, "b", ""), (SECOND, "a", "b")],
        [(FILE, "a", ""), (FILE, "a/b", "")],
        [(LINK, "a", "."), (FILE, "a/b", "")],
        [(LINK, "a", "../outside"), (FILE, "a/precious", "")],
        [(FILE, "a/b", ""), (FILE, "a", "")],
        [(FILE, "a/b", ""), (LINK, "a", "../outside")],
    ],
    ids=str,
)
def test_two_members_of_one_path(members: list[tuple[bytes, str, str]]) -> None:
    """A file, a link or a folder of the same name before it: no path is given out, whichever member is meant."""
    assert refused(members) == "backup.tar.gz contains two files with one path; use another one"


@pytest.mark.parametrize(
    "members",
    [
        [(SECOND, "b", "a"), (FILE, "a", "")],  # not before it
        [(SECOND, "b", "nowhere")],
        [(SECOND, "b", "b")],
        [(SECOND, "b", "../outside/precious")],
        [(LINK, "a", "../outside/precious"), (SECOND, "b", "a")],
        [(FILE, "c", ""), (LINK, "a", "c"), (SECOND, "b", "a")],
        [(FILE, ".env", ""), (SECOND, "b", ".env")],  # not written
        [(FILE, "a", ""), (tarfile.FIFOTYPE, "b", "a")],
        [(FILE, "a", ""), (tarfile.DIRTYPE, "b", "a")],
        [(FILE, "a", ""), (tarfile.BLKTYPE, "b", "a")],
    ],
    ids=str,
)
def test_a_second_name_of_what_is_no_file(members: list[tuple[bytes, str, str]]) -> None:
    """A hard link stands for a file that the archive has before it, and nothing else has a file's content."""
    assert refused(members) == "backup.tar.gz contains 'b', which no backup does; use another one"


def test_second_names_of_a_file(tmp_path: Path) -> None:
    """Also of one that is itself a second name: each has the content and the mode of the first."""
    file = archive(tmp_path / "backup.tar.gz", [(FILE, "a", ""), (SECOND, "x/b", "a"), (SECOND, "c", "x/b")])
    (tmp_path / "unpacked").mkdir()
    before = len([*Path("/dev/fd").iterdir()])
    assert list(_unpack(file, tmp_path / "unpacked")) == ["a", "x/b", "c"]
    assert len([*Path("/dev/fd").iterdir()]) == before, "every folder is closed"
    for path in ("a", "x/b", "c"):
        assert (tmp_path / "unpacked" / path).read_text() == "owned"
        assert (tmp_path / "unpacked" / path).stat().st_mode & 0o777 == 0o644


def test_what_is_being_unpacked_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is whole: then it has the mode that the archive says, whatever the umask is."""
    file = archive(tmp_path / "backup.tar.gz", [(FILE, "x/a", "")])
    (tmp_path / "unpacked").mkdir()
    modes: list[str] = []

    def copy(content: IO[bytes], into: IO[bytes]) -> None:
        modes.extend(f"{path.stat().st_mode & 0o777:o}" for path in sorted((tmp_path / "unpacked").rglob("*")))
        into.write(content.read())

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    before = os.umask(0o000)
    try:
        assert list(_unpack(file, tmp_path / "unpacked")) == ["x/a"]
    finally:
        os.umask(before)
    assert modes == ["700", "600"]
    assert (tmp_path / "unpacked" / "x" / "a").stat().st_mode & 0o777 == 0o644


def test_a_chain_of_links_past_the_longest_path(tmp_path: Path) -> None:
    """The links resolve to less than they say, so that a check of their text is fooled; the last one leads outside."""
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "outside").mkdir()
    members: list[tuple[bytes, str, str]] = []
    place, steps = "", "abcdefghijklmnop"
    for step in steps:
        members += [(tarfile.REGTYPE, f"{place}{'d' * 247}/file", ""), (tarfile.SYMTYPE, f"{place}{step}", "d" * 247)]
        place += f"{step}/"
    members += [(tarfile.SYMTYPE, "/".join(steps) + "/" + "l" * 254, "../" * len(steps))]
    members += [(tarfile.SYMTYPE, "escape", "/".join(steps) + "/" + "l" * 254 + "/../outside")]
    members += [(tarfile.REGTYPE, "escape/file", "")]
    file = archive(tmp_path / "backup.tar.gz", members)
    with pytest.raises(Refusal, match="two files with one path"):
        list(_unpack(file, tmp_path / "unpacked"))
    assert not list((tmp_path / "outside").iterdir())


MOVES = st.one_of(
    st.tuples(st.just("put"), PATHS, st.none()),
    st.tuples(st.just("remove"), PATHS, st.none()),
    st.tuples(st.just("folder"), PATHS, st.tuples(PATHS, PATHS).map(":".join)),
    st.tuples(st.sampled_from(["run", "", "PUT"]), PATHS, st.none()),
)


@pytest.mark.minutes
@settings(deadline=None, max_examples=300)
@given(st.lists(MOVES, max_size=4), st.lists(st.tuples(PATHS, st.booleans()), max_size=4), st.booleans())
def test_generated_journals(moves: list[object], staged: list[tuple[str, bool]], linked: bool) -> None:
    """With files and links staged wherever they can be, and a link out of the project in it."""
    with watched() as (inner, outside):
        folder = inner / ".kernel" / "change"
        folder.mkdir(parents=True)
        (folder / "what").write_text("a stranger")
        (folder / "journal").write_text(json.dumps({"what": "", "done": "", "moves": moves}))
        if linked:
            (inner / "link").symlink_to(outside)
        for path, link in staged:
            target = folder / "files" / path.replace("..", "dots")
            if not target.resolve().is_relative_to(inner.resolve()):
                continue  # below a link that was staged before
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(outside) if link else target.write_text("owned")
            except OSError:
                continue  # there is something of that name, or the path is none
        with contextlib.suppress(Conflict, OSError):
            recover(inner)


@pytest.mark.parametrize(
    "move",
    [
        ("put", "../out.txt", None),
        ("put", "/tmp/out.txt", None),  # noqa: S108
        ("remove", "../outside/precious", None),
        ("remove", "link/precious", None),
        ("put", ".git/hooks/post-checkout", None),
        ("put", ".git/config", None),
        ("remove", ".GIT/config", None),
        ("folder", "../outside", "fresh:.kernel/kept"),
        ("folder", "whole", "../../../outside:.kernel/kept"),
        ("folder", "whole", "fresh:../outside/kept"),
        ("folder", "whole", None),
        ("folder", ".git/hooks", "fresh:.kernel/kept"),
        ("folder", "whole", "fresh:.git/hooks"),
        ("away", "../outside", ".kernel/kept"),
        ("away", "whole", "../outside/kept"),
        ("away", ".git/refs", ".kernel/kept"),
        ("away", "whole", ".GIT/hooks"),
        ("away", "whole", None),
        ("chmod", "whole", None),
        ("put", "whole", ["a list"]),
        ("remove", "whole", {}),
        "no move",
    ],
    ids=str,
)
def test_a_journal_that_no_recipe_has_written(move: object) -> None:
    """It is refused before anything is done, with what to do."""
    with watched() as (inner, outside):
        folder = inner / ".kernel" / "change"
        (folder / "files").mkdir(parents=True)
        (folder / "what").write_text("a stranger\x1b[2J")
        (inner / "link").symlink_to(outside)
        (inner / "first.txt").write_text("there")
        moves = [["remove", "first.txt", None], move]
        (folder / "journal").write_text(json.dumps({"what": "", "done": "", "moves": moves}))
        with pytest.raises(Conflict) as refused:
            recover(inner)
        assert str(refused.value).isprintable()
        assert (inner / "first.txt").exists()


def test_a_link_that_an_earlier_move_has_made() -> None:
    """The way is looked at again before each move."""
    with watched() as (inner, outside):
        folder = inner / ".kernel" / "change"
        (folder / "files" / "x").mkdir(parents=True)
        shutil.rmtree(folder / "files" / "x")
        (folder / "files" / "x").symlink_to(outside)
        (folder / "what").write_text("a stranger")
        moves = [["put", "x", None], ["remove", "x/precious", None]]
        (folder / "journal").write_text(json.dumps({"what": "", "done": "", "moves": moves}))
        with pytest.raises(Conflict, match="x/precious cannot be written, since x is not a folder"):
            recover(inner)


def test_a_tracked_folder_of_the_frameworks_is_refused(owned: Project) -> None:
    """What a commit has brought into `.kernel` is neither finished nor restored: each recipe says what to do."""
    owned.write(".kernel/change/what", "a stranger")
    owned.write(".kernel/change/journal", json.dumps({"what": "", "done": "done", "moves": [["remove", "LICENSE", 0]]}))
    owned.git("add", "-f", ".kernel/change")
    for words in ("--version",), ("run",), ("backup",), ("service", "x"):
        done = owned.just(*words)
        assert done.code == 2, done
        assert "git tracks .kernel/change/journal" in done.err
        assert "git rm -r --cached .kernel" in done.err
        assert "Traceback" not in done.err
    assert (owned.root / "LICENSE").exists()


def test_a_folder_of_the_frameworks_that_is_a_link_is_refused(owned: Project) -> None:
    """It may lead anywhere."""
    shutil.move(owned.root / ".kernel", owned.root.parent / "elsewhere")
    (owned.root / ".kernel").symlink_to("../elsewhere")
    before = sorted(path.name for path in (owned.root.parent / "elsewhere").iterdir())
    done = owned.just("backup")
    assert done.code == 2
    assert ".kernel is not a folder" in done.err
    assert sorted(path.name for path in (owned.root.parent / "elsewhere").iterdir()) == before


def test_what_is_kept_is_its_owners_alone(owned: Project) -> None:
    """Whatever the umask, and whatever an older version had made."""
    shutil.rmtree(owned.root / ".kernel", ignore_errors=True)
    subprocess.run(
        ["sh", "-c", "umask 000; ./scripts/just backup"], cwd=owned.root, env=owned.machine.env, check=True, stdout=-3
    )
    (owned.root / ".kernel").chmod(0o755)
    assert owned.just("backup").code == 0
    for path in (owned.root / ".kernel", *(owned.root / ".kernel").rglob("*")):
        if path.name != ".gitignore":
            assert not path.stat().st_mode & 0o077, path
