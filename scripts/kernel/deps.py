"""`just deps-add`, `just deps-remove` and `just deps-update`: change pyproject.toml and the lock together."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap import LOCK, VENV_UV
from lock import Unsolved, pins, read_age, read_project, resolve, run_uv
from recipe import NAME, ROOT, Refusal, bring_venv_up_to_date, run, show
from staging import Change

REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?P<extras>\[[A-Za-z0-9._,-]+\])?"
    r"(?P<versions>(===?|~=|!=|<=?|>=?)[A-Za-z0-9.*+!]+(,(===?|~=|!=|<=?|>=?)[A-Za-z0-9.*+!]+)*)?"
)
USE_ADD = "just deps-add httpx, or just deps-add 'httpx>=0.28' attrs GROUP=dev"
USE_REMOVE = "just deps-remove httpx"
USE_UPDATE = "just deps-update, or just deps-update httpx attrs"


def add(words: Mapping[str, str]) -> None:
    """Add requirements. One without a version gets the version found as its minimum."""
    wanted, group, age = _requirements(words["PKG"], USE_ADD), _group(words["GROUP"]), read_age(words["AGE"])
    with Change(f"just deps-add {words['PKG']}") as change:
        project, before = _copy(change)
        uv_add = [str(VENV_UV), "add", "--frozen", "--quiet", *(["--group", group] if group else [])]
        run_uv([*uv_add, *(requirement[0] for requirement in wanted)], project)
        text = resolve(project, before, [], age)
        found = pins(text)
        for requirement in wanted:
            if not requirement["versions"]:
                least = ".".join(found[_canonical(requirement["name"])].split(" ")[0].split(".")[:2])
                run_uv([*uv_add, f"{requirement['name']}{requirement['extras'] or ''}>={least}"], project)
        done = f"{_told(wanted)} a dependency." if len(wanted) == 1 else f"{_told(wanted)} dependencies."
        _make(change, project, before, resolve(project, text, [], age), done)


def remove(words: Mapping[str, str]) -> None:
    """Remove requirements, and the packages that nothing else needs."""
    wanted, given = _requirements(words["PKG"], USE_REMOVE), _group(words["GROUP"])
    with Change(f"just deps-remove {words['PKG']}") as change:
        project, before = _copy(change)
        for requirement in wanted:
            name, group = requirement["name"], given or _group_of(requirement["name"], project)
            words_of_group = ["--group", group] if group else []
            run_uv([str(VENV_UV), "remove", "--frozen", "--quiet", *words_of_group, name], project)
        done = f"{_told(wanted)} no longer {'a direct dependency' if len(wanted) == 1 else 'direct dependencies'}."
        _make(change, project, before, resolve(project, before, [], 0), done)


def _told(wanted: Sequence[re.Match[str]]) -> str:
    names = [requirement["name"] for requirement in wanted]
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def update(words: Mapping[str, str]) -> None:
    """Update all packages, or the named ones, to the newest compatible versions, never to older ones."""
    age = read_age(words["AGE"])
    with Change("just deps-update") as change:
        project, before = _copy(change)
        names = list(pins(before))
        if words["PKG"]:
            names = [_canonical(requirement["name"]) for requirement in _requirements(words["PKG"], USE_UPDATE)]
            for name in names:
                if name not in pins(before):
                    raise Refusal(f"{show(name)} is not in scripts/requirements.lock; `just deps-add` adds it")
        while True:
            upgrades = [word for name in names for word in ("--upgrade-package", name)]
            try:
                text = resolve(project, before, upgrades, age)
            except Unsolved as error:
                young = [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", str(error))]
                if not young:
                    raise
            else:
                young = [
                    name for name in names if name in pins(text) and _is_older(pins(text)[name], pins(before)[name])
                ]
                if not young:
                    break
            names = [name for name in names if name not in young]  # locked when they were too young: they stay
        _make(change, project, before, text, "scripts/requirements.lock is up to date.")


def _is_older(version: str, other: str) -> bool:
    from packaging.version import Version

    return version != other and " " not in version + other and Version(version) < Version(other)


def _requirements(words: str, use: str) -> list[re.Match[str]]:
    """Parse *words* as requirements: a name, optionally with extras and versions.

    Raises:
        Refusal: There is none, or one is something else, such as a path, an address or an option.

    """
    found: list[re.Match[str]] = []
    for word in dict.fromkeys(words.split()):
        requirement = REQUIREMENT.fullmatch(word)
        if requirement is None:
            raise Refusal(f"{show(word)} is not a requirement; usage: {use}")
        found.append(requirement)
    if not found:
        raise Refusal(f"it needs the name of a package; usage: {use}")
    return found


def _group(name: str) -> str:
    if name and not NAME.fullmatch(name):
        raise Refusal(f"GROUP={show(name)} is not a valid name for a group; example: GROUP=dev")
    return name


def _group_of(name: str, folder: Path) -> str:
    """Return the only group that requires the package; empty if the project itself does."""
    project = read_project(folder)
    asking = {"": project["project"]["dependencies"], **project["dependency-groups"]}
    found = [group for group, lines in asking.items() if _canonical(name) in map(_name_in, lines)]
    if not found:
        raise Refusal(f"pyproject.toml does not require {name}; see `dependencies` for what it requires")
    if len(found) > 1:
        groups = " or ".join(f"GROUP={group}" for group in found if group)
        raise Refusal(f"{name} is required in several places; set {groups}")
    return str(found[0])


def _name_in(line: object) -> str:
    found = REQUIREMENT.match(line) if isinstance(line, str) else None
    return _canonical(found["name"]) if found else ""


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _copy(change: Change) -> tuple[Path, str]:
    """Copy pyproject.toml into a new folder; return the folder, and the text of the lock."""
    folder = change.folder / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return folder, LOCK.read_text()


def _make(change: Change, project: Path, before: str, text: str, done: str) -> None:
    """Put both files in place, and list the packages whose locked version has changed."""
    old, new = pins(before), pins(text)
    change.put("pyproject.toml", (project / "pyproject.toml").read_bytes())
    change.put("scripts/requirements.lock", text.encode())
    change.make(done)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'not locked')} -> {new.get(name, 'gone')}")
    print(done)
    bring_venv_up_to_date()


if __name__ == "__main__":
    match sys.argv.pop(1):
        case "add":
            run("deps-add", USE_ADD, add, "PKG...", "GROUP", "AGE")
        case "remove":
            run("deps-remove", USE_REMOVE, remove, "PKG...", "GROUP")
        case _:
            run("deps-update", USE_UPDATE, update, "PKG...", "AGE")
