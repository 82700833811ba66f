"""Clones of this template, as a user has them: real git, real just, in a folder with an awkward name.

Making a `.venv` is the one thing that is cut short: instead of installing, it is linked to the programs and packages of
this one. So a clone runs its own scripts and its own kernel, and is made in a moment, without network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.ports import ANY_PORT

REPO = Path(__file__).parents[2]
PYTHON = Path(sys.executable).resolve()  # the one behind .venv
PROGRAMS = Path(sys.executable).parent
OTHERS = ("scripts", "services")  # folders of tests that are no room's
# The tests of the kernel: a clone can do without them.
KERNEL_TESTS = (
    "tests/test_",
    *(f"tests/{path.name}/" for path in (REPO / "tests").glob("[a-z]*/") if path.name not in OTHERS),
)
SKIPPED = {".venv", ".kernel", ".git", "__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache"}

FAKE_UV = rf"""#!/bin/sh
case "$1 $2" in
"pip install") case "$*" in *pyinstaller*) exec "{PROGRAMS}/uv" "$@" ;; esac ;;
"pip sync")
    for name in just ruff flake8-async; do ln -sf "{PROGRAMS}/$name" .venv/bin/$name; done
    cp "$0" .venv/bin/uv
    for folder in .venv/lib/python*/site-packages; do
        echo "{site.getsitepackages()[0]}" > "$folder/linked.pth"
        cp "{site.getsitepackages()[0]}"/a1_coverage.pth "$folder" 2>/dev/null || true
    done
    ;;
*) exec "{PROGRAMS}/uv" "$@" ;;
esac
"""

MEASURED = ("COVERAGE_PROCESS_START", "PYTEST_CURRENT_TEST")
"""With both, coverage knows which test ran a program's lines."""

USERS_RECIPE = """
# A recipe of the user's own, which depends on nothing
hello:
    @echo hello
"""


@attrs.frozen
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Machine:
    """A home with a git identity, a PATH, and this template in a repository to clone.

    Args:
        folder: Where all of it is made, unless it is there already.
        without: How the paths begin that the template is to lack.

    """

    def __init__(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        ours = {name: value for name, value in os.environ.items() if re.match("(PIP|UV|SSL)_", name)}
        cache = subprocess.run([PROGRAMS / "uv", "cache", "dir"], capture_output=True, text=True, check=True)
        self.env = {
            **ours,
            **ANY_PORT,
            "UV_CACHE_DIR": cache.stdout.strip(),
            "KF_RULE_CACHE_DIR": str(Path.home() / ".cache" / "kingfisher"),  # it takes 8 s to make
            "HOME": str(folder),
            "PATH": f"{self.bin}:{os.defpath}:/usr/bin:/bin",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.upstream = folder / "upstream"
        if not self.bin.exists():
            self._make(without)

    def _make(self, without: tuple[str, ...]) -> None:
        self.bin.mkdir()
        (self.bin / "python3").symlink_to(PYTHON)
        (self.bin / "just").symlink_to(PROGRAMS / "just")
        (self.bin / "uv").write_text(FAKE_UV)
        (self.bin / "uv").chmod(0o755)
        (self.folder / ".gitconfig").write_text("[user]\nname = Ann Other\nemail = ann@example.com\n")
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=True,
        )
        for path in filter(None, listed.stdout.split("\0")):
            if (REPO / path).exists() and not (without and path.startswith(without)):
                (self.upstream / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPO / path, self.upstream / path, follow_symlinks=False)
        with (self.upstream / "Justfile").open("a") as file:
            file.write(USERS_RECIPE)
        for words in ["init", "-qb", "main"], ["add", "-A"], ["commit", "-qm", "The template"], ["tag", "v0.1.0"]:
            self.call("git", *words, cwd=self.upstream)

    def call(self, *words: str, cwd: Path, stdin: str = "", **env: str) -> Done:
        """Runs a program."""
        measured = {name: os.environ[name] for name in MEASURED if name in os.environ}
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**self.env, **measured, **env},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def clone(self, folder: Path) -> Project:
        """A fresh clone whose .venv is made."""
        done = self.call("git", "clone", "-q", str(self.upstream), str(folder), cwd=self.folder)
        assert done.code == 0, done.err
        project = Project(self, folder)
        assert project.just("--version").code == 0
        return project


class Project:
    """One clone."""

    def __init__(self, machine: Machine, root: Path) -> None:
        self.machine = machine
        self.root = root

    def just(self, *words: str, stdin: str = "", program: str = "./scripts/just", **env: str) -> Done:
        """Runs a recipe in it."""
        return self.machine.call(program, *words, cwd=self.root, stdin=stdin, **env)

    def git(self, *words: str) -> str:
        """What git says in it."""
        done = self.machine.call("git", *words, cwd=self.root)
        assert done.code == 0, done.err
        return done.out

    def write(self, path: str, text: str) -> None:
        """Writes a file in it."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def commit(self) -> None:
        """Commits all that there is."""
        self.git("add", "-A")
        self.git("commit", "-qm", "Work")

    def files(self) -> dict[str, str]:
        """What each file is, apart from .git, .venv, caches, and what the framework keeps for itself."""
        return dict(_files(self.root, SKIPPED))

    def repository(self) -> dict[str, str]:
        """What each file within .git is."""
        return dict(_files(self.root / ".git", set()))

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Asserts that the block changes no file, also within .git."""
        before = self.files(), self.repository()
        yield
        assert (self.files(), self.repository()) == before

    @contextlib.contextmanager
    def unchanged_files(self) -> Iterator[None]:
        """Asserts that the block changes no file outside of .git."""
        before = self.files()
        yield
        assert self.files() == before


def _files(root: Path, skipped: set[str]) -> Iterator[tuple[str, str]]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in skipped]
        for name in files:
            path = Path(folder, name)
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            mode = path.lstat().st_mode
            yield path.relative_to(root).as_posix(), f"{mode:o} {hashlib.sha256(content).hexdigest()}"


def run_and_kill(project: Project, *recipe: str, after: float) -> None:
    """Runs a recipe, and after so many seconds kills it with all that it has started, unless it has ended before."""
    with subprocess.Popen(
        ["./scripts/just", *recipe],
        cwd=project.root,
        env=project.machine.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
