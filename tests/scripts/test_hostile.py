"""Forty words that were never meant as names: refused in one line each, whatever they are given to."""

from __future__ import annotations

import re

import pytest

from tests.scripts.projects import Machine, Project

HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "x; touch pwned",
    "x && touch pwned",
    "x | touch pwned",
    "x > pwned",
    "x\ntouch pwned",
    "x\r",
    "x\n",
    "'",
    '"',
    "'; touch pwned; '",
    '"; touch pwned; "',
    "\\",
    "x\\ny",
    "{{x}}",
    "{{ shell('touch pwned') }}",
    "$HOME",
    "${NAME}",
    "~",
    "*",
    "?",
    "[x]",
    "!!",
    "#",
    "%s",
    "..",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "x/y",
    ".env",
    ".git/config",
    "two words",
    " x",
    "\t",
    "-x",
    "-rf /",
    "X",
    "Billing",
    "1x",
    "x_y",
    "x--y",
    "x-",
    "x.py",
    "é",
    "\uff58",
    "x\u202ey",
    "😀",
    "x\x1b[2J",
    "x" * 64,
    "x" * 5000,
    "NAME=x",
    "FORCE=",
    "x=y",
    "import os",
    "None",
]


@pytest.fixture(scope="module")
def project(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One clone for all of them, since none may change it; with a backup, so that there is one to restore."""
    project = machine.clone(tmp_path_factory.mktemp("hostile") / "clone")
    assert project.just("backup").code == 0
    return project


@pytest.mark.minutes
@pytest.mark.parametrize("word", HOSTILE, ids=[f"{len(word)} {ascii(word)[:20]}" for word in HOSTILE])
def test_it_is_refused_and_nothing_is_written(project: Project, word: str) -> None:
    """As NAME=word, as a word, and as a variable of just's, in the project and around it."""
    around = sorted(path.name for path in project.root.parent.iterdir())
    with project.unchanged():
        for recipe, key, form in (
            ("service", "NAME", 0),
            ("own", "NAME", 1),
            ("backup-restore", "BACKUP", 2),
        ):
            words = [(recipe, f"{key}={word}"), (f"{key}={word}", recipe), (recipe, word)][form]
            done = project.just(*words)
            assert done.code == 2, (words, done)
            assert done.err.startswith(f"just {recipe}: "), done.err
            assert done.err.count("\n") == 1, done.err
            assert len(done.err) < 300, done.err
            assert not done.out
            assert done.err.isascii() or word in {"é", "\uff58", "😀"}, ascii(done.err)
    assert sorted(path.name for path in project.root.parent.iterdir()) == around
    assert {path.name for path in (project.root / ".kernel").iterdir()} <= {".gitignore", "backups", "lock"}
    assert not (project.root / "pwned").exists()


def test_there_are_forty() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.many
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("service", "a", "b"), "'b': unexpected argument; usage: just service NAME=billing"),
        (("service", "--force"), "not a valid name for a service"),
        (("service", "COLOUR=red"), "it takes no COLOUR; usage: just service NAME=billing"),
        (("service", ""), "an argument is empty"),
        (("service-remove", "x", "FORCE=maybe"), "FORCE='maybe' is neither yes nor no"),
        (("own",), "a project needs a name; usage: just own NAME=my-app"),
        (("backup", "x"), "'x': unexpected argument"),
        (("backup-restore", "BACKUP=2001-01-01T00-00-00.tar.gz"), "the last one is 2"),
        (("backup-clear", "NAME=x"), "it takes no NAME"),
        (("kernel-files", "x"), "usage: just kernel-files"),
        (("deps-add", "-r requirements.txt"), "is not a requirement; usage: just deps-add httpx"),
        (("deps-add", "x @ file:///etc/passwd"), "not a requirement"),
        (("deps-add", "httpx", "-e", "attrs"), "'-e' is not a requirement"),
        (("check", "x"), "usage: just check"),
        (("deps-add", "httpx", "AGE=-1"), "AGE='-1' is not a number of days"),
        (("deps-add", "httpx", "GROUP=../x"), "GROUP='../x' is not a valid name for a group"),
        (("deps-remove",), "needs the name of a package; usage: just deps-remove httpx"),
        (("deps-remove", "no-such-package"), "pyproject.toml does not require no-such-package"),
        (("deps-update", "no-such-package"), "is not in scripts/requirements.lock"),
        (("lock", "AGE=x"), "AGE='x' is not a number of days"),
    ],
)
def test_a_recipe_tells_its_use(project: Project, words: tuple[str, ...], told: str) -> None:
    """Called wrongly, it says how it is called."""
    with project.unchanged():
        done = project.just(*words)
    assert done.code == 2, done
    assert done.err.startswith(f"just {words[0]}: ")
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.minutes
def test_every_recipe_answers_help(project: Project) -> None:
    """At once and without doing anything: what it does, and how it is called."""
    listed = project.machine.call(str(project.root / ".venv/bin/just"), "--summary", cwd=project.root)
    recipes = [name for name in listed.out.split() if name not in {"hello", "pyright"}]
    assert {"check", "clean", "own", "sec", "test"} < {*recipes}
    with project.unchanged():
        for recipe in recipes:
            done = project.just(recipe, "--help")
            assert (done.code, done.err) == (0, ""), (recipe, done)
            if recipe in {"run", "env"}:  # the app's own help
                assert done.out.startswith("Usage: app "), (recipe, done)
            else:
                assert re.search(rf"(?m)^Usage: just {recipe}\b", done.out), (recipe, done)
                assert done.out.count("\n") < 6
