"""docs/failures.md says what the terminal says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.program import REPO

sys.path.append(str(REPO / "scripts" / "template"))

import make_failures as failures

PAGE = failures.PAGE.read_text()
CHEAP = [one for one in failures.SCENARIOS if one.cheap]
REMEDY = "run `.venv/bin/python scripts/template/make_failures.py`, and read what has changed"

LOADED = re.compile(r"blocked the event loop|the event loop is free again")
"""What is said besides where the machine has stood still for a second."""

Plays = Callable[[failures.Scenario], str]


@pytest.fixture(scope="module")
def plays() -> Iterator[Plays]:
    """Gives what the terminal says; a few of them run at a time."""
    with ThreadPoolExecutor(4) as pool:
        runs = {one.title: pool.submit(failures.play, one) for one in CHEAP}
        yield lambda one: runs[one.title].result()


@pytest.mark.many
@pytest.mark.parametrize("scenario", CHEAP, ids=lambda one: one.title)
def test_the_terminal_still_says_it(scenario: failures.Scenario, plays: Plays) -> None:
    """A message that has changed has changed on the page too."""
    said = [line for line in plays(scenario).splitlines() if not LOADED.search(line)]
    assert failures.read(PAGE)[scenario.title].splitlines() == said, REMEDY


def test_the_page_is_as_the_script_writes_it() -> None:
    """Titles, sources and text are the script's; nobody has written into the page by hand."""
    said = failures.read(PAGE)
    assert list(said) == [one.title for one in failures.SCENARIOS], REMEDY
    assert failures.render(said) == PAGE, REMEDY


def test_what_differs_from_run_to_run_is_replaced() -> None:
    """Times, measured durations, the tree's place and other people's lines; what was configured stays."""
    root = REPO / "tree"
    told = (
        "12:34:56.789 ERROR    api  failed after 12.3 ms (deadline 10 s)\n"
        "    Traceback (most recent call last):\n"
        f'      File "{root}/services/api.py", line 3, in api\n'
        "        fetch()\n"
        "        ~~~~~^^\n"
        '      File "/lib/http.py", line 9, in fetch\n'
        "        raise OSError\n"
        "    OSError\n"
        "    future: <Task finished name='Task-7'>\n"
        f'      File "{root}/app/init.py", line 4, in vault\n'
    )
    assert failures.scrub(told, root).splitlines() == [
        "10:00:00.000 ERROR    api  failed after # s (deadline 10 s)",
        "    Traceback (most recent call last):",
        '      File "services/api.py", line 3, in api',
        "        fetch()",
        "    OSError",
        "    future: <Task finished name='Task-#'>",
        '      File "app/init.py", line 4, in vault',
    ]
