"""What `.env` and the Justfile set reaches the app and the tests, whichever `just` starts them."""

from __future__ import annotations

import pytest

from tests.scripts.projects import Project

PROBE = """
import os
from kernel import service

@service(oneshot=True)
async def probe() -> None:
    print(*(f"{name}={os.environ.get(name)}" for name in ("A", "B", "C", "EXPORTED", "ENV")), sep=";")
"""
TEST = """
import os

def test_probe():
    print(*(f"{name}={os.environ.get(name)}" for name in ("A", "B", "C", "EXPORTED", "ENV")), sep=";")
"""
FILE = "# comment\nA=1\nexport B='two $words'\nC=\"three\nlines\"\n"
PROGRAMS = pytest.mark.parametrize("program", ["./scripts/just", "just"])


@PROGRAMS
def test_the_app_gets_it(project: Project, program: str) -> None:
    """So that `just run` is enough; what the environment says already wins."""
    project.write("services/probe.py", PROBE)
    project.write(".env", FILE)
    done = project.just("run", "probe", program=program, A="mine")
    assert done.code == 0, done.err
    assert done.out == "A=mine;B=two $words;C=three\nlines;EXPORTED=None;ENV=dev\n"
    project.write(".env", "ENV=prod\n")
    assert "ENV=prod" in project.just("run", "probe", program=program).out


@pytest.mark.minutes
@PROGRAMS
def test_the_tests_get_it(project: Project, program: str) -> None:
    """The same for `just test`."""
    project.write("tests/test_probe.py", TEST)
    project.write(".env", FILE)
    options = ("-q", "-s", "--no-cov", "-p", "no:cacheprovider", "--noconftest")
    done = project.just("test", *options, "tests/test_probe.py", program=program, A="mine")
    assert done.code == 0, done
    assert "A=mine;B=two $words;C=three\nlines;EXPORTED=None;ENV=None" in done.out


@PROGRAMS
def test_the_settings_of_the_justfile_hold(project: Project, program: str) -> None:
    """Also where `./scripts/just run` makes just disappear: exports, `set dotenv-load`, another file's name."""
    project.write("services/probe.py", PROBE)
    with (project.root / "Justfile").open("a") as file:
        file.write('\nset dotenv-load\nset dotenv-filename := "other.env"\nexport EXPORTED := "it\'s " + "here"\n')
    project.write("other.env", "C=other\n")
    project.write(".env", "A=1\nC=3\n")
    done = project.just("run", "probe", program=program)
    assert done.code == 0, done.err
    assert done.out == "A=1;B=None;C=other;EXPORTED=it's here;ENV=dev\n"


@pytest.mark.many
@PROGRAMS
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A=1\nhunter2 is the password\n", "line 2 is not NAME=value"),
        ("A='hunter2\n", "a quote is not closed"),
        ("A=hunter2 b\n", "a value with blanks or a dollar sign has no quotes"),
    ],
)
def test_a_file_that_cannot_be_read(project: Project, program: str, text: str, why: str) -> None:
    """One line that says where, without what may be secret in it; nothing starts."""
    project.write("services/probe.py", PROBE)
    project.write(".env", text)
    for words in (("run", "probe"), ("env", "probe")):
        done = project.just(*words, program=program)
        assert (done.code, done.out) == (2, "")
        assert f".env: {why}" in done.err or why in done.err
        assert "hunter2" not in done.err
        assert "nothing was started" in done.err


def test_the_list_of_variables(project: Project) -> None:
    """`just env` shows what comes from the file."""
    project.write(".env", "EXAMPLE_DATABASE_POOL_SIZE=7\n")
    done = project.just("env", "example-database")
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if "EXAMPLE_DATABASE_POOL_SIZE" in line]
    assert line.split()[:5] == ["EXAMPLE_DATABASE_POOL_SIZE", "int", "5", "7", ".env"]
    example = project.just("env", "example-database", "--format", "dotenv").out
    assert "\nEXAMPLE_DATABASE_POOL_SIZE=5\n" in example


def test_a_folder_of_that_name(project: Project) -> None:
    """Somebody's virtual environment, say: it is left alone."""
    (project.root / ".env").mkdir()
    assert project.just("env", "hello-world").code == 0
