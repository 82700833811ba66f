"""A file system that is read-only, as with readOnlyRootFilesystem, for a user without a home and without a name."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.projects import Project

TMP = "/tmp"  # noqa: S108
PYTHON = "/usr/bin/python3"  # one that every user can reach
NOBODY = 54321  # no such user
SHUT = f"""\
set -e
root=$1 place=$2 options=$3
shift 3
mount --make-rprivate /
mount --bind / "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
[ -z "$place" ] || mount -t tmpfs -o "$options" tmpfs "$root$place"
exec chroot --userspec={NOBODY}:{NOBODY} "$root" "$@"
"""


@pytest.fixture(scope="module")
def shelf(built: Project, binary: Path) -> Iterator[Path]:
    """A folder that everybody can read, with both files in it, and a place to mount at."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this needs root, and mount namespaces")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "root").mkdir()
    (folder / "place").mkdir(mode=0o755)
    shutil.copy2(built.root / "build" / "app.pyz", folder)
    shutil.copy2(binary, folder)
    yield folder
    shutil.rmtree(folder)


def call(
    shelf: Path, kind: str, *words: str, mounted: str = "", options: str = "mode=1777", **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs the file of this *kind* where nothing can be written, but below *mounted*."""
    program = [PYTHON, str(shelf / "app.pyz")] if kind == "pyz" else [str(shelf / "app")]
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", SHUT, "sh", str(shelf / "root"), mounted, options, *program, *words],
        env={"PATH": f"{os.defpath}:/usr/sbin:/sbin", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_a_place_one_error_says_what_to_do(shelf: Path) -> None:
    """What to set, or what to mount; no traceback."""
    done = call(shelf, "pyz", "version")
    assert (done.returncode, done.stdout) == (2, "")
    error, last = done.stderr.splitlines()
    assert error.startswith(f"error: {shelf}/app.pyz has to unpack itself, and finds no place that is yours alone (")
    assert error.endswith("; let XDG_CACHE_HOME name a folder that you can write to, or mount one at /tmp")
    assert last == "nothing was started"
    done = call(shelf, "binary", "version")
    assert done.returncode
    (error,) = done.stderr.splitlines()
    assert error.endswith("needs a writable /tmp, or set TMPDIR.")


@pytest.mark.parametrize(
    ("kind", "place", "variable"),
    [
        ("pyz", TMP, ""),
        ("pyz", "{}/place", "XDG_CACHE_HOME"),
        ("binary", TMP, ""),
        ("binary", "{}/place", "TMPDIR"),
    ],
)
def test_with_a_place_it_runs(shelf: Path, kind: str, place: str, variable: str) -> None:
    """What is told to do helps: a mount at /tmp, or one anywhere else that the variable names."""
    place = place.format(shelf)
    env = {variable: place} if variable else {}
    done = call(shelf, kind, "list", mounted=place, **env)
    assert done.returncode == 0, done.stderr
    assert "hello-world" in done.stdout


@pytest.mark.parametrize("kind", ["pyz", "binary"])
def test_as_kubernetes_mounts_it(shelf: Path, kind: str) -> None:
    """An emptyDir is open to all, without the bit that keeps others from what is in it: who names it vouches for it."""
    open_to_all = "mode=0777"
    done = call(shelf, kind, "list", mounted=TMP, options=open_to_all)
    assert done.returncode == 2
    assert "let XDG_CACHE_HOME name a folder" in done.stderr
    done = call(shelf, kind, "list", mounted=TMP, options=open_to_all, XDG_CACHE_HOME=TMP)
    assert done.returncode == 0, done.stderr


def test_a_place_that_allows_no_programs_is_told(shelf: Path) -> None:
    """Compiled packages cannot be loaded from it."""
    done = call(shelf, "pyz", "version", mounted=TMP, options="mode=1777,noexec")
    assert done.returncode == 2
    assert "is mounted noexec, and compiled packages cannot be loaded from there" in done.stderr
