"""`just kernel-update`: the framework's newer version on a branch, or the project as it was.

An update is the work of two. This script, which the project has, does what must not change: it looks whether an update
can be made, fetches upstream, keeps a backup, and puts the project on the branch. What an update *is* the new version
says: its `scripts/kernel/update_to.py` is run, from a checkout aside. So an old project can take any newer version.

The protocol between them, which every version keeps:

- FOLDER, in `.kernel`, holds `git`, a repository with upstream's branches and tags and the project's objects; `new`,
  the new version checked out; and `job.json`, with the keys of `_job`.
- `python FOLDER/new/scripts/kernel/update_to.py STEP=check ROOT=project FOLDER=FOLDER` refuses what the new version
  sees in the way. Then, once there is a backup, STEP=make. It is run by the project's .venv, of which it may use
  tomlkit and the standard library. It changes nothing but FOLDER.
- Exit code 0: done. Else nothing is changed, and it has said why.
- STEP=make leaves one commit on top of the project's, at `refs/kernel/update` in `git`; and `report.json`, for
  `just kernel-update-review`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backup import make_backup
from bootstrap import VENV_UV
from change import Change
from lock import read_age, read_project
from recipe import ROOT, Refusal, copy_settings, git, refuse_nobody, refuse_uncommitted, run, show
from switch import QUIET, commit_of, put_branch, put_files, put_head, refuse_unusual_git

USE = "just kernel-update, or just kernel-update VERSION=1.4.0"
PROTOCOL = 1
NOTE = ".kernel/update.json"
BRANCH = "kernel_update_to_"
GIT_AT_LEAST = (2, 38)  # `git merge-tree --write-tree`
VERSION = re.compile(r"v?((?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2})")
ADDRESS = re.compile(
    r"(https?|ssh|git|file)://[^-\s][^\s]*|[A-Za-z0-9_][\w.-]*(@[A-Za-z0-9][\w.-]*)?:(?!:)[^-\s][^\s]*"
)
COMMIT = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
KEPT = ("user.", "commit.", "gpg.", "filter.", "core.autocrlf", "core.eol", "core.filemode", "core.symlinks")
"""The settings of the project that a commit or a checkout depends on."""


def update(words: Mapping[str, str]) -> None:
    """Makes the branch and checks it out, or says that there is nothing newer."""
    wanted, age = _wanted(words["VERSION"]), read_age(words["AGE"])
    template = _look_around()
    start, onto = git("rev-parse", "HEAD").strip(), git("branch", "--show-current").strip()
    with Change("just kernel-update") as change:
        aside = change.folder / "git"
        _fetch(template["upstream"], aside)
        version = _choose(wanted, template, aside)
        if not version:
            return
        print(f"{template['template']} {template['version']} -> {version}", flush=True)
        git(f"--git-dir={aside}", "worktree", "add", "--quiet", "--detach", str(change.folder / "new"), f"v{version}")
        job = _job(template, version, aside, age, start)
        (change.folder / "job.json").write_text(json.dumps(job))
        _let_new_version("check", change)
        backup = make_backup("before-update")
        try:
            _let_new_version("make", change)
            report = json.loads((change.folder / "report.json").read_text())
            note = {**report, "branch": f"{BRANCH}{version}", "onto": onto, "start": start, "backup": backup}
            _prepare(change, note)
        except BaseException:
            (ROOT / backup).unlink()
            raise
        change.make(f"the update to {version} is on the branch {note['branch']}.")
    print(f"The update is on the branch {note['branch']}, which is checked out; {onto} is as it was.\n", flush=True)
    subprocess.run([str(ROOT / "scripts" / "just"), "kernel-update-review"], check=False)


def _wanted(word: str) -> str:
    found = VERSION.fullmatch(word)
    if word and not found:
        raise Refusal(f"{show(word)} is no version; as in: {USE}")
    return found[1] if found else ""


def _look_around() -> dict[str, str]:
    """Sees that the project can be updated; returns what it says of the framework.

    Raises:
        Refusal: It cannot, or not now.

    """
    table = read_project().get("tool", {}).get("kernel", {})
    missing = list(_missing_tools())
    if missing:
        raise Refusal(f"an update needs what is not here: {'; '.join(missing)}")
    if "version" not in table:
        raise Refusal("this clone is no project of its own: `git pull` updates it, `just own NAME=x` makes it yours")
    for key, example in ("version", "1.4.0"), ("commit", "a commit's id"), ("upstream", "an address"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise Refusal(f'pyproject.toml does not say {key} under [tool.kernel]; as in: {key} = "{example}"')
    if not VERSION.fullmatch(table["version"]) or not COMMIT.fullmatch(table["commit"]):
        raise Refusal("version or commit under [tool.kernel] in pyproject.toml is malformed; restore them with git")
    refuse_unusual_git()
    pending = git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{BRANCH}*").split()
    if pending:
        raise Refusal(
            f"an update is pending on the branch {pending[0]}; end it with `just kernel-update-merge` or"
            " `just kernel-update-revert`"
        )
    if not git("branch", "--show-current").strip():
        raise Refusal("no branch is checked out; `git checkout` the one to update")
    refuse_uncommitted()
    refuse_nobody("the commit of the update")
    known = {"template": str(table.get("template", "the framework")), **{key: table[key] for key in _RECORDED}}
    return {**known, "version": known["version"].removeprefix("v"), "upstream": _address(table["upstream"])}


_RECORDED = ("version", "commit", "upstream")


def _missing_tools() -> list[str]:
    """All that is missing, each with what to do."""
    missing: list[str] = []
    told = git("--version") if shutil.which("git") else ""
    found = re.search(r"(\d+)\.(\d+)", told)
    if not found or tuple(map(int, found.groups())) < GIT_AT_LEAST:
        missing.append(f"git {'.'.join(map(str, GIT_AT_LEAST))} or newer (on Debian: apt install git)")
    lost = [] if VENV_UV.exists() else ["uv"]
    lost += [] if importlib.util.find_spec("tomlkit") else ["tomlkit"]
    missing += [f"{name} in .venv (`just deps-add {name} GROUP=dev`)" for name in lost]
    return missing


def _address(upstream: str) -> str:
    """What git is told of upstream: a URL, or the path of a folder.

    Raises:
        Refusal: It is neither, or something that git would take for an option or a command.

    """
    if ADDRESS.fullmatch(upstream):
        return upstream
    folder = ROOT / Path(upstream).expanduser()
    if upstream.startswith("-") or "::" in upstream or not upstream.isprintable() or not folder.exists():
        raise Refusal(
            f"upstream = {show(upstream)} under [tool.kernel] in pyproject.toml is neither a folder that is there nor"
            " an address that git knows (https, ssh, git or file)"
        )
    return str(folder.resolve())


def _fetch(upstream: str, aside: Path) -> None:
    """A repository with upstream's branches and tags, the project's objects, and its user's settings."""
    git("init", "--quiet", "--bare", "--template=", str(aside))
    copy_settings(KEPT, aside)
    (aside / "objects" / "info").mkdir(exist_ok=True)
    (aside / "objects" / "info" / "alternates").write_text(f"{ROOT / '.git' / 'objects'}\n")
    env = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_TERMINAL_PROMPT": "0"}
    refs = ["+refs/heads/*:refs/upstream/*", "+refs/tags/v*:refs/tags/v*"]
    try:
        git(*QUIET, f"--git-dir={aside}", "fetch", "--quiet", "--no-tags", "--", upstream, *refs, root=aside, env=env)
    except Refusal as refusal:
        raise Refusal(f"upstream {show(upstream)} cannot be fetched: {refusal}") from None


def _choose(wanted: str, template: Mapping[str, str], aside: Path) -> str:
    """The version to take; empty where there is nothing newer, which it says.

    Raises:
        Refusal: The version that is wanted is older, or there is none of that name.

    """
    tags = git(f"--git-dir={aside}", "for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags").split()
    versions = sorted((one[1] for tag in tags if tag[0] == "v" and (one := VERSION.fullmatch(tag))), key=_order)
    present = template["version"]
    if not versions:
        raise Refusal(f"upstream {show(template['upstream'])} has no version: no tag like v1.4.0")
    if wanted and wanted not in versions:
        raise Refusal(f"upstream has no version {wanted}; the newest is {versions[-1]}")
    version = wanted or versions[-1]
    if wanted and _order(wanted) < _order(present):
        raise Refusal(f"{wanted} is older than {present}, which this project has; an update only goes forward")
    if _order(version) <= _order(present):
        print(f"Nothing to do: this project has {template['template']} {present}; the newest is {versions[-1]}.")
        return ""
    return version


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _job(template: Mapping[str, str], version: str, aside: Path, age: int, start: str) -> dict[str, Any]:
    """What the new version is told."""
    commit = git(f"--git-dir={aside}", "rev-parse", f"refs/tags/v{version}^{{commit}}").strip()
    return {
        "protocol": PROTOCOL,
        "template": template["template"],
        "base_version": template["version"],
        "base": template["commit"],
        "version": version,
        "commit": commit,
        "start": start,
        "age": age,
    }


def _let_new_version(step: str, change: Change) -> None:
    """Runs the new version's script."""
    script = change.folder / "new" / "scripts" / "kernel" / "update_to.py"
    if not script.is_file():
        raise Refusal("that version has no scripts/kernel/update_to.py: it cannot be updated to; take another one")
    words = [f"STEP={step}", f"ROOT={ROOT}", f"FOLDER={change.folder}"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, str(script), *words], cwd=ROOT, env=env, pass_fds=[change.turn], check=False)
    if done.returncode:
        sys.exit(done.returncode if done.returncode > 0 else 2)


def _prepare(change: Change, note: Mapping[str, Any]) -> None:
    """Brings the commit into the project's repository, and tells the change what there is to do."""
    source = [str(change.folder / "git"), "refs/kernel/update"]
    options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
    commit = git(f"--git-dir={source[0]}", "rev-parse", source[1]).strip()
    git(*QUIET, "-c", "fetch.writeCommitGraph=false", "fetch", *options, *source, hold=[change.turn])
    refuse_uncommitted()
    if git("rev-parse", "HEAD").strip() != note["start"] or commit_of(note["branch"]):
        raise Refusal("somebody has made a commit or a branch in the meantime; run this again")
    change.put(NOTE, json.dumps(note, indent=1).encode())
    put_branch(change, note["branch"], commit)
    put_files(change, commit)
    put_head(change, note["branch"])


if __name__ == "__main__":
    run("kernel-update", USE, update, "VERSION", "AGE")
