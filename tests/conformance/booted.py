"""systemd as the first process of a throw-away copy of this machine: real units, sockets, sandboxes and a journal.

Everything is in namespaces of its own. Files are an overlay over this machine's, the network is a loopback interface
alone, and the kernel's settings are read-only, so nothing that happens there is left when it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conformance.program import PATIENCE, PREAMBLE

REPO = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = ("--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net", "--kill-child=SIGKILL")
HOME = "/opt/shop"
CODE = ("app", "kernel", "services", "pyproject.toml")
PYTHON = "/opt/python"  # not where it really is: that may be in a home, which the unit does not see
PACKAGES = "/opt/packages"

ENTER = r"""
while [ "$1" != -- ]; do
    mkdir "$1" && echo $$ > "$1/cgroup.procs"
    shift
done
shift
exec "$@"
"""
BOOT = r"""
set -e
folder=$1 prefix=$2 packages=$3
mount -t tmpfs -o mode=755 tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"
mkdir -p opt/python opt/packages
mount --bind -o ro "$prefix" opt/python
mount --bind -o ro "$packages" opt/packages
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
    set -- $node
    mknod -m 666 dev/$1 c 1 $2
done
mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# Of the units that this machine has, none is started but what the target below names.
: > etc/fstab
rm -rf etc/systemd/system var/log/journal
echo 0123456789abcdef0123456789abcdef > etc/machine-id  # without one, systemd enables what the system presets
rm -rf lib/systemd/system/*.wants usr/lib/systemd/system/*.wants
mkdir -p etc/systemd/system
cat > etc/systemd/system/booted.target <<'UNIT'
[Unit]
Requires=systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
UNIT
echo /opt/python/lib > etc/ld.so.conf.d/00-python.conf  # for one with a shared library
ip link set lo up
pivot_root . mnt
cd /
umount -l mnt
ldconfig
exec env -i container=booted PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=booted.target
"""


class Booted:
    """A booted copy of this machine, with the app in /opt/shop, installed as the pages say.

    Args:
        folder: An empty folder of this machine's.

    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._groups = [group / f"booted-{os.getpid()}" for group in _hierarchies()]
        boot = ["unshare", *NAMESPACES, "sh", "-c", BOOT, "sh", str(folder), sys.base_prefix, _packages()]
        words = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", ENTER, "sh", *map(str, self._groups), "--", *boot]
        self._log = folder.with_suffix(".log")
        with self._log.open("wb") as log:
            self._outer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def _inner(self) -> str:
        """The process that is the first one there."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return children[0] if children else ""

    def words(self, *words: str) -> list[str]:
        """Return the words that run a program there."""
        return ["nsenter", "--target", self._inner, "--all", "--root", "--wd", *words]

    def call(self, *words: str, check: bool = True, stdin: str = "", patience: float = PATIENCE * 2) -> str:
        """Run a program there, and return what it says."""
        done = subprocess.run(
            self.words(*words), input=stdin, capture_output=True, text=True, check=False, timeout=patience
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self._log.read_text()}"
        return done.stdout

    def boot(self) -> None:
        """Wait until it is booted."""
        end = time.monotonic() + PATIENCE
        while not (
            self._inner and self.call("systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}
        ):
            told = self._log.read_text()
            assert self._outer.poll() is None, f"it did not boot: {told}"
            assert time.monotonic() < end, f"it does not boot: {told}"
            time.sleep(0.05)

    def install(self) -> None:
        """Put the app where the unit of the pages looks for it, with a `.venv`."""
        self.call("mkdir", "-p", f"{HOME}/.venv/bin")
        with subprocess.Popen(
            ["tar", "-c", "-C", REPO, "--exclude=__pycache__", *CODE], stdout=subprocess.PIPE
        ) as packed:
            subprocess.run(self.words("tar", "-x", "-C", HOME), stdin=packed.stdout, check=True)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.call(f"{PYTHON}/bin/{version}", "-m", "venv", "--without-pip", f"{HOME}/.venv")
        self.write(f"{HOME}/.venv/lib/{version}/site-packages/app.pth", f"{HOME}\n{PACKAGES}\n")
        script = (Path(sys.prefix) / "bin" / "app").read_text().partition("\n")[2]
        self.write(f"{HOME}/.venv/bin/app", f"#!{HOME}/.venv/bin/python\n{script}", mode="755")

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file there."""
        self.call("sh", "-c", 'cat > "$1" && chmod "$2" "$1"', "sh", path, mode, stdin=text)

    def service(self, name: str, source: str) -> None:
        """Add a service to the app."""
        self.write(f"{HOME}/services/{name}.py", f'"""A service of a test."""\n\n{PREAMBLE}\n{source}')

    def unit(self, name: str, text: str) -> None:
        """Add a unit, as the pages show it."""
        self.write(f"/etc/systemd/system/{name}", text)
        self.call("systemctl", "daemon-reload")

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Call systemctl."""
        try:
            return self.call("systemctl", *words, check=check)
        except AssertionError as error:
            error.add_note(self.call("journalctl", "--no-pager", "--lines=100", check=False))
            raise

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        told = self.call("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in told.splitlines())

    def journal(self, *words: str) -> str:
        """Return what the journal has, without the names of the host and of the process."""
        self.call("journalctl", "--sync")
        return self.call("journalctl", "--no-pager", "--quiet", "--output=cat", *words, check=False)  # 1: nothing

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.journal("--lines=100")
            time.sleep(0.1)

    def end(self) -> None:
        """End everything there."""
        self._outer.kill()
        self._outer.wait()
        end = time.monotonic() + PATIENCE
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                while time.monotonic() < end:
                    with contextlib.suppress(OSError):  # its last processes are still ending
                        Path(folder).rmdir()
                        break
                    time.sleep(0.05)


def _hierarchies() -> list[Path]:
    """Return the hierarchies of control groups that a process can be a member of as it is."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    found = [path for path in sorted(CGROUPS.iterdir()) if (path / "cgroup.procs").exists()]
    return [path for path in found if not path.is_symlink() and not (path / "cpuset.cpus").exists()]


def _packages() -> str:
    return next(path for path in sys.path if path.endswith("site-packages"))


def cannot() -> str:
    """Return why there can be no such copy here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux makes the namespaces"
    programs = [
        name for name in ("unshare", "nsenter", "setpriv", "ip", "pivot_root", "systemctl") if not shutil.which(name)
    ]
    if programs or not SYSTEMD.exists():
        return f"there is no {(programs or ['systemd'])[0]}"
    lower = "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work"
    probe = f"mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work && mount -t overlay -o {lower} none /mnt"
    done = subprocess.run(["unshare", *NAMESPACES, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no namespaces can be made here: {done.stderr.strip()}"
