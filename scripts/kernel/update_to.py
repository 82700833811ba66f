"""Make the update to the version that this file belongs to: a commit on top of a project's, tested in a worktree.

`just kernel-update` of an older version runs this; update.py describes what it passes and expects. Since the project's
.venv runs it, this and everything it imports may need only tomlkit and the standard library.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from kernel_files import MANIFEST, SHIPPED, owners_by, shipped_text
from lock import header, read_project, resolve
from merge_files import ASIDE, Repository, Tree, line_ends, merge
from merge_project import Clash, merge_project
from own import rewrite
from recipe import Refusal, git, run

OPTED_OUT = ".kernelupdateignore"
PROJECT = "pyproject.toml"
LOCK = "scripts/requirements.lock"
SECTION = re.compile(r"(?m)^## \[?v?(\d+\.\d+\.\d+)\]?.*\n")
UNRELEASED = re.compile(r"(?m)^## Unreleased\n+(?:(?!## ).*\S.*\n|\n(?!## ))+")
TOLD = 12  # lines of test output that the review repeats


class _Update:
    """An update.

    Args:
        root: The project.
        folder: The folder to work in.

    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        self.repository = Repository(folder / "git")
        self.label = f"{re.sub('[^A-Za-z0-9]+', '-', self.job['template'])}-{self.job['version']}"
        self.ours = self.repository.read(self.job["start"])
        self.new = self.repository.read(self.job["commit"])

    def check(self) -> None:
        """Raise `Refusal` if the update is not possible."""
        if self.repository.git("cat-file", "-t", self.job["base"], accept=(0, 128)).strip() != "commit":
            raise Refusal(
                f"upstream has no commit {self.job['base'][:12]} any more, which this project was made from; let commit"
                f" under [tool.kernel] in pyproject.toml be the one that {self.job['base_version']} has there now"
            )
        _, theirs = self.framework()
        told = git(
            *("check-ignore", "--no-index", "--verbose", "-z", "--stdin"),
            root=self.root,
            stdin="\0".join(theirs),
            accept=(0, 1),
        ).split("\0")
        for source, line, pattern, path in zip(told[::4], told[1::4], told[2::4], told[3::4], strict=False):
            if not pattern.startswith("!"):
                raise Refusal(
                    f"git would ignore {path}, a file of the framework, since {source}, line {line}, has {pattern};"
                    f" narrow that, or name the file in {OPTED_OUT}"
                )

    def framework(self) -> tuple[Tree, Tree]:
        """Return the old and new versions of the framework's files, without those that the user has opted out of."""
        base = self.repository.read(self.job["base"])
        new_owners = self._owners(self.new)
        old_owners = self._owners(base)
        theirs = {path for path, owner in new_owners.items() if owner == "framework"}
        # A file that was handed over to the user stays. One that was taken back from the user is merged.
        was = {path for path, owner in old_owners.items() if owner == "framework" and path not in self.new}
        was |= {path for path in theirs & base.keys() if old_owners[path] != "template"}
        out = {SHIPPED, *self.opted_out(theirs | was)}
        return {path: base[path] for path in was - out}, {path: self.new[path] for path in sorted(theirs - out)}

    def _owners(self, tree: Tree) -> dict[str, str]:
        manifest = tree.get(MANIFEST, self.new[MANIFEST])
        return owners_by(self.repository.content(manifest[1]), tree)

    def opted_out(self, paths: Collection[str]) -> set[str]:
        """Return those of *paths* that the project's .kernelupdateignore matches."""
        if OPTED_OUT not in self.ours:
            return set()
        empty = self.folder / "ignore"
        if not empty.exists():
            git("init", "--quiet", "--template=", str(empty), root=self.folder)
            (empty / ".git" / "info").mkdir(exist_ok=True)
            (empty / ".git" / "info" / "exclude").write_bytes((self.root / OPTED_OUT).read_bytes())
        words = ["-c", f"core.excludesFile={os.devnull}", "check-ignore", "--no-index", "-z", "--stdin"]
        return set(filter(None, git(*words, root=empty, stdin="\0".join(paths), accept=(0, 1)).split("\0")))

    def make(self) -> None:
        """Merge, commit, test, and report."""
        base, theirs = self.framework()
        tree, clashes = merge(self.repository, base, self.ours, theirs, self.label)
        told = [clash._asdict() for clash in clashes]
        merged = [path for path in theirs if tree.get(path) not in (None, self.ours.get(path), theirs[path])]
        told += self._merge_project(tree)
        shipped = shipped_text(self.folder / "new", [path for path in self.new if path != SHIPPED])
        tree[SHIPPED] = ("100644", self.repository.store(shipped))
        report = {
            "template": self.job["template"],
            "base_version": self.job["base_version"],
            "version": self.job["version"],
            "clashes": told,
            "merged": [path for path in merged if path not in {clash.path for clash in clashes}],
            "opted_out": sorted(self.opted_out([*theirs, *self._all_framework()])),
        }
        worktree = self._commit(tree)
        report["tests"] = _try(worktree)
        (self.folder / "report.json").write_text(json.dumps(report))

    def _all_framework(self) -> Iterable[str]:
        return [path for path, owner in self._owners(self.new).items() if owner == "framework"]

    def _merge_project(self, tree: Tree) -> list[dict[str, str]]:
        """Merge pyproject.toml, and recreate the lock if it requires other packages. Return the conflicts."""
        ours = self.repository.content(self.ours[PROJECT][1])
        ends, ours = line_ends(ours), ours.replace("\r\n", "\n")
        name = tomllib.loads(ours)["project"]["name"]
        text = ours
        clashes: list[Clash] = []
        if not self.opted_out([PROJECT]):
            old, new = (
                rewrite(self.repository.content(self.repository.read(self.job[key])[PROJECT][1]), name, {})
                for key in ("base", "commit")
            )
            text, clashes = merge_project(old, ours, new)
        document: Any = tomlkit.parse(text)
        document["tool"]["kernel"]["version"] = self.job["version"]
        document["tool"]["kernel"]["commit"] = self.job["commit"]
        text = tomlkit.dumps(document)
        tree[PROJECT] = (self.ours[PROJECT][0], self.repository.store(text.replace("\n", ends)))
        self._lock(tree, text)
        if not clashes:
            return []
        aside = f"{PROJECT}{ASIDE}"
        lines = [f"{clash}; yours is in place.\n" for clash in clashes]
        note = f"{''.join(lines)}Change it if needed, then delete this note.\n"
        tree[aside] = ("100644", self.repository.store(note))
        return [{"path": PROJECT, "why": str(clash), "aside": aside} for clash in clashes]

    def _lock(self, tree: Tree, text: str) -> None:
        before = (self.root / LOCK).read_text() if (self.root / LOCK).exists() else ""
        work = self.folder / "lock"
        work.mkdir()
        (work / PROJECT).write_text(text)
        if before.startswith(header(read_project(work))) or self.opted_out([LOCK]):
            return
        print("recreating the lock", flush=True)
        made = resolve(work, before, [], self.job["age"], self.root / ".venv" / "bin" / "uv")
        tree[LOCK] = ("100644", self.repository.store(made))

    def _commit(self, tree: Tree) -> Path:
        """Create the commit, in a worktree."""
        worktree = self.folder / "tree"
        options = ["--quiet", "--detach", "--no-checkout", str(worktree), self.job["start"]]
        self.repository.git("worktree", "add", *options)
        git("read-tree", "--reset", "-u", self.repository.write(tree), root=worktree)
        quiet = ["-c", f"core.hooksPath={os.devnull}", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]
        message = self._message()
        words = ["--quiet", "--no-verify", "--allow-empty", "--cleanup=whitespace", "--file=-"]
        git(*quiet, "commit", *words, root=worktree, stdin=message)
        commit = git("rev-parse", "HEAD", root=worktree).strip()
        self.repository.git("update-ref", "refs/kernel/update", commit)
        return worktree

    def _message(self) -> str:
        """Return the commit message: the changelog's sections of the new versions."""
        job = self.job
        title = f"Update {job['template']} from {job['base_version']} to {job.get('told', job['version'])}"
        entry = self.new.get("CHANGELOG.md")
        changelog = self.repository.content(entry[1]) if entry else ""
        told = sections(changelog, job["base_version"], job["version"])
        if job.get("told", job["version"]) != job["version"]:  # not a release: include the section of the next release
            told = "\n\n".join(filter(None, [*(found[0].strip() for found in UNRELEASED.finditer(changelog)), told]))
        return f"{title}\n\n{told or 'Its changelog does not mention it.'}\n"


def sections(changelog: str, after: str, until: str) -> str:
    """Return the sections of a changelog, `## 1.4.0`, for the versions *after* one version and up to *until*."""
    parts = SECTION.split(changelog + "\n")
    titles = [found.group() for found in SECTION.finditer(changelog + "\n")]
    low, high = _order(after), _order(until)
    found = [
        f"{title}{text.partition(chr(10) + '## ')[0]}".strip()
        for title, version, text in zip(titles, parts[1::2], parts[2::2], strict=True)
        if low < _order(version) <= high
    ]
    return "\n\n".join(found)


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", version)[:3]))  # a pre-release counts as the release


def _try(worktree: Path) -> dict[str, Any]:
    """Run the project's tests in the worktree. Return their output, and how they ended."""
    print("testing in a worktree", flush=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "JUST"))}
    started = time.monotonic()
    words = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(["./scripts/just", "test"], cwd=worktree, env=env, check=False, **words)  # type: ignore[call-overload]
    except OSError as error:
        return {"code": 2, "seconds": 0.0, "said": [f"the tests cannot be started: {error}"]}
    said = done.stdout.decode(errors="replace").replace(f"{worktree}/", "").splitlines()
    said = [line for line in said if not line.startswith("scripts/just: ")]  # messages about the worktree's .venv
    return {"code": done.returncode, "seconds": time.monotonic() - started, "said": said[-TOLD:]}


def main(words: Mapping[str, str]) -> None:
    """Run one step."""
    update = _Update(Path(words["ROOT"]), Path(words["FOLDER"]))
    if words["STEP"] == "check":
        update.check()
    else:
        update.make()


if __name__ == "__main__":
    run("kernel-update", "just kernel-update", main, "STEP", "ROOT", "FOLDER")
