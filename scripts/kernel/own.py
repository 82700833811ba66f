"""`just own NAME=my-app`: turn the clone into a project of its own, or leave it unchanged.

The new project is first created aside: its files, its lock, and its repository with one commit. Then a `Change` puts it
in place: if that is killed, the next recipe completes or undoes it. Nothing is lost: the template's repository is kept
in `.kernel`, and ignored files stay where they are.

In a folder of a larger repository, a second worktree or a submodule, the project gets no repository of its own, and the
result is left for the next commit there. Files without any history, for example from an archive, get a repository.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from addresses import without_password
from backup import make_backup
from bootstrap import LOCK, VENV
from change import fingerprint
from kernel_files import SHIPPED, cloned_commit, owners, shipped_text
from lock import header, pins, read_project, without
from recipe import (
    ROOT,
    Refusal,
    bring_venv_up_to_date,
    copy_settings,
    git,
    in_git,
    project_files,
    refuse_name,
    refuse_nobody,
    refuse_uncommitted,
    run,
)
from staging import Change
from switch import as_in

STUBS = Path(__file__).with_name("stubs")
USE = "just own NAME=my-app"
LARGE = ("test-workers-per-core", "test-coverage")  # settings for the template's own large test suite
READ_FIRST = (
    "getting-started",
    "services",
    "configuration",
    "testing",
    "calls",
    "observability",
    "operations",
    "deployment",
)
KEPT = ".kernel/before-own.git"
GROUPS = ("examples", "template")  # dependency groups that only files of the template need
TAKEN = frozenset({"kernel", "scripts", "services", "tests"})  # the project's own folders
STAYS = ("user.", "commit.", "gpg.")  # settings of the clone that concern its user


def own(words: Mapping[str, str]) -> None:
    """Create the project, and bring .venv up to date."""
    name = words["NAME"]
    refuse_name(name, "a project", USE)
    _refuse_taken(name)
    around = str(ROOT) if (ROOT / ".git").is_file() else _repository_around()
    template, origin = _look_around(around)
    made_from = f"{template['project-name']} {template['version']}"
    done = f"{name} is yours: one commit on main, made from {made_from}."
    if around:
        done = f"{name} is yours, made from {made_from}; commit it in the repository at {around}."
    with Change(f"just own NAME={name}") as change:
        tree = change.folder / "tree"
        if (ROOT / ".git").is_dir():
            index = str(change.folder / "index")  # a new index without the user's flags, such as skip-worktree
            git("read-tree", "HEAD", env={"GIT_INDEX_FILE": index}, hold=[change.turn])
            git("checkout-index", "--all", f"--prefix={tree}/", env={"GIT_INDEX_FILE": index}, hold=[change.turn])
            change.expected = {path: as_in(tree / path, ROOT / path) for path in in_git()}
        else:
            change.expected = _copy(tree, tracked=bool(around and in_git()))
        for path in _left_out(origin.get("commit", "")):
            (tree / path).unlink(missing_ok=True)
        _write_stubs(tree, name, made_from)
        _rename(tree, name, {key: value for key, value in template.items() if key != "project-name"} | origin)
        if not around:
            _commit(tree, f"{name}, made from {made_from}", change.turn)
        _move_into_place(change, tree, repository=not around)
        change.make(done)
    print(done)
    if (ROOT / KEPT).is_dir():
        print(f"The template's history is in {KEPT}; delete it when you do not need it any more.")
    if "commit" not in origin or "upstream" not in origin:
        print("The origin of the template is not known; for updates, set upstream and commit: see docs/updates.md.")
    bring_venv_up_to_date()


def _repository_around() -> str:
    """Return the repository that contains the project's folder, ignoring the clone's own; empty if there is none."""
    found = git("rev-parse", "--show-toplevel", root=ROOT.parent, accept=(0, 128)).rstrip("\n")
    ignored = found and git("check-ignore", "--", str(ROOT), root=ROOT.parent, accept=(0, 1, 128))
    return "" if ignored else found


def _copy(tree: Path, *, tracked: bool) -> dict[str, str | None]:
    """Copy the project's files to *tree*, and return their fingerprints. Uncommitted work is backed up first."""
    paths = [path for path in project_files() if os.path.lexists(ROOT / path)]
    if not tracked:
        print(f"kept in a backup first: {make_backup('before-own')}")
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path, follow_symlinks=False)
    return {path: fingerprint(tree / path) for path in paths}


def _refuse_taken(name: str) -> None:
    """Raise `Refusal` if the name, which is also that of the command, is used for something else."""
    if keyword.iskeyword(name) or name in TAKEN:
        raise Refusal(f"{name!r} means something else in Python or in this project; choose another name")
    if name in pins(LOCK.read_text()):
        raise Refusal(f"{name!r} is the name of a package that the project needs; choose another name")
    present = read_project()["project"]["name"]
    program = shutil.which(name, path=f"{VENV / 'bin'}:{os.defpath}") if name != present else None
    if program:
        raise Refusal(
            f"{name!r} is the name of a program, {program}, which the project's would hide; choose another name"
        )


def _look_around(around: str) -> tuple[dict[str, str], dict[str, str]]:
    """Check that the clone can be owned. Return the template's table in pyproject.toml, and the origin.

    Args:
        around: The repository that the project remains a part of.

    Raises:
        Refusal: It cannot be owned, or not now.

    """
    project = read_project()
    table = project.get("tool", {}).get("kernel", {})
    if "version" in table:
        raise Refusal(f"it is its own project already: {project['project']['name']}, made from {table['version']}")
    template = {
        "project-name": str(table.get("template", "the template")),
        "version": str(project["project"].get("version", "0")),
    }
    if around and not (ROOT / ".git").is_dir():
        if in_git():
            refuse_uncommitted()
        return template, _origin() if (ROOT / ".git").exists() else _origin_in(around)
    if not (ROOT / ".git").exists():
        refuse_nobody("the first commit")
        return template, {}
    if Path(git("rev-parse", "--show-toplevel").rstrip("\n")) != ROOT:
        raise Refusal("git treats this folder as a part of another repository; clone the template again, and own that")
    if git("worktree", "list", "--porcelain").count("worktree ") > 1:
        raise Refusal("other worktrees use this clone's history; `git worktree remove` them first")
    refuse_uncommitted()
    if not around:
        refuse_nobody("the first commit")
    return template, _origin()


def _origin() -> dict[str, str]:
    """Return the cloned commit, and the clone's origin without a password if it is known."""
    remotes = git("remote").split()
    found = {"commit": cloned_commit()}
    if remotes:
        url = git("remote", "get-url", "origin" if "origin" in remotes else remotes[0]).strip()
        found["upstream"] = without_password(url)
    return found


def _origin_in(around: str) -> dict[str, str]:
    """Return the commit that `git subtree` has added as this folder; nothing if there is none."""
    inner = ROOT.relative_to(Path(around).resolve()).as_posix()
    words = ("log", "--format=%B%x00", "--fixed-strings", f"--grep=git-subtree-dir: {inner}")
    for message in git(*words, accept=(0, 128)).split("\0"):
        found = re.search(r"(?m)^git-subtree-split: ([0-9a-f]{40,64})$", message)
        if found and f"git-subtree-dir: {inner}" in message.splitlines():
            return {"commit": found[1]}
    return {}


def _left_out(cloned: str) -> list[str]:
    """Return the template's own files that were cloned; files that the user has added are the user's."""
    if (ROOT / ".git").exists():
        came = git("ls-tree", "-r", "--name-only", "-z", cloned).split("\0")
    else:
        came = project_files()
    return [path for path, owner in owners(ROOT, filter(None, came)).items() if owner == "template"]


def _write_stubs(tree: Path, name: str, made_from: str) -> None:
    """Write the README, the changelog and the conftest of a new project."""
    for path in ("README.md", "CHANGELOG.md", "tests/conftest.py"):
        text = (STUBS / f"{Path(path).name}.in").read_text()
        (tree / path).parent.mkdir(exist_ok=True)
        text = text.replace("my-app", name).replace("THE TEMPLATE", made_from)
        (tree / path).write_text(text.replace("PAGES\n", _pages(tree)))


def _pages(tree: Path) -> str:
    """Return a list of all pages that are shipped, beginning with those to read first."""
    order = {page: number for number, page in enumerate(READ_FIRST)}
    pages = sorted((tree / "docs").glob("*.md"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    titles = [(path.name, path.read_text().partition("\n")[0].removeprefix("# ")) for path in pages]
    return "".join(f"- [{title}](docs/{name})\n" for name, title in titles)


def _rename(tree: Path, name: str, template: Mapping[str, str]) -> None:
    """Write pyproject.toml and the lock with the new name, a record of the template, and without what is left out."""
    text = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(rewrite(text, name, template))
    lock = (tree / "scripts" / "requirements.lock").read_text()
    lock = header(read_project(tree)) + without(lock, GROUPS, name)
    (tree / "scripts" / "requirements.lock").write_text(lock)
    present = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    (tree / SHIPPED).write_text(shipped_text(tree, present))


def rewrite(text: str, name: str, template: Mapping[str, str]) -> str:
    """Return the new project's pyproject.toml, based on the clone's."""
    document: Any = tomlkit.parse(text)
    document["project"]["name"] = name
    document["project"]["version"] = "0.1.0"
    scripts = tomlkit.table()
    scripts[name] = "app.__main__:main"
    document["project"]["scripts"] = scripts
    for key in LARGE:
        document["tool"]["kernel"].pop(key, None)
    for group in GROUPS:
        document.get("dependency-groups", {}).pop(group, None)
    tool = document["tool"]
    for key, value in template.items():
        tool["kernel"][key] = tomlkit.string(value)
    if "commit" in template:
        tool["kernel"]["commit"].comment("pragma: allowlist secret")  # not a secret
    ignores = tool.get("ruff", {}).get("lint", {}).get("per-file-ignores", {})
    for pattern in [pattern for pattern in ignores if pattern.startswith("scripts/template/")]:
        ignores.pop(pattern)
    mypy = tool.get("mypy", {})
    if "mypy_path" in mypy:
        mypy["mypy_path"] = mypy["mypy_path"].replace(":scripts/template", "")
    coverage = tool.get("coverage", {}).get("run", {})
    if "source" in coverage:
        coverage["source"] = ["app", "services"]  # the kernel is tested in its own repository
        coverage.pop("omit", None)
        coverage["omit"] = ["*/app/__main__.py"]  # part of the framework
    return tomlkit.dumps(document)


def _commit(tree: Path, message: str, turn: int) -> None:
    """Create the repository of the new project, with everything in one commit."""
    git("init", "--quiet", root=tree, hold=[turn])
    git("symbolic-ref", "HEAD", "refs/heads/main", root=tree)
    if (ROOT / ".git").exists():
        copy_settings(STAYS, tree / ".git")
    git("add", "--all", "--force", root=tree, hold=[turn])
    quiet = ["-c", f"core.hooksPath={os.devnull}", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]
    git(*quiet, "commit", "--quiet", "--no-verify", "--message", message, root=tree, hold=[turn])


def _move_into_place(change: Change, tree: Path, *, repository: bool) -> None:
    """Add the differences between the clone and the new project to the change; *repository* adds the repository."""
    new = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_symlink() or path.is_file()}
    new = {path for path in new if not path.startswith(".git/")}
    for path in change.expected:
        if path not in new:
            change.remove(path)
    for path in sorted(new):
        if fingerprint(tree / path) != change.expected.get(path):
            change.put(path, tree / path)
    if repository:
        change.replace_folder(".git", tree / ".git", KEPT)
    elif (ROOT / ".git").is_dir():
        change.take_away(".git", KEPT)


if __name__ == "__main__":
    run("own", USE, own, "NAME")
