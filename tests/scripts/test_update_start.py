"""The part of an update that the old version does; the new version is a script that only follows the protocol."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.imported import Commit, Imported, make_commits

NEW_VERSION = """
import json, os, subprocess, sys
from pathlib import Path

step, root, folder = (word.partition("=")[2] for word in sys.argv[1:])
job = json.loads(Path(folder, "job.json").read_text())
steps = Path(folder, "steps")
report = steps.read_text().split() if steps.exists() else []
steps.write_text(" ".join([*report, step]))


def git(*words):
    command = ["git", f"--git-dir={folder}/git", *words]
    env = {**os.environ, "GIT_INDEX_FILE": f"{folder}/made"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


here = {"root": root, "cwd": os.getcwd(), "writes": sys.dont_write_bytecode, "lock": sorted(os.listdir("/dev/fd"))}
if step == "check":
    Path(folder, "here").write_text(json.dumps(here))
else:
    git("read-tree", job["start"])
    new = git("rev-parse", f"{job['commit']}:kernel/x.txt")
    git("update-index", "--add", "--cacheinfo", f"100644,{new},kernel/x.txt")
    made = git("commit-tree", "-p", job["start"], "-m", "Update", git("write-tree"))
    git("update-ref", "refs/kernel/update", made)
    told = {"job": job, "steps": [*report, step], "here": json.loads(Path(folder, "here").read_text())}
    Path(folder, "report.json").write_text(json.dumps(told))
"""
KILLED = 'import os, sys\nif "STEP=make" in sys.argv:\n    os.kill(os.getpid(), 9)\n'
SCRIPT = "scripts/kernel/update_to.py"
PROJECT = '[project]\nname = "kernelpack"\nversion = "{}"\n'
TABLE = '[project]\nname = "my-app"\n\n[tool.kernel]\ntemplate = "kernelpack"\n'


def version(number: str, script: str | None) -> dict[str, str | None]:
    """Return the files of a version."""
    return {"pyproject.toml": PROJECT.format(number), "kernel/x.txt": f"{number}\n", SCRIPT: script}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An upstream and its commits; the newest version is as it should be, and some others are not."""
    folder = tmp_path_factory.mktemp("update") / "upstream"
    scripts = (NEW_VERSION, "raise SystemExit(9)\n", KILLED, None, NEW_VERSION)
    numbers = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0")
    commits = [
        Commit(version(number, script), [place - 1] if place else [])
        for place, (number, script) in enumerate(zip(numbers, scripts, strict=True))
    ]
    return folder, make_commits(folder, *commits, refs={f"refs/tags/v{n}": at for at, n in enumerate(numbers)})


def table(place: tuple[Path, list[str]], **changes: str) -> str:
    """Return a pyproject.toml."""
    known = {"version": "0.1.0", "commit": place[1][0], "upstream": str(place[0]), **changes}
    return TABLE + "".join(f"{key} = {json.dumps(value)}\n" for key, value in known.items() if value != "-")


@pytest.fixture
def update(imported: Imported, upstream: tuple[Path, list[str]]) -> Any:
    """The module, in a project that comes from the first version."""
    make_commits(
        imported.root,
        Commit({"pyproject.toml": table(upstream), "kernel/x.txt": "0.1.0\n", "mine.txt": "mine\n"}),
    )
    prepare(imported)
    return imported.load("update")


def prepare(imported: Imported) -> None:
    """Check its files out, and make what git ignores."""
    imported.write(".git/info/exclude", "/scripts/\n/.kernel/\n/.venv\n")
    imported.git("reset", "-q", "--hard")
    imported.write(".venv/bin/uv", "")
    imported.write("scripts/just", '#!/bin/sh\necho "$*" >> "${0%/*}/../.kernel/called"\n').chmod(0o755)


def run(update: Any, **words: str) -> None:
    """Make an update."""
    update.update({"VERSION": "", "AGE": "", "VERIFY": "", "PLAIN": "", **words})


def note(imported: Imported) -> Any:
    """Return what is kept of the update."""
    return json.loads((imported.root / ".kernel" / "update.json").read_text())


@pytest.mark.parametrize(("wanted", "at"), [("", 4), ("v0.5.0", 4), ("main", 4)])
def test_an_update(update: Any, imported: Imported, upstream: tuple[Path, list[str]], wanted: str, at: int) -> None:
    """The new version is told what to do, and its commit is checked out, on a branch of its own."""
    start = imported.git("rev-parse", "HEAD").strip()
    run(update, VERSION=wanted, AGE="3")
    kept = note(imported)
    commit = upstream[1][at]
    name = "0.5.0" if wanted != "main" else f"0.5.0-{commit[:12]}"
    assert imported.git("branch", "--show-current") == f"kernel_update_to_{name}\n"
    assert imported.git("rev-parse", "main", "HEAD^").split() == [start, start]
    assert imported.git("status", "--porcelain") == ""
    assert (imported.root / "kernel" / "x.txt").read_text() == "0.5.0\n"
    assert (imported.root / "mine.txt").read_text() == "mine\n"
    assert imported.git("worktree", "list").count("\n") == 1
    assert kept["job"] == {
        "protocol": 1,
        "template": "kernelpack",
        "base_version": "0.1.0",
        "base": upstream[1][0],
        "version": "0.5.0",
        "told": "0.5.0" if wanted != "main" else f"0.5.0 (commit {commit[:12]})",
        "commit": commit,
        "start": start,
        "age": 3,
    }
    assert kept["steps"] == ["check", "make"]
    here = kept["here"]
    assert (here["root"], here["cwd"], here["writes"]) == (str(imported.root), str(imported.root), True)
    assert len(here["lock"]) >= 5, "three, the folder that is listed, and the lock of the change"
    assert (kept["onto"], kept["start"], kept["version"]) == ("main", start, kept["job"]["told"])
    assert [str(path.relative_to(imported.root)) for path in imported.root.glob(".kernel/backups/*")] == [
        kept["backup"]
    ]
    assert (imported.root / ".kernel" / "called").read_text() == "kernel-update-review\n"
    assert not (imported.root / ".kernel" / "change").exists()


def test_an_update_of_a_folder(imported: Imported, upstream: tuple[Path, list[str]]) -> None:
    """The new version sees the project alone; the branch is one of the repository around."""
    update = imported.load("update")
    imported.write("pyproject.toml", table(upstream))
    imported.write("kernel/x.txt", "0.1.0\n")
    with imported.around() as top:
        (top / ".git" / "info" / "exclude").write_text("scripts/\n.kernel/\n.venv\n")
        imported.git("add", imported.root.name, root=top)
        imported.git("commit", "-qm", "x", root=top)
        prepare_here = imported.root / ".venv" / "bin" / "uv"
        prepare_here.parent.mkdir(parents=True)
        prepare_here.touch()
        imported.write("scripts/just", "#!/bin/sh\n").chmod(0o755)
        start = imported.git("rev-parse", "HEAD", root=top).strip()
        run(update)
        kept = note(imported)
        assert kept["start"] == start != kept["job"]["start"]
        changed = imported.git("-c", "core.quotePath=false", "diff", "--name-only", start, "HEAD", root=top)
        assert changed == f"{imported.root.name}/kernel/x.txt\n"
        assert imported.git("rev-parse", "HEAD^", root=top).strip() == start
        assert imported.git("status", "--porcelain", root=top) == ""


def test_nothing_newer(
    imported: Imported, upstream: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is done, which is no failure."""
    make_commits(imported.root, Commit({"pyproject.toml": table(upstream, version="v0.5.0", commit=upstream[1][4])}))
    prepare(imported)
    run(imported.load("update"))
    assert capsys.readouterr().out == "Nothing to do: this project has kernelpack 0.5.0; the newest is 0.5.0.\n"
    assert {path.name for path in (imported.root / ".kernel").iterdir()} == {".gitignore", "lock"}


# -- what is refused -----------------------------------------------------------------------------------------------


def unchanged(imported: Imported, branches: Sequence[str] = ("main",)) -> None:
    """Check that nothing was done, and that nothing is left."""
    assert imported.git("branch", "--format=%(refname:short)").split() == [*branches]
    assert not list(imported.root.glob(".kernel/backups/*"))
    assert not (imported.root / ".kernel" / "change").exists()
    assert not (imported.root / ".kernel" / "update.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"VERSION": "0.5.0;id"}, "'0.5.0;id' is not a version, tag, branch or commit; usage: just kernel-update, or"),
        ({"VERSION": "-x"}, "'-x' is not a version"),
        ({"VERSION": "9.9.9"}, "upstream has no version 9.9.9; the newest is 0.5.0"),
        ({"AGE": "x"}, "AGE='x' is not a number of days"),
        ({"VERIFY": "x"}, "VERIFY='x' is neither yes nor no"),
        ({"PLAIN": "x"}, "PLAIN='x' is neither yes nor no"),
        ({"VERIFY": "1"}, "VERIFY=1, and git cannot verify the tag v0.5.0"),
        ({"VERSION": "0.3.0"}, r"the new version's update_to\.py was ended by SIGKILL; nothing was changed: run this"),
        ({"VERSION": "0.4.0"}, r"that version has no scripts/kernel/update_to\.py: choose another version"),
    ],
)
def test_words_and_versions(update: Any, imported: Imported, words: dict[str, str], told: str) -> None:
    """The error says what is wrong with them, and nothing is changed."""
    with pytest.raises(update.Refusal, match=told):
        run(update, **words)
    unchanged(imported)


def test_a_new_version_that_refuses(update: Any, imported: Imported) -> None:
    """It has said why, and its exit code is kept."""
    with pytest.raises(SystemExit) as caught:
        run(update, VERSION="0.2.0")
    assert caught.value.code == 9
    unchanged(imported)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": "-"}, "this clone is not a project of its own: `git pull` updates it, `just own NAME=x` makes it"),
        ({"version": ""}, r'does not set version under \[tool\.kernel\]; example: version = "1\.4\.0"'),
        ({"commit": "-"}, 'does not set commit under .*; example: commit = "a commit\'s id"'),
        ({"upstream": "-"}, 'does not set upstream under .*; example: upstream = "an address"'),
        ({"version": "new"}, "version or commit under .* is malformed; restore them with git"),
        ({"commit": "abc"}, "version or commit under .* is malformed; restore them with git"),
        ({"upstream": "http://git.example.com/x"}, "uses http, where anybody on the network path can add code"),
    ],
)
def test_what_the_project_says(
    imported: Imported, upstream: tuple[Path, list[str]], changes: dict[str, str], told: str
) -> None:
    """All three of version, commit and upstream are needed."""
    make_commits(imported.root, Commit({"pyproject.toml": table(upstream, **changes)}))
    prepare(imported)
    update = imported.load("update")
    with pytest.raises(update.Refusal, match=told):
        run(update)
    unchanged(imported)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("branch kernel_update_to_9", "an update is pending on the branch kernel_update_to_9; end it with"),
        ("checkout -q --detach", "no branch is checked out; `git checkout` the branch to update"),
        ("mv mine.txt other.txt", "there are uncommitted changes"),
    ],
)
def test_the_state_of_the_repository(update: Any, imported: Imported, words: str, told: str) -> None:
    """Another update, no branch, or work that is not committed stops it."""
    imported.git(*words.split())
    with pytest.raises(update.Refusal, match=told):
        run(update)


def _commits(imported: Imported) -> None:
    imported.git("commit", "-q", "--allow-empty", "-m", "Meanwhile")


def _branches(imported: Imported) -> None:
    imported.git("branch", "kernel_update_to_0.5.0")


def _edits(imported: Imported) -> None:
    imported.write("new.txt", "")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (_commits, "somebody has made a commit or a branch in the meantime; run this again"),
        (_branches, "somebody has made a commit or a branch in the meantime; run this again"),
        (_edits, r"there are uncommitted changes \(new.txt\)"),
    ],
)
def test_work_in_the_meantime(
    update: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, act: Callable[[Imported], None], told: str
) -> None:
    """It is not overrun: nothing is changed, and the backup goes."""
    real = update._let_new_version

    def then(step: str, change: Any) -> None:
        real(step, change)
        if step == "make":
            assert list(imported.root.glob(".kernel/backups/*"))
            act(imported)

    monkeypatch.setattr(update, "_let_new_version", then)
    with pytest.raises(update.Refusal, match=told):
        run(update)
    unchanged(imported, ["kernel_update_to_0.5.0", "main"] if act is _branches else ["main"])


# -- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("git", "lost", "missing"),
    [
        ("git version 2.38.0", (), []),
        ("git version 3.0", (), []),
        ("git version 2.37.9", (), ["git 2.38 or newer"]),
        ("git version 1.99.1 (Apple)", ("uv",), ["git 2.38 or newer", "uv in .venv"]),
        ("something else", ("tomlkit",), ["git 2.38 or newer", "tomlkit in .venv"]),
        ("", ("uv", "tomlkit"), ["git 2.38 or newer", "uv in .venv", "tomlkit in .venv"]),
    ],
)
def test_what_an_update_needs(
    imported: Imported, monkeypatch: pytest.MonkeyPatch, git: str, lost: Sequence[str], missing: list[str]
) -> None:
    """All that is missing is named at once, with what to do."""
    update = imported.load("update")
    imported.write("pyproject.toml", TABLE)
    if "uv" not in lost:
        imported.write(".venv/bin/uv", "")
    monkeypatch.setattr(update, "git", lambda *words: git if words == ("--version",) else "")
    monkeypatch.setattr(update.shutil, "which", lambda _: git or None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lost else real(name))
    found = list(update._missing_tools())
    assert [re.split(r" \(", one)[0] for one in found] == missing
    assert all("apt install git" in one or "just deps-add" in one for one in found)
    if missing:
        with pytest.raises(update.Refusal, match="an update needs something that is missing: ") as caught:
            update._look_around()
        assert "; ".join(found) in str(caught.value)
