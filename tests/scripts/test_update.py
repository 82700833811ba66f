"""`just kernel-update` and what follows it: real git, an upstream of four versions, a project with work of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.scripts.projects import Done, Project
from tests.scripts.test_deps import Deps, Index, index
from tests.scripts.upstream import USERS, Upstream, copy, edit

__all__ = ["index"]  # a fixture
BRANCH = "kernel_update_to_0.4.0"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    return Upstream(tmp_path_factory.mktemp("update") / "machine")


@pytest.fixture(scope="module")
def fresh(upstream: Upstream) -> Project:
    """A project made from 0.1.0, when there was nothing newer."""
    project = upstream.project(upstream.machine.folder / "fresh")
    said = project.just("kernel-update")
    assert (said.code, said.out) == (0, "Nothing to do: this project has kernelpack 0.1.0; the newest is 0.1.0.\n")
    upstream.release_all()
    return project


class GitByHttp(BaseHTTPRequestHandler):
    """Has git itself answer, for the repositories in one folder; `locked` wants a password."""

    folder: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/locked"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  (as the library has it)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server(upstream: Upstream) -> Iterator[str]:
    """The address at which upstream's folder is served."""
    handler = type("Handler", (GitByHttp,), {"folder": upstream.root.parent})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def project(fresh: Project, tmp_path: Path) -> Project:
    """The same, to do with as one likes; by now there are three newer versions."""
    project = copy(fresh, tmp_path / """it's "my" $project""")
    assert project.just("--version").code == 0
    return project


def update(project: Project, *words: str, **env: str) -> Done:
    """Makes an update, which must succeed."""
    done = project.just("kernel-update", *words, **env)
    assert done.code == 0, done.err
    assert not project.git("status", "--porcelain")
    return done


def merge(project: Project) -> None:
    """Merges it, which must succeed."""
    done = project.just("kernel-update-merge")
    assert done.code == 0, done.err
    assert project.git("branch", "--format=%(refname:short)") == "main\n"
    assert not project.git("status", "--porcelain")


def recorded(project: Project) -> str:
    """The version of the framework that the project says it has."""
    version: str = tomllib.loads((project.root / "pyproject.toml").read_text())["tool"]["kernel"]["version"]
    return version


# -- what it brings ------------------------------------------------------------------------------------------------


@pytest.mark.minutes
def test_over_three_versions_at_once(project: Project, upstream: Upstream) -> None:
    """Untouched, changed, renamed, deleted and new files; links, binaries, modes; the user's own, wherever they lie."""
    edit(project.root / "kernel" / "letters.txt", ("m\n", "m, mine\n"))
    edit(project.root / "kernel" / "moves.txt", ("line 20 of", "line 20, mine, of"))
    (project.root / "kernel" / "lifecycle" / "clock.py").chmod(0o755)
    project.commit()
    before = project.files()
    done = update(project)
    assert done.out.startswith("kernelpack 0.1.0 -> 0.4.0\ntesting in a worktree\n")
    assert "No conflicts." in done.out
    assert "`just test` passed after" in done.out
    assert "    2 passed" in done.out
    letters = (project.root / "kernel" / "letters.txt").read_text()
    assert {"b, as 0.2.0 has it", "m, mine", "z, as 0.4.0 has it"} <= set(letters.splitlines())
    moved = (project.root / "kernel" / "moved.txt").read_text()
    assert {"line 3, moved, of what moves", "line 20, mine, of what moves"} <= set(moved.splitlines())
    assert not (project.root / "kernel" / "moves.txt").exists()
    assert not (project.root / "kernel" / "goes.txt").exists()
    assert (project.root / "kernel" / "pointer").readlink() == Path("letters.txt")
    assert (project.root / "kernel" / "logo.bin").read_bytes() == b"\0\1logo 4"
    assert (project.root / "scripts" / "kernel" / "tool").stat().st_mode & 0o111
    assert (project.root / "kernel" / "lifecycle" / "clock.py").stat().st_mode & 0o111, (
        "a mode of the user's is a change too"
    )
    assert (project.root / "kernel" / "added.txt").read_text() == "new in 0.2.0\n"
    after = project.files()
    touched = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert touched == {
        *("kernel/letters.txt", "kernel/moves.txt", "kernel/moved.txt", "kernel/goes.txt", "kernel/pointer"),
        *("kernel/logo.bin", "kernel/added.txt", "scripts/kernel/tool", "scripts/kernel/wanted.py"),
        *("scripts/kernel/shipped.txt", "pyproject.toml"),
    }
    for path, text in USERS.items():
        assert (project.root / path).read_text() == text
    merge(project)
    assert recorded(project) == "0.4.0"
    assert not (project.root / ".kernel" / "update.json").exists()
    files = project.just("kernel-files").out
    changed = re.findall(r"^changed  (.*)", files, re.MULTILINE)
    assert changed == ["kernel/letters.txt", "kernel/moved.txt", "kernel/pointer"], "the last points to the first"
    assert "compared with kernelpack 0.4.0: 3 changed, 0 deleted" in files
    assert upstream.read("kernel/__init__.py", "v0.4.0") == (project.root / "kernel" / "__init__.py").read_text()
    again = project.just("kernel-update")
    assert again.out == "Nothing to do: this project has kernelpack 0.4.0; the newest is 0.4.0.\n"


def test_the_one_commit_has_the_changelog(project: Project) -> None:
    """Of the versions between, the newest first."""
    start = project.git("rev-parse", "HEAD")
    update(project, "v0.3.0")
    assert project.git("log", "--format=%an%n%B", f"{start.strip()}..").strip() == (
        "Ann Other\nUpdate kernelpack from 0.1.0 to 0.3.0\n\n"
        "## 0.3.0\n\n- What moved has moved.\n\n## 0.2.0\n\n- A better b."
    )
    assert project.git("branch", "--show-current") == "kernel_update_to_0.3.0\n"
    assert project.git("rev-parse", "main") == start
    project.git("fsck", "--strict")


def test_pyproject_is_merged(project: Project) -> None:
    """What the framework's tools need comes in, with its reasons; the user's values, comments and order stay."""
    update(project)
    text = (project.root / "pyproject.toml").read_text()
    assert "line-length = 118" in text
    assert 'select = ["E", "F"]  # mine: fewer' in text
    assert "[tool.mine]\nkept = [1, 2]  # mine\n" in text
    assert re.search(r'"COM819", +# new in 0.3.0\n', text)
    table = tomllib.loads(text)
    assert table["project"]["name"] == "my-app"
    assert set(table["tool"]["kernel"]) == {"template", "version", "commit", "upstream"}
    assert "# pragma: allowlist secret" in text


@pytest.mark.minutes
def test_one_after_the_other_and_after_a_reverted_one(project: Project) -> None:
    """A revert leaves no trace, and what comes after it is as if it had never been."""
    untouched, refs = project.files(), project.git("for-each-ref")
    update(project)
    assert project.just("kernel-update").err.startswith("just kernel-update: an update is pending on the branch")
    assert project.just("kernel-update-revert").out == "The update to 0.4.0 is reverted.\n"
    assert (project.files(), project.git("for-each-ref")) == (untouched, refs)
    assert project.git("worktree", "list").count("\n") == 1
    assert {path.name for path in (project.root / ".kernel").iterdir()} <= {*(".gitignore", "lock", "before-own.git")}
    assert not project.git("status", "--porcelain")
    for version in ("0.2.0", "0.3.0"):
        update(project, f"VERSION={version}")
        merge(project)
        assert recorded(project) == version
    update(project)
    stepwise = project.git("ls-files", "--stage", "--", ":!pyproject.toml")
    project.just("kernel-update-revert")
    project.git("reset", "-q", "--hard", refs.split()[0])
    update(project)
    assert project.git("ls-files", "--stage", "--", ":!pyproject.toml") == stepwise


def test_conflicts_of_each_kind(project: Project) -> None:
    """Nothing is overwritten; the review says where, and nothing is merged before all are resolved."""
    edit(project.root / "kernel" / "letters.txt", ("z\n", "z, mine\n"))
    edit(project.root / "kernel" / "goes.txt", ("line 2 of", "line 2, mine, of"))
    (project.root / "kernel" / "logo.bin").write_bytes(b"\0mine")
    project.write("kernel/added.txt", "made by me\n")
    project.write("scripts/kernel/wanted.py", "MINE = 1\n")
    project.write("kernel/moved.txt/mine.txt", "a folder of mine\n")
    edit(project.root / "pyproject.toml", ("line-length = 120", "line-length = 100"))
    project.commit()
    said = update(project).out
    assert "7 conflicts:\n" in said
    assert "- kernel/letters.txt: both have changed it; see the markers in it\n" in said
    assert (
        "- pyproject.toml: tool.ruff.line-length: yours is 100, the framework's 118; see pyproject.toml.conflict"
        in said
    )
    assert (
        "<<<<<<< yours\nz, mine\n=======\nz, as 0.4.0 has it\n>>>>>>> kernelpack-0.4.0\n"
        in (project.root / "kernel" / "letters.txt").read_text()
    )
    assert "line 2, mine" in (project.root / "kernel" / "goes.txt").read_text()
    assert (project.root / "kernel" / "logo.bin").read_bytes() == b"\0mine"
    assert (project.root / "kernel" / "logo.bin.conflict").read_bytes() == b"\0\1logo 4"
    assert "<<<<<<< yours\nmade by me\n" in (project.root / "kernel" / "added.txt").read_text()
    assert (project.root / "scripts" / "kernel" / "wanted.py").read_text() == "WANTED = 4\n"
    assert "MINE = 1\n" in (project.root / "scripts" / "kernel" / "wanted.py.conflict").read_text()
    assert (project.root / "kernel" / "moved.txt" / "mine.txt").read_text() == "a folder of mine\n"
    assert "line 3, moved" in (project.root / "kernel" / "moved.txt.conflict").read_text()
    with project.unchanged():
        refused = project.just("kernel-update-merge")
    assert refused.code == 2
    assert "there are conflicts (kernel/added.txt and 6 more)" in refused.err
    for path in ("kernel/letters.txt", "kernel/added.txt"):
        (project.root / path).write_text("resolved\n")
    for path in project.git("ls-files", "-z", "*.conflict").split("\0"):
        (project.root / path).unlink() if path else None
    assert "uncommitted changes" in project.just("kernel-update-merge").err
    project.commit()
    assert "\nNo conflicts.\n" in project.just("kernel-update-review").out
    merge(project)
    assert (project.root / "kernel" / "letters.txt").read_text() == "resolved\n"


def test_the_user_opts_out(project: Project) -> None:
    """Paths that .kernelupdateignore names stay as they are, also where upstream deletes them; gitignore's syntax."""
    project.write(".kernelupdateignore", "# mine\n/kernel/*.txt\n!/kernel/added.txt\npyproject.toml\n")
    edit(project.root / "kernel" / "letters.txt", ("z\n", "z, mine\n"))
    project.commit()
    before = project.files()
    said = update(project).out
    assert "No conflicts." in said
    assert "left      kernel/letters.txt: .kernelupdateignore names it" in said
    after = project.files()
    assert {path for path in before if before[path] != after.get(path)} == {
        *("kernel/pointer", "kernel/logo.bin", "scripts/kernel/shipped.txt", "pyproject.toml")
    }
    assert (project.root / "kernel" / "added.txt").exists()
    assert "line-length = 120" in (project.root / "pyproject.toml").read_text()
    assert recorded(project) == "0.4.0"


@pytest.mark.minutes
def test_tests_that_fail_lose_nothing(project: Project) -> None:
    """The review tells of them, with their last lines and their exit code; the files they have made are not in it."""
    edit(project.root / "Justfile", ("exit 0", "echo oh; echo x > README.md; exit 7"))
    project.commit()
    said = update(project).out
    assert "`just test` FAILED with exit code 7 after" in said
    assert "    oh\n" in said
    assert (project.root / "README.md").read_text() != "x\n"
    assert json.loads((project.root / ".kernel" / "update.json").read_text())["tests"]["code"] == 7
    merge(project)


# -- merging and reverting -----------------------------------------------------------------------------------------


@pytest.mark.minutes
def test_work_that_went_on(project: Project) -> None:
    """The branch is merged with what the user has committed since; where they clash, it stops with all intact."""
    edit(project.root / "kernel" / "letters.txt", ("m\n", "m, mine\n"))
    project.commit()
    update(project)
    project.git("checkout", "-q", "main")
    project.write("services/later.py", '"""Later."""\n')
    project.commit()
    clean = copy(project, project.root.parent / "clean")
    merge(clean)
    assert (clean.root / "services" / "later.py").exists()
    assert (clean.root / "kernel" / "moved.txt").exists()
    assert len(clean.git("rev-list", "--parents", "-1", "HEAD").split()) == 3
    edit(project.root / "kernel" / "letters.txt", ("z\n", "z, meanwhile\n"))
    project.commit()
    before = project.files(), project.git("for-each-ref"), project.git("status")
    done = project.just("kernel-update-merge")
    assert (project.files(), project.git("for-each-ref"), project.git("status")) == before
    assert done.code == 2
    assert "main has changed since, in the same places (kernel/letters.txt)" in done.err
    project.git("checkout", "-qb", "elsewhere")
    with project.unchanged():
        assert "another branch is checked out" in project.just("kernel-update-merge").err
    assert project.just("kernel-update-revert").code == 0
    assert project.git("branch", "--format=%(refname:short)") == "elsewhere\nmain\n"


@pytest.mark.minutes
def test_commits_on_the_branch_are_named_when_it_goes(project: Project) -> None:
    """A revert deletes them, and says how they come back; what is not committed it refuses to lose."""
    update(project)
    project.git("pack-refs", "--all")
    project.write("services/work.py", '"""Work."""\n')
    with project.unchanged():
        assert "uncommitted changes (services/work.py)" in project.just("kernel-update-revert").err
    project.commit()
    tip = project.git("rev-parse", "HEAD").strip()
    said = project.just("kernel-update-revert").out
    assert f"`git branch NAME {tip[:12]}` brings them back" in said
    assert project.git("for-each-ref", "--format=%(refname)") == "refs/heads/main\n"
    assert project.git("show", f"{tip}:services/work.py") == '"""Work."""\n'


@pytest.mark.parametrize("word", ["review", "merge", "revert"])
def test_nothing_pending(project: Project, word: str) -> None:
    """Each says so; so does a branch that another clone has made."""
    with project.unchanged():
        done = project.just(f"kernel-update-{word}")
    expected = f"just kernel-update-{word}: no update is pending; `just kernel-update` makes one\n"
    assert (done.code, done.err) == (2, expected)
    project.git("branch", BRANCH)
    assert "another clone or worktree has made the update" in project.just(f"kernel-update-{word}").err


# -- what is refused -----------------------------------------------------------------------------------------------


def _say(key: str, value: str) -> str:
    return f"s/^{key} = .*/{key} = {value}/"


@pytest.mark.minutes
@pytest.mark.parametrize(
    ("prepare", "words", "told"),
    [
        ("touch new", (), "uncommitted changes (new)"),
        ("git branch kernel_update_to_9.9.9", (), "an update is pending on the branch kernel_update_to_9.9.9"),
        ("git checkout -q --detach", (), "no branch is checked out"),
        ("rm .venv/bin/uv", (), "needs something that is missing: uv in .venv"),
        ("echo 'added*' >> .gitignore; git commit -qam x", (), "git would ignore kernel/added.txt"),
        ("true", ("VERSION=0.0.9",), "upstream has no version 0.0.9; the newest is 0.4.0"),
        ("true", ("0.4",), "'0.4' is not a version"),
        ("true", ("VERSION=--upload-pack=x",), "is not a version"),
        ("true", ("VERSION=0.4.0;id",), "is not a version"),
        ("true", ("AGE=young",), "is not a number of days"),
        ("true", ("0.2.0", "0.3.0"), "unexpected argument"),
        (("version", '"0.9.0"'), ("0.4.0",), "0.4.0 is older than 0.9.0"),
        (("version", '"new"'), (), "malformed"),
        (("commit", '"1234567890123456789012345678901234567890"'), (), "upstream has no commit 123456789012 any more"),
        (("commit", '"HEAD"'), (), "malformed"),
        (("commit", "1"), (), "does not set commit"),
        (("upstream", '"nowhere"'), (), "neither an existing folder nor an address"),
        (("upstream", '"ext::sh -c touch% hacked"'), (), "neither an existing folder"),
        (("upstream", '"--upload-pack=touch hacked"'), (), "neither an existing folder"),
        (("upstream", '"ssh:\\/\\/-oProxyCommand=touch hacked\\/x"'), (), "neither an existing folder"),
        (("upstream", '"-oProxyCommand=touch:x"'), (), "neither an existing folder"),
        (("upstream", '"ssh:\\/\\/git@-oProxyCommand=touch hacked\\/x"'), (), "neither an existing folder"),
        (("upstream", '"ssh:\\/\\/%2doProxyCommand=touch%20hacked\\/x"'), (), "neither an existing folder"),
        (("upstream", '"git@-oProxyCommand=touch:x"'), (), "neither an existing folder"),
        (("upstream", '"https:\\/\\/-x\\/y"'), (), "neither an existing folder"),
        (("upstream", '"http:\\/\\/git.example.com\\/x"'), (), "uses http, where anybody on the network path"),
        (
            ("upstream", '"git:\\/\\/git.example.com\\/x"'),
            (),
            "change upstream under [tool.kernel] in pyproject.toml to",
        ),
        (("upstream", '"http:\\/\\/git.example.com\\/x"'), ("PLAIN=perhaps",), "neither yes nor no"),
        ("true", ("VERIFY=1",), "git cannot verify the tag v0.4.0"),
        (("upstream", '"services"'), (), "cannot be fetched"),
        (("upstream", '"file:\\/\\/\\/nowhere\\/at-all"'), (), "cannot be fetched"),
    ],
    ids=str,
)
def test_what_is_refused(project: Project, prepare: str | tuple[str, str], words: tuple[str, ...], told: str) -> None:
    """One line says why, nothing is changed, and no backup is left."""
    if isinstance(prepare, tuple):
        prepare = f"sed -i '{_say(*prepare)}' pyproject.toml; git commit -qam x"
    assert project.machine.call("sh", "-c", prepare, cwd=project.root).code == 0
    project.just("--version")  # a pyproject.toml that is changed makes .venv stale
    with project.unchanged():
        if "uv" in prepare:
            (project.root / ".venv" / "bin" / "uv").unlink(missing_ok=True)
        done = project.just("kernel-update", *words)
    assert done.code == 2, done.out
    assert done.err.startswith("just kernel-update: ")
    assert done.err.count("\n") == 1
    assert told in done.err
    assert not (project.root / ".kernel" / "change").exists()
    assert not list(project.root.glob(".kernel/backups/*"))
    assert not (project.root / "hacked").exists()


def test_a_clone_that_is_not_owned(upstream: Upstream, tmp_path: Path) -> None:
    """It is updated by git."""
    done = upstream.machine.clone(tmp_path / "clone").just("kernel-update")
    assert (done.code, done.err.startswith("just kernel-update: this clone is not a project of its own")) == (2, True)


def test_all_that_is_missing_at_once(project: Project) -> None:
    """An old git and no uv: one line names both."""
    old = project.root.parent / "old"
    old.mkdir()
    git = shutil.which("git")
    (old / "git").write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo git version 2.30.2;; *) exec {git} "$@";; esac\n'
    )
    (old / "git").chmod(0o755)
    project.just("--version")
    (project.root / ".venv" / "bin" / "uv").unlink()
    done = project.just("kernel-update", PATH=f"{old}:{project.machine.env['PATH']}")
    assert done.code == 2
    assert "git 2.38 or newer" in done.err
    assert "uv in .venv" in done.err


# -- the lock ------------------------------------------------------------------------------------------------------


@pytest.mark.minutes
def test_what_the_framework_needs_is_locked(upstream: Upstream, tmp_path: Path, index: Index) -> None:
    """A new dependency comes in with its reason, beside the user's; offline, nothing is done."""
    own = Upstream(tmp_path / "machine")
    project = own.project(tmp_path / "project")
    deps = Deps(project, index)
    edit(project.root / "pyproject.toml", ('    "steady>=1",  # it needs no other', '    "steady>=1",  # mine to say'))
    project.commit()
    project.just("--version")
    own.edit("pyproject.toml", ("dependencies = [\n", 'dependencies = [\n    "aged>=1",  # what the kernel ages by\n'))
    own.release("0.2.0", "It ages.")
    with project.unchanged():
        offline = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0"}
        done = project.just("kernel-update", **offline)
    assert done.code == 2
    assert done.err.startswith("just kernel-update: the package index does not answer (")
    assert not list(project.root.glob(".kernel/backups/*"))
    said = update(project, UV_DEFAULT_INDEX=f"{index.address}/simple").out
    assert "recreating the lock\n" in said
    assert deps.locked("aged") == "1.4.2", "nothing younger than 7 days"
    assert deps.locked("steady") == "1.0"
    text = (project.root / "pyproject.toml").read_text()
    assert '"steady>=1",  # mine to say' in text
    assert re.search(r'"aged>=1", +# what the kernel ages by', text)


# -- old and new ---------------------------------------------------------------------------------------------------


@pytest.mark.minutes
def test_the_newer_version_says_what_an_update_is(tmp_path: Path) -> None:
    """The project's own script only starts it; a version that has none cannot be taken."""
    own = Upstream(tmp_path / "machine")
    project = own.project(tmp_path / "project")
    script = "scripts/kernel/update_to.py"
    text = own.read(script)
    own.edit(script, ('f"Update {', 'f"In a new way, update {'))
    own.release("0.2.0", "Another way.")
    own.git("rm", "-q", script)
    own.release("0.3.0", "No way.")
    own.write(script, "raise SystemExit(9)\n")
    own.release("0.3.1", "A broken way.")
    own.write(script, 'import os\nimport sys\n\nif "STEP=make" in sys.argv:\n    os.kill(os.getpid(), 9)\n')
    own.release("0.2.1", "A way that is killed after the check.")
    with project.unchanged():
        done = project.just("kernel-update", "0.2.1")
        assert (done.code, "the new version's update_to.py was ended by SIGKILL" in done.err) == (2, True)
        done = project.just("kernel-update", "0.3.0")
        assert (done.code, "choose another version" in done.err) == (2, True)
        assert project.just("kernel-update").code == 9
    own.write(script, text)
    update(project, "0.2.0")
    assert project.git("log", "-1", "--format=%s") == "In a new way, update kernelpack from 0.1.0 to 0.2.0\n"


def test_edits_that_git_was_told_not_to_see(project: Project) -> None:
    """They stop it, with all intact; so does a file that no status shows."""
    project.git("config", "status.showUntrackedFiles", "no")
    project.write("kernel/added.txt", "not told to git\n")
    assert "uncommitted changes (kernel/added.txt)" in project.just("kernel-update").err
    (project.root / "kernel" / "added.txt").unlink()
    project.git("update-index", "--assume-unchanged", "kernel/letters.txt")
    edit(project.root / "kernel" / "letters.txt", ("m\n", "m, unseen\n"))
    before = project.files(), project.git("for-each-ref")
    done = project.just("kernel-update")
    assert (done.code, "Entry 'kernel/letters.txt' not uptodate" in done.err) == (2, True)
    assert (project.files(), project.git("for-each-ref")) == before


SSH = """#!/bin/sh
# As if the other machine were this one.
for last; do :; done
exec sh -c "$last"
"""


@pytest.mark.minutes
@pytest.mark.parametrize(
    "address", ["file://{root}", "{http}/upstream", "ssh://git@git.example.com{root}", "box:{root}"]
)
def test_an_upstream_by_url(project: Project, upstream: Upstream, server: str, tmp_path: Path, address: str) -> None:
    """An address works as well as a folder."""
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    file = project.root / "pyproject.toml"
    full = address.format(root=upstream.root, http=server)
    edit(file, (f'upstream = "{upstream.root}"', f'upstream = "{full}"'))
    project.commit()
    update(project, *(["PLAIN=1"] if "{http}" in address else []), PATH=f"{tmp_path}:{project.machine.env['PATH']}")
    assert "b, as 0.2.0 has it" in project.git("show", f"{BRANCH}:kernel/letters.txt")


@pytest.mark.parametrize(("place", "told"), [("nothing", "not found"), ("locked", "terminal prompts disabled")])
def test_an_upstream_that_does_not_answer_well(
    project: Project, upstream: Upstream, server: str, place: str, told: str
) -> None:
    """One line says so; nobody is asked for a password, and nothing is changed."""
    edit(project.root / "pyproject.toml", (f'upstream = "{upstream.root}"', f'upstream = "{server}/{place}"'))
    project.commit()
    assert project.just("--version").code == 0  # brings .venv up to date
    with project.unchanged():
        done = project.just("kernel-update", "PLAIN=1")
    assert done.code == 2
    assert done.err.startswith(f"just kernel-update: upstream '{server}/{place}' cannot be fetched: ")
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.minutes
@pytest.mark.parametrize("secret", ["hunter2", "p@ss'w0rd", "a:b@c#d?e", "slash/ed@x"])
def test_a_password_in_an_address_is_not_shown(project: Project, server: str, secret: str) -> None:
    """Whatever git says of an upstream that it cannot reach, and wherever in the address the password is."""
    file = project.root / "pyproject.toml"
    before = file.read_text()
    for address in (f"{server}/nothing", "http://127.0.0.1:9/x", "https://127.0.0.1:9/x"):
        scheme, _, rest = address.partition("://")
        for full in (f"{scheme}://me:{secret}@{rest}", f"{scheme}://{rest}?private_token={secret}"):
            file.write_text(re.sub('(?m)^upstream = ".*"$', lambda _, full=full: f'upstream = "{full}"', before))  # type: ignore[misc]
            project.git("commit", "-qam", "Elsewhere")
            done = project.just("kernel-update", "PLAIN=1")
            assert done.code == 2
            assert "cannot be fetched" in done.err or "neither an existing folder" in done.err
            assert not any(part in done.err + done.out for part in (secret, "hunter2", "w0rd", "slash", "c#d"))


@pytest.mark.minutes
def test_a_signed_version_is_verified(project: Project, upstream: Upstream, tmp_path: Path) -> None:
    """By git's own means, here a key of ssh: a tag of somebody who is trusted is taken, and no other one."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "trusted").write_text(f"upstream@example.com {key.with_suffix('.pub').read_text()}")
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")
    mine = copy(Project(upstream.machine, upstream.root), tmp_path / "upstream")
    mine.git(*signing, "tag", "-s", "-f", "-m", "Signed", "v0.4.0", "v0.4.0^{}")
    edit(project.root / "pyproject.toml", (f'upstream = "{upstream.root}"', f'upstream = "{mine.root}"'))
    project.commit()
    project.git("config", "gpg.format", "ssh")
    project.git("config", "gpg.ssh.allowedSignersFile", str(tmp_path / "nobody"))
    (tmp_path / "nobody").write_text("")
    with project.unchanged():
        assert "git cannot verify the tag v0.4.0" in project.just("kernel-update", "VERIFY=1").err
    project.git("config", "gpg.ssh.allowedSignersFile", str(tmp_path / "trusted"))
    update(project, "VERIFY=1")


@pytest.mark.minutes
def test_tests_run_elsewhere(project: Project) -> None:
    """In a worktree that is gone afterwards, also where the recipe is called from outside the project."""
    edit(project.root / "Justfile", ("exit 0", "pwd; git rev-parse --show-toplevel"))
    project.commit()
    done = project.machine.call(str(project.root / "scripts" / "just"), "kernel-update", cwd=project.root.parent)
    assert done.code == 0, done.err
    assert done.out.count(f"{project.root}/.kernel/change/tree\n") == 2
    assert not (project.root / ".kernel" / "change").exists()
