"""The steps of `just own`, in a small project: what it writes, and where the project's repository is."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.imported import Imported

PYPROJECT = """\
[project]
name = "kernelpack"
version = "0.3.0"
requires-python = ">=3.11"
dependencies = ["steady>=1"]  # kept
scripts = { kernelpack = "app.__main__:main" }

[dependency-groups]
dev = ["tool"]
examples = ["other"]
template = ["other"]

[tool.kernel]
template = "kernelpack"
test-workers-per-core = 2
test-coverage = false
"""
TOOLS = """
[tool.ruff.lint.per-file-ignores]
"tests/**" = ["S101"]
"scripts/template/**" = ["T201"]
"scripts/template/bench.py" = ["S603"]

[tool.mypy]
strict = true
mypy_path = "scripts/kernel:scripts/template"

[tool.coverage.run]
branch = true
source = ["kernel", "app", "services"]
omit = ["kernel/x.py"]  # of the template
"""
LOCK = "# Made\nother==1.0 \\\n    --hash=sha256:1\n    # via kernelpack (pyproject.toml:examples)\nsteady==1.0 \\\n"
LOCK += "    --hash=sha256:2\n    # via kernelpack (pyproject.toml)\n"


@pytest.fixture
def own(imported: Imported) -> Any:
    """The module, in a clone of a small template that is not committed."""
    imported.write("pyproject.toml", PYPROJECT + TOOLS)
    imported.write("scripts/requirements.lock", LOCK)
    imported.write("scripts/just", '#!/bin/sh\necho "just $*" >> "${0%/*}/../called"\n').chmod(0o755)
    imported.write(".gitignore", "called\n.kernel\n__pycache__\n")
    for page in ("zebra", "services", "testing", "ant", "getting-started"):
        imported.write(f"docs/{page}.md", f"# About {page}\n\nText\n")
    for path in ("services/example_api.py", "services/hello_world.py", "tests/deep/x_test.py"):
        imported.write(path, '"""It."""\n')
    imported.write("services/link.py", "")
    (imported.root / "services" / "link.py").unlink()
    (imported.root / "services" / "link.py").symlink_to("hello_world.py")
    return imported.load("own")


def begin(imported: Imported) -> str:
    """Commit it, with the manifest, and return the commit."""
    imported.init()
    imported.git("add", "-f", "scripts/kernel/manifest.toml")
    return imported.commit()


def kernel(imported: Imported) -> dict[str, str]:
    """What pyproject.toml says of the template."""
    table: dict[str, str] = tomllib.loads((imported.root / "pyproject.toml").read_text())["tool"]["kernel"]
    return table


# -- pyproject.toml ------------------------------------------------------------------------------------------------


def test_the_new_pyproject(own: Any) -> None:
    """The name and the record of the template come in; what only the template needs goes; all else stays."""
    text = own.rewrite(PYPROJECT + TOOLS, "my-app", {"version": "0.3.0", "commit": "c" * 40})
    table = tomllib.loads(text)
    assert table["project"] == {
        "name": "my-app",
        "version": "0.1.0",
        "requires-python": ">=3.11",
        "dependencies": ["steady>=1"],
        "scripts": {"my-app": "app.__main__:main"},
    }
    assert table["dependency-groups"] == {"dev": ["tool"]}
    assert table["tool"] == {
        "kernel": {"template": "kernelpack", "version": "0.3.0", "commit": "c" * 40},
        "ruff": {"lint": {"per-file-ignores": {"tests/**": ["S101"]}}},
        "mypy": {"strict": True, "mypy_path": "scripts/kernel"},
        "coverage": {"run": {"branch": True, "source": ["app", "services"], "omit": ["*/app/__main__.py"]}},
    }
    assert "# of the template" not in text
    assert text.count("# kept") == text.count(f'"{"c" * 40}" # pragma: allowlist secret') == 1


@pytest.mark.parametrize("tools", ["", "[tool.mypy]\nstrict = true\n\n[tool.coverage.run]\nbranch = true\n"])
def test_a_pyproject_that_lacks_the_tools(own: Any, tools: str) -> None:
    """They are not added; where no commit is known, none is recorded. Twice comes to the same."""
    bare = re.sub(r"(?s)\[dependency-groups\].*(?=\[tool)", "", PYPROJECT)
    text = own.rewrite(bare + tools, "my-app", {"version": "0.3.0"})
    assert tomllib.loads(text)["tool"] == {
        "kernel": {"template": "kernelpack", "version": "0.3.0"},
        **tomllib.loads(tools).get("tool", {}),
    }
    assert "allowlist" not in text
    assert own.rewrite(text, "my-app", {"version": "0.3.0"}) == text


# -- the whole of it -----------------------------------------------------------------------------------------------


def check(imported: Imported) -> None:
    """Check the files of the new project."""
    assert (imported.root / "README.md").read_text().startswith("# my-app\n")
    assert re.findall(r"\[About (.*)\]\(docs/\1\.md\)", (imported.root / "README.md").read_text()) == [
        "getting-started",
        "services",
        "testing",
        "ant",
        "zebra",
    ]
    assert "kernelpack 0.3.0" in (imported.root / "CHANGELOG.md").read_text()
    assert {path.name for path in (imported.root / "services").iterdir()} == {"hello_world.py", "link.py"}
    assert (imported.root / "services" / "link.py").readlink() == Path("hello_world.py")
    lock = (imported.root / "scripts" / "requirements.lock").read_text()
    assert re.fullmatch(r"(?s)# Made by `just lock` .*\nsteady==1.0 .*\n    # via my-app \(pyproject.toml\)\n", lock)
    shipped = (imported.root / "scripts" / "kernel" / "shipped.txt").read_text()
    assert [path for path in re.findall(r"(?m)^[0-9a-f]{64}  (.*)$", shipped) if "scripts/kernel" not in path] == [
        *sorted(f"docs/{path.name}" for path in (imported.root / "docs").iterdir()),
        "scripts/just",
    ]
    assert (imported.root / "called").read_text() == "just --version\n"


def test_a_clone(own: Any, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """It becomes a repository of one commit; the history before is kept, and the user's settings of it."""
    commit = begin(imported)
    imported.git("remote", "add", "other", "https://git.example.com/fork.git")
    imported.git("remote", "add", "origin", "https://me:hunter2@git.example.com/x.git")
    imported.git("update-ref", "refs/remotes/origin/main", commit)
    imported.git("config", "user.name", "Of This Clone")
    own.own({"NAME": "my-app"})
    check(imported)
    assert kernel(imported) == {
        "template": "kernelpack",
        "version": "0.3.0",
        "commit": commit,
        "upstream": "https://git.example.com/x.git",
    }
    assert imported.git("log", "--all", "--format=%an %s") == "Of This Clone my-app, made from kernelpack 0.3.0\n"
    assert capsys.readouterr().out == (
        "my-app is yours: one commit on main, made from kernelpack 0.3.0.\n"
        "The template's history is in .kernel/before-own.git; delete it when you do not need it any more.\n"
    )
    assert imported.git("--git-dir=.kernel/before-own.git", "rev-parse", "main").strip() == commit


def test_what_is_killed_half_way_goes_on_alone(own: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git writes into the folder of the change keeps the lock, so that nobody removes it meanwhile."""
    begin(imported)
    held: dict[str, bool] = {}
    real = own.git

    def git(*words: str, **options: Any) -> Any:
        command = next(word for word in words if not re.match("-|core|gc|maintenance", word))
        held[command] = held.get(command, False) or bool(options.get("hold"))
        return real(*words, **options)

    monkeypatch.setattr(own, "git", git)
    own.own({"NAME": "my-app"})
    assert {command for command, holds in held.items() if holds} == {
        *("read-tree", "checkout-index", "init", "add", "commit")
    }


def test_a_clone_of_no_known_origin(own: Any, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """What an update will need is told; the commit is known, and so recorded."""
    commit = begin(imported)
    own.own({"NAME": "my-app"})
    assert kernel(imported) == {"template": "kernelpack", "version": "0.3.0", "commit": commit}
    assert (
        "\nThe origin of the template is not known; for updates, set upstream and commit: " in capsys.readouterr().out
    )


def test_a_clone_with_one_remote_of_another_name(own: Any, imported: Imported) -> None:
    """It is taken for the origin."""
    begin(imported)
    imported.git("remote", "add", "theirs", "../elsewhere")
    own.own({"NAME": "my-app"})
    assert kernel(imported)["upstream"] == "../elsewhere"


def test_files_of_an_archive(own: Any, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """They are backed up, and get a repository of one commit."""
    own.own({"NAME": "my-app"})
    check(imported)
    assert kernel(imported) == {"template": "kernelpack", "version": "0.3.0"}
    assert imported.git("log", "--all", "--format=%an %s") == "Ann Other my-app, made from kernelpack 0.3.0\n"
    said = capsys.readouterr().out
    assert len([*imported.root.glob(".kernel/backups/*-before-own.tar.gz")]) == 1
    assert "kept in a backup first: .kernel/backups/" in said
    assert "The template's history" not in said
    assert "The origin of the template is not known" in said


SUBTREE = "Squashed\n\ngit-subtree-dir: {}\ngit-subtree-split: {}\n"


@pytest.mark.parametrize("kind", ["new", "committed", "subtree", "clone", "ignored"])
def test_a_folder_of_a_larger_repository(
    own: Any, imported: Imported, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """The project is left for the next commit there; if that ignores the folder, the project is on its own."""
    known = {"subtree": "a" * 40, "clone": begin(imported) if kind == "clone" else ""}
    with imported.around(ignored=kind == "ignored") as around:
        if kind in {"committed", "subtree"}:
            imported.git("add", imported.root.name, root=around)
        imported.git("commit", "-q", "--allow-empty", "-m", "Around", root=around)
        if kind == "subtree":
            for place, split in ((imported.root.name, "a" * 40), (f"{imported.root.name}/inner", "b" * 40)):
                imported.git("commit", "-q", "--allow-empty", "-m", SUBTREE.format(place, split), root=around)
        head = imported.git("rev-parse", "HEAD", root=around)
        if kind != "ignored":
            Path(os.environ["GIT_CONFIG_GLOBAL"]).write_text("")  # nobody has to be known where nothing is committed
        own.own({"NAME": "my-app"})
        check(imported)
        said = capsys.readouterr().out
        assert ("kept in a backup first" in said) == (kind in {"new", "ignored"}), said
        assert imported.git("rev-parse", "HEAD", root=around) == head
        assert (imported.root / ".git").exists() == (kind == "ignored")
        place = f"commit it in the repository at {around}." if kind != "ignored" else "one commit on main, made from"
        assert place in said
        assert kernel(imported).get("commit", "") == known.get(kind, "")


# -- what is refused -----------------------------------------------------------------------------------------------


def _a_worktree(imported: Imported) -> None:
    imported.git("worktree", "add", "-q", str(imported.root / ".kernel" / "other"))


def _owned(imported: Imported) -> None:
    imported.write("pyproject.toml", PYPROJECT + 'version = "0.2.0"\n')


def _nobody(_: Imported) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("", None, "a project needs a name; usage: just own NAME=my-app"),
        ("lambda", None, "'lambda' means something else in Python or in this project; choose another name"),
        ("tests", None, "'tests' means something else"),
        ("steady", None, "'steady' is the name of a package that the project needs; choose another name"),
        ("ls", None, r"'ls' is the name of a program, /.*/ls, which the project's would hide; choose another name"),
        ("my-app", _a_worktree, "other worktrees use this clone's history; `git worktree remove` them first"),
        ("my-app", _owned, "it is its own project already: kernelpack, made from 0.2.0"),
        ("my-app", lambda imported: imported.write("new", ""), r"there are uncommitted changes \(new\)"),
    ],
)
def test_what_is_refused(
    own: Any, imported: Imported, name: str, spoil: Callable[[Imported], object] | None, told: str
) -> None:
    """One error says why; nothing is changed."""
    begin(imported)
    if spoil:
        spoil(imported)
    status = imported.git("status", "--porcelain")
    with pytest.raises(own.Refusal, match=told):
        own.own({"NAME": name})
    assert imported.git("status", "--porcelain") == status
    assert not (imported.root / ".kernel" / "change").exists()


def test_a_clone_in_a_larger_repository_is_looked_at_as_well(own: Any, imported: Imported) -> None:
    """What others use of its repository cannot be taken from them."""
    begin(imported)
    with imported.around():
        _a_worktree(imported)
        with pytest.raises(own.Refusal, match="other worktrees use this clone's history"):
            own.own({"NAME": "my-app"})
