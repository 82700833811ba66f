"""Puts a project at another commit by a `Change`: its files, git's index, its branches, and HEAD, which comes last.

`git checkout` writes file by file, and a kill leaves some of each. Here all is prepared aside, and every step is one
rename; so the next recipe finishes what a kill has interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from change import Change, fingerprint
from recipe import ROOT, Refusal, git

HEADS = ".git/refs/heads"
QUIET = ["-c", "gc.auto=0", "-c", "maintenance.auto=false"]


def refuse_unusual_git() -> None:
    """Raises `Refusal` where git keeps its files in another way than this module knows."""
    if not (ROOT / ".git").is_dir() or Path(git("rev-parse", "--show-toplevel").rstrip("\n")) != ROOT:
        raise Refusal("this folder is not the first worktree of a repository of its own; run this in that one")
    if git("config", "--get", "extensions.refstorage", accept=(0, 1)).strip() not in {"", "files"}:
        raise Refusal("git keeps its branches in a table; `git refs migrate --ref-format=files` first")


def commit_of(branch: str) -> str:
    """The last commit of a branch; empty where there is no such branch."""
    found = git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", accept=(0, 1, 128))
    return found.strip()


def put_branch(change: Change, branch: str, commit: str) -> None:
    """The branch is to be at *commit*."""
    change.put(f"{HEADS}/{branch}", f"{commit}\n".encode())


def remove_branch(change: Change, branch: str) -> None:
    """The branch is to go, also where git has packed it away."""
    packed = ROOT / ".git" / "packed-refs"
    lines = packed.read_text().splitlines(keepends=True) if packed.exists() else []
    left = [line for line in lines if not line.endswith(f" refs/heads/{branch}\n")]
    if left != lines:
        change.put(".git/packed-refs", "".join(left).encode())
    change.remove(f"{HEADS}/{branch}")
    change.remove(f".git/logs/refs/heads/{branch}")


def put_files(change: Change, commit: str) -> None:
    """The files and git's index are to be as in *commit*, where they are as in HEAD now."""
    index, out = change.folder / "index", change.folder / "out"
    shutil.copyfile(ROOT / ".git" / "index", index)
    env = {"GIT_INDEX_FILE": str(index)}
    git("update-index", "-q", "--refresh", accept=(0, 1), env=env)  # else a file that was only copied seems changed
    told = git("diff", "--name-status", "--no-renames", "-z", "HEAD", commit).split("\0")
    states = dict(zip(told[1::2], told[::2], strict=False))
    there = [path for path, state in states.items() if state != "D"]
    # As they are in HEAD: what somebody changes from now on is set aside.
    was = change.folder / "was"
    _check_out([path for path, state in states.items() if state != "A"], was, env)
    change.expected = {path: fingerprint(was / path) for path in states}
    git("read-tree", "-m", "HEAD", commit, env=env)
    _check_out(there, out, env)
    for path in states:
        if path not in there:
            change.remove(path)
    for path in there:
        if not (out / path).is_dir() or (out / path).is_symlink():  # else a repository within this one
            change.put(path, out / path)
    change.put(".git/index", index)


def _check_out(paths: list[str], folder: Path, env: Mapping[str, str]) -> None:
    """Writes files of an index into a new folder."""
    folder.mkdir()
    words = ["checkout-index", "-z", "--stdin", f"--prefix={folder}/"]
    git(*words, stdin="".join(f"{path}\0" for path in paths), env=env)


def put_head(change: Change, branch: str) -> None:
    """The branch is to be checked out; the last move."""
    change.put(".git/HEAD", f"ref: refs/heads/{branch}\n".encode())
