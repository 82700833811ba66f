"""What the README shows is run."""

import inspect
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.config.settings import KERNEL_VARIABLES
from kernel.declare.service import service
from tests.conformance.program import REPO, App, Program

TEXT = (REPO / "README.md").read_text()
RECIPES = (REPO / "scripts" / "kernel" / "kernel.just").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of code in this *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def first_column(header: str) -> Iterator[str]:
    """What stands in backticks in the first column of the table with this *header*."""
    table = TEXT[TEXT.index(header) :].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        yield from re.findall(r"`([^`]+)`", row.split("|")[1])


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A tree with the README's two services."""
    tree = App(tmp_path / "tree")
    for source, name in zip(blocks("python"), ("greeter", "visitor"), strict=False):
        assert f"services/{name}.py" in TEXT
        tree.write(f"services/{name}.py", source)
    yield tree
    tree.close()


def test_the_two_commands_come_first() -> None:
    """The first code is the two commands, which are recipes."""
    first = re.search(r"^```sh\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
    assert first is not None
    commands = re.findall(r"^\./scripts/just (\w+)", first[1], re.MULTILINE)
    assert commands == ["run", "test"]
    assert all(re.search(rf"^{command}\b.*:", RECIPES, re.MULTILINE) for command in commands)


def test_the_services_run(app: App) -> None:
    """The two services of the README start in order, and the second gets the value of the first."""
    result = app.run(GREETER_EVERY="1h", GREETER_GREETING="good day").stop(signal.SIGINT)
    assert result.code == 0, result.stderr
    assert set(result.stdout.splitlines()) == {"good day", "the greeter says good day"}
    assert result.in_order("greeter: ready", "visitor: done", "greeter: stopped")


def test_a_service_is_tested_by_calling_it(app: App) -> None:
    """The README's third block calls a service with a value of its own."""
    app.write("try.py", blocks("python")[2])
    done = subprocess.run([sys.executable, "try.py"], cwd=app.root, capture_output=True, text=True, check=True)
    assert done.stdout == "the greeter says good day\n"


def test_there_is_no_python_that_is_not_run() -> None:
    """A fourth block would need a test of its own."""
    assert len(blocks("python")) == 3


@pytest.mark.parametrize("line", re.findall(r"^app ((?!run).*?)(?:\s+#.*)?$", "\n".join(blocks("sh")), re.MULTILINE))
def test_the_commands_work(line: str, tmp_path: Path) -> None:
    """Each command line of the README works on the examples; `run` is tried by the demo's own tests."""
    program = Program(REPO, EXAMPLE_DATABASE_PATH=str(tmp_path / "items.db"))
    done = program.call(*line.split())
    assert done.code == 0, done.stderr
    assert done.stdout


def test_the_table_of_the_decorator_is_complete() -> None:
    """Every argument of `@service` stands in the table."""
    arguments = [name for name in inspect.signature(service).parameters if name != "fn"]
    assert [name for name in first_column("| `@service(...)`") if "(" not in name] == arguments


def test_the_table_of_variables_is_complete() -> None:
    """Every variable of the kernel stands in the table."""
    others = {"<SERVICE>_<FIELD>", "OTEL_*", "NATS_*"}
    assert set(first_column("| variable | default")) - others == set(KERNEL_VARIABLES)


def test_the_recipes_are_there() -> None:
    """Every recipe that the README names is one of the framework's."""
    recipes = "\n".join(path.read_text() for path in (REPO / "scripts" / "kernel").glob("*.just"))
    named = [*first_column("| recipe | |"), *re.findall(r"^\./scripts/just (\S+)", TEXT, re.MULTILINE)]
    assert {"own", "service", "backup-restore"} < set(named)
    assert all(re.search(rf"^{name}\b.*:", recipes, re.MULTILINE) for name in named), named


def test_what_is_said_to_be_there_is_there() -> None:
    """Every path that the last section names exists."""
    paths = [*first_column("| | |\n| --- | --- |\n| `services/`")]
    assert {"services/", "kernel/"} <= {*paths}
    for path in paths:
        assert (REPO / path).exists(), path
