"""Backups bring back what was lost, and lose nothing that was made since."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import tarfile
from pathlib import Path

import pytest

from tests.scripts.projects import Project

KILLED = str(Path(__file__).with_name("killed.py"))


@pytest.fixture
def project(owned: Project) -> Project:
    """A project with files of every kind."""
    owned.write("notes/kept.txt", "as it was")
    owned.write("program", "#!/bin/sh\n")
    (owned.root / "program").chmod(0o755)
    (owned.root / "link").symlink_to("notes/kept.txt")
    owned.commit()
    owned.write("untracked é.txt", "not committed")
    owned.write("notes/kept.txt", "changed, not committed")
    owned.write(".env", "TOKEN=1")
    owned.write("data.db", "rows")
    owned.write("a/.env", "TOKEN=2")
    owned.git("add", "-f", "a/.env")
    return owned


def back_up(project: Project) -> str:
    """Makes one, and returns its name."""
    done = project.just("backup")
    assert done.code == 0, done.err
    found = re.search(r"backups/(\S+\.tar\.gz)", done.out)
    assert found is not None
    return found[1]


def names_in(project: Project, backup: str) -> set[str]:
    """The files in a backup."""
    with tarfile.open(project.root / ".kernel" / "backups" / backup) as archive:
        return set(archive.getnames())


def test_it_holds_what_git_tracks_and_what_is_new(project: Project) -> None:
    """As it stands in the folder; what is ignored is left out, and so is what is gone."""
    (project.root / "LICENSE").unlink()
    names = names_in(project, back_up(project))
    assert names >= {"notes/kept.txt", "untracked é.txt", "program", "link", "services/hello_world.py", "a/.env"}
    assert not names & {".env", "data.db", "LICENSE"}
    assert not any(name.startswith((".git/", ".venv", ".kernel")) for name in names)


@pytest.mark.parametrize("words", [(), ("BACKUP={}",), ("{}",), ("BACKUP=.kernel/backups/{}",)])
def test_what_was_lost_comes_back_and_what_was_made_since_stays(project: Project, words: tuple[str, ...]) -> None:
    """Content, mode and links; neither .git, .env, .venv nor an ignored file is touched."""
    whole = project.files()
    name = back_up(project)
    (project.root / "untracked é.txt").unlink()
    (project.root / "program").chmod(0o644)
    (project.root / "link").unlink()
    for path in (project.root / "services").iterdir():
        path.unlink()
    project.write("README.md", "overwritten")
    project.write("made/since.txt", "new")
    project.write(".env", "TOKEN=3")
    project.write("a/.env", "TOKEN=4")
    project.write("data.db", "more rows")
    kept, venv = project.repository(), (project.root / ".venv" / ".stamp").read_text()
    done = project.just("backup-restore", *(word.format(name) for word in words), stdin="y\n")
    assert done.code == 0, done.err
    assert project.files() == {
        **whole,
        **{
            path: mark
            for path, mark in project.files().items()
            if path in {"made/since.txt", ".env", "a/.env", "data.db"}
        },
    }
    assert (project.root / ".env").read_text() == "TOKEN=3"
    assert (project.root / "a" / ".env").read_text() == "TOKEN=4"
    assert (project.root / "data.db").read_text() == "more rows"
    assert (project.root / "made" / "since.txt").read_text() == "new"
    assert project.repository() == kept
    assert (project.root / ".venv" / ".stamp").read_text() == venv


def test_two_names_of_one_file(project: Project) -> None:
    """Each is kept as a file: so either comes back without the other."""
    os.link(project.root / "notes" / "kept.txt", project.root / "notes" / "second.txt")
    whole = project.files()
    name = back_up(project)
    for path in ("notes/kept.txt", "notes/second.txt"):
        (project.root / path).unlink()
    assert project.just("backup-restore", name, stdin="y\n").code == 0
    assert project.files() == whole


def test_a_backup_of_an_older_version_that_has_hard_links(project: Project) -> None:
    """The second name has the content of the first."""
    project.just("backup")
    file = project.root / ".kernel" / "backups" / "2020-01-01T00-00-00.tar.gz"
    os.link(project.root / "notes" / "kept.txt", project.root / "notes" / "second.txt")
    with tarfile.open(file, "w:gz") as archive:
        for path in ("notes/kept.txt", "notes/second.txt"):
            archive.add(project.root / path, path)
        assert archive.getmembers()[1].islnk()
    (project.root / "notes" / "second.txt").unlink()
    assert project.just("backup-restore", file.name, stdin="y\n").code == 0
    assert (project.root / "notes" / "second.txt").read_text() == "changed, not committed"


@pytest.mark.minutes
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o700, 0o664, 0o444])
def test_a_mode_comes_back_as_it_was(project: Project, mode: int) -> None:
    """Of a file that was lost, and of one whose mode alone was changed."""
    file = project.root / "notes" / "kept.txt"
    file.chmod(mode)
    name = back_up(project)
    file.chmod(0o646)
    assert project.just("backup-restore", name, stdin="y\n").code == 0
    assert file.stat().st_mode & 0o777 == mode
    file.unlink()
    assert project.just("backup-restore", name, stdin="y\n").code == 0
    assert file.stat().st_mode & 0o777 == mode


def test_what_it_replaces_is_backed_up_first(project: Project) -> None:
    """That backup brings it back; one is not taken for it that nobody asked for."""
    name = back_up(project)
    project.write("README.md", "precious")
    done = project.just("backup-restore", stdin="yes\n")
    before = re.search(r"what was there before is in .kernel/backups/(\S+before-restore.tar.gz)\.", done.out)
    assert before is not None, done.out
    assert f"Restored 1 file from .kernel/backups/{name}; " in done.out
    assert (project.root / "README.md").read_text() != "precious"
    assert f"Nothing to do: every file of .kernel/backups/{name}" in project.just("backup-restore").out
    assert project.just("backup-restore", before[1], stdin="y\n").code == 0
    assert (project.root / "README.md").read_text() == "precious"


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "maybe\n"])
def test_it_asks(project: Project, answer: str) -> None:
    """It shows what it would do; without a yes, also where nobody answers, nothing is done."""
    back_up(project)
    (project.root / "program").unlink()
    project.write("README.md", "mine")
    with project.unchanged():
        done = project.just("backup-restore", stdin=answer)
    assert (done.code, done.err) == (2, "just backup-restore: nothing was changed, since the answer was not y\n")
    assert "brought back  program\nreplaced      README.md\n" in done.out
    assert "bring back 1, replace 1? [y/N]" in done.out
    assert len(list((project.root / ".kernel" / "backups").iterdir())) == 1


@pytest.mark.many
@pytest.mark.parametrize("spoil", ["cut", "text", "up", "absolute", "device", "twice"])
def test_a_damaged_one_changes_nothing(project: Project, spoil: str) -> None:
    """It is read to its end first; paths out of the project are refused."""
    name = back_up(project)
    file = project.root / ".kernel" / "backups" / name
    (project.root / "program").unlink()
    content = file.read_bytes()
    if spoil == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif spoil == "text":
        file.write_bytes(gzip.compress(b"text" * 1000))
    else:
        member = tarfile.TarInfo({"up": "x/../../out.txt", "absolute": "/tmp/out.txt"}.get(spoil, "device"))  # noqa: S108
        member.type = tarfile.CHRTYPE if spoil == "device" else tarfile.REGTYPE
        with tarfile.open(file, "w:gz") as archive:
            for _ in range(2 if spoil == "twice" else 1):
                archive.addfile(member, io.BytesIO())
    with project.unchanged():
        done = project.just("backup-restore", stdin="y\n")
    assert done.code == 2
    assert done.err.startswith(f"just backup-restore: {name} ")
    assert done.err.count("\n") == 1
    assert not (project.root.parent / "out.txt").exists()


def test_a_folder_in_the_way(project: Project) -> None:
    """What was made since is not lost, so the restore is refused as a whole."""
    back_up(project)
    (project.root / "program").unlink()
    (project.root / "LICENSE").unlink()
    project.write("program/since.txt", "new")
    with project.unchanged():
        done = project.just("backup-restore", stdin="y\n")
    assert done.code == 2
    assert "program cannot be written, since there is a folder with that name" in done.err


@pytest.mark.minutes
def test_killed_while_it_restores(project: Project) -> None:
    """All of it is as in the backup, or none: whoever comes next sees to that."""
    whole = project.files()
    name = back_up(project)
    lost = ["LICENSE", "README.md", "services/hello_world.py"]
    words = (".venv/bin/python", KILLED)
    found: list[bool] = []
    for step in range(4, 2000, 11):
        for path in lost:
            (project.root / path).unlink(missing_ok=True)
        done = project.machine.call(
            *words, str(step), "scripts/kernel/backup.py", "restore", name, cwd=project.root, stdin="y\n"
        )
        assert project.just("hello").code == 0
        there = [path for path in lost if (project.root / path).exists()]
        assert there in ([], lost), (step, there)
        found.append(there == lost)
        if done.code != -signal.SIGKILL:
            assert done.code == 0, done.err
            break
    assert found == sorted(found)
    assert False in found
    assert project.files() == whole


def test_clear_deletes_them_all(project: Project) -> None:
    """And nothing else."""
    with project.unchanged():
        back_up(project)
        back_up(project)
        done = project.just("backup-clear")
        assert done.out == "2 backups deleted.\n"
        assert project.just("backup-clear").out == "0 backups deleted.\n"
    assert project.just("backup-restore").err == "just backup-restore: there is no backup; `just backup` makes one\n"
