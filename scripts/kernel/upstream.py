"""Find out which versions upstream has, and choose the one for an update."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from addresses import PLAIN, scheme_of, without_password
from recipe import ROOT, Refusal, copy_settings, git, show
from switch import QUIET

VERSION = re.compile(r"v?((?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2})")  # the name of a version's tag
SAID = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9})*)[0-9A-Za-z.+-]{0,40}")  # in pyproject.toml, such as 1.4.0.dev3
KEPT = ("user.", "commit.", "gpg.", "filter.", "core.autocrlf", "core.eol", "core.filemode", "core.symlinks")
"""The settings of the project that a commit or a checkout depends on."""


@attrs.frozen
class Target:
    """The version to update to.

    Args:
        version: The version in its pyproject.toml.
        commit: Its commit.
        ref: Its tag or branch upstream, if it has one.
        name: The name for branches, and for people if there is no tag: a version, with its commit if it is not a
            release.

    """

    version: str
    commit: str
    ref: str = ""
    name: str = ""

    @property
    def told(self) -> str:
        """The name shown to people."""
        return self.version if self.name == self.version else f"{self.version} (commit {self.commit[:12]})"


def address_of(upstream: str, *, plain: bool) -> str:
    """Return upstream's address for git: a URL, or the path of a folder.

    Args:
        upstream: The address in pyproject.toml.
        plain: Whether http and git are allowed, although anybody on the network path can change the content.

    Raises:
        Refusal: It is neither, or git could take it for an option or a command.

    """
    scheme = scheme_of(upstream)
    if scheme in PLAIN and not plain:
        raise Refusal(
            f"upstream {show_address(upstream)} uses {scheme}, where anybody on the network path can add code, which"
            " an update runs; change upstream under [tool.kernel] in pyproject.toml to https:// or ssh://, or use"
            " PLAIN=1"
        )
    if scheme:
        return upstream
    folder = ROOT / Path(upstream).expanduser()
    if upstream.startswith("-") or "::" in upstream or not upstream.isprintable() or not folder.exists():
        raise Refusal(
            f"upstream = {show_address(upstream)} under [tool.kernel] in pyproject.toml is neither an existing"
            " folder nor an address that git knows (https, ssh or file)"
        )
    return str(folder.resolve())


def show_address(upstream: str) -> str:
    """Format an address for people: in quotes, shortened, and without a password."""
    return show(without_password(upstream))


class Aside:
    """A repository with upstream's branches and tags, the project's objects, and the user's settings.

    Args:
        folder: The folder for the repository.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git("init", "--quiet", "--bare", "--template=", str(folder))
        copy_settings(KEPT, folder)
        objects = (ROOT / git("rev-parse", "--git-path", "objects").rstrip("\n")).resolve()
        (folder / "objects" / "info" / "alternates").write_text(f"{objects}\n")

    def git(self, *words: str, **options: Any) -> str:
        """Run git in the repository, and return its output."""
        return git(f"--git-dir={self.folder}", *words, **options)

    def fetch(self, upstream: str) -> None:
        """Fetch all of upstream's branches and tags, and the commit it has checked out.

        Raises:
            Refusal: Upstream does not respond, or not with a repository.

        """
        env = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_TERMINAL_PROMPT": "0"}
        words = [*QUIET, "fetch", "--quiet", "--no-tags", "--", upstream]
        try:
            self.git(*words, "+refs/heads/*:refs/upstream/*", "+refs/tags/*:refs/tags/*", env=env)
        except Refusal as refusal:
            reason = str(refusal).replace(upstream, without_password(upstream))
            raise Refusal(f"upstream {show_address(upstream)} cannot be fetched: {reason}") from None
        with contextlib.suppress(Refusal):  # the branch that it has checked out does not exist
            self.git(*words, "+HEAD:refs/kernel/head", env=env)

    def commit(self, revision: str) -> str:
        """Return the commit of a revision; empty if there is none."""
        return self.git(
            *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"), accept=(0, 1, 128)
        ).strip()

    def refs(self, kind: str) -> list[str]:
        """Return the names of all tags or all branches."""
        return self.git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/{kind}").split()

    def is_before(self, old: str, new: str) -> bool:
        """Return whether the commit *old* is an ancestor of *new*."""
        return self.git("merge-base", old, new, accept=(0, 1, 128)).strip() == old

    def verify(self, target: Target) -> None:
        """Raise `Refusal` unless git verifies that somebody whom the user trusts has signed the *target*."""
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
        """Create a commit without parents from the folder *inner* of *commit*: the update sees only the project.

        Raises:
            Refusal: The commit has no such folder.

        """
        folder = f"{commit}:{inner.rstrip('/')}"
        if not self.git("rev-parse", "--verify", "--quiet", folder, accept=(0, 1, 128)):
            raise Refusal(f"{inner} is not in the last commit, so an update would have no base; commit it")
        return self.git("commit-tree", "--no-gpg-sign", "-m", "The project", folder).strip()

    def graft(self, start: str, inner: str) -> None:
        """Put the commit of the new version on top of *start*. It changes only the folder *inner*."""
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


def choose(wanted: str, template: Mapping[str, str], aside: Aside) -> Target | None:
    """Return the version to update to; None if there is nothing newer, which is reported.

    Raises:
        Refusal: The wanted version is older, or does not exist.

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
            is_none = f"{show(wanted)} is not a version, tag, branch or commit of upstream"
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
    """Return the target for *ref*, which may be the tag of a *version*.

    Raises:
        Refusal: It is not a version of the framework.

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
        raise Refusal(f"upstream's {where} has no pyproject.toml with a version, so it is no version of the framework")
    return Target(said, commit, ref if ref.startswith("refs/") else "", f"{said}-{commit[:12]}")


def _order(version: str) -> tuple[int, ...]:
    found = SAID.fullmatch(version)
    numbers = found[1].split(".") if found else []
    return tuple(map(int, [*numbers, *"000"][: max(3, len(numbers))]))
