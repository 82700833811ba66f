"""docs/getting-started.md, from its first command to its last: a real clone, a real .venv, and what the page says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.scripts.projects import REPO, Machine

pytestmark = pytest.mark.minutes

PAGE = (REPO / "docs" / "getting-started.md").read_text()
STEP = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Reader:
    """Does what the page says, as somebody who copies it into a shell."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.folder = folder
        # Another PATH than that of the quick clones: here uv installs what the lock says.
        env = {name: value for name, value in os.environ.items() if not re.match("(GIT|COV|COVERAGE|PYTEST)_", name)}
        self.env = {**env, "HOME": str(machine.folder), "TEMPLATE": str(machine.upstream)}
        self.env["UV_CACHE_DIR"] = machine.env["UV_CACHE_DIR"]
        self.said: list[tuple[str, str]] = []

    def read(self) -> None:
        """From the top to the end; a block of Python goes into the file that was named last."""
        for found in STEP.finditer(PAGE):
            if found[1] == "python":
                named = re.findall(r"`((?:tests/)?services/\w+\.py)`", PAGE[: found.start()])
                (self.folder / named[-1]).write_text(found[2])
            else:
                for line in found[2].splitlines():
                    self.do(line)

    def do(self, line: str) -> None:
        """One command, which must succeed; `run` is stopped by Ctrl+C when all are ready."""
        if line.startswith("cd "):
            self.folder /= line.removeprefix("cd ")
            return
        stopped = " run" in line and "test" not in line
        shell = ["sh", "-c", f"exec env {line}" if stopped else line]
        with subprocess.Popen(
            shell, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = ""
            for told in process.stdout:
                said += told
                if stopped and "all ready" in told:
                    time.sleep(0.2)  # somebody looks at it
                    process.send_signal(signal.SIGINT)
            assert process.wait(300) == 0, f"{line}\n{said}"
        self.said.append((line, said))


@pytest.fixture(scope="module")
def reader(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    reader = Reader(machine, tmp_path_factory.mktemp("reader"))
    reader.read()
    return reader


def last(reader: Reader, words: str) -> str:
    """What the last command with these words said."""
    return [said for line, said in reader.said if words in line][-1]


def test_every_command_works(reader: Reader) -> None:
    """One after the other, as they stand there; each said something that fits."""
    commands = [line for found in STEP.finditer(PAGE) if found[1] == "sh" for line in found[2].splitlines()]
    assert [line for line, _ in reader.said] == [line for line in commands if line != "cd my-app"]
    assert "my-app is yours" in last(reader, "own")
    assert "hello-world" in last(reader, "my-app list")
    assert "0 changed, 0 deleted" in last(reader, "kernel-files")
    assert "good day" in last(reader, "BILLING_GREETING")
    assert "bill 1000" in last(reader, "just run")


def test_the_users_tests_are_few_quick_and_cover_his_services(reader: Reader) -> None:
    """Those of the kernel are not his to wait for."""
    said = last(reader, "just test")
    passed = re.search(r"(\d+) passed in ([\d.]+)s", said)
    assert passed is not None
    assert int(passed[1]) < 20
    assert float(passed[2]) < 30
    assert "Required test coverage of 90.0% reached" in said
    assert not re.search(r"^kernel/", said, re.MULTILINE)
    assert "Total coverage: 100.00%" in said


@pytest.mark.parametrize(
    "line",
    [
        "./scripts/just service second-one",
        "./scripts/just test",
        "./scripts/just backup",
        "git add --all && git commit --quiet --message More",
        "./scripts/just service-remove NAME=second-one",
        "./scripts/just lock && git diff --exit-code scripts/requirements.lock",
        "./scripts/just test && ./scripts/just clean",
    ],
)
def test_all_stays_well(reader: Reader, line: str) -> None:
    """In the project that the page has made, after each further step."""
    reader.do(line)


def test_the_recipes_that_the_page_names_are_there(reader: Reader) -> None:
    """Also those that it only mentions."""
    reader.do("./scripts/just --list")
    listed = set(re.findall(r"^    ([a-z-]+)", last(reader, "--list"), re.MULTILINE))
    named = {shlex.split(code)[1] for code in re.findall(r"`(?:\./scripts/)?(just [a-z][^`]*)`", PAGE)}
    assert {"deps-add", "backup", "sec"} < named <= listed
