"""Three-way merges: nothing of the user's is ever lost, and what neither side has touched is as upstream has it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

from merge_files import Merged, Repository, Tree, _Merge, merge
from merge_project import merge_project
from recipe import Refusal

FILES = ("kernel/a.txt", "kernel/b.txt", "kernel/c.bin", "scripts/kernel/s.txt", "scripts/just")
FREE = ("kernel/new.txt", "kernel/other.txt", "scripts/kernel/new.txt", "kernel/a.txt/deep.txt", "kernel/new.txt/x")
OURS_ALONE = ("services/mine.py", "kernel/mine.py")
Files = dict[str, tuple[str, str]]
"""Mode and content, by path."""

# -- files ---------------------------------------------------------------------------------------------------------


def first(path: str) -> str:
    """What a file of the framework begins as."""
    return ("\0" if path.endswith(".bin") else "") + "".join(f"{path} has line {number}\n" for number in range(9))


@st.composite
def edited(draw: st.DrawFn, side: str) -> Files:
    """What a side makes of the framework's files: it changes, deletes, renames, adds, and links."""
    files: Files = {}
    for number, path in enumerate(FILES):
        mode, content = "100644", first(path)
        act = draw(st.sampled_from(["keep", "keep", "change", "change", "delete", "move", "mode", "link"]))
        if act in {"change", "move"}:
            lines = content.splitlines(keepends=True)
            lines[draw(st.integers(0, 8))] = f"{side} changed {number}\n"
            content = "".join(lines)
        if act == "mode":
            mode = "100755"
        if act == "link":
            mode, content = "120000", f"{side}-link-{number}"
        if act == "move" and side == "theirs":
            path = path.replace(".", "-moved.")  # noqa: PLW2901
        if act != "delete":
            files[path] = (mode, content)
    for number, path in enumerate(FREE):
        in_the_way = any(f"{one}/".startswith(f"{path}/") or f"{path}/".startswith(f"{one}/") for one in files)
        if not in_the_way and draw(st.booleans()):
            files[path] = ("100644", f"{side} added {number}\n")
    if side == "ours":
        files |= {path: ("100644", f"ours alone {path}\n") for path in OURS_ALONE}
    return files


class Bench:
    """Merges files as a project's update does."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
        self.repository = Repository(folder)
        self.stored: dict[str, str] = {}

    def tree(self, files: Mapping[str, tuple[str, str]]) -> Tree:
        """The tree of these files."""
        for _, content in files.values():
            if content not in self.stored:
                self.stored[content] = self.repository.store(content)
        return {path: (mode, self.stored[content]) for path, (mode, content) in files.items()}

    def merge(self, base: Files, ours: Files, theirs: Files) -> tuple[Files, Merged]:
        """What comes of it, with the contents."""
        merged = merge(self.repository, self.tree(base), self.tree(ours), self.tree(theirs), "new")
        known = {blob: content for content, blob in self.stored.items()}
        for _, blob in merged.tree.values():
            if blob not in known:
                known[blob] = self.repository.content(blob)
        self.repository.write(merged.tree)  # it is a tree: no file where a folder is
        return {path: (mode, known[blob]) for path, (mode, blob) in merged.tree.items()}, merged


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench") / "git")


BASE: Files = {path: ("100644", first(path)) for path in FILES}


@pytest.mark.minutes
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ours=edited("ours"), theirs=edited("theirs"))
def test_random_edits_on_both_sides(bench: Bench, ours: Files, theirs: Files) -> None:
    """Whatever both have done."""
    result, merged = bench.merge(BASE, ours, theirs)
    clashing = {path for clash in merged.clashes for path in (clash.path, clash.aside)}
    everything = "".join(content for _, content in result.values())
    for path, (mode, content) in ours.items():
        lines = [line for line in content.splitlines() if line.startswith("ours")]
        assert all(line in everything for line in lines), (path, "a line of the user's is lost")
        if path in OURS_ALONE or (path not in BASE and path not in theirs):
            assert result[path] == (mode, content), (path, "a file of the user's was touched")
    for path in BASE.keys() - ours.keys():
        assert path not in result, "what the user had deleted has come back"
    followed = any(path in ours and path not in theirs and ours[path] != BASE[path] for path in BASE)
    for path in BASE.keys() | theirs.keys():
        if ours.get(path) == BASE.get(path) and path not in clashing and not (followed and path not in BASE):
            assert result.get(path) == theirs.get(path), (path, "which the user had not touched")
        if theirs.get(path) == BASE.get(path) and path not in clashing:
            assert result.get(path) == ours.get(path), (path, "which upstream had not touched")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected", "aside"),
    [
        ("one\n2\n3\n4\n5\n", "1\n2\n3\n4\n5\nsix\n", "one\n2\n3\n4\n5\nsix\n", None),
        ("one\n2\n", "uno\n2\n", "<<<<<<< yours\none\n=======\nuno\n>>>>>>> new\n2\n", None),
        ("\0mine", "\0theirs", "\0mine", "\0theirs"),
        ("mine\n", None, "mine\n", "new has deleted this file"),
        (None, "theirs\n", None, "theirs\n"),
    ],
    ids=["merged", "marked", "no text", "deleted by them", "deleted by me"],
)
def test_each_kind_of_conflict(
    bench: Bench, ours: str | None, theirs: str | None, expected: str | None, aside: str | None
) -> None:
    """Of each, both versions are there; what git can merge it merges."""

    def one(content: str | None) -> Files:
        return {} if content is None else {"kernel/x": ("100644", content)}

    base = "1\n2\n3\n4\n5\n" if "5" in (ours or "") else "1\n2\n"
    result, merged = bench.merge(one(base), one(ours), one(theirs))
    assert result.get("kernel/x", (None, None))[1] == expected
    if aside:
        assert result["kernel/x.conflict"][1].startswith(aside)
    assert len(merged.clashes) == (0 if expected and "six" in expected else 1)


def test_in_scripts_the_recipes_must_go_on(bench: Bench) -> None:
    """There the framework's version is in place, and the marks are beside it."""
    one = {"scripts/just": ("100755", "#!/bin/sh\n1\n")}
    result, merged = bench.merge(
        one, {"scripts/just": ("100755", "#!/bin/sh\nmine\n")}, {"scripts/just": ("100755", "#!/bin/sh\ntheirs\n")}
    )
    assert result["scripts/just"] == ("100755", "#!/bin/sh\ntheirs\n")
    assert "\nmine\n=======\ntheirs\n" in result["scripts/just.conflict"][1]
    assert [clash.aside for clash in merged.clashes] == ["scripts/just.conflict"]


def test_a_file_of_the_users_called_conflict_stays(bench: Bench) -> None:
    """The framework's version takes the next free name beside it."""
    base, mine, theirs = ({"kernel/x": ("100644", text)} for text in ("\0", "\0mine", "\0theirs"))
    mine["kernel/x.conflict"] = ("100644", "notes of my own\n")
    mine["kernel/x.conflict_"] = ("100644", "more notes\n")
    result, merged = bench.merge(base, mine, theirs)
    assert result == {**mine, "kernel/x.conflict__": theirs["kernel/x"]}
    assert [clash.aside for clash in merged.clashes] == ["kernel/x.conflict__"]


def test_two_files_renamed_to_one_name(bench: Bench) -> None:
    """Both sides give different files the same new name: both are there, and it is told."""
    a, b = ("100644", first("kernel/a.txt")), ("100644", first("kernel/b.txt"))
    result, merged = bench.merge(
        {"kernel/a.txt": a, "kernel/b.txt": b},
        {"kernel/one.txt": a, "kernel/b.txt": b},
        {"kernel/a.txt": a, "kernel/one.txt": b},
    )
    everything = "".join(content for _, content in result.values())
    assert all(line in everything for _, content in (a, b) for line in content.splitlines())
    assert any(clash.path == "kernel/one.txt" for clash in merged.clashes)
    assert all(clash.aside in result for clash in merged.clashes if clash.aside)


def test_line_ends_of_windows(bench: Bench) -> None:
    """They stay where the user has them, also in a file that both have added, and are no change by themselves."""
    windows, unix = ("100644", "1\r\n2\r\n3\r\n"), ("100644", "1\n2\n3\n")
    mine, new = ("100644", "mine\r\n2\r\n3\r\n"), ("100644", "1\n2\nnew\n")
    result, merged = bench.merge(
        {"kernel/a": unix, "kernel/b": unix, "kernel/c": unix},
        {"kernel/a": windows, "kernel/b": mine, "kernel/c": windows, "kernel/added": windows},
        {"kernel/a": new, "kernel/b": new, "kernel/c": unix, "kernel/added": unix},
    )
    assert result == {
        "kernel/a": ("100644", "1\r\n2\r\nnew\r\n"),
        "kernel/b": ("100644", "mine\r\n2\r\nnew\r\n"),
        "kernel/c": windows,
        "kernel/added": windows,
    }
    assert not merged.clashes


def test_links_are_no_texts(bench: Bench) -> None:
    """Whatever is in their targets: they are taken as they are, or kept as they are."""
    unix, windows = ("100644", "1\n2\n"), ("100644", "1\r\n2\r\n")
    odd, strange = ("120000", "to\nhere"), ("120000", "to\r\nthere")
    base = {"kernel/a": unix, "kernel/b": unix, "kernel/c": ("120000", "x")}
    mine = {"kernel/a": windows, "kernel/b": strange, "kernel/c": strange}
    result, merged = bench.merge(base, mine, {"kernel/a": odd, "kernel/b": unix, "kernel/c": odd})
    assert result == {"kernel/a": odd, "kernel/b": strange, "kernel/c": strange, "kernel/c.conflict": odd}
    assert [(clash.path, clash.why) for clash in merged.clashes] == [
        ("kernel/c", "both have changed it, and a link cannot be merged")
    ]


def test_a_name_that_git_has_made_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where the file that wanted another name is now."""
    let_git_merge = _Merge._let_git_merge
    text = bench.tree({"x": ("100644", "mine\n")})["x"]

    def merge_oddly(self: _Merge) -> tuple[Tree, dict[str, dict[str, tuple[str, str]]]]:
        merged, stages = let_git_merge(self)
        return {**merged, "kernel/x~new": text, "kernel/odd": text}, stages

    monkeypatch.setattr(_Merge, "_let_git_merge", merge_oddly)
    files = {"kernel/a": ("100644", "1\n")}
    result, merged = bench.merge(files, files, files)
    assert result == {**files, "kernel/x~new": ("100644", "mine\n"), "kernel/odd": ("100644", "mine\n")}
    assert merged.clashes == [
        ("kernel/odd", "two files want one name", "kernel/odd"),
        ("kernel/x", "two files want one name", "kernel/x~new"),
    ]


# -- pyproject.toml ------------------------------------------------------------------------------------------------

WORDS = st.sampled_from("abcdef")
VALUES = st.one_of(st.integers(0, 3), st.lists(WORDS, unique=True, max_size=4))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """What may stand under [tool], and what is asked for."""
    tools = draw(st.dictionaries(WORDS, st.dictionaries(WORDS, VALUES, max_size=3), max_size=3))
    asked = draw(st.dictionaries(WORDS, st.integers(1, 3), max_size=4))
    return {"tools": tools, "asked": [f"{name}>={version}" for name, version in asked.items()]}


def text_of(table: Mapping[str, Any], side: str) -> str:
    """As a file, with a comment at each requirement."""

    def lines() -> Iterator[str]:
        yield f'[project]\nname = "{side}"\ndependencies = ['
        yield from (f'    "{one}",  # {side} needs {one}' for one in table["asked"])
        yield "]\n\n[tool.kernel]\nkept = true"
        for tool, values in table["tools"].items():
            yield f"\n[tool.{tool}]  # {side}'s {tool}"
            yield from (f"{key} = {value!r}" for key, value in values.items())

    return "\n".join(lines()) + "\n"


@settings(max_examples=200, deadline=None)
@given(base=tables(), ours=tables(), theirs=tables())
def test_random_values_on_both_sides(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What the user has changed stays, with its comment; what he has not is as upstream has it."""
    text, clashes = merge_project(text_of(base, "base"), text_of(ours, "ours"), text_of(theirs, "theirs"))
    merged = tomllib.loads(text)
    assert (merged["project"]["name"], merged["tool"]["kernel"]) == ("ours", {"kept": True})
    clashing = {clash.key for clash in clashes}
    asked = set(merged["project"]["dependencies"])
    was, mine, new = (set(one["asked"]) for one in (base, ours, theirs))
    assert mine - was <= asked, "a requirement that the user had added or changed is lost"
    assert new - was <= asked or "project.dependencies" in clashing
    for requirement in mine & asked:
        assert f'"{requirement}",  # ours needs' in text, "a comment of the user's is lost"
    for tool in ours["tools"].keys() | theirs["tools"].keys():
        for key in WORD_LIST:
            values = [one["tools"].get(tool, {}).get(key) for one in (base, ours, theirs)]
            found = merged["tool"].get(tool, {}).get(key)
            if values[1] != values[0] and not isinstance(values[1], list):
                assert found == values[1] or isinstance(values[2], list), (tool, key)
            if values[1] == values[0] and f"tool.{tool}" not in clashing:
                assert _plain(found) == _plain(values[2]), (tool, key)


WORD_LIST = "abcdef"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value


def test_comments_and_order_stay() -> None:
    """Those of the user's, and of what comes in the framework's."""
    base = '[project]\nname = "x"\ndependencies = [\n    "a>=1",  # theirs\n    "b>=1",\n]\n\n[tool.t]\nwidth = 100\n'
    ours = (
        '# top\n[project]\nname = "mine"\ndependencies = [\n    "z",  # mine\n    # about a\n    "a>=1",  # ours too'
        '\n    "b>=1",\n]\n\n[tool.mine]\nx = 1  # my own\n\n[tool.t]\nwidth = 100  # wide\n'
    )
    theirs = (
        '[project]\nname = "x"\ndependencies = [\n    "a>=2",  # theirs\n    "c>=1",  # c is needed\n]\n\n'
        "[tool.t]\nwidth = 120\n\n[tool.new]\ny = 2  # why\n"
    )
    text, clashes = merge_project(base, ours, theirs)
    assert not clashes
    assert text == (
        '# top\n[project]\nname = "mine"\ndependencies = [\n    "z",  # mine\n    # about a\n    "a>=2",  # ours too'
        '\n    "c>=1", # c is needed\n]\n\n[tool.mine]\nx = 1  # my own\n\n[tool.t]\nwidth = 120  # wide\n\n'
        "[tool.new]\ny = 2  # why\n"
    )


def test_two_versions_of_one_value() -> None:
    """The user's stays, and both are told."""
    files = [
        '[project]\nname = "x"\ndependencies = ["Some_Thing>={}"]\n[tool.t]\nwidth = {}\n'.format(*two)
        for two in ((1, 1), (2, 2), (3, 3))
    ]
    text, clashes = merge_project(*files)
    assert text == files[1]
    assert [str(clash) for clash in clashes] == [
        'project.dependencies: yours is "Some_Thing>=2", the framework\'s "Some_Thing>=3"',
        "tool.t.width: yours is 2, the framework's 3",
    ]


def test_the_build_system_arrives() -> None:
    """It is one of the tables that an update brings, and a change of the user's own stays."""
    old, new = (f'[project]\nname = "x"\n[build-system]\nrequires = ["hatchling>={n}"]\n' for n in (1, 2))
    assert merge_project(old, old, new) == (new, [])
    added = '[project]\nname = "x"\n'
    assert "hatchling>=2" in merge_project(added, added, new)[0]
    mine = old.replace("hatchling>=1", "setuptools")
    text, _ = merge_project(old, mine, new)
    assert "setuptools" in text


def requiring(*requirements: str) -> str:
    """A file with the same list wherever requirements are, and where none are."""
    items = ", ".join(requirements)
    return (
        f'[project]\nname = "x"\ndependencies = [{items}]\n[project.optional-dependencies]\nmore = [{items}]\n'
        f'[dependency-groups]\ndev = [{{ include-group = "more" }}, {items}]\n[tool.t]\nwords = [{items}]\n'
    )


def test_where_requirements_are() -> None:
    """There two versions of one package are a conflict; elsewhere they are two words."""
    text, clashes = merge_project(*(requiring(f'"a>={n}; x"', f"'B_c=={n}'") for n in (1, 2, 3)))
    everywhere = ("project.dependencies", "project.optional-dependencies.more", "dependency-groups.dev")
    assert sorted(clash.key for clash in clashes) == sorted([*everywhere] * 2)
    merged = tomllib.loads(text)
    mine = ["a>=2; x", "B_c==2"]
    assert merged["dependency-groups"]["dev"] == [{"include-group": "more"}, *mine]
    assert merged["project"]["dependencies"] == merged["project"]["optional-dependencies"]["more"] == mine
    assert merged["tool"]["t"]["words"] == [*mine, "a>=3; x", "B_c==3"]


@pytest.mark.parametrize("old", ["t = 1", "t = [1]", "t = { x = 1 }", "[tool.t]\nx = 1"])
@pytest.mark.parametrize("new", ["t = 2", "t = [2]", "t = { y = 2 }", "[tool.t]\ny = 2"])
def test_a_value_of_another_kind(old: str, new: str) -> None:
    """It is replaced, whatever it was."""
    before, after = (f'[project]\nname = "x"\n[tool]\n{text}\n' for text in (old, new))
    text, clashes = merge_project(before, before, after)
    assert (tomllib.loads(text), clashes) == (tomllib.loads(after), [])


def test_a_layout_that_cannot_be_written() -> None:
    """It is refused, rather than written wrongly."""
    tables = '[[tool.t]]\nm = "a"\n{}[[tool.t]]\nm = "{}"\n'
    name = '[project]\nname = "x"\n'
    with pytest.raises(Refusal, match=r"^pyproject\.toml is laid out in a way that cannot be merged"):
        merge_project(name + tables.format("", "b"), tables.format(name, "b"), name + tables.format("", "c"))
