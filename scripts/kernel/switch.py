"""Switch a project to another commit by a `Change`: its files, git's index, its branches, and finally HEAD.

`git checkout` writes file by file, so a kill leaves a mixture. Here everything is prepared aside, and every step is one
rename, so the next recipe completes what was interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from change import fingerprint, git_folders
from recipe import ROOT, Refusal, git, unix
from staging import Change

HEADS = ".git/refs/heads"
QUIET = ["-c", "gc.auto=0", "-c", "maintenance.auto=false"]


def refuse_unusual_git() -> None:
    """Raise `Refusal` if git stores its files in a way that this module does not know."""
    if git("rev-parse", "--is-inside-work-tree", accept=(0, 128)).strip() != "true":
        raise Refusal("this folder is not in a repository; `git init` and a commit create one")
    ours = [folder.resolve() for folder in git_folders(ROOT)]
    gits = [(ROOT / git("rev-parse", word).rstrip("\n")).resolve() for word in ("--git-dir", "--git-common-dir")]
    if ours != gits:
        raise Refusal(f"git's own folder is {gits[0]}, but should be {ours[0]}; run this in a clone")
    if any(folder.stat().st_dev != ROOT.stat().st_dev for folder in ours):
        raise Refusal(f"{ours[1]} is on another file system than this folder; run this in a clone, and pull from there")
    if git("config", "--get", "extensions.refstorage", accept=(0, 1)).strip() not in {"", "files"}:
        raise Refusal("git stores its branches in a table; `git refs migrate --ref-format=files` first")


def prefix() -> str:
    """Return where the project is in its repository, such as `back/`; empty if it is the whole repository."""
    return git("rev-parse", "--show-prefix").rstrip("\n")


def refuse_elsewhere(branch: str) -> None:
    """Raise `Refusal` if the branch is checked out in another worktree, which would not notice the change."""
    place, here = "", git("rev-parse", "--show-toplevel").rstrip("\n")
    for line in git("worktree", "list", "--porcelain", "-z").split("\0"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            place = value
        elif key == "branch" and value == f"refs/heads/{branch}" and place != here:
            raise Refusal(f"the branch {branch} is checked out in {place}; check out another one there first")


def commit_of(branch: str) -> str:
    """Return the last commit of a branch; empty if there is no such branch."""
    found = git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", accept=(0, 1, 128))
    return found.strip()


def put_branch(change: Change, branch: str, commit: str) -> None:
    """Set the branch to *commit*."""
    change.put(f"{HEADS}/{branch}", f"{commit}\n".encode())


def remove_branch(change: Change, branch: str) -> None:
    """Remove the branch, even if it is in git's packed refs."""
    packed = git_folders(ROOT)[1] / "packed-refs"
    lines = packed.read_text().splitlines(keepends=True) if packed.exists() else []
    left = [line for line in lines if not line.endswith(f" refs/heads/{branch}\n")]
    if left != lines:
        change.put(".git/packed-refs", "".join(left).encode())
    change.remove(f"{HEADS}/{branch}")
    change.remove(f".git/logs/refs/heads/{branch}")


def put_files(change: Change, commit: str) -> None:
    """Set the files and git's index to *commit*, for all files that are unchanged since HEAD."""
    index, inner = change.folder / "index", prefix()
    shutil.copyfile(git_folders(ROOT)[0] / "index", index)
    env = {"GIT_INDEX_FILE": str(index)}
    git("update-index", "-q", "--refresh", accept=(0, 1), env=env)  # otherwise a copied file may seem changed
    told = git("diff-tree", "-r", "--name-status", "--no-renames", "--no-relative", "-z", "HEAD", commit).split("\0")
    states = dict(zip((path.removeprefix(inner) for path in told[1::2]), told[::2], strict=False))
    if outside := [path for path in told[1::2] if not path.startswith(inner)]:
        raise Refusal(
            f"what is checked out differs from {commit[:12]} outside of this folder, too ({outside[0]}); `git checkout`"
            " the branch that the update was made from, and run this again"
        )
    there = [path for path, state in states.items() if state != "D"]
    # Expect the files to be as in HEAD: files that somebody changes from now on are set aside.
    was = _check_out([path for path, state in states.items() if state != "A"], change.folder / "was", env) / inner
    change.expected = {path: as_in(was / path, ROOT / path) for path in states}
    others = [path for path, found in change.expected.items() if found != fingerprint(was / path)]
    git("update-index", "-z", "--stdin", stdin="".join(f"{path}\0" for path in others), env=env)
    git("read-tree", "-m", "HEAD", commit, env=env)
    out = _check_out(there, change.folder / "out", env) / inner
    for path in states:
        if path not in there:
            change.remove(path)
    for path in there:
        if not (out / path).is_dir() or (out / path).is_symlink():  # otherwise it is a nested repository
            change.put(path, out / path)
    change.put(".git/index", index)


def as_in(known: Path, now: Path) -> str | None:
    """Return the fingerprint of *known*, git's version; that of the file *now* if only its line endings differ."""
    files = known.is_file() and now.is_file() and not (known.is_symlink() or now.is_symlink())
    same = files and os.access(known, os.X_OK) == os.access(now, os.X_OK)
    return fingerprint(now if same and unix(known.read_bytes()) == unix(now.read_bytes()) else known)


def _check_out(paths: list[str], folder: Path, env: Mapping[str, str]) -> Path:
    """Write files of an index into a new folder."""
    folder.mkdir()
    words = ["checkout-index", "-z", "--stdin", f"--prefix={folder}/"]
    git(*words, stdin="".join(f"{path}\0" for path in paths), env=env)
    return folder


def put_head(change: Change, branch: str) -> None:
    """Check out the branch, as the last move."""
    change.put(".git/HEAD", f"ref: refs/heads/{branch}\n".encode())
