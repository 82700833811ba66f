"""`just backup`, `just backup-restore` and `just backup-clear`: back up what git cannot restore.

A backup is an archive in `.kernel/backups` with the files that git tracks, in their current state, and untracked files
that are not ignored. A restore writes all files of an archive or none, and touches no other file: not `.git`, `.env`,
`.venv`, ignored files, or files created since.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from change import Conflict, fingerprint, home
from recipe import ROOT, Refusal, git, project_files, run, show
from staging import Change

FOLDER = ".kernel/backups"
BEFORE = "before-"  # marks an automatic backup, made before a restore or an update
NEVER = frozenset({".git", ".env", ".venv", ".kernel"})  # a restore touches nothing in these, wherever they are
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
USE = "just backup"
USE_RESTORE = "just backup-restore BACKUP=2026-01-31T08-15-00.tar.gz"
USE_CLEAR = "just backup-clear"


def make_backup(mark: str = "") -> str:
    """Write an archive of all files that git tracks or would track, and return its path.

    Args:
        mark: A prefix for its name.

    """
    paths = project_files()
    folder = home(ROOT) / "backups"
    folder.mkdir(0o700, exist_ok=True)
    folder.chmod(0o700)
    for left in folder.glob(".*.new"):
        left.unlink()
    now = datetime.now(UTC)
    stamp = f"{now:%Y-%m-%dT%H-%M-%S}"
    name = "-".join(filter(None, [stamp, mark]))
    if (folder / f"{name}.tar.gz").exists():  # another one in the same second
        name = "-".join(filter(None, [stamp, f"{now:%f}", mark]))
    written = folder / f".{name}.new"
    with _create(written) as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
        for path in paths:
            _add(archive, path)
    written.replace(folder / f"{name}.tar.gz")
    return f"{FOLDER}/{name}.tar.gz"


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def _add(archive: tarfile.TarFile, path: str) -> None:
    """Add a file or a link. Skip files that no longer exist, and nested repositories.

    Hard links are stored as separate files, since a restore may bring back only one of them.
    """
    info = tarfile.TarInfo(path)
    if (ROOT / path).is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(ROOT / path)  # noqa: PTH115  (the exact target)
        archive.addfile(info)
    elif (ROOT / path).is_file():
        with (ROOT / path).open("rb") as file:
            found = os.fstat(file.fileno())
            info.mode, info.mtime, info.size = stat.S_IMODE(found.st_mode), int(found.st_mtime), found.st_size
            archive.addfile(info, file)


def backup(_: Mapping[str, str]) -> None:
    """Make a backup, and say how to restore it."""
    path = make_backup()
    size = (ROOT / path).stat().st_size
    print(f"{path} ({size / 1000:.0f} kB)\nTo get it back: just backup-restore BACKUP={Path(path).name}")


def restore(words: Mapping[str, str]) -> None:
    """Restore the files that differ from a backup, after asking the user."""
    archive = _choose(words["BACKUP"])
    name = f"{FOLDER}/{archive.name}"
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder)
        different = [path for path in _unpack(archive, unpacked) if not _as_it_was(path, unpacked)]
        ignored = _ignored(different)
        wanted = {path: fingerprint(ROOT / path) for path in different if path not in ignored}
        if not wanted:
            print(f"Nothing to do: every file of {name} is unchanged.")
            return
        _ask(name, {path: os.path.lexists(ROOT / path) for path in wanted})
        before = make_backup(f"{BEFORE}restore")
        with Change(f"just backup-restore BACKUP={archive.name}") as change:
            change.expected = wanted
            try:
                for path in wanted:
                    change.put(path, unpacked / path)
            except Conflict as conflict:
                raise Refusal(f"{conflict}; move it away, and run this again") from None
            files = f"{len(wanted)} files" if len(wanted) > 1 else "1 file"
            done = f"Restored {files} from {name}; what was there before is in {before}."
            change.make(done)
    print(done)


def _choose(word: str) -> Path:
    """Return the archive named *word*; if it is empty, the last one made by hand."""
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
    """Write the files of *archive* into *folder*, and yield their paths; write none if the archive is damaged."""
    top = os.open(folder, FOLDER_FLAGS)
    paths: dict[str, tarfile.TarInfo] = {}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as opened:
            for member in opened:
                _refuse_strange(archive.name, member, paths)
                if not NEVER.intersection(member.name.lower().split("/")):
                    first = paths[member.linkname] if member.islnk() else member
                    _write(opened, member, first, top)
                    paths[member.name] = first
            while stream.read(1 << 20):  # to the end, to verify the checksum
                pass
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refusal(f"{archive.name} is damaged ({error}); use another one") from None
    except (FileExistsError, NotADirectoryError):
        raise Refusal(f"{archive.name} contains two files with one path; use another one") from None
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT}:
            raise
        raise Refusal(f"{archive.name} contains an invalid path ({error.strerror}); use another one") from None
    finally:
        os.close(top)
    yield from paths


def _refuse_strange(archive: str, member: tarfile.TarInfo, before: Mapping[str, tarfile.TarInfo]) -> None:
    """Raise `Refusal` for a member that is neither a file nor a link, or lies outside the project.

    Older versions stored hard links. Such a member has the content of a file *before* it.
    """
    parts = member.name.split("/")
    plain = all(parts) and not {".", ".."}.intersection(parts) and "\0" not in member.name + member.linkname
    second = member.islnk() and member.linkname in before and before[member.linkname].isfile()
    if not plain or not (member.isfile() or member.issym() or second):
        raise Refusal(f"{archive} contains {show(member.name)}, which no backup does; use another one")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, first: tarfile.TarInfo, top: int) -> None:
    """Write a member below the open folder *top*. Follow no link, and never overwrite another member.

    Args:
        archive: The archive.
        member: The member, which has the path.
        first: The member that has its content and mode.
        top: The descriptor of the folder.

    """
    *folders, name = member.name.split("/")
    here = os.dup(top)
    try:
        for folder in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700, dir_fd=here)
            inner = os.open(folder, FOLDER_FLAGS, dir_fd=here)
            os.close(here)
            here = inner
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=here)
            return
        content = archive.extractfile(first)
        assert content is not None, "it is a file"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=here)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), first.mode & 0o777)
    finally:
        os.close(here)


def _as_it_was(path: str, unpacked: Path) -> bool:
    """Return whether the project's file equals the one in the backup in content, kind and mode."""
    now, then = ROOT / path, unpacked / path
    if fingerprint(now) != fingerprint(then):
        return False
    return now.is_symlink() or stat.S_IMODE(now.stat().st_mode) == stat.S_IMODE(then.stat().st_mode)


def _ignored(paths: list[str]) -> set[str]:
    """Return the *paths* that git ignores now."""
    if not paths:
        return set()
    told = git("check-ignore", "-z", "--stdin", stdin="\0".join(paths), accept=(0, 1, 128))  # 128: not in a repository
    return {path for path in told.split("\0") if path}


def _ask(name: str, there: Mapping[str, bool]) -> None:
    """Show what would be restored, and ask whether to continue.

    Args:
        name: The name of the backup.
        there: For each path, whether there is a file that would be replaced.

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
    """Delete all backups."""
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
