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

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from addresses import PLAIN, scheme_of, without_password
from backup import make_backup
from bootstrap import VENV_UV
from change import Change
from lock import read_age, read_project
from recipe import ROOT, Refusal, copy_settings, git, is_yes, refuse_nobody, refuse_uncommitted, run, show
from switch import QUIET, commit_of, prefix, put_branch, put_files, put_head, refuse_unusual_git

USE = "just kernel-update, or just kernel-update VERSION=1.4.0"
PROTOCOL = 1
NOTE = ".kernel/update.json"
BRANCH = "kernel_update_to_"
GIT_AT_LEAST = (2, 38)  # `git merge-tree --write-tree`
VERSION = re.compile(r"v?((?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2})")  # the name of a version's tag
SAID = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9})*)[0-9A-Za-z.+-]{0,40}")  # what pyproject.toml may say, as 1.4.0.dev3
REVISION = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_./+-]{0,100}")  # a tag, a branch or a commit
COMMIT = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
KEPT = ("user.", "commit.", "gpg.", "filter.", "core.autocrlf", "core.eol", "core.filemode", "core.symlinks")
"""The settings of the project that a commit or a checkout depends on."""


@attrs.frozen
class Target:
    """What is to be taken.

    Args:
        version: The version that pyproject.toml says there.
        commit: Its commit.
        ref: What upstream calls it, where that is a tag or a branch.
        name: For branches, and where there is no tag for people: a version, with its commit where it is no release.

    """

    version: str
    commit: str
    ref: str = ""
    name: str = ""

    @property
    def told(self) -> str:
        """What it is, for people."""
        return self.version if self.name == self.version else f"{self.version} (commit {self.commit[:12]})"


def update(words: Mapping[str, str]) -> None:
    """Makes the branch and checks it out, or says that there is nothing newer."""
    wanted, age = words["VERSION"], read_age(words["AGE"])
    verify, plain = is_yes(words["VERIFY"], "VERIFY"), is_yes(words["PLAIN"], "PLAIN")
    if wanted and not REVISION.fullmatch(wanted):
        raise Refusal(f"{show(wanted)} is no version, nor a tag, a branch or a commit; as in: {USE}")
    template = _look_around()
    upstream = _address(template["upstream"], plain=plain)
    start, onto = git("rev-parse", "HEAD").strip(), git("branch", "--show-current").strip()
    with Change("just kernel-update") as change:
        aside = Aside(change.folder / "git")
        aside.fetch(upstream)
        target = _choose(wanted, template, aside)
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
    print(f"The update is on the branch {note['branch']}, which is checked out; {onto} is as it was.\n", flush=True)
    subprocess.run([str(ROOT / "scripts" / "just"), "kernel-update-review"], check=False)


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
        raise Refusal("no branch is checked out; `git checkout` the one to update")
    refuse_uncommitted()
    refuse_nobody("the commit of the update")
    known = {"template": str(table.get("template", "the framework")), **{key: table[key] for key in _RECORDED}}
    return {**known, "version": known["version"].removeprefix("v")}


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


def _address(upstream: str, *, plain: bool) -> str:
    """What git is told of upstream: a URL, or the path of a folder.

    Args:
        upstream: As pyproject.toml has it.
        plain: Whether http and git, which anybody on the way can change, will do.

    Raises:
        Refusal: It is neither, or something that git would take for an option or a command.

    """
    scheme = scheme_of(upstream)
    if scheme in PLAIN and not plain:
        raise Refusal(
            f"upstream {show_address(upstream)} is reached by {scheme}, where anybody on the way can put in code, which"
            " an update runs; let upstream under [tool.kernel] in pyproject.toml begin with https:// or ssh://, or say"
            " PLAIN=1"
        )
    if scheme:
        return upstream
    folder = ROOT / Path(upstream).expanduser()
    if upstream.startswith("-") or "::" in upstream or not upstream.isprintable() or not folder.exists():
        raise Refusal(
            f"upstream = {show_address(upstream)} under [tool.kernel] in pyproject.toml is neither a folder that is"
            " there nor an address that git knows (https, ssh or file)"
        )
    return str(folder.resolve())


def show_address(upstream: str) -> str:
    """An address for people: in quotes, shortened, and without a password."""
    return show(without_password(upstream))


class Aside:
    """A repository with upstream's branches and tags, the project's objects, and its user's settings.

    Args:
        folder: Where it is made.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git("init", "--quiet", "--bare", "--template=", str(folder))
        copy_settings(KEPT, folder)
        (folder / "objects" / "info").mkdir(exist_ok=True)
        objects = (ROOT / git("rev-parse", "--git-path", "objects").rstrip("\n")).resolve()
        (folder / "objects" / "info" / "alternates").write_text(f"{objects}\n")

    def git(self, *words: str, **options: Any) -> str:
        """What git says in it."""
        return git(f"--git-dir={self.folder}", *words, root=self.folder, **options)

    def fetch(self, upstream: str) -> None:
        """Brings all of upstream's branches and tags, and what it has checked out.

        Raises:
            Refusal: Upstream does not answer, or not as it should.

        """
        env = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_TERMINAL_PROMPT": "0"}
        words = [*QUIET, "fetch", "--quiet", "--no-tags", "--", upstream]
        try:
            self.git(*words, "+refs/heads/*:refs/upstream/*", "+refs/tags/*:refs/tags/*", env=env)
        except Refusal as refusal:
            reason = str(refusal).replace(upstream, without_password(upstream))
            raise Refusal(f"upstream {show_address(upstream)} cannot be fetched: {reason}") from None
        with contextlib.suppress(Refusal):  # a branch that is not there is checked out
            self.git(*words, "+HEAD:refs/kernel/head", env=env)

    def commit(self, revision: str) -> str:
        """The commit of a revision; empty where there is none."""
        return self.git(
            *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"), accept=(0, 1, 128)
        ).strip()

    def refs(self, kind: str) -> list[str]:
        """The names of all tags, or of all branches."""
        return self.git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/{kind}").split()

    def is_before(self, old: str, new: str) -> bool:
        """Whether the commit *old* is one that *new* comes from."""
        return self.git("merge-base", old, new, accept=(0, 1, 128)).strip() == old

    def verify(self, target: Target) -> None:
        """Raises `Refusal` unless git finds that somebody whom its user trusts has signed the *target*."""
        is_tag = target.ref.startswith("refs/tags/")
        what = f"the tag {target.ref.removeprefix('refs/tags/')}" if is_tag else f"the commit {target.commit[:12]}"
        try:
            self.git(*(("verify-tag", target.ref) if is_tag else ("verify-commit", target.commit)))
        except Refusal as refusal:
            raise Refusal(
                f"VERIFY=1, and git cannot verify {what} ({refusal}); see `git help verify-tag`, and gpg.format and"
                " gpg.ssh.allowedSignersFile in `git help config`"
            ) from None

    def only(self, commit: str, inner: str) -> str:
        """A commit without parents of what is in the folder *inner* of another one: so the update sees the project.

        Raises:
            Refusal: There is no such folder in it.

        """
        folder = f"{commit}:{inner.rstrip('/')}"
        if not self.git("rev-parse", "--verify", "--quiet", folder, accept=(0, 1, 128)):
            raise Refusal(f"{inner} is not in the last commit, so an update would have nothing to stand on; commit it")
        return self.git("commit-tree", "--no-gpg-sign", "-m", "The project", folder).strip()

    def graft(self, start: str, inner: str) -> None:
        """Puts the commit that the new version has made on top of *start*, where it changes the folder *inner* only."""
        made = "refs/kernel/update"
        tree = self.git("rev-parse", f"{made}^{{tree}}").strip()
        parts = inner.rstrip("/").split("/")
        for depth in reversed(range(len(parts))):
            lines = self.git("ls-tree", "-z", f"{start}:{'/'.join(parts[:depth])}").split("\0")
            others = [line for line in lines if line and line.partition("\t")[2] != parts[depth]]
            tree = self.git(
                "mktree", "-z", stdin="\0".join([*others, f"040000 tree {tree}\t{parts[depth]}", ""])
            ).strip()
        message = self.git("show", "--no-patch", "--no-show-signature", "--format=%B", made)
        sign = self.git("config", "--type=bool", "commit.gpgSign", accept=(0, 1)).strip() == "true"
        words = ["commit-tree", *(["-S"] if sign else ["--no-gpg-sign"]), "-p", start, "-F", "-", tree]
        self.git("update-ref", made, self.git(*words, stdin=message.rstrip("\n") + "\n").strip())


def _choose(wanted: str, template: Mapping[str, str], aside: Aside) -> Target | None:
    """What to take; None where there is nothing newer, which it says.

    Raises:
        Refusal: What is wanted is older, or there is nothing of that name.

    """
    tags = {one[1]: tag for tag in aside.refs("tags") if tag[0] == "v" and (one := VERSION.fullmatch(tag))}
    newest = max(tags, key=_order, default="")
    present = template["version"]
    about = newest or "what it has checked out, as it has no tag like v1.4.0"
    found = VERSION.fullmatch(wanted)
    if found and found[1] in tags:
        target = _target(aside, f"refs/tags/{tags[found[1]]}", found[1])
    elif wanted:
        refs = [*(f"refs/{kind}/{wanted}" for kind in ("tags", "upstream")), *([wanted] if _is_id(wanted) else [])]
        ref = next(filter(aside.commit, refs), "")
        if not ref:
            is_none = f"{show(wanted)} is no version, tag, branch or commit of upstream's"
            raise Refusal(f"{f'upstream has no version {found[1]}' if found else is_none}; the newest is {about}")
        target = _target(aside, ref)
    elif newest:
        target = _target(aside, f"refs/tags/{tags[newest]}", newest)
    else:
        target = _target(aside, "refs/kernel/head")
    if target.name == target.version:
        older, same = _order(target.version) < _order(present), _order(target.version) == _order(present)
    else:
        same = target.commit == template["commit"]
        older = not same and aside.is_before(target.commit, template["commit"])
    if older and wanted:
        raise Refusal(f"{target.told} is older than {present}, which this project has; an update only goes forward")
    if older or same:
        print(
            f"Nothing to do: this project has {template['template']} {present}; the newest is {newest or target.told}."
        )
        return None
    return target


def _is_id(word: str) -> bool:
    return re.fullmatch("[0-9a-f]{7,64}", word) is not None


def _target(aside: Aside, ref: str, version: str = "") -> Target:
    """What upstream calls *ref*; the tag of a *version*, or anything else.

    Raises:
        Refusal: It is no version of the framework's.

    """
    commit = aside.commit(ref)
    if version:
        return Target(version, commit, ref, version)
    try:
        project = tomllib.loads(aside.git("cat-file", "blob", f"{commit}:pyproject.toml"))
        said = str(project["project"]["version"])
    except (Refusal, tomllib.TOMLDecodeError, LookupError):
        said = ""
    if not SAID.fullmatch(said):
        where = ref.removeprefix("refs/").removeprefix("tags/").removeprefix("upstream/")
        raise Refusal(f"upstream's {where} has no pyproject.toml that says a version, so it is none of the framework's")
    return Target(said, commit, ref if ref.startswith("refs/") else "", f"{said}-{commit[:12]}")


def _order(version: str) -> tuple[int, ...]:
    found = SAID.fullmatch(version)
    numbers = found[1].split(".") if found else []
    return tuple(map(int, [*numbers, *"000"][: max(3, len(numbers))]))


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
    run("kernel-update", USE, update, "VERSION", "AGE", "VERIFY", "PLAIN")
