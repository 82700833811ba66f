"""The code in docs/services.md and docs/configuration.md runs, and their tables are complete."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.config.settings import SETTINGS
from kernel.declare.service import service
from tests.conformance.program import REPO, App

PAGES = ("services", "configuration")
Example = Callable[[], Awaitable[None]]


def read(page: str) -> str:
    """The text of a page."""
    return (REPO / "docs" / f"{page}.md").read_text()


def blocks(page: str, language: str = "python") -> list[str]:
    """The blocks of code in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


def examples(page: str) -> dict[str, Example]:
    """The tests that a page shows; its blocks are one program."""
    module: dict[str, Any] = {"__name__": page}
    exec(compile("\n".join(blocks(page)), f"docs/{page}.md", "exec", dont_inherit=True), module)  # noqa: S102
    return {f"{page}: {name}": one for name, one in module.items() if name.startswith("test_")}


EXAMPLES = {name: one for page in PAGES for name, one in examples(page).items()}


def first_column(page: str, header: str) -> Iterator[str]:
    """What stands in backticks in the first column of the table with this *header*."""
    text = read(page)
    for row in text[text.index(header) :].split("\n\n")[0].splitlines()[2:]:
        yield from re.findall(r"`([^`]+)`", row.split("|")[1])


@pytest.mark.anyio
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example(name: str) -> None:
    """Each test that a page shows passes."""
    await EXAMPLES[name]()


def test_there_are_examples() -> None:
    assert {name.partition(":")[0] for name in EXAMPLES} == set(PAGES)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path / "tree")
    yield app
    app.close()


def test_what_the_terminal_says_of_wrong_values(app: App) -> None:
    """The page shows the lines of the real program, for its own service."""
    app.write("services/mailer.py", blocks("configuration")[0])
    result = app.run(LOG_FORMAT="text", MAILER_HOST="x", MAILER_BATCH="ten").result()
    assert (result.code, result.stderr) == (2, blocks("configuration", "text")[0])


@pytest.mark.parametrize("number", [1, 2])
def test_what_the_terminal_says_of_all_variables(app: App, number: int) -> None:
    """The page shows the beginning of what the real program prints, for its own service."""
    app.write("services/mailer.py", blocks("configuration")[0])
    command, _, shown = blocks("configuration", "text")[number].partition("\n")
    words = shlex.split(command.removeprefix("$ "))
    begin = words.index("app")
    env = dict(word.split("=") for word in words[:begin])
    printed = app.call(*words[begin + 1 :], **env).stdout
    assert shown.endswith("\n...\n")
    assert printed.startswith(shown.removesuffix("...\n")), printed


def test_the_command(app: App) -> None:
    """The page's command works on the page's service."""
    page = blocks("services")
    (command,) = [block for block in page if "@store.command" in block]
    app.write("services/store.py", f"{page[0]}\n\n{command}")
    assert app.call("store", "count").stdout == "0\n"
    assert app.call("store", "count", "--empty", STORE_SIZE="5").stdout == "5\n"


def test_the_table_of_the_decorator_is_complete() -> None:
    """Every argument of `@service`."""
    arguments = [name for name in inspect.signature(service).parameters if name != "fn"]
    assert [name for name in first_column("services", "| `@service(...)`") if "(" not in name] == arguments


def test_the_table_of_variables_is_complete() -> None:
    """Every variable of the kernel, as its own table has it."""
    text = read("configuration")
    table = text[text.index("| variable | default") :].split("\n\n")[0].splitlines()[2:]
    ours = [row for row in table if not re.match(r"\| `(<SERVICE>_<FIELD>|OTEL_\*|NATS_\*)`", row)]
    assert ours == [
        f"| `{one.name}` | {one.default if '`' in one.default or one.default == 'all' else f'`{one.default}`'}"
        f" | {one.meaning} |"
        for one in SETTINGS
    ]
