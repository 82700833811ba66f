"""`just backup`, `just backup-restore` and `just backup-clear`: what git would not bring back.

A backup is what git tracks, as it stands in the folder, and the untracked files that are not ignored: one archive in
`.kernel/backups`. A restore writes the files of an archive, as a whole or not at all, and no other file: it knows
nothing of `.git`, `.env`, `.venv`, ignored files, and files made since.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from change import Change, Conflict, fingerprint, home
from recipe import ROOT, Refusal, git, in_git, run, show

FOLDER = ".kernel/backups"
BEFORE = "before-"  # marks one that nobody asked for: what a restore has replaced, or an update was made from
NEVER = frozenset({".git", ".env", ".venv", ".kernel"})  # a restore touches nothing in these, wherever they stand
USE = "just backup"
USE_RESTORE = "just backup-restore BACKUP=2026-01-31T08-15-00.tar.gz"
USE_CLEAR = "just backup-clear"


def make_backup(mark: str = "") -> str:
    """Writes an archive of all that git tracks, or would if it were told to, and returns its path.

    Args:
        mark: A word in its name.

    """
    paths = list(dict.fromkeys(in_git("--cached", "--others", "--exclude-standard")))
    folder = home(ROOT) / "backups"
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".*.new"):
        left.unlink()
    now = datetime.now(UTC)
    stamp = f"{now:%Y-%m-%dT%H-%M-%S}"
    name = "-".join(filter(None, [stamp, mark]))
    if (folder / f"{name}.tar.gz").exists():  # within the same second
        name = "-".join(filter(None, [stamp, f"{now:%f}", mark]))
    written = folder / f".{name}.new"
    with tarfile.open(written, "w:gz", compresslevel=6) as archive:
        for path in paths:
            file = ROOT / path
            if file.is_symlink() or file.is_file():  # neither what is gone, nor a repository within this one
                archive.add(file, path, recursive=False)
    written.replace(folder / f"{name}.tar.gz")
    return f"{FOLDER}/{name}.tar.gz"


def backup(_: Mapping[str, str]) -> None:
    """Makes a backup, and says how to get it back."""
    path = make_backup()
    size = (ROOT / path).stat().st_size
    print(f"{path} ({size / 1000:.0f} kB)\nTo get it back: just backup-restore BACKUP={Path(path).name}")


def restore(words: Mapping[str, str]) -> None:
    """Brings back what differs from a backup, once the user has said yes."""
    archive = _choose(words["BACKUP"])
    name = f"{FOLDER}/{archive.name}"
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder)
        different = [
            path for path in _unpack(archive, unpacked) if fingerprint(ROOT / path) != fingerprint(unpacked / path)
        ]
        ignored = _ignored(different)
        wanted = {path: fingerprint(ROOT / path) for path in different if path not in ignored}
        if not wanted:
            print(f"Nothing to do: every file of {name} is as it was.")
            return
        _ask(name, {path: os.path.lexists(ROOT / path) for path in wanted})
        before = make_backup(f"{BEFORE}restore")
        with Change(f"just backup-restore BACKUP={archive.name}") as change:
            change.expected = wanted
            try:
                for path in wanted:
                    change.put(path, unpacked / path)
            except Conflict as conflict:
                raise Refusal(f"{conflict}; move that away, and run this again") from None
            files = f"{len(wanted)} files" if len(wanted) > 1 else "1 file"
            done = f"Restored {files} from {name}; what was there before is in {before}."
            change.make(done)
    print(done)


def _choose(word: str) -> Path:
    """The archive that *word* names; for an empty one, the last that was made by hand."""
    folder = ROOT / FOLDER
    there = sorted(file.name for file in folder.glob("*.tar.gz")) if folder.is_dir() else []
    made = [name for name in there if BEFORE not in name]
    name = word.removeprefix(f"{FOLDER}/") if word else (made or [""])[-1]
    if not name:
        raise Refusal(f"there is no backup; `{USE}` makes one")
    if name not in there:
        last = f"the last one is {there[-1]}" if there else f"there is none; `{USE}` makes one"
        raise Refusal(f"there is no backup {show(word)} in {FOLDER}; {last}")
    return folder / name


def _unpack(archive: Path, folder: Path) -> Iterator[str]:
    """Writes the files of *archive* into *folder*, and gives their paths; none where it is damaged."""
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive.read_bytes())), mode="r:") as opened:
            members = opened.getmembers()
            for member in members:
                if not _is_plain(member):
                    raise Refusal(f"{archive.name} holds {show(member.name)}, which no backup does; take another one")
            members = [member for member in members if not NEVER.intersection(member.name.split("/"))]
            for member in members:
                opened.extract(member, folder, filter="tar")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refusal(f"{archive.name} is damaged ({error}); take another one") from None
    for member in members:
        if member.isfile():
            (folder / member.name).chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
        yield member.name


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Whether it is a file or a link, at a path within the project."""
    path = PurePosixPath(member.name)
    return (member.isfile() or member.issym()) and not path.is_absolute() and ".." not in path.parts


def _ignored(paths: list[str]) -> set[str]:
    """Those that git ignores by now."""
    return _split(git("check-ignore", "-z", "--stdin", stdin="\0".join(paths), accept=(0, 1))) if paths else set()


def _split(text: str) -> set[str]:
    return {path for path in text.split("\0") if path}


def _ask(name: str, there: Mapping[str, bool]) -> None:
    """Shows what is to be done, and goes on for a yes.

    Args:
        name: The backup.
        there: Whether there is a file, which would be replaced, by path.

    Raises:
        Refusal: The answer is no, or there is nobody to answer.

    """
    for path, is_there in sorted(there.items(), key=lambda item: item[1]):
        print(f"{'replaced' if is_there else 'brought back':12}  {path if path.isprintable() else show(path)}")
    replaced = sum(there.values())
    print(f"Restore {name}: bring back {len(there) - replaced}, replace {replaced}? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print()
    if answer.strip().lower() not in {"y", "yes"}:
        raise Refusal("nothing was changed, since the answer was not y")


def clear(_: Mapping[str, str]) -> None:
    """Deletes all backups."""
    folder = ROOT / FOLDER
    files = list(folder.glob("*.tar.gz")) if folder.is_dir() else []
    for file in files:
        file.unlink()
    print(f"{len(files)} {'backup' if len(files) == 1 else 'backups'} deleted.")


if __name__ == "__main__":
    match sys.argv.pop(1):
        case "make":
            run("backup", USE, backup)
        case "restore":
            run("backup-restore", USE_RESTORE, restore, "BACKUP")
        case _:
            run("backup-clear", USE_CLEAR, clear)
