"""What runs before a commit, and on the CI's machines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.projects import PROGRAMS, REPO, Project

TEST_WITH_A_REPOSITORY = """
test *args:
    @echo tested
    @git init -q "$HOME/elsewhere" && cd "$HOME/elsewhere" && touch file && git add file && git ls-files
    @test ! -e broken
"""


def test_a_commit_is_tested(owned: Project) -> None:
    """By `just test`, whoever's recipe that is; what fails is not committed."""
    with (owned.root / "Justfile").open("a") as file:
        file.write(TEST_WITH_A_REPOSITORY)
    assert owned.just("commit-hook").code == 0
    owned.git("add", "Justfile")
    done = owned.machine.call("git", "commit", "-m", "Tested", cwd=owned.root, HOME=str(owned.root.parent), **IDENTITY)
    assert done.code == 0, done.err
    assert "tested" in done.out + done.err
    assert owned.git("show", "--name-only", "--format=") == "Justfile\n", "a test's own repository is no part of it"
    owned.write("broken", "")
    owned.git("add", "broken")
    done = owned.machine.call("git", "commit", "-m", "Broken", cwd=owned.root, HOME=str(owned.root.parent), **IDENTITY)
    assert done.code != 0
    assert owned.git("log", "-1", "--format=%s") == "Tested\n"
    assert owned.just("commit-hook", "REMOVE=1").code == 0
    owned.commit()


IDENTITY = {f"GIT_{who}_{what}": "Ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def test_a_script_of_the_users_wins_there_too(owned: Project) -> None:
    """It may check less, or more."""
    owned.write("scripts/pre-commit", "#!/bin/sh\necho mine >&2\nexit 1\n")
    (owned.root / "scripts" / "pre-commit").chmod(0o755)
    owned.just("commit-hook")
    owned.git("add", "-A")
    done = owned.machine.call("git", "commit", "-m", "x", cwd=owned.root)
    assert done.code == 1
    assert done.err == "mine\n"


def test_a_hook_of_somebody_elses_is_left_alone(owned: Project) -> None:
    """It is said what to do."""
    owned.write(".git/hooks/pre-commit", "#!/bin/sh\n")
    for words in ([], ["REMOVE=1"]):
        with owned.unchanged():
            done = owned.just("commit-hook", *words)
        assert done.code == 2
        assert "is there already, and is not ours" in done.err


@pytest.mark.parametrize("where", ["setting", "link"])
def test_hooks_that_others_share_are_left_alone(owned: Project, tmp_path: Path, where: str) -> None:
    """One that is written there would stop the commits of every repository of the user's."""
    shared = tmp_path / "hooks"
    shared.mkdir()
    if where == "setting":
        (owned.machine.folder / ".gitconfig-hooks").write_text(f"[core]\nhooksPath = {shared}\n")
    else:
        shutil.rmtree(owned.root / ".git" / "hooks")
        (owned.root / ".git" / "hooks").symlink_to(shared)
    config = str(owned.machine.folder / ".gitconfig-hooks") if where == "setting" else os.devnull
    for words in ([], ["REMOVE=1"]):
        with owned.unchanged():
            done = owned.just("commit-hook", *words, GIT_CONFIG_GLOBAL=config)
        assert done.code == 2
        assert f"git's hooks are in {shared}" in done.err
        assert done.err.count("\n") == 1
    assert not list(shared.iterdir())


def test_hooks_of_the_repositorys_own_elsewhere(owned: Project) -> None:
    """A folder that is committed is this repository's as well."""
    owned.git("config", "core.hooksPath", ".githooks")
    assert owned.just("commit-hook").code == 0
    assert (owned.root / ".githooks" / "pre-commit").exists()


def test_ci_does_what_ci_run_does() -> None:
    """On every Python from the least that pyproject.toml allows."""
    text = (REPO / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"- run: (.*)", text) == ["bash .ci/run"]
    matrix = re.search(r"python: \[(.*)\]", text)
    assert matrix is not None
    assert matrix[1] == ", ".join(f'"3.{minor}"' for minor in range(11, 16))
    just = (REPO / "scripts" / "just").read_text()
    assert f"for python in python3 {' '.join(f'python3.{minor}' for minor in range(15, 10, -1))}; do" in just
    assert 'requires-python = ">=3.11"' in (REPO / "pyproject.toml").read_text()
    assert "exec ./scripts/just test" in (REPO / ".ci" / "run").read_text()
    assert os.access(REPO / "scripts" / "just", os.X_OK)


def test_an_await_in_clean_up_is_found(owned: Project) -> None:
    """In a service, and in a file of the kernel that was changed; those that are as shipped are left out."""
    check = ("scripts/kernel/script", "check_clean_up")
    assert owned.machine.call(*check, cwd=owned.root).code == 0
    unsafe = "\n\nasync def unsafe() -> None:\n    try:\n        pass\n    finally:\n        await anyio.sleep(1)\n"
    owned.write("services/careless.py", f"import anyio\n{unsafe}")
    with (owned.root / "kernel" / "cli" / "program.py").open("a") as file:
        file.write(f"import anyio\n{unsafe}")
    done = owned.machine.call(*check, cwd=owned.root)
    assert done.code == 1
    assert re.findall(r"([\w/]+\.py):\d+:\d+: ASYNC102", done.out + done.err) == [
        "kernel/cli/program.py",
        "services/careless.py",
    ]


def test_the_workflow_is_careful() -> None:
    """Actions are pinned to what was looked at, and zizmor, which knows what goes wrong in workflows, finds nothing."""
    text = (REPO / ".github" / "workflows" / "ci.yml").read_text()
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[0-9.]+", one) for one in used), used
    zizmor = [str(PROGRAMS / "zizmor"), "--offline", "--no-progress", ".github"]
    done = subprocess.run(zizmor, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guide_for_contributors_leads_somewhere() -> None:
    """Each path that it names is there, and so is each recipe."""
    text = (REPO / ".github" / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:kernel|scripts|tests|docs|services)/[\w./]*)`", text))
    named |= set(re.findall(r"just test (tests/[\w./]+)", text))
    assert len(named) > 12
    assert [path for path in named if not (REPO / path).exists()] == []
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not (REPO / ".github" / link).exists()] == []
    recipes = set(re.findall(r"\./scripts/just ([a-z]+)", text))
    listed = subprocess.run(
        [PROGRAMS / "just", "--summary"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    assert recipes <= set(listed.split())
