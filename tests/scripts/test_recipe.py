"""What all recipes share: how they read their arguments, how they end, and how they run git."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.imported import Imported
from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

import recipe
from change import Conflict
from recipe import NAME, Refusal, is_help, is_yes, parse, refuse_name, run, show, unix

USE = "just service NAME=billing"

# -- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name", "force"),
    [
        ([], "", ""),
        (["NAME=", "FORCE="], "", ""),
        (["NAME=x"], "x", ""),
        (["x"], "x", ""),
        (["FORCE=1", "x"], "x", "1"),
        (["NAME=x", "NAME=y"], "y", ""),
        (["NAME=x", "NAME="], "x", ""),
        (["NAME=x", "y"], "y", ""),
        (["NAME=a=b"], "a=b", ""),
        (["x=y"], "x=y", ""),
    ],
)
def test_arguments(words: list[str], name: str, force: str) -> None:
    """A word without a key is the first value, an empty value is none, and the last one counts."""
    assert parse(words, USE, ["NAME", "FORCE"]) == {"NAME": name, "FORCE": force}


@pytest.mark.parametrize(
    ("words", "keys", "told"),
    [
        (["COLOUR=red"], ["NAME"], f"it takes no COLOUR; usage: {USE}"),
        (["NAME=x", ""], ["NAME"], f"an argument is empty; usage: {USE}"),
        (["x", "y"], ["NAME"], f"'y': unexpected argument; usage: {USE}"),
        (["x"], [], f"'x': unexpected argument; usage: {USE}"),
        (["NAME=x"], [], f"it takes no NAME; usage: {USE}"),
    ],
)
def test_arguments_that_a_recipe_does_not_take(words: list[str], keys: list[str], told: str) -> None:
    """The error says how to call it."""
    with pytest.raises(Refusal) as caught:
        parse(words, USE, keys)
    assert str(caught.value) == told


def test_several_values_of_one_key() -> None:
    """They are joined, if the key takes several; other keys are as always."""
    assert parse(["a", "AGE=3", "b"], USE, ["PKG...", "AGE"]) == {"PKG": "a b", "AGE": "3"}
    assert parse(["a"], USE, ["PKG..."]) == {"PKG": "a"}


@pytest.mark.parametrize(
    ("word", "shown"),
    [("x" * 40, f"'{'x' * 40}'"), ("x" * 41, f"'{'x' * 40}...'"), ("a\nb\x1b", r"'a\nb\x1b'"), ("", "''")],
)
def test_what_a_user_wrote_is_shown_short(word: str, shown: str) -> None:
    """On one line, without control characters."""
    assert show(word) == shown


@pytest.mark.parametrize("name", ["x", "a1", "a-b-2", "x" * 63])
def test_names(name: str) -> None:
    """They are accepted."""
    refuse_name(name, "a service", USE)
    assert NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", f"a service needs a name; usage: {USE}"),
        ("a_b", "'a_b' is not a valid name for a service: lower-case letters and digits"),
        ("a--b", "is not a valid name for a service"),
        ("X", f"usage: {USE}"),
        ("x" * 64, "is too long for a name: 64 characters, of at most 63"),
    ],
)
def test_names_that_are_refused(name: str, told: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(Refusal) as caught:
        refuse_name(name, "a service", USE)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "means"),
    [*((value, False) for value in ("", "0", "no", "FALSE", "Off")), *((v, True) for v in ("1", "Yes", "true", "ON"))],
)
def test_yes_and_no(value: str, means: bool) -> None:
    """In the usual words."""
    assert is_yes(value, "FORCE") is means


def test_neither_yes_nor_no() -> None:
    """The error names the key, and shows how to use it."""
    with pytest.raises(Refusal, match="FORCE='maybe' is neither yes nor no; example: FORCE=1"):
        is_yes("maybe", "FORCE")


@pytest.mark.parametrize(("words", "means"), [([], False), (["x", "-h"], True), (["--help"], True), (["help"], False)])
def test_a_request_for_help(words: list[str], means: bool) -> None:
    """Anywhere among the words."""
    assert is_help(words) is means


# -- the end of a recipe -------------------------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores what the signals do."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail(error: BaseException) -> Callable[[Any], None]:
    """Return what fails with this error."""

    def act(_: Any) -> None:
        raise error

    return act


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("act", "code", "err"),
    [
        (lambda values: values["NAME"], 0, ""),
        (fail(Refusal("no such thing")), 2, "just try: no such thing\n"),
        (fail(Conflict("x is a folder")), 2, "just try: x is a folder; fix that, and run this again.\n"),
        (fail(OSError("disk full")), 2, "just try: disk full; fix that, and run this again.\n"),
        (fail(KeyboardInterrupt()), 130, ""),
        (lambda _: os.kill(os.getpid(), signal.SIGTERM), 143, ""),
        (lambda _: os.kill(os.getpid(), signal.SIGHUP), 129, ""),
    ],
    ids=["done", "refused", "in the way", "system", "SIGINT", "SIGTERM", "SIGHUP"],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    act: Callable[[Any], None],
    code: int,
    err: str,
) -> None:
    """A refusal is one line and a 2; a signal ends it at once, so that unfinished work is undone."""
    monkeypatch.setattr(sys, "argv", ["try.py", "NAME=x"])
    with pytest.raises(SystemExit) as caught:
        run("try", USE, act, "NAME")
    assert (caught.value.code, capsys.readouterr().err) == (code, err)


RECIPES = [
    ("backup make", "just backup"),
    ("backup restore", "just backup-restore BACKUP=2026-01-31T08-15-00.tar.gz"),
    ("backup clear", "just backup-clear"),
    ("build pyz", "just build SERVICES=a,b"),
    ("build binary", "just build-binary SERVICES=a,b"),
    ("commit_hook", "just commit-hook, or just commit-hook REMOVE=1"),
    ("deps add", "just deps-add httpx, or just deps-add 'httpx>=0.28' attrs GROUP=dev"),
    ("deps remove", "just deps-remove httpx"),
    ("deps update", "just deps-update, or just deps-update httpx attrs"),
    ("image", "just image SERVICES=a,b BASE=python:3.13-slim PIP_CONF=~/.config/pip/pip.conf"),
    ("jaeger start", "just jaeger [UI=16686] [OTLP=4318]"),
    ("jaeger stop", "just jaeger-stop"),
    ("kernel_files", "just kernel-files"),
    ("lock", "just lock --upgrade"),
    ("nats_server start", "just nats [PORT=4222]"),
    ("nats_server stop", "just nats-stop"),
    ("own", "just own NAME=my-app"),
    ("sec", "just sec, or just sec OFFLINE=1 without a network"),
    ("service add", "just service NAME=billing KIND=http"),
    ("service remove", "just service-remove NAME=billing"),
    ("update", "just kernel-update, or just kernel-update VERSION=1.4.0"),
    ("update_end merge", "just kernel-update-merge"),
    ("update_end revert", "just kernel-update-revert"),
    ("update_end review", "just kernel-update-review"),
    ("use format", "just format"),
]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("words", "use"), RECIPES)
def test_each_script_is_a_recipe(monkeypatch: pytest.MonkeyPatch, words: str, use: str) -> None:
    """It has the name of the recipe, and tells how that is called."""
    script, *rest = words.split()
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(recipe, "tell_use", lambda *words: told.append(words))
    monkeypatch.setattr(sys, "argv", [script, *rest, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(REPO / "scripts" / "kernel" / f"{script}.py"), run_name="__main__")
    assert (caught.value.code, told) == (0, [(re.split("[ ,]", use)[1], use)])


@pytest.mark.parametrize("script", [*{words.split()[0]: None for words, _ in RECIPES}, "run_checks", "run_tests"])
def test_a_script_that_is_imported_does_nothing(script: str) -> None:
    """Others use what it defines."""
    runpy.run_path(str(REPO / "scripts" / "kernel" / f"{script}.py"), run_name=script)


def test_the_usage_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """It begins with what the Justfile says of it, if it has such a recipe."""
    recipe.tell_use("own", "just own NAME=my-app")
    recipe.tell_use("nothing", "just nothing")
    doc = "Turn the clone into a project of your own. Example: `just own NAME=my-app`"
    assert capsys.readouterr().out == f"{doc}\n\nUsage: just own NAME=my-app\nUsage: just nothing\n"


# -- git -----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="recipe")
def _recipe(imported: Imported) -> Any:
    """The module, with a repository of two files."""
    imported.write("a.txt", "one\ntwo\n")
    imported.write("b.txt", "three\n")
    imported.init()
    return imported.load("recipe")


def test_git_gets_input_and_variables(recipe: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files may be any bytes; what a hook of git's has set does not lead it elsewhere."""
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    digest = hashlib.sha1(b"blob 2\0x\xff", usedforsecurity=False).hexdigest()
    assert recipe.git("hash-object", "--stdin", stdin="x\udcff") == f"{digest}\n"
    assert recipe.git("var", "GIT_AUTHOR_IDENT", env={"GIT_AUTHOR_NAME": "Bob"}).startswith("Bob <ann@example.com>")
    (imported.root / os.fsdecode(b"\xff")).touch()
    assert {*recipe.project_files()} == {"a.txt", "b.txt", "\udcff"}
    assert recipe.in_git("--others", "--exclude-standard") == ["\udcff"]
    (imported.root / "folder").mkdir()
    assert recipe.git("rev-parse", "--show-prefix", root=imported.root / "folder") == "folder/\n"


def test_git_fails(recipe: Any) -> None:
    """With git's reason, even if that is no text, and without passwords; exit codes may be accepted."""
    assert recipe.git("rev-parse", "--verify", "--quiet", "nothing", accept=(0, 1)) == ""
    with pytest.raises(recipe.Refusal, match=r"^git rev-parse failed \(exit code 1\); fix that, and run this again$"):
        recipe.git("-c", "core.abbrev=7", "--no-pager", "rev-parse", "--verify", "--quiet", "nothing")
    with pytest.raises(recipe.Refusal, match=r"^git checkout failed \(error: pathspec .*\ufffd.* did not match"):
        recipe.git("checkout", "x\udcff")
    with pytest.raises(recipe.Refusal, match=r"git cat-file failed \(fatal: .*https://git.example.com/x"):
        recipe.git("-C", ".", "cat-file", "blob", "HEAD:https://me:hunter2@git.example.com/x")


def test_git_is_missing(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(recipe.Refusal, match="git is not installed; install it"):
        recipe.git("status")


def test_a_descriptor_that_git_keeps_open(recipe: Any) -> None:
    """The lock of a change is held until git has ended too, whatever becomes of the recipe."""
    read, write = os.pipe()
    try:
        recipe.git("-c", f"alias.tell=!echo held >/dev/fd/{write}", "tell", hold=[write])
        assert os.read(read, 10) == b"held\n"
    finally:
        os.close(read)
        os.close(write)


def test_uncommitted_work(recipe: Any, imported: Imported) -> None:
    """It is named, with how much more there is; other line endings are no change."""
    recipe.refuse_uncommitted()
    imported.write("a.txt", "one\r\ntwo\r\n")
    imported.git("config", "core.autocrlf", "input")
    recipe.refuse_uncommitted()
    assert recipe.changed_files() == set()
    imported.write("b.txt", "other\n")
    assert recipe.changed_files() == recipe.changed_files("HEAD") == {"b.txt"}
    with pytest.raises(recipe.Refusal, match=r"uncommitted changes \(a.txt and 1 more\); commit or remove them first"):
        recipe.refuse_uncommitted()
    imported.git("checkout", "-q", ".")
    imported.write("new", "")
    with pytest.raises(recipe.Refusal, match=r"uncommitted changes \(new\); commit"):
        recipe.refuse_uncommitted()


def test_changes_when_there_is_no_index(recipe: Any, imported: Imported) -> None:
    """A repository without one has no tracked file that could differ from it."""
    (imported.root / ".git" / "index").unlink()
    assert recipe.changed_files() == set()
    assert recipe.changed_files("HEAD") == {"a.txt", "b.txt"}


@pytest.mark.parametrize("role", ["author", "committer"])
def test_nobody_can_commit(recipe: Any, imported: Imported, role: str) -> None:
    """Git has to know both who wrote a commit and who makes it."""
    recipe.refuse_nobody("the merge")
    other = {"author": "committer", "committer": "author"}[role]
    Path(os.environ["GIT_CONFIG_GLOBAL"]).write_text(f"[{other}]\nname = Ann Other\nemail = ann@example.com\n")
    with pytest.raises(recipe.Refusal, match=r"git does not know who you are, for the merge; run `git config --global"):
        recipe.refuse_nobody("the merge")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("commit.gpgSign=true gpg.program=/nowhere", r"git cannot sign the commit \(.*/nowhere"),
        ("core.hooksPath=.git/hooks", r"git commit failed \(oh\)"),
    ],
    ids=["key", "hook"],
)
def test_a_commit_fails(recipe: Any, imported: Imported, settings: str, told: str) -> None:
    """How to do without a signature is told only if that is the reason."""
    for pair in settings.split():
        imported.git("config", *pair.split("="))
    hook = imported.write(".git/hooks/pre-commit", "#!/bin/sh\necho oh >&2; exit 1\n")
    hook.chmod(0o755 if "hooks" in settings else 0o644)
    with pytest.raises(recipe.Refusal, match=told):
        recipe.git("commit", "--allow-empty", "--message", "x")


def test_files_without_a_repository(imported: Imported) -> None:
    """They are all that no .gitignore matches; git's and the framework's own folders are no files of the project."""
    recipe = imported.load("recipe")
    imported.write(".gitignore", "*.log\nscripts\n")
    for path in ("a.txt", "a.log", "folder/b c.txt", ".kernel/lock", ".venv/bin/python"):
        imported.write(path, "")
    assert sorted(recipe.project_files()) == [".gitignore", "a.txt", "folder/b c.txt"]
    assert recipe.commit_of_head() == ""


def test_the_last_commit(recipe: Any, imported: Imported) -> None:
    """Empty if there is none yet."""
    assert recipe.commit_of_head() == imported.git("rev-parse", "HEAD").strip()
    imported.git("checkout", "-q", "--orphan", "new")
    assert recipe.commit_of_head() == ""


def test_a_repository_that_is_broken(recipe: Any, imported: Imported) -> None:
    """It is not taken for files without a repository."""
    imported.write(".git/index", "broken")
    with pytest.raises(recipe.Refusal, match="git ls-files failed"):
        recipe.project_files()
    imported.write(".git/config", "[core")
    with pytest.raises(recipe.Refusal, match="git rev-parse failed"):
        recipe.commit_of_head()


@pytest.mark.parametrize(
    ("content", "expected"), [(b"a\r\nb\r\n", b"a\nb\n"), (b"a\0\r\n", b"a\0\r\n"), (b"a\rb", b"a\rb")]
)
def test_line_endings(content: bytes, expected: bytes) -> None:
    """Those of a text are changed to those of Unix; other files stay."""
    assert unix(content) == expected


def test_settings_are_copied(recipe: Any, imported: Imported, tmp_path: Path) -> None:
    """Those of this repository that begin as named, whatever is in them."""
    imported.git("config", "user.name", "Of\nThis Clone")
    imported.git("config", "commit.gpgSign", "false")
    imported.git("config", "core.editor", "false")
    (tmp_path / "config").touch()
    recipe.copy_settings(("user.", "commit."), tmp_path)
    told = imported.git("config", "--file", str(tmp_path / "config"), "--list", "-z")
    assert told == "user.name\nOf\nThis Clone\0commit.gpgsign\nfalse\0"
