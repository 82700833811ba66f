"""`just build` and `just build-binary`: build a single file of the app with its packages, optionally with Python.

The binary is a Python interpreter with the standard library, frozen once by PyInstaller and kept in .kernel, with the
output of `just build` appended. So both have the same contents, and find their services in the same way.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from artifact import Contents, collect, files_of
from bootstrap import VENV_UV, reason, settings_of_pip
from change import home
from one_file import as_zip
from recipe import ROOT, Refusal, run

PYINSTALLER = Path(__file__).with_name("pyinstaller.lock")  # installed separately: only this script needs it
LAUNCHER = Path(__file__).with_name("frozen_main.py")
SAID = b"Could not create temporary directory!"  # printed by PyInstaller's loader if it cannot write its files
SAYS = b"needs a writable /tmp, or set TMPDIR."  # the same length, since it replaces that text in place
GLIBC = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?=\0)")
NEEDS = """
import sys
from PyInstaller.archive.readers import CArchiveReader

archive = CArchiveReader(sys.argv[1])
for name, (*_, kind) in archive.toc.items():
    if kind == "b":
        sys.stdout.buffer.write(archive.extract(name))
"""  # the compiled files in the frozen interpreter
NOT_FROZEN = frozenset(
    {"antigravity", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}
)
SHEBANG = b"#!/usr/bin/env python3\n"


def build(kind: str, words: Mapping[str, str]) -> None:
    """Build the file, and describe it."""
    contents = collect(ROOT, words["SERVICES"])
    name = str(contents.stamp["name"])
    needs = ""
    if kind == "binary":
        frozen = runtime()
        path, data = ROOT / "build" / name, as_zip(contents, "binary", frozen.read_bytes())
        needs = _tell_needs(contents, frozen)
    else:
        path, data = ROOT / "build" / f"{name}.pyz", as_zip(contents, "pyz", SHEBANG)
    write(path, data)
    print(f"{path.relative_to(ROOT)}: {tell(contents)}, {len(data) / 1e6:.1f} MB{needs}")


def _tell_needs(contents: Contents, frozen: Path) -> str:
    """Say which version of glibc the binary needs, judging by its compiled parts; older systems cannot load it."""
    asked = [glibc(content) for package in contents.packages for content in files_of(package).values()]
    least = max([*asked, tuple(json.loads(_beside(frozen).read_text()))])
    system = contents.stamp["platform"]
    return f"; it needs {system} with glibc {'.'.join(map(str, least))} or newer" if any(least) else ""


def glibc(content: bytes) -> tuple[int, int]:
    """Return the newest version of glibc that a compiled file needs; (0, 0) for any other file."""
    return max(((int(major), int(minor)) for major, minor in GLIBC.findall(content)), default=(0, 0))


def _beside(frozen: Path) -> Path:
    """Return the file that records what the frozen interpreter needs of the system."""
    return frozen.with_name(f"{frozen.name}.needs")


def tell(contents: Contents) -> str:
    """Describe an artifact, and warn on stderr if it contains uncommitted changes."""
    stamp = contents.stamp
    if stamp["dirty"]:
        print(
            "warning: there are uncommitted changes; the artifact is marked as such, and cannot be reproduced",
            file=sys.stderr,
        )
    services = stamp["services"]
    assert isinstance(services, list)
    mark = ", changed" if stamp["dirty"] else ""
    count = f"{len(services)} service{'s' * (len(services) != 1)}, {len(contents.packages)} packages"
    commit = str(stamp["commit"])[:12] or "unknown"
    return f"{stamp['name']} {stamp['version']} (commit {commit}{mark}), {count}"


def write(path: Path, data: bytes) -> None:
    """Replace a program atomically. Processes that run the old one are not affected."""
    path.parent.mkdir(exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(aside).chmod(0o755)
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)


def runtime(folder: Path | None = None) -> Path:
    """Return the frozen interpreter. Freeze it first if needed, which takes half a minute.

    Args:
        folder: Where it is kept; None for .kernel.

    Raises:
        Refusal: PyInstaller is not available, or fails.

    """
    folder = folder or home(ROOT)
    inputs = f"{sys.version} {sys.base_prefix}".encode() + b"".join(
        path.read_bytes() for path in (PYINSTALLER, LAUNCHER, Path(__file__))
    )
    made = folder / f"runtime-{hashlib.sha256(inputs).hexdigest()[:16]}"
    if made.is_file() and _beside(made).is_file():
        return made
    print("freezing Python by PyInstaller, once; this takes half a minute", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as work:
        python = Path(work, "env", "bin", "python")
        _step("the environment of PyInstaller", [str(VENV_UV), "venv", "-q", "--python", sys.executable, f"{work}/env"])
        install = [str(VENV_UV), "pip", "install", "-q", "--python", str(python), "--require-hashes", "--no-deps"]
        _step("PyInstaller", [*install, "-r", str(PYINSTALLER)])
        options = ["--onefile", "--noupx", "--name=runtime", f"--distpath={work}", f"--workpath={work}/work"]
        options += [f"--specpath={work}", *(f"--hidden-import={name}" for name in standard_modules())]
        _step("Python", [str(python), "-m", "PyInstaller", "--log-level=ERROR", *options, str(LAUNCHER)])
        frozen = Path(work, "runtime")
        compiled = _step("the list of frozen modules", [str(python), "-c", NEEDS, str(frozen)])
        whole = frozen.read_bytes()
        _beside(made).write_text(json.dumps(max(glibc(compiled), glibc(whole))))
        frozen.write_bytes(whole.replace(SAID, SAYS))
        shutil.move(frozen, made)
    return made


def standard_modules() -> list[str]:
    """Return the modules and packages of the standard library, without its tests and GUI modules."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    for top in [*found]:
        for path in (folder / top).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    unwanted = NOT_FROZEN | {"tests", "__main__"}
    return sorted(name for name in found if not unwanted.intersection(name.split(".")))


def _step(what: str, command: list[str]) -> bytes:
    done = subprocess.run(command, env={**os.environ, **settings_of_pip()}, capture_output=True, check=False)
    if done.returncode:
        text = (done.stderr or done.stdout).decode(errors="replace")
        said = reason(text.strip() or f"exit code {done.returncode}")
        raise Refusal(f"{what} could not be prepared ({said}); check the network and the index, and try again")
    return done.stdout


if __name__ == "__main__":
    chosen = sys.argv.pop(1) if sys.argv[1:] else "pyz"
    recipe = "build-binary" if chosen == "binary" else "build"
    run(recipe, f"just {recipe} SERVICES=a,b", functools.partial(build, chosen), "SERVICES")
