"""`just build` and `just build-binary`: the app as one file, with its packages, or with Python as well.

The binary is a Python with its standard library, frozen once by PyInstaller and kept in .kernel, behind which the file
hangs that `just build` makes. So both hold the same, and find their services in the same way.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from artifact import Contents, as_zip, collect
from bootstrap import VENV_UV, reason, settings_of_pip
from change import home
from recipe import ROOT, Refusal, run

PYINSTALLER = "pyinstaller>=6.16,<7"  # in an environment of its own: neither the app nor its developers need it
LAUNCHER = Path(__file__).with_name("frozen_main.py")
NOT_FROZEN = frozenset(
    {"antigravity", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}
)
SHEBANG = b"#!/usr/bin/env python3\n"


def build(kind: str, words: Mapping[str, str]) -> None:
    """Makes the file, and tells what is in it."""
    contents = collect(ROOT, words["SERVICES"])
    name = str(contents.stamp["name"])
    if kind == "binary":
        path, data = ROOT / "build" / name, as_zip(contents, "binary", runtime().read_bytes())
    else:
        path, data = ROOT / "build" / f"{name}.pyz", as_zip(contents, "pyz", SHEBANG)
    write(path, data)
    print(f"{path.relative_to(ROOT)}: {tell(contents)}, {len(data) / 1e6:.1f} MB")


def tell(contents: Contents) -> str:
    """What an artifact is, for people; and a warning on stderr where the tree is no commit's."""
    stamp = contents.stamp
    if stamp["dirty"]:
        print(
            "warning: there are changes that are not committed; what is built says so, and nobody can build it again",
            file=sys.stderr,
        )
    services = stamp["services"]
    assert isinstance(services, list)
    mark = ", changed" if stamp["dirty"] else ""
    count = f"{len(services)} service{'s' * (len(services) != 1)}, {len(contents.packages)} packages"
    commit = str(stamp["commit"])[:12] or "unknown"
    return f"{stamp['name']} {stamp['version']} (commit {commit}{mark}), {count}"


def write(path: Path, data: bytes) -> None:
    """Puts a program in its place, as a whole: who runs the one before goes on with it."""
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
    """The frozen Python, which is made where there is none; that takes half a minute.

    Args:
        folder: Where it is kept; None: in .kernel.

    Raises:
        Refusal: PyInstaller cannot be had, or fails.

    """
    folder = folder or home(ROOT)
    inputs = (
        f"{PYINSTALLER} {sys.version} {sys.base_prefix}".encode() + LAUNCHER.read_bytes() + Path(__file__).read_bytes()
    )
    made = folder / f"runtime-{hashlib.sha256(inputs).hexdigest()[:16]}"
    if made.is_file():
        return made
    print("freezing Python by PyInstaller, once; this takes half a minute", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as work:
        python = Path(work, "env", "bin", "python")
        _step("the environment of PyInstaller", [str(VENV_UV), "venv", "-q", "--python", sys.executable, f"{work}/env"])
        _step("PyInstaller", [str(VENV_UV), "pip", "install", "-q", "--python", str(python), PYINSTALLER])
        options = ["--onefile", "--noupx", "--name=runtime", f"--distpath={work}", f"--workpath={work}/work"]
        options += [f"--specpath={work}", *(f"--hidden-import={name}" for name in standard_modules())]
        _step("Python", [str(python), "-m", "PyInstaller", "--log-level=ERROR", *options, str(LAUNCHER)])
        shutil.move(f"{work}/runtime", made)
    return made


def standard_modules() -> list[str]:
    """The modules of the standard library, those in its packages too; without its tests, and what has windows."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    for top in [folder / name for name in found if (folder / name).is_dir()]:
        for path in top.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    unwanted = NOT_FROZEN | {"tests", "__main__"}
    return sorted(name for name in found if not unwanted.intersection(name.split(".")))


def _step(what: str, command: list[str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, **settings_of_pip()}, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = reason((done.stderr or done.stdout).strip() or f"exit code {done.returncode}")
        raise Refusal(f"{what} could not be made ready ({said}); check the network and the index, and try again")


if __name__ == "__main__":
    chosen = sys.argv.pop(1) if sys.argv[1:] else "pyz"
    recipe = "build-binary" if chosen == "binary" else "build"
    run(recipe, f"just {recipe} SERVICES=a,b", functools.partial(build, chosen), "SERVICES")
