"""`just kernel-update`: put a newer version of the framework on a branch, or leave the project unchanged.

An update consists of two parts. This script, part of the old version, does what must not change: it checks that an
update is possible, fetches upstream, makes a backup, and puts the project on the branch. The new version defines what
an update does: its `scripts/kernel/update_to.py` runs from a checkout aside. So an old project can take any newer
version.

The protocol between the two, which every version must keep:

- FOLDER, in `.kernel`, contains `git`, a repository with upstream's branches and tags and the project's objects; `new`,
  the new version checked out; and `job.json`, with the keys of `_job`.
- `python FOLDER/new/scripts/kernel/update_to.py STEP=check ROOT=project FOLDER=FOLDER` refuses if the new version sees
  an obstacle. After a backup, STEP=make follows. The project's .venv runs it; it may use tomlkit and the standard
  library, and changes nothing outside of FOLDER.
- Exit code 0 means success. Otherwise nothing was changed, and it has printed the reason.
- STEP=make leaves one commit on top of the project's, at `refs/kernel/update` in `git`; and `report.json`, for
  `just kernel-update-review`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from backup import make_backup
from bootstrap import VENV_UV
from lock import read_age, read_project
from recipe import ROOT, Refusal, git, is_yes, refuse_nobody, refuse_uncommitted, run, show
from staging import Change
from switch import QUIET, commit_of, prefix, put_branch, put_files, put_head, refuse_unusual_git
from upstream import SAID, Aside, address_of, choose

USE = "just kernel-update, or just kernel-update VERSION=1.4.0"
PROTOCOL = 1
NOTE = ".kernel/update.json"
BRANCH = "kernel_update_to_"
GIT_AT_LEAST = (2, 38)  # `git merge-tree --write-tree`
REVISION = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_./+-]{0,100}")  # a tag, a branch or a commit
COMMIT = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")


def update(words: Mapping[str, str]) -> None:
    """Create the branch and check it out, or report that there is nothing newer."""
    wanted, age = words["VERSION"], read_age(words["AGE"])
    verify, plain = is_yes(words["VERIFY"], "VERIFY"), is_yes(words["PLAIN"], "PLAIN")
    if wanted and not REVISION.fullmatch(wanted):
        raise Refusal(f"{show(wanted)} is not a version, tag, branch or commit; usage: {USE}")
    template = _look_around()
    upstream = address_of(template["upstream"], plain=plain)
    start, onto = git("rev-parse", "HEAD").strip(), git("branch", "--show-current").strip()
    with Change("just kernel-update") as change:
        aside = Aside(change.folder / "git")
        aside.fetch(upstream)
        target = choose(wanted, template, aside)
        if not target:
            return
        if verify:
            aside.verify(target)
        print(f"{template['template']} {template['version']} -> {target.told}", flush=True)
        aside.git("worktree", "add", "--quiet", "--detach", str(change.folder / "new"), target.commit)
        inner = prefix()
        job = {
            "protocol": PROTOCOL,
            "template": template["template"],
            "base_version": template["version"],
            "base": template["commit"],
            "version": target.version,
            "told": target.told,
            "commit": target.commit,
            "start": aside.only(start, inner) if inner else start,
            "age": age,
        }
        (change.folder / "job.json").write_text(json.dumps(job))
        _let_new_version("check", change)
        backup = make_backup("before-update")
        try:
            _let_new_version("make", change)
            if inner:
                aside.graft(start, inner)
            report = json.loads((change.folder / "report.json").read_text())
            about = {"version": target.told, "branch": f"{BRANCH}{target.name}"}
            note = {**report, **about, "onto": onto, "start": start, "backup": backup}
            _prepare(change, note)
        except BaseException:
            (ROOT / backup).unlink()
            raise
        change.make(f"the update to {target.told} is on the branch {note['branch']}.")
    print(f"The update is on the branch {note['branch']}, which is checked out; {onto} is unchanged.\n", flush=True)
    subprocess.run([str(ROOT / "scripts" / "just"), "kernel-update-review"], check=False)


def _look_around() -> dict[str, str]:
    """Check that the project can be updated, and return its [tool.kernel] table.

    Raises:
        Refusal: It cannot be updated, or not now.

    """
    table = read_project().get("tool", {}).get("kernel", {})
    missing = list(_missing_tools())
    if missing:
        raise Refusal(f"an update needs something that is missing: {'; '.join(missing)}")
    if "version" not in table:
        raise Refusal("this clone is not a project of its own: `git pull` updates it, `just own NAME=x` makes it yours")
    for key, example in ("version", "1.4.0"), ("commit", "a commit's id"), ("upstream", "an address"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise Refusal(f'pyproject.toml does not set {key} under [tool.kernel]; example: {key} = "{example}"')
    if not SAID.fullmatch(table["version"]) or not COMMIT.fullmatch(table["commit"]):
        raise Refusal("version or commit under [tool.kernel] in pyproject.toml is malformed; restore them with git")
    refuse_unusual_git()
    pending = git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{BRANCH}*").split()
    if pending:
        raise Refusal(
            f"an update is pending on the branch {pending[0]}; end it with `just kernel-update-merge` or"
            " `just kernel-update-revert`"
        )
    if not git("branch", "--show-current").strip():
        raise Refusal("no branch is checked out; `git checkout` the branch to update")
    refuse_uncommitted()
    refuse_nobody("the commit of the update")
    known = {"template": str(table.get("template", "the framework")), **{key: table[key] for key in _RECORDED}}
    return {**known, "version": known["version"].removeprefix("v")}


_RECORDED = ("version", "commit", "upstream")


def _missing_tools() -> list[str]:
    """Return everything that is missing, each with what to do."""
    missing: list[str] = []
    told = git("--version") if shutil.which("git") else ""
    found = re.search(r"(\d+)\.(\d+)", told)
    if not found or tuple(map(int, found.groups())) < GIT_AT_LEAST:
        missing.append(f"git {'.'.join(map(str, GIT_AT_LEAST))} or newer (on Debian: apt install git)")
    lost = [] if VENV_UV.exists() else ["uv"]
    lost += [] if importlib.util.find_spec("tomlkit") else ["tomlkit"]
    missing += [f"{name} in .venv (`just deps-add {name} GROUP=dev`)" for name in lost]
    return missing


def _let_new_version(step: str, change: Change) -> None:
    """Run the new version's script."""
    script = change.folder / "new" / "scripts" / "kernel" / "update_to.py"
    if not script.is_file():
        raise Refusal("that version has no scripts/kernel/update_to.py: choose another version")
    words = [f"STEP={step}", f"ROOT={ROOT}", f"FOLDER={change.folder}"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, str(script), *words], cwd=ROOT, env=env, pass_fds=[change.turn], check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise Refusal(f"the new version's {script.name} was ended by {name}; nothing was changed: run this again")
    if done.returncode:
        sys.exit(done.returncode)


def _prepare(change: Change, note: Mapping[str, Any]) -> None:
    """Bring the commit into the project's repository, and add its differences to the change."""
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
    run("kernel-update", USE, update, "VERSION", "AGE", "VERIFY", "PLAIN")
