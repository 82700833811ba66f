"""`just kernel-files`: list the framework's files, and which of them the user has changed.

manifest.toml lists the files by patterns, so that a new module needs no entry. `just own` writes the matching files and
their digests to shipped.txt. From then on only that list counts: a file that the user adds is the user's, wherever it
is.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from recipe import ROOT, Refusal, changed_files, git, project_files, run, unix

MANIFEST = "scripts/kernel/manifest.toml"
SHIPPED = "scripts/kernel/shipped.txt"
USE = "just kernel-files"


def owners(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return the owner of each of *paths*, according to the manifest at *root*: "framework", "template" or "user"."""
    return owners_by((root / MANIFEST).read_text(), paths)


def owners_by(manifest: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the owner of each of *paths*, according to the text of a *manifest*."""
    table: dict[str, list[str]] = tomllib.loads(manifest)
    patterns = {owner: re.compile("|".join(map(_as_regex, lines))) for owner, lines in table.items()}
    order = ("user", "template", "framework")  # the first match wins
    return {path: next((owner for owner in order if patterns[owner].fullmatch(path)), "user") for path in paths}


def _as_regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", "[^/]*") + (".*" if pattern.endswith("/") else "")


def digest(content: bytes) -> str:
    """Return the sha256 of a file as in shipped.txt. Texts are hashed with the line endings of Unix."""
    return hashlib.sha256(unix(content)).hexdigest()


def shipped_text(root: Path, paths: Iterable[str]) -> str:
    """Return shipped.txt for the tree at *root*: a digest and a path per line, as `sha256sum --check` reads them."""
    whose = owners(root, paths)
    ours = sorted(path for path in whose if whose[path] == "framework" and path != SHIPPED)
    return "".join(f"{digest((root / path).read_bytes())}  {path}\n" for path in ours)


def as_shipped() -> tuple[str, dict[str, str]]:
    """Return the origin of the framework's files, for people, and the digest of each file when it was shipped."""
    if (ROOT / SHIPPED).exists():
        pairs = [line.split("  ", 1) for line in (ROOT / SHIPPED).read_text().splitlines() if line]
        table = tomllib.loads((ROOT / "pyproject.toml").read_text()).get("tool", {}).get("kernel", {})
        origin = f"{table.get('template', 'the template')} {table.get('version', '')}".strip()
        return origin, {path: known for known, path in pairs}
    cloned = cloned_commit()
    if not cloned:
        paths = [path for path, owner in owners(ROOT, project_files()).items() if owner == "framework"]
        return "nothing, as no commit is known", {path: digest((ROOT / path).read_bytes()) for path in paths}
    listed = [path for path in git("ls-tree", "-r", "-z", "--name-only", cloned).split("\0") if path]
    ours = [path for path, owner in owners(ROOT, listed).items() if owner == "framework"]
    changed = changed_files(cloned)
    known = {path: "changed" for path in ours if path in changed}
    known |= {path: digest((ROOT / path).read_bytes()) for path in ours if path not in changed}
    return f"commit {cloned[:12]}", known


def cloned_commit() -> str:
    """Return the last commit that this clone shares with its origin, or the last commit if there is no origin.

    If the project is a folder of a larger repository, that is the last commit too. Empty if there is no commit.
    """
    if git("rev-parse", "--show-prefix", accept=(0, 128)).strip():
        there = git("ls-tree", "--name-only", "HEAD", "--", MANIFEST, accept=(0, 128)).strip()
        return git("rev-parse", "--verify", "HEAD").strip() if there else ""
    for commit in git("for-each-ref", "--format=%(objectname)", "refs/remotes", accept=(0, 128)).split():
        if common := git("merge-base", "HEAD", commit, accept=(0, 1)).strip():
            return common
    return git("rev-parse", "--quiet", "--verify", "HEAD", accept=(0, 1, 128)).strip()


def show_files(_: Mapping[str, str]) -> None:
    """List the framework's files, and mark those that the user has changed or deleted."""
    origin, known = as_shipped()
    marks: dict[str, str] = {}
    for path, was in known.items():
        file = ROOT / path
        content = file.read_bytes() if file.is_file() else b""
        same = was in {digest(content), hashlib.sha256(content).hexdigest()}  # older versions wrote the latter
        marks[path] = "deleted" if not file.is_file() else "" if same else "changed"
    for path, mark in sorted(marks.items()):
        print(f"{mark:7}  {path}")
    counts = [f"{list(marks.values()).count(mark)} {mark}" for mark in ("changed", "deleted")]
    print(f"{len(marks)} files of the framework, compared with {origin}: {', '.join(counts)}. All others are yours.")
    if not known:
        raise Refusal(f"{MANIFEST} matches no existing file; restore it with git")


if __name__ == "__main__":
    run("kernel-files", USE, show_files)
