"""`just kernel-update`, killed: the project is as it was, or updated; whoever comes next sees to that."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scripts.projects import Project, run_and_kill
from tests.scripts.upstream import Upstream, copy, edit, link

pytestmark = pytest.mark.minutes

KILLED = str(Path(__file__).with_name("killed.py"))
UPDATE = ("scripts/kernel/update.py",)
RANDOM = 20  # moments
State = tuple[dict[str, str], str, str]


class Killed:
    """Kills an update of always the same project, and sees what the next recipe makes of it.

    Args:
        folder: Where all of it is.
        place: What the project is: "top", a repository of its own; "folder", a part of a bigger one; or "worktree".

    """

    def __init__(self, folder: Path, place: str) -> None:
        self.folder = folder
        self.upstream = Upstream(folder / "machine")
        self.machine = self.upstream.machine
        self.inner = {"top": ".", "folder": "mono/back", "worktree": "second"}[place]
        self.gits = {"top": ".git", "folder": "mono/.git", "worktree": "first/.git"}[place]
        self.worktrees = 2 if place == "worktree" else 1
        self.holder = folder / "project"
        if place == "folder":
            self._make_bigger()
        first = self.upstream.project(self.holder / {"worktree": "first"}.get(place, self.inner))
        if place == "worktree":
            first.git("worktree", "add", "-qb", "work", str(self.holder / "second"))
        self.master = Project(self.machine, self.holder / self.inner)
        assert self.master.just("--version").code == 0
        edit(self.master.root / "kernel" / "letters.txt", ("z\n", "z, mine\n"), ("m\n", "m, mine\n"))
        self.master.commit()
        self.upstream.release_all()
        self.before = self.state(self.master)
        whole = self.fresh("whole")
        started = time.monotonic()
        updated = whole.just("kernel-update")
        assert updated.code == 0, updated.err
        self.seconds = time.monotonic() - started
        self.after = self.state(whole)
        self.whole = whole

    def _make_bigger(self) -> None:
        (self.holder / "mono" / "front").mkdir(parents=True)
        (self.holder / "mono" / "front" / "index.html").write_text("<p>")
        top = Project(self.machine, self.holder / "mono")
        top.git("init", "-qb", "main")
        top.commit()

    def holder_of(self, project: Project) -> Path:
        """The folder that holds all that belongs to a project, and is copied with it."""
        return project.root.parents[self.inner.count("/")] if self.inner != "." else project.root

    def fresh(self, place: str, of: Project | None = None) -> Project:
        """The project, or another one, at *place*."""
        shutil.rmtree(self.folder / place, ignore_errors=True)
        there = copy(Project(self.machine, self.holder_of(of or self.master)), self.folder / place, link).root
        project = Project(self.machine, there / self.inner)
        if self.worktrees > 1:  # each of the two files says where the other is
            back = there / "first" / ".git" / "worktrees" / "second"
            for file, text in (project.root / ".git", f"gitdir: {back}\n"), (back / "gitdir", f"{project.root}/.git\n"):
                file.unlink()
                file.write_text(text)
        return project

    def state(self, project: Project) -> State:
        """The files, the branches, and what is checked out; the commit's own id is from when it was made."""
        refs = project.git("for-each-ref", "--format=%(refname) %(tree)")
        files = Project(self.machine, self.holder_of(project)).files()
        files.pop(f"{self.inner}/.git", None)  # a worktree's, which says where it is
        return files, refs, project.git("symbolic-ref", "HEAD")

    def run(self, project: Project, step: int, *words: str, **env: str) -> int:
        """Runs a script, to be killed at a step; how it ended."""
        also = str(self.holder_of(project) / self.gits)
        return self.machine.call(".venv/bin/python", KILLED, str(step), *words, cwd=project.root, ALSO=also, **env).code

    def verdict(self, project: Project, *mend: str) -> str:
        """What the next recipe, or who else mends it, makes of it: "undone" or "finished".

        Raises:
            AssertionError: It is something between, or nothing was said of it.

        """
        interrupted = (project.root / ".kernel" / "change").exists()
        done = self.machine.call(*(mend or ("./scripts/just", "hello")), cwd=project.root)
        assert done.code == 0, done.err
        assert ("had been interrupted" in done.err) == interrupted, done.err
        assert not project.git("status", "--porcelain")
        assert not list((self.holder_of(project) / self.gits).rglob("*.lock"))
        assert project.git("worktree", "list").count("\n") == self.worktrees
        home = project.root / ".kernel"
        left = {path.name for path in home.iterdir()} if home.exists() else set()
        assert {
            name for name in left if not name.startswith(("old-", "new-"))
        } <= {  # those the next change throws away
            *(".gitignore", "lock", "backups", "before-own.git", "update.json")
        }
        state = self.state(project)
        assert state in (self.before, self.after)
        assert (project.root / ".kernel" / "update.json").exists() == (state == self.after)
        return "undone" if state == self.before else "finished"


@pytest.fixture(
    scope="module",
    params=[
        "top",
        "folder",
        "worktree",
    ],
)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    return Killed(tmp_path_factory.mktemp("killed"), request.param)


def in_turns(act: Callable[[int], str], steps: list[int]) -> list[str]:
    """What *act* makes of each, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(act, steps))


@pytest.mark.long
def test_killed_before_it_is_whole_and_at_every_step_after(killed: Killed) -> None:
    """Until the journal there are many steps, of which some are tried; from there on it is finished, from each step."""
    counted = killed.folder / "counted.txt"
    assert killed.run(killed.fresh("counted"), 0, *UPDATE, COUNTED=str(counted)) == 0
    last = int(counted.read_text())

    def kill_at(step: int) -> str:
        project = killed.fresh(f"step{step}")
        assert killed.run(project, step, *UPDATE) == -signal.SIGKILL
        journalled = (project.root / ".kernel" / "change" / "journal").exists()
        return f"{killed.verdict(project)} {journalled}"

    verdicts = in_turns(kill_at, [*range(1, last // 2, 16), last - 8, last])
    assert set(verdicts) <= {"undone False", "finished True", "finished False"}
    assert verdicts == sorted(verdicts, reverse=True), "there is one step before which it is undone"
    assert {"undone False"} < set(verdicts)


def test_killed_at_every_step_of_its_moves(killed: Killed) -> None:
    """Once the journal is written: at each move, and again while that is mended."""
    counted = killed.folder / "counted.txt"
    assert killed.run(killed.fresh("counted"), 0, *UPDATE, COUNTED=str(counted)) == 0
    low, high = 0, int(counted.read_text())
    while high - low > 1:  # at the step after which there is a journal
        middle = (low + high) // 2
        project = killed.fresh(f"journalled{middle}")
        killed.run(project, middle, *UPDATE)
        change = project.root / ".kernel" / "change"
        low, high = (low, middle) if (change / "journal").exists() or not change.exists() else (middle, high)
    project = killed.fresh("journalled")
    killed.run(project, high, *UPDATE)
    change = project.root / ".kernel" / "change"
    assert (change / "journal").exists()
    for folder in "git", "new", "tree", "out":  # of which no move depends, and which take long to copy
        shutil.rmtree(change / folder)
    copied = killed.fresh("copied", project)
    assert killed.run(copied, 0, "scripts/kernel/change.py", COUNTED=str(counted)) == 0
    steps = list(range(1, int(counted.read_text()) + 1))

    def kill_at(step: int) -> str:
        copied = killed.fresh(f"move{step}", project)
        assert killed.run(copied, step, "scripts/kernel/change.py") == -signal.SIGKILL
        if step % 3 == 0:
            assert killed.run(copied, 1 + step % 7, "scripts/kernel/change.py") in {0, -signal.SIGKILL}
        return killed.verdict(copied, "python3", "-I", "scripts/kernel/change.py")

    assert len(steps) > 20
    assert set(in_turns(kill_at, steps)) == {"finished"}


@pytest.mark.parametrize("word", ["merge", "revert"])
def test_killed_while_it_ends(killed: Killed, word: str) -> None:
    """The merge and the revert, too, are whole or not begun."""
    whole = killed.fresh("resolved", killed.whole)
    (whole.root / "kernel" / "letters.txt").unlink()
    whole.write("kernel/letters.txt", "resolved\n")
    whole.commit()
    counted = killed.folder / "counted.txt"
    done = killed.fresh("done", whole)
    assert killed.run(done, 0, "scripts/kernel/update_end.py", word, COUNTED=str(counted)) == 0
    before, after = killed.state(whole), killed.state(done)

    def kill_at(step: int) -> str:
        project = killed.fresh(f"{word}{step}", whole)
        killed.run(project, step, "scripts/kernel/update_end.py", word)
        assert project.just("hello").code == 0
        assert not project.git("status", "--porcelain")
        state = killed.state(project)
        assert state in (before, after)
        return "before" if state == before else "past"

    verdicts = in_turns(kill_at, list(range(5, int(counted.read_text()), 12)))
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {"before", "past"}


def test_killed_at_random_moments(killed: Killed) -> None:
    """With just and all that it had started, as when a machine goes down."""

    def kill(trial: int) -> str:
        project = killed.fresh(f"random{trial}")
        moment = random.uniform(0, 1.5 * killed.seconds)  # noqa: S311  (nothing to guard)
        run_and_kill(project, "kernel-update", after=moment)
        return killed.verdict(project)

    assert len(in_turns(kill, list(range(RANDOM)))) == RANDOM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_tests(killed: Killed, number: signal.Signals) -> None:
    """It undoes by itself what it had begun."""
    project = killed.fresh("interrupted")
    (project.root / "Justfile").unlink()
    project.write("Justfile", (killed.master.root / "Justfile").read_text().replace("exit 0", "sleep 5"))
    project.commit()
    before = killed.state(project)
    with subprocess.Popen(
        [".venv/bin/python", *UPDATE],
        cwd=project.root,
        env=killed.machine.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert "testing in a worktree\n" in iter(process.stdout.readline, "")
        os.killpg(process.pid, number)
        assert process.wait(20) in {130, 128 + number}
    assert killed.state(project) == before
    assert not (project.root / ".kernel" / "change").exists()
    assert not list(project.root.glob(".kernel/backups/*"))
