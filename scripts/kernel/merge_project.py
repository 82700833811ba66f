"""Merge pyproject.toml three-way, value by value. The user's comments, order and layout stay.

In lists, each item is a separate value: requirements are identified by name, other items by value. A value that only
one side has changed is taken from that side. If both have changed it, the user's value stays, and it is a conflict.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tomlkit
from tomlkit.items import AoT, Array

from recipe import Refusal

NOTHING = object()  # stands for a missing value
PROJECT = ("dependencies", "requires-python", "optional-dependencies")  # everything else in [project] is the user's
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(;.*)?")


class Clash(NamedTuple):
    """A value that both sides have changed."""

    key: str
    yours: Any
    theirs: Any

    def __str__(self) -> str:
        """Show both values."""
        yours, theirs = (
            "nothing" if value is NOTHING else json.dumps(value, default=str) for value in (self.yours, self.theirs)
        )
        return f"{self.key}: yours is {yours}, the framework's {theirs}"


def merge_project(base: str, ours: str, theirs: str) -> tuple[str, list[Clash]]:
    """Merge the framework's changes into the user's pyproject.toml.

    Args:
        base: The framework's old version.
        ours: The user's.
        theirs: The framework's new version.

    Raises:
        Refusal: The layout of the file does not allow the values to be written.

    """
    clashes: list[Clash] = []
    was = _part(tomllib.loads(ours))
    wanted = merge_values(_part(tomllib.loads(base)), was, _part(tomllib.loads(theirs)), (), clashes)
    document = tomlkit.parse(ours)
    _write_table(document, was, wanted, tomlkit.parse(theirs))
    text = tomlkit.dumps(document)
    if _part(tomllib.loads(text)) != wanted or _rest(tomllib.loads(text)) != _rest(tomllib.loads(ours)):
        raise Refusal("pyproject.toml is laid out in a way that cannot be merged; put each table into one place")
    return text, clashes


def _part(project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part that an update may change."""
    part = {key: value for key, value in project.items() if key in {"dependency-groups", "build-system"}}
    part["project"] = {key: value for key, value in project.get("project", {}).items() if key in PROJECT}
    part["tool"] = {key: value for key, value in project.get("tool", {}).items() if key != "kernel"}
    return part


def _rest(project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part that an update may not change."""
    rest = {key: value for key, value in project.items() if key not in {"dependency-groups", "build-system"}}
    rest["project"] = {key: value for key, value in project.get("project", {}).items() if key not in PROJECT}
    rest["tool"] = project.get("tool", {}).get("kernel")
    return rest


def merge_values(base: Any, ours: Any, theirs: Any, where: tuple[str, ...], clashes: list[Clash]) -> Any:
    """Merge one value. Return `NOTHING` if there should be none, and add conflicts to *clashes*."""
    if theirs in (base, ours):  # not a set, since lists and tables are not hashable
        return ours
    if isinstance(ours, list) and isinstance(theirs, list):  # always keeps the user's order
        return _merge_lists(base if isinstance(base, list) else [], ours, theirs, where, clashes)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        was = base if isinstance(base, dict) else {}
        keys = [*ours, *(key for key in theirs if key not in ours)]
        merged = {
            key: merge_values(
                was.get(key, NOTHING), ours.get(key, NOTHING), theirs.get(key, NOTHING), (*where, key), clashes
            )
            for key in keys
        }
        return {key: value for key, value in merged.items() if value is not NOTHING}
    if ours == base:
        return theirs
    clashes.append(Clash(".".join(where), ours, theirs))
    return ours


def _merge_lists(
    base: list[Any], ours: list[Any], theirs: list[Any], where: tuple[str, ...], clashes: list[Clash]
) -> list[Any]:
    was, mine, new = (dict(_items(items, where)) for items in (base, ours, theirs))
    merged = [
        merge_values(was.get(key, NOTHING), mine.get(key, NOTHING), new.get(key, NOTHING), where, clashes)
        for key in [*mine, *(key for key in new if key not in mine)]
    ]
    return [value for value in merged if value is not NOTHING]


def _items(items: Sequence[Any], where: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a list, each with the key that identifies it."""
    asks = "dependencies" in where[-1:] or where[:1] == ("dependency-groups",) or "optional-dependencies" in where
    seen: dict[str, int] = {}
    for item in items:
        found = REQUIREMENT.fullmatch(item) if asks and isinstance(item, str) else None
        key = f"{re.sub('[-_.]+', '-', found[1]).lower()}{found[2] or ''}" if found else json.dumps(item, default=str)
        seen[key] = seen.get(key, 0) + 1
        yield f"{key} {seen[key]}", item


def _write_table(table: Any, was: Mapping[str, Any], wanted: Mapping[str, Any], theirs: Any, *where: str) -> None:
    """Update *table* to the *wanted* values. New values are copied from *theirs*, with their comments."""
    for key in was.keys() - wanted.keys():
        del table[key]
    for key, value in wanted.items():
        old = was.get(key, NOTHING)
        if old is NOTHING:
            table[key] = theirs[key]
        elif old == value:
            continue
        elif isinstance(old, dict) and isinstance(value, dict):
            _write_table(table[key], old, value, theirs.get(key, {}), *where, key)
        elif isinstance(old, list) and isinstance(value, list):
            _write_list(table[key], old, value, theirs.get(key), (*where, key))
        else:
            table[key] = value


def _write_list(array: Any, was: list[Any], wanted: list[Any], theirs: Any, where: tuple[str, ...]) -> None:
    old, new = dict(_items(was, where)), dict(_items(wanted, where))
    for number, (key, value) in reversed(list(enumerate(old.items()))):
        if key not in new:
            del array[number]
        elif new[key] != value:
            array[number] = new[key]
    in_lines = isinstance(array, Array) and "\n" in array.as_string()
    for key, value in new.items():
        if key in old:
            continue
        if in_lines:
            array.add_line(value, comment=_comment(theirs, value))
        else:
            array.append(tomlkit.item(value) if isinstance(array, AoT) else value)


def _comment(theirs: Any, value: Any) -> str | None:
    """Return the framework's comment on the line of an item."""
    if not isinstance(theirs, Array):
        return None
    quoted = re.escape(tomlkit.item(value).as_string())
    found = re.search(rf"(?m)^\s*{quoted}\s*,?\s*#\s*(.*\S)\s*$", theirs.as_string())
    return found[1] if found else None
