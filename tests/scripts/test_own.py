"""`just own`: a project of one's own, or the clone as it was; nothing between, whenever it is killed."""

from __future__ import annotations

import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scripts.projects import KERNEL_TESTS, REPO, Machine, Project, run_and_kill

KILLED = str(Path(__file__).with_name("killed.py"))
OWN = ("scripts/kernel/own.py", "NAME=my-app")
NEXT = (  # the first two depend on nothing: whatever recipe comes next finishes or undoes it
    ("./scripts/just", "hello"),
    ("just", "hello"),
    ("just", "clean"),
    ("./scripts/just", "kernel-files"),
)


# -- what it leaves behind -----------------------------------------------------------------------------------------


def test_one_commit_on_main(owned_once: Project) -> None:
    """The history is new, the tree is clean, and nothing points to where it came from."""
    assert owned_once.git("log", "--all", "--format=%an %s") == "Ann Other my-app, made from kernelpack 0.1.0\n"
    assert owned_once.git("branch", "--show-current") == "main\n"
    assert not owned_once.git("status", "--porcelain")
    assert not owned_once.git("remote")
    assert not owned_once.git("tag")
    owned_once.git("fsck", "--strict")


def test_the_name_is_everywhere_that_counts(owned_once: Project) -> None:
    """Project, command, README and changelog; the import names stay."""
    project = tomllib.loads((owned_once.root / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-app"
    assert project["project"]["scripts"] == {"my-app": "app.__main__:main"}
    assert (owned_once.root / "README.md").read_text().startswith("# my-app\n")
    assert "kernelpack 0.1.0" in (owned_once.root / "CHANGELOG.md").read_text()


def test_the_template_is_recorded(owned_once: Project) -> None:
    """An update will need to know the version, the commit, and where they are."""
    table = tomllib.loads((owned_once.root / "pyproject.toml").read_text())["tool"]["kernel"]
    upstream = owned_once.machine.upstream
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=upstream, capture_output=True, text=True, check=True).stdout
    expected = {"template": "kernelpack", "version": "0.1.0", "commit": head.strip(), "upstream": str(upstream)}
    assert table == expected


def test_the_examples_are_gone_with_what_only_they_needed(owned_once: Project) -> None:
    """Their files, their tests, their groups and their packages; what is in their place lints and is typed."""
    files = owned_once.files()
    assert [path for path in files if path.startswith("services/")] == ["services/hello_world.py"]
    tests = {path for path in files if path.startswith("tests/")}
    assert tests == {"tests/conftest.py", "tests/test_app.py", "tests/services/test_hello_world.py"}
    assert not any("template/" in path or "benchmarks" in path for path in files)
    assert [path for path in files if path.startswith(".github/")] == [".github/workflows/ci.yml"]
    assert {".editorconfig", ".gitattributes"} <= files.keys()
    text = (owned_once.root / "pyproject.toml").read_text()
    assert list(tomllib.loads(text)["dependency-groups"]) == ["dev"]
    assert not any(word in text for word in ("example", "scripts/template", "starlette", "hypothesis"))
    lock = (owned_once.root / "scripts" / "requirements.lock").read_text()
    assert not any(f"\n{name}==" in lock for name in ("starlette", "hypothesis"))
    assert owned_once.machine.call(".venv/bin/python", "-m", "app", "list", cwd=owned_once.root).out.startswith("hello")


def test_no_link_leads_nowhere(owned_once: Project) -> None:
    """In the new README, and in the pages that came along."""
    found = []
    for page in [owned_once.root / "README.md", *(owned_once.root / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+\.md)[)#]", page.read_text()):
            found.append(link)
            assert (page.parent / link).is_file(), f"{page.name}: {link}"
    assert {"docs/getting-started.md", "docs/updates.md", "services.md"} <= {*found}


def test_the_lock_is_the_one_that_uv_would_make(owned_once: Project) -> None:
    """It was made without network, by leaving out; for the same versions uv has nothing to change."""
    script = str(owned_once.root / "scripts" / "kernel" / "check_project.py")
    assert owned_once.machine.call(".venv/bin/python", script, cwd=owned_once.root).code == 0
    lock = owned_once.root / "scripts" / "requirements.lock"
    theirs = shutil.copy(lock, owned_once.machine.folder / "theirs.lock")
    options = [
        "--quiet",
        "--universal",
        "--generate-hashes",
        "--no-header",
        "--group=dev",
        "--python-version=3.11",  # the least that pyproject.toml supports, whatever runs this
        "--output-file",
        str(theirs),
    ]
    command = [str(REPO / ".venv" / "bin" / "uv"), "pip", "compile", *options, "pyproject.toml"]
    settings = runpy.run_path(str(REPO / "scripts" / "kernel" / "bootstrap.py"))["settings_of_pip"]()
    subprocess.run(command, cwd=owned_once.root, env={**settings, **os.environ}, check=True)
    assert Path(theirs).read_text() == lock.read_text().partition("\n")[2]


def test_nothing_is_lost(project: Project) -> None:
    """Files that git ignores stay where they are, and the old history is kept."""
    head = project.git("rev-parse", "HEAD")
    project.write(".env", "TOKEN=1\n")
    project.write("data.db", "rows")
    project.git("config", "user.name", "Of This Clone")
    assert project.just("own", "my-app").code == 0
    assert (project.root / ".env").read_text() == "TOKEN=1\n"
    assert (project.root / "data.db").read_text() == "rows"
    assert project.git("--git-dir=.kernel/before-own.git", "rev-parse", "HEAD") == head
    assert project.git("log", "--format=%an") == "Of This Clone\n"


def test_what_the_user_had_made_already_stays(project: Project) -> None:
    """Services and tests that did not come with the clone, wherever they lie; edits that git was told not to see."""
    for path in ("services/mine.py", "services/example_mine.py", "tests/test_mine.py", "tests/services/test_mine.py"):
        project.write(path, '"""Mine."""\n')
    project.commit()
    project.git("update-index", "--skip-worktree", "app/init.py")
    project.write("app/init.py", "# mine\n")
    before = project.files()
    assert project.just("own", "my-app").code == 0
    after = project.files()
    assert [path for path in before if "mine" in path] == [path for path in after if "mine" in path]
    assert (project.root / "app" / "init.py").read_text() == "# mine\n"
    assert project.git("status", "--porcelain") == " M app/init.py\n"


def test_no_password_is_recorded(project: Project) -> None:
    """Of where the clone comes from, what everybody may know is kept: enough to reach it again."""
    project.git(
        "remote", "set-url", "origin", "https://me:p@ss:Tr0ub4dor@git.example.com:8443/x.git?token=Tr0ub4dor"
    )  # pragma: allowlist secret
    done = project.just("own", "my-app")
    assert done.code == 0, done.err
    table = tomllib.loads((project.root / "pyproject.toml").read_text())["tool"]["kernel"]
    assert table["upstream"] == "https://git.example.com:8443/x.git"
    assert "Tr0ub4dor" not in done.out + done.err
    assert not project.machine.call("git", "grep", "Tr0ub4dor", cwd=project.root).out


def test_it_is_done_once(owned_once: Project) -> None:
    """A second time is refused, and says who it is."""
    with owned_once.unchanged():
        done = owned_once.just("own", "NAME=other")
    assert (done.code, done.err) == (2, "just own: it is its own project already: my-app, made from 0.1.0\n")


# -- what it looks at first ----------------------------------------------------------------------------------------


def _dirty(project: Project) -> None:
    project.write("services/mine.py", "")


def _nobody(project: Project) -> None:
    project.write("../.gitconfig", "")


def _a_worktree(project: Project) -> None:
    project.git("worktree", "add", "-q", "../other")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_dirty, "uncommitted changes (services/mine.py); commit"),
        (_nobody, "git config --global user.name"),
        (_a_worktree, "git worktree remove"),
    ],
)
def test_what_is_not_ready_is_refused(project: Project, spoil: Callable[[Project], None], words: str) -> None:
    """One line says what is missing, and nothing was done."""
    spoil(project)
    before = project.files()
    done = project.just("own", "NAME=my-app", HOME=str(project.root.parent))
    if spoil is _nobody or words in done.err:
        assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert project.files() == before
    assert not (project.root / ".kernel" / "change").exists()


@pytest.mark.many
@pytest.mark.parametrize("name", ["anyio", "git", "just", "class", "kernel", "tests"])
def test_a_name_that_stands_for_something_else(project: Project, name: str) -> None:
    """A package, a program, a word of Python, a folder of the project."""
    with project.unchanged():
        done = project.just("own", name)
    assert done.code == 2
    assert done.err.endswith("choose another name\n")


# -- killed --------------------------------------------------------------------------------------------------------


MANY = (*KERNEL_TESTS, "tests/scripts/test_", "scripts/template/contestants/")
"""Files that are many, and are all removed in the same way: few of them are enough to be killed at."""


def _link(source: str, target: str) -> None:
    """A copy for those who never write into a file, but put another in its place: as git and the scripts do."""
    os.link(source, target, follow_symlinks=False)


class Killed:
    """Kills `own` in a clone at always the same place, and sees what the next recipe makes of it."""

    def __init__(self, folder: Path) -> None:
        (folder / "machine").mkdir()
        machine = Machine(folder / "machine", without=MANY)
        self.master = machine.clone(folder / "clone")
        self.before = self.master.files(), self.master.repository()
        self.after: dict[str, str] = {}
        self.seconds = 0.0  # that it takes when nobody is killed
        self.machine = machine
        self.folder = folder

    def fresh(self, place: str) -> Project:
        """The clone, at *place*."""
        shutil.rmtree(self.folder / place, ignore_errors=True)
        shutil.copytree(self.master.root, self.folder / place, symlinks=True, copy_function=_link)
        return Project(self.machine, self.folder / place)

    def verdict(self, project: Project, trial: int) -> str:
        """What the next recipe makes of it: "undone" or "finished".

        Raises:
            AssertionError: It is something between, or nothing was said of it.

        """
        program, *words = NEXT[trial % len(NEXT)]
        interrupted = (project.root / ".kernel" / "change").exists()
        done = project.just(*words, program=program)
        assert done.code == 0, done.err
        assert ("had been interrupted" in done.err) == interrupted, done.err
        assert not (project.root / ".kernel" / "change").exists()
        if (project.files(), project.repository()) == self.before:
            return "undone"
        assert project.files() == self.after
        assert project.git("log", "--all", "--format=%s") == "my-app, made from kernelpack 0.1.0\n"
        assert not project.git("status", "--porcelain")
        assert (project.root / ".kernel" / "before-own.git" / "HEAD").exists()
        return "finished"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    killed = Killed(tmp_path_factory.mktemp("killed"))
    whole = killed.fresh("whole")
    started = time.monotonic()
    assert whole.just("own", "NAME=my-app").code == 0
    killed.seconds = time.monotonic() - started
    killed.after = whole.files()
    return killed


@pytest.mark.minutes
@pytest.mark.long
def test_killed_at_every_step(killed: Killed, request: pytest.FixtureRequest) -> None:
    """Before each thing that it does to a file, and before each program that it starts.

    All of them are for `just test-all`: that whatever is moved into place can be finished, from each step, is proved by
    the tests of changes as well.
    """
    project = killed.fresh("counted")
    counted = killed.folder / "counted.txt"
    words = (".venv/bin/python", KILLED)
    assert killed.machine.call(*words, "0", *OWN, cwd=project.root, COUNTED=str(counted)).code == 0

    def kill_at(step: int) -> str:
        project = killed.fresh(f"worker{threading.get_ident()}")
        done = killed.machine.call(*words, str(step), *OWN, cwd=project.root)
        assert done.code == -signal.SIGKILL, done.err
        return killed.verdict(project, step)

    with ThreadPoolExecutor(3) as pool:
        each = 1 if request.config.getoption("--all") else 5
        verdicts = list(pool.map(kill_at, range(1, int(counted.read_text()) + 1, each)))
    turn = verdicts.index("finished")
    assert set(verdicts[:turn]) == {"undone"}, (
        "there is one step before which it is undone, and after which it is finished"
    )
    assert set(verdicts[turn:]) == {"finished"}
    assert turn * each > 20
    assert (len(verdicts) - turn) * each > 25


@pytest.mark.minutes
def test_killed_at_random_moments(killed: Killed) -> None:
    """With just and all that it had started, as when a machine goes down."""
    for trial in range(20):
        moment = random.uniform(0, killed.seconds)  # noqa: S311  (nothing to guard)
        project = killed.fresh("random")
        run_and_kill(project, "own", "NAME=my-app", after=moment)
        killed.verdict(project, trial)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_it_prepares(killed: Killed, number: signal.Signals) -> None:
    """It undoes what it had begun by itself: here in a hook-like wait, while git makes the commit."""
    project = killed.fresh("interrupted")
    slow = project.root.parent / "slow"
    slow.mkdir(exist_ok=True)
    git = shutil.which("git")
    (slow / "git").write_text(f'#!/bin/sh\ncase "$*" in *commit*--quiet*) echo now; sleep 5;; esac\nexec {git} "$@"\n')
    (slow / "git").chmod(0o755)
    env = {**killed.machine.env, "PATH": f"{slow}:{killed.machine.env['PATH']}"}
    with subprocess.Popen(
        [".venv/bin/python", *OWN], cwd=project.root, env=env, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        while not list(project.root.glob(".kernel/change/tree/.git/refs")) and process.poll() is None:
            pass
        os.killpg(process.pid, number)
        assert process.wait(20) in {130, 128 + number}
    assert (project.files(), project.repository()) == killed.before
    assert not (project.root / ".kernel" / "change").exists()


def test_the_readme_names_all_pages(owned_once: Project) -> None:
    """Those that are shipped, each once, and no other."""
    named = re.findall(r"\]\(docs/([\w-]+\.md)\)", (owned_once.root / "README.md").read_text())
    assert sorted(named) == sorted(page.name for page in (owned_once.root / "docs").glob("*.md"))
    assert named[0] == "getting-started.md"


NEEDY = """\
import attrs

from kernel import service


@attrs.frozen
class C:
    key: str


@service
async def needy(config: C) -> None:
    open("ran", "w").close()
"""


@pytest.mark.minutes
@pytest.mark.parametrize("env", [{}, {"NEEDY_KEY": "k"}], ids=["unset", "set"])
def test_the_shipped_test_runs_no_service(owned: Project, env: dict[str, str]) -> None:
    """A service with a required setting: the test passes without it, and with it the database is left alone."""
    owned.write("services/needy.py", NEEDY)
    words = (".venv/bin/python", "-m", "pytest", "-q", "--no-cov", "tests/test_app.py")
    done = owned.machine.call(*words, cwd=owned.root, **env)
    assert done.code == 0, done.out
    assert not (owned.root / "ran").exists()
    owned.write(
        "services/typo.py", NEEDY.replace("needy", "typo").replace("@service\n", '@service(depends=["nedy"])\n')
    )
    done = owned.machine.call(*words, cwd=owned.root, **env)
    assert done.code == 1
    assert "did you mean 'needy'?" in done.out
