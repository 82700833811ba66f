"""Merge the framework's files three-way: the old version, the user's version, and the new version.

git merges them like branches: content by lines, modes, links, and renames by upstream. Whatever it cannot merge becomes
a conflict, and no version is lost:

- A text that both have changed contains git's conflict markers.
- For other conflicts the user's version stays, and the framework's is put beside it, as PATH.conflict.
- In scripts/, where markers would break the recipes, it is the reverse: the framework's version is in place.

Everything here may need only the standard library: see update.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from recipe import git

YOURS = "yours"  # the label in git's markers
ASIDE = ".conflict"
LINK = "120000"
NOTE = "{label} has deleted this file, and you have changed it. Delete it or keep it; then delete this note.\n"
MERGING = [
    *("-c", "merge.renames=true", "-c", "diff.renames=true", "-c", "merge.renameLimit=9999"),
    *("-c", "merge.directoryRenames=false", "-c", "merge.conflictStyle=merge"),  # regardless of the user's settings
]

Tree = dict[str, tuple[str, str]]
"""The mode and the object id of each file, by path."""


class Clash(NamedTuple):
    """A conflict: its path, the reason, and the file beside it, which is empty if the file itself has markers."""

    path: str
    why: str
    aside: str = ""


class Merged(NamedTuple):
    """The result of a merge."""

    tree: Tree
    clashes: list[Clash]


class Repository:
    """A bare repository in which trees are created.

    Args:
        folder: The folder of the repository.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *words: str, stdin: str = "", accept: tuple[int, ...] = (0,), **env: str) -> str:
        """Run git in the repository, and return its output."""
        return git(f"--git-dir={self.folder}", *words, root=self.folder, stdin=stdin, accept=accept, env=env)

    def read(self, commit: str) -> Tree:
        """Return the files of a commit."""
        tree: Tree = {}
        for line in filter(None, self.git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")):
            kind, _, path = line.partition("\t")
            mode, _, found = kind.split(" ")
            tree[path] = (mode, found)
        return tree

    def write(self, tree: Mapping[str, tuple[str, str]]) -> str:
        """Write a tree of these files, and return its object id."""
        index = self.folder / "index-to-write"
        index.unlink(missing_ok=True)
        lines = "".join(f"{mode} {found}\t{path}\0" for path, (mode, found) in tree.items())
        self.git("update-index", "-z", "--index-info", stdin=lines, GIT_INDEX_FILE=str(index))
        return self.git("write-tree", GIT_INDEX_FILE=str(index)).strip()

    def content(self, blob: str) -> str:
        """Return the content of a file."""
        return self.git("cat-file", "blob", blob)

    def store(self, content: str) -> str:
        """Store a file with this *content*, and return its object id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content).strip()


def line_ends(text: str) -> str:
    """Return the line ending of *text*; that of Unix if it is not a text, or has none."""
    return "\r\n" if "\r\n" in text and "\0" not in text else "\n"


def merge(repository: Repository, base: Tree, ours: Tree, theirs: Tree, label: str) -> Merged:
    """Merge the framework's files into a project.

    Args:
        repository: Contains the objects of all three trees.
        base: The old version of the framework's files.
        ours: All files of the project. Those that are neither in *base* nor in *theirs* stay unchanged.
        theirs: The new version of the framework's files.
        label: The name of the new version, a single word.

    """
    return _Merge(repository, base, ours, theirs, label).run()


class _Merge:
    def __init__(self, repository: Repository, base: Tree, ours: Tree, theirs: Tree, label: str) -> None:
        self.repository = repository
        self.base = dict(base)
        self.ours = {path: ours[path] for path in base.keys() | theirs.keys() if path in ours}
        self.theirs = dict(theirs)
        self.wanted = theirs
        self.label = label
        self.tree = {path: entry for path, entry in ours.items() if path not in self.ours}
        self.clashes: list[Clash] = []
        self.all_ours = ours
        self.windows: set[str] = set()

    def run(self) -> Merged:
        self._take_line_ends()
        self._refuse_folders()
        self._refuse_kinds()
        merged, stages = self._let_git_merge()
        self.tree |= merged
        for path, found in stages.items():
            self._decide(path, found)
        known = self.all_ours.keys() | self.wanted.keys() | {clash.aside for clash in self.clashes}
        for path in sorted(self.tree.keys() - known):  # git renames one of two files with the same path
            self.clashes.append(Clash(path.rpartition("~")[0] or path, "two files want one name", path))
        self._give_line_ends()
        return Merged(self.tree, sorted(self.clashes))

    def _take_line_ends(self) -> None:
        """Convert texts of the user with the line endings of Windows to those of the framework's version.

        Then the two differ only where the user has changed something.
        """
        for path, (mode, found) in self.ours.items():
            known = self.base.get(path) or self.theirs.get(path)
            if known is None or known[1] == found or mode == LINK or known[0] == LINK:
                continue
            text = self.repository.content(found)
            if line_ends(text) != line_ends(self.repository.content(known[1])) == "\n":
                self.windows.add(path)
                self.ours[path] = (mode, self.repository.store(text.replace("\r\n", "\n")))

    def _give_line_ends(self) -> None:
        for path in self.windows & self.tree.keys():
            mode, found = self.tree[path]
            if mode != LINK:
                text = self.repository.content(found).replace("\r\n", "\n")
                self.tree[path] = (mode, self.repository.store(text.replace("\n", "\r\n")))

    def _refuse_folders(self) -> None:
        """Handle a file where the other side has a folder: the user's stays."""
        mine = {path for path, entry in self.all_ours.items() if entry != self.base.get(path)}
        folders = {str(folder): path for path in sorted(mine) for folder in Path(path).parents}
        for path in sorted(self.theirs):
            above = next((one for folder in Path(path).parents if (one := str(folder)) in mine), None)
            if above:
                self._keep_ours(path, f"you have a file {above}", above + ASIDE + path.removeprefix(above))
            elif path in folders:
                self._keep_ours(path, f"you have a folder with that name, which contains {folders[path]}")

    def _refuse_kinds(self) -> None:
        """Handle a link or a repository where the other side has a file: the user's stays."""
        for path in sorted(self.theirs.keys() & self.ours.keys()):
            kinds = {tree[path][0][:2] for tree in (self.ours, self.theirs)}
            if len(kinds) == 1 and kinds != {LINK[:2]}:
                continue
            was = self.base.get(path)
            if self.ours[path] not in (was, self.theirs[path]) and self.theirs[path] != was:
                self._keep_ours(path, "both have changed it, and a link cannot be merged")

    def _keep_ours(self, path: str, why: str, aside: str = "") -> None:
        """Take *path* out of the merge: the user's version stays, and the framework's is put beside it."""
        entry = self.theirs.pop(path)
        self.base.pop(path, None)
        if path in self.ours:
            self.tree[path] = self.ours.pop(path)
        self._put_aside(path, why, entry, aside)

    def _let_git_merge(self) -> tuple[Tree, dict[str, dict[str, tuple[str, str]]]]:
        """Return the merged tree, and by stage the versions of each file that is in conflict."""
        git = self.repository.git
        commits: list[str] = []
        for tree in self.base, self.ours, self.theirs:
            parent = ["-p", commits[0]] if commits else []
            commits.append(_commit(self.repository, self.repository.write(tree), parent))
        git("update-ref", f"refs/{YOURS}", commits[1])
        git("update-ref", f"refs/{self.label}", commits[2])
        told = git(*MERGING, "merge-tree", "--write-tree", "-z", YOURS, self.label, accept=(0, 1)).split("\0")
        stages: dict[str, dict[str, tuple[str, str]]] = {}
        for line in told[1:]:
            if not line:
                break  # messages follow
            kind, _, path = line.partition("\t")
            mode, found, stage = kind.split(" ")
            stages.setdefault(path, {})[stage] = (mode, found)
        return self.repository.read(told[0]), stages

    def _decide(self, path: str, stages: Mapping[str, tuple[str, str]]) -> None:
        ours, theirs = stages.get("2"), stages.get("3")
        if ours and theirs:
            self._decide_between(path, ours, theirs)
        elif ours:
            self.tree[path] = ours
            note = ("100644", self.repository.store(NOTE.format(label=self.label)))
            self._put_aside(path, "you have changed it, and the framework has deleted it", note)
        elif theirs:
            self.tree.pop(path, None)
            self._put_aside(path, "you have deleted it, and the framework has changed it", theirs)

    def _decide_between(self, path: str, ours: tuple[str, str], theirs: tuple[str, str]) -> None:
        merged = self.tree.setdefault(path, ours)
        has_markers = f"\n<<<<<<< {YOURS}" in "\n" + self.repository.content(merged[1])
        both = "both have changed it" if path in self.base else "both have a file there"
        if path.startswith("scripts/") and path in self.wanted:
            self.tree[path] = self.wanted[path]
            self._put_aside(path, f"{both}; the framework's is in place", merged)
        elif has_markers:
            self.clashes.append(Clash(path, both))
        else:
            self.tree[path] = ours
            self._put_aside(path, f"{both}, and it is not a text", theirs)

    def _put_aside(self, path: str, why: str, entry: tuple[str, str], aside: str = "") -> None:
        aside = aside or path + ASIDE
        taken = self.all_ours.keys() | self.wanted.keys() | self.tree.keys()
        while any(f"{other}/".startswith(f"{aside}/") for other in taken):
            aside += "_"
        self.tree[aside] = entry
        self.clashes.append(Clash(path, why, aside))


def _commit(repository: Repository, tree: str, parent: list[str]) -> str:
    """Create a commit that only the merge uses."""
    who = {f"GIT_{role}_{what}": "merge" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return repository.git("commit-tree", "--no-gpg-sign", *parent, "-m", "", tree, accept=(0,), **who).strip()
