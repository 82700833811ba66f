"""Whose each file is, and what the framework's files are compared with."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import kernel_files
import recipe
from kernel_files import MANIFEST, SHIPPED, cloned_commit, digest, owners_by, shipped_text, show_files
from recipe import Refusal

RULES = """
framework = ["kernel/", "scripts/kernel/", "docs/*.md", "app/__main__.py"]
template = ["kernel/logo.*", "docs/f.md"]
user = ["kernel/mine.py"]
"""


def test_the_first_match_wins() -> None:
    """The user's lines, then the template's; a star is no slash, a dot is a dot, and all else is the user's."""
    owners = {
        "kernel/x.py": "framework",
        "kernel/deep/x.py": "framework",
        "kernel/mine.py": "user",
        "kernel/mine.pyx": "framework",
        "kernel/minexpy": "framework",
        "kernel/logo.svg": "template",
        "kernel/logo.d/x": "framework",
        "docs/a.md": "framework",
        "docs/a.md.orig": "user",
        "docs/deep/a.md": "user",
        "docs/f.md": "template",
        "app/__main__.py": "framework",
        "app/__main__.py/x": "user",
        "my/kernel/x.py": "user",
    }
    assert owners_by(RULES, owners) == owners


class Bench:
    """A project of a few files, in a repository or not."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.top.mkdir()
        self._patch = monkeypatch
        self.env = {f"GIT_{role}_{what}": "Ann" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.at(top)
        monkeypatch.setattr(kernel_files, "changed_files", lambda _: {"kernel/b.py"})

    def at(self, root: Path) -> None:
        """Say where the project is."""
        self.root = root
        self._patch.setattr(kernel_files, "ROOT", root)
        for name in ("git", "project_files"):
            self._patch.setattr(kernel_files, name, functools.partial(getattr(recipe, name), root=root))

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def git(self, *words: str) -> str:
        """Run git."""
        env = {**os.environ, **self.env}
        return subprocess.run(
            ["git", *words], cwd=self.top, env=env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def begin(self) -> None:
        """Make it a repository."""
        self.git("init", "-q", "--template=", "-b", "main")

    def commit(self) -> str:
        """Commit all of it."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "Work")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Files of the framework's, and of the user's."""
    bench = Bench(tmp_path / "top", monkeypatch)
    for path in ("kernel/a.py", "kernel/b.py", "kernel/mine.py", "services/x.py"):
        bench.write(path, f"{path}\r\n")
    bench.write(MANIFEST, RULES)
    return bench


def test_what_is_shipped(bench: Bench) -> None:
    """The framework's files, without the list itself; the digests are of lines as Unix ends them."""

    def text(path: str) -> bytes:
        return f"{path}\r\n".encode()

    paths = ["services/x.py", "kernel/b.py", SHIPPED, "kernel/a.py", "kernel/mine.py"]
    lines = [f"{digest(text(path))}  {path}\n" for path in ("kernel/a.py", "kernel/b.py")]
    assert shipped_text(bench.root, paths) == "".join(lines)
    assert lines[0].startswith(hashlib.sha256(b"kernel/a.py\n").hexdigest())


def test_the_commit_of_a_clone(bench: Bench) -> None:
    """The one that it shares with its origin; without an origin, or with one of another history, the last one."""
    assert cloned_commit() == "", "no repository"
    bench.begin()
    assert cloned_commit() == "", "no commit"
    first = bench.commit()
    assert cloned_commit() == first
    bench.git("checkout", "-q", "--orphan", "other")
    bench.git("commit", "-q", "-m", "Another history")
    bench.git("update-ref", "refs/remotes/a/main", "HEAD")
    bench.git("checkout", "-q", "main")
    second = bench.commit()
    assert cloned_commit() == second
    bench.git("update-ref", "refs/remotes/b/main", first)
    assert cloned_commit() == first


def test_a_folder_of_a_larger_repository(bench: Bench) -> None:
    """It is compared with the last commit, if that has the framework."""
    bench.begin()
    bench.at(bench.top / "back")
    bench.root.mkdir()
    assert cloned_commit() == ""
    commit = bench.commit()
    assert cloned_commit() == ""
    bench.write(MANIFEST, RULES)
    assert cloned_commit() == ""
    commit = bench.commit()
    assert cloned_commit() == commit


def told(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, str], str]:
    """The marks by file, and the last line."""
    show_files({})
    *lines, last = capsys.readouterr().out.splitlines()
    return {line[9:]: line[:9].strip() for line in lines}, last


def test_what_is_listed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The framework's files, compared with what is known of them: nothing, a commit, or what was shipped."""
    same = dict.fromkeys(["kernel/a.py", "kernel/b.py", MANIFEST], "")
    files, last = told(capsys)
    assert files == same
    assert last.startswith("3 files of the framework, compared with nothing, as no commit is known: 0 changed, 0 del")
    bench.begin()
    commit = bench.commit()
    files, last = told(capsys)
    assert files == {**same, "kernel/b.py": "changed"}
    assert last.startswith(f"3 files of the framework, compared with commit {commit[:12]}: 1 changed, 0 deleted.")
    whole = hashlib.sha256((bench.root / "kernel" / "b.py").read_bytes()).hexdigest()
    shipped = [("kernel/a.py", digest(b"kernel/a.py\n")), ("kernel/b.py", whole), ("kernel/c.py", digest(b""))]
    bench.write(SHIPPED, "".join(f"{known}  {path}\n" for path, known in shipped) + "\n")
    bench.write("pyproject.toml", '[tool.kernel]\ntemplate = "it"\nversion = "1.2"\n')
    files, last = told(capsys)
    assert files == {"kernel/a.py": "", "kernel/b.py": "", "kernel/c.py": "deleted"}
    assert "compared with it 1.2: 0 changed, 1 deleted." in last
    bench.write("kernel/a.py", "mine")
    bench.write("pyproject.toml", "")
    files, last = told(capsys)
    assert files["kernel/a.py"] == "changed"
    assert "compared with the template: 1 changed, 1 deleted. All others are yours." in last


def test_no_file_is_the_frameworks(bench: Bench) -> None:
    """The manifest is broken then."""
    bench.write(MANIFEST, 'framework = ["nowhere/"]\ntemplate = ["x"]\nuser = ["x"]\n')
    with pytest.raises(Refusal, match=r"^scripts/kernel/manifest\.toml matches no existing file; restore it with git$"):
        show_files({})
