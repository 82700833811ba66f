"""`just kernel-files`: which files are the framework's, and which of them the user has changed.

manifest.toml says it in patterns, so that a new module needs no line. `just own` writes the files that they match into
shipped.txt, as they were then: from there on that list alone counts, and a file that the user adds is the user's,
wherever it lies.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from recipe import ROOT, Refusal, git, run

MANIFEST = "scripts/kernel/manifest.toml"
SHIPPED = "scripts/kernel/shipped.txt"
USE = "just kernel-files"


def owners(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Whose each of *paths* is, as the manifest at *root* says: "framework", "template" or "user"."""
    return owners_by((root / MANIFEST).read_text(), paths)


def owners_by(manifest: str, paths: Iterable[str]) -> dict[str, str]:
    """Whose each of *paths* is, as the text of a *manifest* says."""
    table: dict[str, list[str]] = tomllib.loads(manifest)
    patterns = {owner: re.compile("|".join(map(_as_regex, lines))) for owner, lines in table.items()}
    order = ("user", "template", "framework")  # the first that matches counts
    return {path: next((one for one in order if patterns[one].fullmatch(path)), "user") for path in paths}


def _as_regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", "[^/]*") + (".*" if pattern.endswith("/") else "")


def digest(content: bytes) -> str:
    """The sha256 of a file, as shipped.txt has it."""
    return hashlib.sha256(content).hexdigest()


def shipped_text(root: Path, paths: Iterable[str]) -> str:
    """What shipped.txt says of the tree at *root*: a digest and a path a line, as `sha256sum --check` reads them."""
    whose = owners(root, paths)
    ours = sorted(path for path in whose if whose[path] == "framework" and path != SHIPPED)
    return "".join(f"{digest((root / path).read_bytes())}  {path}\n" for path in ours)


def as_shipped() -> tuple[str, dict[str, str]]:
    """Where the framework's files come from, for people, and the digest of each as it was there."""
    if (ROOT / SHIPPED).exists():
        pairs = [line.split("  ", 1) for line in (ROOT / SHIPPED).read_text().splitlines() if line]
        table = tomllib.loads((ROOT / "pyproject.toml").read_text()).get("tool", {}).get("kernel", {})
        origin = f"{table.get('template', 'the template')} {table.get('version', '')}".strip()
        return origin, {path: known for known, path in pairs}
    cloned = cloned_commit()
    lines = [line.split("\t", 1) for line in git("ls-tree", "-r", "-z", cloned).split("\0") if line]
    blobs = {path: facts.split()[2] for facts, path in lines}
    ours = [path for path, owner in owners(ROOT, blobs).items() if owner == "framework"]
    there = [path for path in ours if (ROOT / path).is_file()]
    now = dict(zip(there, git("hash-object", "--stdin-paths", stdin="\n".join(there)).split(), strict=True))
    intact = {path: digest((ROOT / path).read_bytes()) for path in there if now[path] == blobs[path]}
    return f"commit {cloned[:12]}", {path: intact.get(path, "changed") for path in ours}


def cloned_commit() -> str:
    """The last commit that this clone has in common with where it comes from; without one, the last commit."""
    remotes = git("for-each-ref", "--format=%(objectname)", "refs/remotes").split()
    for commit in remotes:
        if common := git("merge-base", "HEAD", commit, accept=(0, 1)).strip():
            return common
    return git("rev-parse", "--verify", "HEAD").strip()


def show_files(_: Mapping[str, str]) -> None:
    """Prints the framework's files, and marks those that the user has changed or deleted."""
    origin, known = as_shipped()
    marks: dict[str, str] = {}
    for path, was in known.items():
        file = ROOT / path
        marks[path] = "deleted" if not file.is_file() else "changed" if digest(file.read_bytes()) != was else ""
    for path, mark in sorted(marks.items()):
        print(f"{mark:7}  {path}")
    counts = [f"{list(marks.values()).count(mark)} {mark}" for mark in ("changed", "deleted")]
    print(f"{len(marks)} files of the framework, compared with {origin}: {', '.join(counts)}. All others are yours.")
    if not known:
        raise Refusal(f"{MANIFEST} names no file that is there; restore it with git")


if __name__ == "__main__":
    run("kernel-files", USE, show_files)
