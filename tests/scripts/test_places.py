"""Projects where people have them: a folder of a bigger repository, a second worktree, in no repository at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.scripts.projects import Project
from tests.scripts.upstream import TESTS, Upstream, copy, edit, link

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """An upstream without any tag, as a mirror has."""
    upstream = Upstream(tmp_path_factory.mktemp("places") / "machine")
    upstream.git("tag", "-d", "v0.1.0")
    return upstream


class Bigger(Project):
    """A repository with a front end, and with the project in a folder.

    Args:
        upstream: Where the project comes from.
        top: Where to make it.

    """

    def __init__(self, upstream: Upstream, top: Path) -> None:
        machine = upstream.machine
        top.mkdir()
        machine.call("git", "init", "-qb", "main", cwd=top)
        (top / "front").mkdir()
        (top / "front" / "index.html").write_text("<p>\n")
        self.top = Project(machine, top)
        self.top.commit()
        super().__init__(machine, machine.clone(top / "back end").root)

    def own(self) -> None:
        """Makes the project the user's, and commits it."""
        done = self.just("own", "NAME=my-app")
        assert done.code == 0, done.err
        self.write("Justfile", (self.root / "Justfile").read_text() + TESTS.format("exit 0"))
        self.top.commit()


@pytest.fixture(scope="module")
def bigger_once(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Bigger:
    """One whose project is owned and committed, made from the first version; by now there are newer ones."""
    bigger = Bigger(upstream, tmp_path_factory.mktemp("bigger") / "mono")
    bigger.own()
    upstream.release_all()
    for tag in upstream.git("tag").split():
        upstream.git("tag", "-d", tag)
    return bigger


def inner(top: Project) -> Project:
    """The project in a bigger repository."""
    project = Project(top.machine, top.root / "back end")
    assert project.just("--version").code == 0
    return project


def head_of(upstream: Upstream) -> str:
    return upstream.git("rev-parse", "HEAD").strip()


# -- a folder of a bigger repository -------------------------------------------------------------------------------


def test_own_leaves_it_to_the_repository_around(upstream: Upstream, tmp_path: Path) -> None:
    """A clone in a folder of it loses its own repository, which is kept; nothing is committed or staged."""
    bigger = Bigger(upstream, tmp_path / "mono")
    before = bigger.top.git("rev-parse", "HEAD")
    done = bigger.just("own", "NAME=my-app")
    assert done.code == 0, done.err
    assert f"commit it in the repository at {bigger.top.root}" in done.out
    assert not (bigger.root / ".git").exists()
    assert (bigger.root / ".kernel" / "before-own.git" / "HEAD").exists()
    assert bigger.top.git("rev-parse", "HEAD") == before
    assert bigger.top.git("status", "--porcelain") == '?? "back end/"\n'
    table = tomllib.loads((bigger.root / "pyproject.toml").read_text())["tool"]["kernel"]
    assert set(table) == {"template", "version", "commit", "upstream"}
    bigger.top.commit()
    tracked = bigger.top.git("ls-files", "-z", "back end").split("\0")
    assert "back end/services/hello_world.py" in tracked
    assert not any("example" in path or ".kernel" in path or ".venv" in path for path in tracked)


def test_own_is_killed_in_a_folder(upstream: Upstream, tmp_path: Path) -> None:
    """It is the clone that it was, or a part of the repository around; the next recipe sees to that."""
    bigger = Bigger(upstream, tmp_path / "mono")
    words = (".venv/bin/python", str(Path(__file__).with_name("killed.py")))
    own = ("scripts/kernel/own.py", "NAME=my-app")

    def run(step: int, place: str) -> Project:
        project = Project(bigger.machine, copy(bigger.top, tmp_path / place, link).root / "back end")
        env = {"COUNTED": str(tmp_path / "counted")}
        done = project.machine.call(*words, str(step), *own, cwd=project.root, **env)
        assert done.code == (-signal.SIGKILL if step else 0), done.err
        return project

    before, after = bigger.files(), run(0, "whole").files()
    last = int((tmp_path / "counted").read_text())
    verdicts: list[bool] = []
    for step in sorted({*range(2, last, last // 8), *range(last - 12, last + 1, 3)}):
        project = run(step, f"step{step}")
        assert project.just("hello").code == 0
        assert not (project.root / ".kernel" / "change").exists()
        finished = project.files() == after
        assert finished or project.files() == before
        assert (project.root / ".git").exists() == (not finished)
        verdicts.append(finished)
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {False, True}


@pytest.mark.parametrize("committed", [True, False])
def test_own_of_files_that_came_without_a_repository(upstream: Upstream, tmp_path: Path, committed: bool) -> None:
    """What is in no commit is in a backup first; what the user would have to say for updates is told."""
    bigger = Bigger(upstream, tmp_path / "mono")
    shutil.rmtree(bigger.root / ".git")
    if committed:
        bigger.top.commit()
    done = bigger.just("own", "NAME=my-app")
    assert done.code == 0, done.err
    assert ("kept in a backup first" in done.out) == (not committed)
    assert "set upstream and commit" in done.out
    assert not (bigger.root / "services" / "example_api.py").exists()
    assert bigger.just("kernel-update").err.startswith("just kernel-update: pyproject.toml does not set commit")


def test_recipes_in_a_folder(bigger_once: Bigger, tmp_path: Path) -> None:
    """Each does there what it does at the top."""
    top = copy(bigger_once.top, tmp_path / "mono")
    project = inner(top)
    files = project.just("kernel-files")
    assert "0 changed, 0 deleted" in files.out, files.out + files.err
    assert project.just("service", "billing").code == 0
    assert top.git("status", "--porcelain", "-uall").count("back end/") == 2
    assert project.just("service-remove", "billing", "FORCE=1").code == 0
    assert not top.git("status", "--porcelain")
    (project.root / "LICENSE").unlink()
    top.git("commit", "-qam", "Less")
    project.write("LICENSE", "mine")
    name = re.search(r"backups/(\S+)", project.just("backup").out)
    assert name is not None
    (project.root / "LICENSE").unlink()
    assert project.just("backup-restore", name[1], stdin="y\n").code == 0
    assert (project.root / "LICENSE").read_text() == "mine"
    top.write("front/new.html", "")
    built = project.just("build")
    assert built.code == 0, built.err
    commit = top.git("rev-parse", "HEAD")[:12]
    assert f"(commit {commit}, changed)" in built.out
    version = top.machine.call(".venv/bin/python", "-m", "app", "version", cwd=project.root)
    assert version.out == f"my-app 0.1.0 (commit {commit} with changes, tree)\n"
    assert project.just("commit-hook").code == 0
    with (project.root / "Justfile").open("a") as file:
        file.write("\ntest *args:\n    @echo tested in {{ justfile_directory() }} >&2\n")
    top.git("add", "-A")
    done = top.machine.call("git", "commit", "-qm", "x", cwd=top.root)
    assert done.code == 0, done.err
    assert f"tested in {project.root}\n" in done.err


def test_a_clone_that_is_not_owned_yet(upstream: Upstream, tmp_path: Path) -> None:
    """The framework's files are listed, and what was changed is marked, also without a repository of its own."""
    bigger = Bigger(upstream, tmp_path / "mono")
    shutil.rmtree(bigger.root / ".git")
    assert "compared with nothing, as no commit is known" in bigger.just("kernel-files").out
    bigger.top.commit()
    (bigger.root / "kernel" / "letters.txt").write_text("mine")
    done = bigger.just("kernel-files")
    assert "changed  kernel/letters.txt" in done.out, done.out + done.err
    assert "1 changed, 0 deleted" in done.out


def test_an_update_touches_only_the_folder(bigger_once: Bigger, upstream: Upstream, tmp_path: Path) -> None:
    """It is a branch of the repository around; what is not committed elsewhere stays, and so does what is staged."""
    top = copy(bigger_once.top, tmp_path / "mono")
    project = inner(top)
    edit(project.root / "kernel" / "letters.txt", ("m\n", "m, mine\n"), ("z\n", "z, mine\n"))
    top.commit()
    top.write("front/index.html", "<p>not committed\n")
    top.write("front/staged.html", "<p>staged\n")
    top.git("add", "front/staged.html")
    status = top.git("status", "--porcelain")
    done = project.just("kernel-update")
    assert done.code == 0, done.err
    commit = head_of(upstream)[:12]
    assert done.out.startswith(f"kernelpack 0.1.0 -> 0.4.0 (commit {commit})\n")
    assert "- kernel/letters.txt: both have changed it; see the markers in it\n" in done.out
    assert "changed   kernel/logo.bin\n" in done.out
    assert top.git("branch", "--show-current") == f"kernel_update_to_0.4.0-{commit}\n"
    assert top.git("status", "--porcelain") == status
    changed = top.git("diff", "-z", "--name-only", "main", f"kernel_update_to_0.4.0-{commit}").split("\0")
    assert {path.split("/")[0] for path in changed if path} == {"back end"}
    assert "there are conflicts (kernel/letters.txt)" in project.just("kernel-update-merge").err
    text = (project.root / "kernel" / "letters.txt").read_text()
    assert "<<<<<<< yours\nz, mine\n" in text
    project.write("kernel/letters.txt", "resolved\n")
    top.git("commit", "-qm", "Resolved", "--", "back end")
    done = project.just("kernel-update-merge")
    assert (done.code, done.out) == (0, f"main has kernelpack 0.4.0 (commit {commit}).\n"), done.err
    assert top.git("branch", "--format=%(refname:short)") == "main\n"
    assert top.git("status", "--porcelain") == status
    assert (top.root / "front" / "index.html").read_text() == "<p>not committed\n"
    assert project.just("kernel-update").out.startswith("Nothing to do: this project has kernelpack 0.4.0")
    top.git("fsck", "--strict")


def test_work_that_went_on_elsewhere(bigger_once: Bigger, tmp_path: Path) -> None:
    """Where the branch has gone on outside of the folder, the update is merged and reverted from there."""
    top = copy(bigger_once.top, tmp_path / "mono")
    project = inner(top)
    assert project.just("kernel-update").code == 0
    branch = top.git("branch", "--show-current").strip()
    top.git("checkout", "-q", "main")
    top.write("front/later.html", "<p>\n")
    top.commit()
    top.git("checkout", "-q", branch)
    for word in ("merge", "revert"):
        refs = top.git("for-each-ref")
        with top.unchanged_files():
            done = project.just(f"kernel-update-{word}")
        assert (done.code, top.git("for-each-ref")) == (2, refs)
        assert "outside of this folder, too (front/later.html)" in done.err
    other = copy(top, tmp_path / "other")
    for one, word in ((top, "merge"), (other, "revert")):
        one.git("checkout", "-q", "main")
        done = inner(one).just(f"kernel-update-{word}")
        assert done.code == 0, done.err
        assert one.git("branch", "--format=%(refname:short)") == "main\n"
        assert (one.root / "front" / "later.html").exists()
        assert (one.root / "back end" / "kernel" / "moved.txt").exists() == (word == "merge")
        assert not one.git("status", "--porcelain")


def test_a_folder_that_is_not_committed(bigger_once: Bigger, upstream: Upstream, tmp_path: Path) -> None:
    """An update says so, and changes nothing."""
    assert bigger_once  # upstream has newer versions by then
    bigger = Bigger(upstream, tmp_path / "mono")
    bigger.git("reset", "-q", "--hard", ":/More files")
    assert bigger.just("own", "NAME=my-app").code == 0
    assert "uncommitted" in bigger.just("kernel-update").err
    bigger.top.write(".gitignore", "back end\n")
    bigger.top.git("add", ".gitignore")
    bigger.top.git("commit", "-qm", "Ignored")
    assert "is not in the last commit" in bigger.just("kernel-update").err


# -- a second worktree ---------------------------------------------------------------------------------------------


def test_an_update_in_a_second_worktree(bigger_once: Bigger, upstream: Upstream, tmp_path: Path) -> None:
    """The first one stays as it is; a branch that is checked out there is not moved under its feet."""
    machine = bigger_once.machine
    first = Project(machine, machine.clone(tmp_path / "first").root)
    first.git("reset", "-q", "--hard", ":/More files")
    assert first.just("own", "NAME=my-app").code == 0
    first.write("Justfile", (first.root / "Justfile").read_text() + TESTS.format("exit 0"))
    first.commit()
    first.git("worktree", "add", "-qb", "work", str(tmp_path / "second"))
    second = Project(machine, tmp_path / "second")
    assert second.just("--version").code == 0
    with first.unchanged_files():
        done = second.just("kernel-update")
        assert done.code == 0, done.err
        branch = second.git("branch", "--show-current").strip()
        assert branch.startswith("kernel_update_to_0.4.0-")
        assert not second.git("status", "--porcelain")
        assert "another clone or worktree has made the update" in first.just("kernel-update-merge").err
    first.git("checkout", "-q", "work")
    for word in ("merge", "revert"):
        done = second.just(f"kernel-update-{word}")
        assert (done.code, f"work is checked out in {first.root}" in done.err) == (2, True), done.err
    first.git("checkout", "-q", "main")
    reverted = second.just("kernel-update-revert")
    assert reverted.code == 0, reverted.err
    assert second.git("branch", "--show-current") == "work\n"
    assert not (second.root / "kernel" / "moved.txt").exists()
    assert second.just("kernel-update").code == 0
    merged = second.just("kernel-update-merge")
    assert merged.code == 0, merged.err
    assert (second.root / "kernel" / "moved.txt").exists()
    assert not (first.root / "kernel" / "moved.txt").exists()
    assert second.git("branch", "--format=%(refname:short)") == "main\nwork\n"
    assert not second.git("status", "--porcelain") + first.git("status", "--porcelain")
    first.git("fsck", "--strict")


def test_own_in_a_second_worktree(upstream: Upstream, tmp_path: Path) -> None:
    """Its branch gets the project with the next commit; the first worktree and the history stay as they are."""
    machine = upstream.machine
    first = Project(machine, machine.clone(tmp_path / "first").root)
    first.git("worktree", "add", "-qb", "work", str(tmp_path / "second"))
    second = Project(machine, tmp_path / "second")
    head = second.git("rev-parse", "HEAD")
    second.write("LICENSE", "mine")
    refused = second.just("own", "NAME=my-app")
    assert (refused.code, "uncommitted changes (LICENSE)" in refused.err) == (2, True), refused.err
    second.git("checkout", "-q", "LICENSE")
    with first.unchanged_files():
        done = second.just("own", "NAME=my-app")
        assert done.code == 0, done.err
    assert f"commit it in the repository at {second.root}" in done.out
    assert second.git("rev-parse", "HEAD", "work") == head * 2
    assert not (second.root / "services" / "example_api.py").exists()
    table = tomllib.loads((second.root / "pyproject.toml").read_text())["tool"]["kernel"]
    assert (table["commit"], table["upstream"]) == (head.strip(), str(upstream.root))
    second.commit()
    assert second.just("kernel-files").out.count("0 changed, 0 deleted") == 1
    assert first.git("status", "--porcelain") == ""


def test_own_of_an_archive(upstream: Upstream, tmp_path: Path) -> None:
    """It gets a repository with one commit; what the user would have to say for updates is told."""
    machine = upstream.machine
    project = Project(machine, machine.clone(tmp_path / "archive").root)
    shutil.rmtree(project.root / ".git")
    nobody = project.just("own", "NAME=my-app", HOME=str(tmp_path))
    assert (nobody.code, "git config --global user.name" in nobody.err) == (2, True), nobody.err
    assert not (project.root / ".git").exists()
    done = project.just("own", "NAME=my-app")
    assert done.code == 0, done.err
    assert "kept in a backup first" in done.out
    assert "set upstream and commit" in done.out
    version = tomllib.loads((project.root / "pyproject.toml").read_text())["tool"]["kernel"]["version"]
    assert project.git("log", "--format=%s") == f"my-app, made from kernelpack {version}\n"
    assert project.git("status", "--porcelain") == ""
    assert project.git("branch", "--show-current") == "main\n"
    assert not (project.root / "services" / "example_api.py").exists()


# -- an upstream without tags --------------------------------------------------------------------------------------


def test_any_tag_branch_or_commit(bigger_once: Bigger, upstream: Upstream, tmp_path: Path) -> None:
    """VERSION takes each; what is older, or nothing of the framework's, is refused."""
    second = upstream.git("rev-parse", ":/Version 0.2.0").strip()
    upstream.git("tag", "-f", "stable/one", second)
    upstream.git("branch", "-f", "next", ":/Version 0.3.0")
    for name, (word, version) in enumerate(
        [("stable/one", "0.2.0"), ("next", "0.3.0"), (second, "0.2.0"), (second[:10], "0.2.0"), ("main", "0.4.0")]
    ):
        top = copy(bigger_once.top, tmp_path / str(name))
        project = inner(top)
        done = project.just("kernel-update", f"VERSION={word}")
        assert done.code == 0, done.err
        assert done.out.startswith(f"kernelpack 0.1.0 -> {version} (commit "), done.out
        assert top.git("log", "-1", "--format=%s").startswith(f"Update kernelpack from 0.1.0 to {version} (commit ")
    assert project.just("kernel-update-merge").code == 0
    for word, told in (
        (second, "is older than 0.4.0"),
        ("nowhere", "'nowhere' is not a version, tag, branch or commit"),
    ):
        done = project.just("kernel-update", word)
        assert (done.code, told in done.err) == (2, True), done.err
    upstream.git("tag", "-d", "stable/one")
    upstream.git("branch", "-D", "next")


# -- no repository, or somebody else's -----------------------------------------------------------------------------


@pytest.fixture(params=["archive", "foreign"])
def strange(request: pytest.FixtureRequest, owned: Project) -> tuple[Project, dict[str, str]]:
    """A project of which git knows nothing, or refuses to: and the environment to call it with."""
    if request.param == "archive":
        shutil.rmtree(owned.root / ".git")
        return owned, {}
    return owned, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}


def test_backups_and_builds_need_no_history(strange: tuple[Project, dict[str, str]], tmp_path: Path) -> None:
    """They take what no .gitignore names, and say that the commit is unknown."""
    project, env = strange
    project.write(".env", "TOKEN=1")
    project.write("services/new.py", '"""New."""\nfrom kernel import service\n\n\n@service\nasync def new(): ...\n')
    done = project.just("backup", **env)
    assert done.code == 0, done.err
    (project.root / "LICENSE").unlink()
    project.write("README.md", "overwritten")
    restored = project.just("backup-restore", stdin="y\n", **env)
    assert restored.code == 0, restored.err
    assert (project.root / "LICENSE").exists()
    assert (project.root / "README.md").read_text() != "overwritten"
    built = project.just("build", **env)
    assert built.code == 0, built.err
    assert "(commit unknown)" in built.out
    with zipfile.ZipFile(project.root / "build" / "my-app.pyz") as archive:
        assert not any(".env" in name for name in archive.namelist())
    version = subprocess.run(
        ["python3", "build/my-app.pyz", "version"],
        cwd=project.root,
        env={**project.machine.env, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout == "my-app 0.1.0 (commit unknown, pyz)\n"
    first = (project.root / "build" / "my-app.pyz").read_bytes()
    assert project.just("build", **env).code == 0
    assert (project.root / "build" / "my-app.pyz").read_bytes() == first
    assert project.just("kernel-files", **env).code == 0
    assert project.just("service", "billing", **env).code == 0
    refused = project.just("service-remove", "billing", **env)
    assert (refused.code, "would be lost" in refused.err) == (2, True)
    assert project.just("service-remove", "billing", "FORCE=1", **env).code == 0
    update = project.just("kernel-update", **env)
    assert update.code == 2
    assert ("not in a repository" in update.err) or ("dubious ownership" in update.err)


# -- line ends -----------------------------------------------------------------------------------------------------


def windows(file: Path) -> None:
    """Gives a file the line ends of Windows."""
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def test_a_clone_with_the_settings_of_windows(upstream: Upstream, tmp_path: Path) -> None:
    """As Git for Windows makes it: the recipes run, and so they do in what `own` makes of it."""
    words = ("clone", "-q", "-c", "core.autocrlf=true", str(upstream.root), str(tmp_path / "clone"))
    assert upstream.machine.call("git", *words, cwd=tmp_path).code == 0
    project = Project(upstream.machine, tmp_path / "clone")
    assert project.just("--version").code == 0
    for _ in range(2):
        done = project.just("kernel-files")
        assert "0 changed, 0 deleted" in done.out, done.out + done.err
        assert b"\r" not in (project.root / "scripts" / "just").read_bytes()
        if not (project.root / "scripts" / "kernel" / "shipped.txt").exists():
            assert project.just("own", "NAME=my-app").code == 0
    again = ("clone", "-q", "-c", "core.autocrlf=true", str(project.root), str(tmp_path / "again"))
    assert upstream.machine.call("git", *again, cwd=tmp_path).code == 0
    assert b"\r" not in (tmp_path / "again" / "scripts" / "just").read_bytes()


@pytest.mark.parametrize("committed", [True, False])
def test_files_with_other_line_ends(bigger_once: Bigger, tmp_path: Path, committed: bool) -> None:
    """They are no changes, an update merges what is one, and they keep their line ends where these are committed."""
    top = copy(bigger_once.top, tmp_path / "mono")
    project = inner(top)
    letters, moves = project.root / "kernel" / "letters.txt", project.root / "kernel" / "moves.txt"
    edit(letters, ("m\n", "m, mine\n"))
    if committed:
        (project.root / ".gitattributes").unlink()
    top.commit()
    for file in (letters, moves, project.root / "pyproject.toml"):
        windows(file)
    if committed:
        top.commit()
    top.git("diff", "--quiet", "HEAD")
    assert re.findall("changed  (.*)", project.just("kernel-files").out) == ["kernel/letters.txt"]
    assert project.just("--version").code == 0
    done = project.just("kernel-update")
    assert done.code == 0, done.err
    assert "No conflicts." in done.out, done.out
    assert "changed in the meantime" not in done.err
    text = letters.read_bytes()
    ends = b"\r\n" if committed else b"\n"
    assert all(line + ends in text for line in (b"b, as 0.2.0 has it", b"m, mine", b"z, as 0.4.0 has it"))
    assert text.count(b"\r\n") == (text.count(b"\n") if committed else 0)
    pyproject = (project.root / "pyproject.toml").read_bytes()
    assert pyproject.count(b"\r\n") == (pyproject.count(b"\n") if committed else 0)
    assert not top.git("status", "--porcelain")
    assert project.just("kernel-update-merge").code == 0
    windows(letters)
    name = re.search(r"backups/(\S+)", project.just("backup").out)
    assert name is not None
    letters.unlink()
    assert project.just("backup-restore", name[1], stdin="y\n").code == 0
    assert letters.read_bytes().count(b"\r\n") == text.count(b"\n")
    assert not os.access(letters, os.X_OK)
