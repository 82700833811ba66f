"""What is the user's wins over what is the framework's of the same name; and whose is what can be seen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.scripts.projects import PROGRAMS, Project


@pytest.mark.parametrize("program", ["./scripts/just", "just"])
def test_a_recipe_of_the_users_wins(project: Project, program: str) -> None:
    """Without another line; also `run`, and one that `just test` runs."""
    with (project.root / "Justfile").open("a") as file:
        file.write("\nrun *args:\n    @echo mine: $@\n\n# My own checks\ncheck:\n    @echo checked\n")
    assert project.just("run", "a b", program=program).out == "mine: a b\n"
    assert project.just("check", program=program).out == "checked\n"


@pytest.mark.many
@pytest.mark.parametrize("program", ["./scripts/just", "just"])
@pytest.mark.parametrize("recipe", ["run", "service", "own", "kernel-files", "lock", "backup"])
def test_a_script_of_the_users_wins(project: Project, recipe: str, program: str) -> None:
    """Python by its ending, or any program that is executable."""
    name = recipe.replace("-", "_")
    project.write(
        f"scripts/{name}.py", "import os, sys\nprint('python', *sys.argv[1:], os.path.basename(os.getcwd()))\n"
    )
    done = project.just(recipe, "word", program=program)
    assert re.fullmatch(rf"python .*word {re.escape(project.root.name)}\n", done.out), done
    project.write(f"scripts/{name}", "#!/bin/sh\necho program $#\n")
    assert project.just(recipe, "word", program=program).out.startswith("python")
    (project.root / "scripts" / name).chmod(0o755)
    assert project.just(recipe, "word", program=program).out.startswith("program")


def test_the_list_shows_whose_is_what(project: Project) -> None:
    """The user's come first; the framework's are in groups that say so. One that was replaced is listed once."""
    with (project.root / "Justfile").open("a") as file:
        file.write("\n# My own checks\ncheck:\n    @echo checked\n")
    listed = project.just("--list").out
    head, *groups = re.split(r"\n\n    (?=\[)", listed)
    assert re.findall(r"^    (\S+)", head, re.MULTILINE) == ["check", "hello"]
    assert "# My own checks" in head
    titles = [group.partition("]")[0].removeprefix("[") for group in groups]
    assert {title.partition(":")[0] for title in titles} == {"framework", "template"}
    assert {"framework: run", "framework: services", "framework: backup", "framework: project"} <= set(titles)
    assert len(re.findall(r"^    check\b", listed, re.MULTILINE)) == 1
    assert project.just().out == listed


def test_every_recipe_says_what_it_does(project: Project) -> None:
    """A comment for each, in the list; of one line, since just shows the last one alone."""
    lines = [line for line in project.just("--list").out.splitlines() if re.match(r"    [a-z]", line)]
    assert len(lines) > 15
    unclear = [line for line in lines if not re.search(r"# [A-Z].* ", line)]
    assert not unclear


def test_a_script_that_is_gone(project: Project) -> None:
    (project.root / "scripts" / "kernel" / "own.py").unlink()
    done = project.just("own", "x")
    assert done.code == 2
    assert "neither scripts/kernel/own nor scripts/kernel/own.py; restore it with git" in done.err


def test_two_containerfiles(project: Project) -> None:
    """The user's builds on what the framework's makes."""
    theirs = (project.root / "scripts" / "kernel" / "Containerfile").read_text()
    mine = (project.root / "Containerfile").read_text()
    assert "ENTRYPOINT" in theirs
    assert "just image" in mine
    copied = [path for line in re.findall(r"^COPY (?!--)(.*)$", theirs, re.MULTILINE) for path in line.split()[:-1]]
    assert copied == ["requirements.txt", "app"]  # what `just image` writes into the folder that it builds from


# -- whose file is whose -------------------------------------------------------------------------------------------


def marks(project: Project) -> dict[str, str]:
    """What `just kernel-files` says of each file that it lists."""
    done = project.just("kernel-files")
    assert done.code == 0, done.err
    *lines, last = done.out.splitlines()
    assert last.endswith("All others are yours.")
    return {line[9:]: line[:7].strip() for line in lines}


@pytest.mark.parametrize("fixture", ["project", "owned"])
def test_changed_deleted_and_added(request: pytest.FixtureRequest, fixture: str) -> None:
    """In a clone and in a project of one's own; a file that the user adds is the user's, wherever it lies."""
    project: Project = request.getfixturevalue(fixture)
    before = marks(project)
    assert set(before.values()) == {""}
    assert {
        "kernel/cli/program.py",
        "app/__main__.py",
        "scripts/just",
        "scripts/kernel/kernel.just",
        "docs/design.md",
    } <= set(before)
    users = (
        "services/",
        "tests/",
        "app/init.py",
        "app/commands.py",
        "README",
        "Justfile",
        "Containerfile",
        "pyproject",
    )
    assert not any(path.startswith(users) for path in before)
    project.write("kernel/cli/program.py", "# mine\n")
    project.write("kernel/added.py", "# mine\n")
    (project.root / "kernel" / "process" / "loop_watch.py").unlink()
    assert marks(project) == {**before, "kernel/cli/program.py": "changed", "kernel/process/loop_watch.py": "deleted"}
    project.commit()
    added = {"kernel/added.py": ""} if fixture == "nothing" else {}
    assert marks(project) == {
        **before,
        "kernel/cli/program.py": "changed",
        "kernel/process/loop_watch.py": "deleted",
        **added,
    }


def test_what_was_shipped_can_be_checked_without_us(owned_once: Project) -> None:
    """The list is as `sha256sum --check` reads it."""
    done = owned_once.machine.call("sha256sum", "--check", "--quiet", "scripts/kernel/shipped.txt", cwd=owned_once.root)
    assert (done.code, done.out) == (0, "")


def test_every_file_of_the_template_has_an_owner(project: Project) -> None:
    """What the manifest does not name is the user's; so each such file must be one that a user would own."""
    done = project.machine.call(
        ".venv/bin/python",
        "-c",
        "import sys; sys.path.insert(0, 'scripts/kernel'); from kernel_files import *; from recipe import *\n"
        "for path, owner in owners(ROOT, in_git()).items(): print(owner, path)",
        cwd=project.root,
    )
    owners: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        owner, path = line.split(" ", 1)
        owners.setdefault(owner, []).append(path)
    tops = {Path(path).parts[0] for path in owners["user"]}
    users = {"services", "app", "tests", "scripts", "README.md", "LICENSE", "CHANGELOG.md", "Justfile", "Containerfile"}
    users |= {
        "pyproject.toml",
        ".gitignore",
        ".gitattributes",
        ".editorconfig",
        ".dockerignore",
        ".ci",
        ".github",
        ".vscode",
    }
    assert tops <= users, f"give {tops - users} a line in scripts/kernel/manifest.toml, or add it here as the user's"
    assert [path for path in owners["user"] if path.startswith("scripts/")] == ["scripts/requirements.lock"]
    tests = [path for path in owners["user"] if path.startswith("tests/")]
    assert tests == ["tests/services/test_hello_world.py", "tests/test_app.py"], (
        "tests of the kernel are the template's"
    )
    assert {path for path in owners["framework"] if path.startswith("kernel/")}


def test_the_projects_style_is_not_the_frameworks(owned: Project) -> None:
    """Whatever rules a project gives itself, the framework's files keep theirs: none fails, none is formatted anew."""
    path = owned.root / "pyproject.toml"
    text = path.read_text()
    mine = text.replace("line-length = 120", "line-length = 88").replace(
        "[tool.ruff.lint]\n", "[tool.ruff.format]\nquote-style = 'single'\nindent-style = 'tab'\n\n[tool.ruff.lint]\n"
    )
    mine = re.sub(r"(?s)\nignore = \[.*?\n\]\n", "\nignore = []\n", mine, count=1)
    assert mine.count("line-length = 88") == mine.count("ignore = []") == mine.count("indent-style") == 1
    path.write_text(mine)
    ruff = [str(PROGRAMS / "ruff")]
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = owned.machine.call(*ruff, *words, cwd=owned.root)
        assert done.code == 1, done.out
        assert not re.search(r"\b(kernel/|app/__main__)", done.out), done.out
    main = [*ruff, "check", "--no-cache", "--config", "kernel/ruff.toml", "app/__main__.py"]
    assert owned.machine.call(*main, cwd=owned.root).code == 0
    assert owned.machine.call(*ruff, "format", "--no-cache", cwd=owned.root).code == 0
    assert not [path for path in owned.git("diff", "--name-only").split() if path.startswith(("kernel/", "scripts/k"))]
    assert "app/__main__.py" not in owned.git("diff", "--name-only")
