"""Which services run, and what those that are chosen bring with them."""

from __future__ import annotations

import re

import pytest

from kernel.errors import PlanError
from kernel.plan.discovery import Catalogue, ServiceFile
from kernel.plan.selection import select

FILES = Catalogue(
    {name: ServiceFile(name, f"services.{name}", f"services/{name}.py", "services", bytes) for name in "abcd"},
    absent=["elsewhere", "elsewhere-too"],
)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, "abcd"),
        ([], "abcd"),
        (["c", "a"], "ac"),
        (["a", "!b"], "a"),
        (["!b"], "acd"),
        (["!b", "!d"], "ac"),
        (["!b", "a", "b"], "a"),
        (["[ab]", "d"], "abd"),
        (["*", "![ab]"], "cd"),
        (["!elsewhere"], "abcd"),
        (["a", "!elsewhere*"], "a"),
        ([" a ", "! b"], "a"),
    ],
)
def test_what_patterns_choose(patterns: list[str] | None, names: str) -> None:
    """In the order of the files; only exclusions stand for all others, one name beside them for that one alone."""
    assert select(FILES, patterns, "SERVICES_ENABLED") == list(names)


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["a", "x"], ["no service is named 'x'"]),
        (["!x", "!y"], ["no service is named 'x'", "no service is named 'y'"]),
        (["elsewhere", "a"], ["elsewhere is not in this artifact"]),
        (["elsewhere*"], ["elsewhere, elsewhere-too is not in this artifact"]),
        (["elsewher"], ["no service is named 'elsewher'; did you mean 'elsewhere'"]),
        (["a", "!a"], ["a, !a selects no service; remove one of the exclusions"]),
        (["![abcd]"], ["![abcd] selects no service"]),
    ],
)
def test_what_chooses_nothing(patterns: list[str], told: list[str]) -> None:
    """Every pattern that matches nothing is told, with where it comes from."""
    with pytest.raises(PlanError) as caught:
        select(FILES, patterns, "here")
    said = str(caught.value)
    assert re.findall(r"here: ", said) == ["here: "] * len(told)
    assert all(text in said for text in told), said


def test_there_is_nothing_to_choose_from() -> None:
    """Whatever was asked for."""
    for patterns in (None, ["a"], ["!a"]):
        with pytest.raises(
            PlanError,
            match=r"services: there is no service; write an async function with @service in services/hello.py",
        ):
            select(Catalogue({}), patterns, "here")
