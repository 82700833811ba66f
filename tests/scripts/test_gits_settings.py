"""Whatever the user has told git: own, commit-hook, build, and the whole of kernel-update come to the same."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.projects import Project
from tests.scripts.upstream import TESTS, Upstream

IDENTITY = "[user]\nname = Ann Other\nemail = ann@example.com\n"
SETTINGS = {  # newer versions of git fail by themselves where core.splitIndex meets core.fsmonitor or feature.manyFiles
    "what is shown": """
        color.ui=always color.status=always log.showSignature=true log.date=relative log.showRoot=false
        format.pretty=oneline core.quotePath=false core.abbrev=5 core.pager=false status.short=true
        status.branch=true status.showUntrackedFiles=no status.relativePaths=false status.showStash=true
        column.ui=always i18n.logOutputEncoding=latin1 diff.noprefix=true
    """,
    "how it compares and merges": """
        diff.external=false diff.renames=copies diff.algorithm=histogram diff.mnemonicPrefix=true
        diff.ignoreSubmodules=all diff.orderFile=/dev/null merge.ff=only merge.conflictStyle=diff3 merge.renames=false
        merge.directoryRenames=true merge.log=true merge.verbosity=5 pull.rebase=true rerere.enabled=true
        rerere.autoUpdate=true
    """,
    "how it keeps things": """
        safe.bareRepository=explicit core.untrackedCache=true index.version=4
        feature.manyFiles=true core.bigFileThreshold=1k core.compression=0 core.logAllRefUpdates=always gc.auto=1
        maintenance.auto=true fetch.fsckObjects=true transfer.fsckObjects=true fetch.prune=true fetch.pruneTags=true
        fetch.writeCommitGraph=true core.commitGraph=false protocol.version=0
    """,
    "how it commits": """
        core.splitIndex=true
        commit.cleanup=scissors commit.verbose=true commit.status=false commit.template=/dev/null core.commentChar=;
        core.editor=false user.useConfigOnly=true i18n.commitEncoding=latin1 core.whitespace=trailing-space
        apply.whitespace=fix tag.gpgSign=true push.default=nothing branch.autoSetupMerge=always
        branch.autoSetupRebase=always advice.detachedHead=false init.defaultBranch=trunk submodule.recurse=true
        fetch.recurseSubmodules=true
    """,
    "how files lie": """
        core.fsmonitor=true
        core.eol=lf core.safecrlf=true core.excludesFile=/dev/null core.attributesFile=/dev/null
        core.trustctime=false core.checkStat=minimal checkout.workers=4 checkout.thresholdForParallelism=1
        core.preloadIndex=false core.protectHFS=true core.precomposeUnicode=true clone.defaultRemoteName=theirs
        remote.pushDefault=theirs worktree.guessRemote=true blame.coloring=none help.autocorrect=immediate
    """,
    "signed": "log.showSignature=true commit.gpgSign=true gpg.format=ssh user.signingKey={}",
}


def test_there_are_forty() -> None:
    assert len(" ".join(SETTINGS.values()).split()) > 40


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """Four versions."""
    upstream = Upstream(tmp_path_factory.mktemp("settings") / "machine")
    folder = upstream.machine.folder
    done = upstream.machine.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"), cwd=folder)
    assert done.code == 0, done.err
    upstream.release_all()
    return upstream


@pytest.fixture(autouse=True)
def _as_before(upstream: Upstream) -> Iterator[None]:
    yield
    (upstream.machine.folder / ".gitconfig").write_text(IDENTITY)


def tell_git(upstream: Upstream, settings: str) -> None:
    """Writes the user's settings."""
    folder = upstream.machine.folder
    (folder / ".gitconfig").write_text(IDENTITY)
    for pair in settings.format(folder / "key").split():
        key, _, value = pair.partition("=")
        assert upstream.machine.call("git", "config", "--global", key, value, cwd=folder).code == 0


def whole_path(upstream: Upstream, folder: Path) -> tuple[dict[str, str], str]:
    """From the clone to the merged update; returns the files, and what the artifact is."""
    machine = upstream.machine
    done = machine.call("git", "clone", "-q", "-b", "v0.1.0", str(upstream.root), str(folder), cwd=folder.parent)
    assert done.code == 0, done.err
    project = Project(machine, folder)
    ok(project, "own", "NAME=my-app")
    project.write("Justfile", (folder / "Justfile").read_text() + TESTS.format("exit 0"))
    project.write("kernel/letters.txt", (folder / "kernel/letters.txt").read_text().replace("m\n", "m, mine\n"))
    ok(project, "commit-hook")
    commit(project, "Mine")
    ok(project, "kernel-files")
    ok(project, "build")
    artifact = hashlib.sha256((folder / "build" / "my-app.pyz").read_bytes()).hexdigest()
    ok(project, "kernel-update", "VERSION=0.3.0")
    ok(project, "kernel-update-review")
    ok(project, "kernel-update-revert")
    ok(project, "kernel-update")
    assert machine.call("git", "checkout", "-q", "main", cwd=folder).code == 0
    project.write("notes.txt", "while the update waits\n")
    commit(project, "Notes")
    ok(project, "kernel-update-merge")
    assert machine.call("git", "status", "--porcelain", "-uall", cwd=folder).out in {"", "## main\n"}
    ok(project, "commit-hook", "REMOVE=1")
    files = {path: file for path, file in project.files().items() if not path.startswith("build/")}
    shutil.rmtree(folder)
    return files, artifact


def ok(project: Project, *words: str) -> None:
    done = project.just(*words)
    assert done.code == 0, (words, done.out, done.err)
    assert "Traceback" not in done.err, done.err


def commit(project: Project, message: str) -> None:
    dates = {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
    for words in (["add", "-A"], ["commit", "-qm", message]):
        done = project.machine.call("git", *words, cwd=project.root, **dates)
        assert done.code == 0, done.err


@pytest.fixture(scope="module")
def plain(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What comes of it without any setting."""
    return whole_path(upstream, tmp_path_factory.mktemp("plain") / "my-app")[0]


@pytest.mark.minutes
@pytest.mark.parametrize("kind", SETTINGS)
def test_it_comes_to_the_same(upstream: Upstream, plain: dict[str, str], tmp_path: Path, kind: str) -> None:
    """With all settings of a kind at once."""
    tell_git(upstream, SETTINGS[kind])
    files, _ = whole_path(upstream, tmp_path / "my-app")
    assert files.keys() == plain.keys()
    different = {path for path in files if files[path] != plain[path]}
    assert different <= {"pyproject.toml", "scripts/kernel/shipped.txt"}, different  # they name the commit


@pytest.mark.minutes
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("commit.gpgSign=true gpg.format=ssh user.signingKey=/nowhere", "/nowhere"),
        ("commit.gpgSign=true gpg.program=/nowhere", "/nowhere"),
        ("commit.gpgSign=true user.signingKey=0000000000000000", "gpg failed to sign"),
        ("commit.gpgSign=true gpg.format=ssh", "user.signingkey"),
    ],
)
def test_a_key_that_cannot_sign_is_told(upstream: Upstream, tmp_path: Path, settings: str, reason: str) -> None:
    """One error, which says what to mend, or how to do without; nothing is changed."""
    project = upstream.machine.clone(tmp_path / "my-app")
    tell_git(upstream, settings)
    with project.unchanged():
        done = project.just("own", "NAME=my-app")
    assert (done.code, done.out) == (2, "")
    (line,) = [line for line in done.err.splitlines() if not line.startswith("scripts/just: ")]
    assert line.startswith("just own: git cannot sign the commit (")
    assert reason in line
    assert "`git config commit.gpgSign false`" in line
