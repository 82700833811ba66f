"""What runs before a commit, and on the CI's machines."""

from __future__ import annotations

import os
import re

from tests.scripts.projects import REPO, Project

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


def test_ci_does_what_ci_run_does() -> None:
    """On every Python from the least that pyproject.toml allows."""
    text = (REPO / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"- run: (.*)", text) == ["bash .ci/run"]
    matrix = re.search(r"python: \[(.*)\]", text)
    assert matrix is not None
    assert matrix[1] == ", ".join(f'"3.{minor}"' for minor in range(11, 15))
    assert 'requires-python = ">=3.11"' in (REPO / "pyproject.toml").read_text()
    assert "exec ./scripts/just test" in (REPO / ".ci" / "run").read_text()
    assert os.access(REPO / "scripts" / "just", os.X_OK)


def test_an_await_in_clean_up_is_found(owned: Project) -> None:
    """In a service, and in a file of the kernel that was changed; those that are as shipped are left out."""
    check = ("scripts/kernel/script", "check_clean_up")
    assert owned.machine.call(*check, cwd=owned.root).code == 0
    unsafe = "\n\nasync def unsafe() -> None:\n    try:\n        pass\n    finally:\n        await anyio.sleep(1)\n"
    owned.write("services/careless.py", f"import anyio\n{unsafe}")
    with (owned.root / "kernel" / "cli.py").open("a") as file:
        file.write(f"import anyio\n{unsafe}")
    done = owned.machine.call(*check, cwd=owned.root)
    assert done.code == 1
    assert re.findall(r"(\w+/\w+\.py):\d+:\d+: ASYNC102", done.out + done.err) == [
        "kernel/cli/program.py",
        "services/careless.py",
    ]
