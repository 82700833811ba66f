"""scripts/just as a newcomer meets it: real processes on a copy of the scripts; uv and broken Pythons are fakes."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.executable).resolve()  # the one behind .venv
SYSTEM = os.defpath + ":/usr/bin:/bin"

# Stands in for uv and, as `just`, shows its arguments one a line. What it was called for is in the file `calls`.
FAKE_UV = r"""#!/bin/sh
echo "$2" >> calls
case $2 in
sync)
    eval "$ON_SYNC"
    printf '#!/bin/sh\nprintf "<%%s>\\n" "$@"\n' > .venv/bin/just
    chmod +x .venv/bin/just
    cp "$0" .venv/bin/uv
    ;;
esac
"""


class Tree:
    """A copy of what the bootstrap needs, in a folder with an awkward name, and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / """it's "my" $project"""
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.root / "scripts" / "kernel").mkdir(parents=True)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for name in ("scripts/just", "scripts/kernel/bootstrap.py", "scripts/requirements.lock"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("cat", "chmod", "cksum", "cp", "readlink", "sh", "sleep"):
            program = shutil.which(name, path=SYSTEM)
            assert program
            (self.bin / name).symlink_to(program)

    def program(self, name: str, text: str) -> None:
        """Puts a program on PATH."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def python(self, prelude: str = "") -> None:
        """Puts a real python3 on PATH; *prelude* is code that it runs before the bootstrap."""
        run = f"import runpy, sys; sys.argv = sys.argv[1:]; {prelude}; runpy.run_path(sys.argv[0], run_name='__main__')"
        code = f'if [ "$1" = -I ]; then shift; exec {PYTHON} -I -c {shlex.quote(run)} "$@"; fi\n' if prelude else ""
        self.program("python3", f'#!/bin/sh\n{code}exec {PYTHON} "$@"\n')

    def start(self, *args: str, cwd: Path | None = None, program: str = "", **env: str) -> subprocess.Popen[str]:
        """Starts scripts/just with nothing in its environment but *env*."""
        return subprocess.Popen(
            [program or str(self.root / "scripts" / "just"), *args],
            cwd=cwd or self.root,
            env={"PATH": str(self.bin), "HOME": str(self.bin.parent), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def just(self, *args: str, cwd: Path | None = None, program: str = "", **env: str) -> tuple[int, str, str]:
        """Runs scripts/just; returns exit code, stdout and stderr."""
        with self.start(*args, cwd=cwd, program=program, **env) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        """What the fake uv was called for."""
        calls = self.root / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def made(tree: Tree) -> Tree:
    """A tree whose .venv is up to date, by the fake uv."""
    tree.python()
    tree.program("uv", FAKE_UV)
    assert tree.just()[0] == 0
    return tree


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, and one last sentence that says all of *words*."""
    code, out, err = result
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if not re.search(r"making|bringing", line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("scripts/just: ")
    assert lines[0].endswith(".")
    assert all(word in lines[0] for word in words), err


def test_cold_makes_venv_and_hands_the_arguments_on(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    code, out, err = tree.just("run", "two words", "it's", '"', "$HOME", "*")
    assert (code, out) == (0, "<run>\n<two words>\n<it's>\n<\">\n<$HOME>\n<*>\n")
    assert len(err.splitlines()) == 2
    assert tree.calls() == ["sync", "install"]


def test_warm_needs_neither_uv_nor_python(made: Tree) -> None:
    (made.bin / "uv").unlink()
    (made.bin / "python3").unlink()
    assert made.just("--version") == (0, "<--version>\n", "")


def test_exit_code_passes_through(made: Tree) -> None:
    (made.root / ".venv/bin/just").write_text("#!/bin/sh\nexit 42\n")
    assert made.just() == (42, "", "")


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "scripts/just", "scripts/kernel/bootstrap.py", "scripts/requirements.lock"]
)
def test_a_change_updates_the_same_venv(made: Tree, file: str) -> None:
    (made.root / ".venv/mine").touch()
    with (made.root / file).open("a") as stream:
        stream.write("# changed\n")
    assert made.just()[0] == 0
    assert made.calls() == ["sync", "install"] * 2
    assert (made.root / ".venv/mine").exists()


def test_another_python_makes_a_new_venv(made: Tree) -> None:
    (made.root / ".venv/mine").touch()
    assert made.just(PYTHON=str(PYTHON))[0] == 0
    assert (made.root / ".venv/mine").exists(), "it is the same Python"
    (made.root / ".venv/bin/python").unlink()
    assert made.just()[0] == 0
    assert not (made.root / ".venv/mine").exists()


def test_a_copied_tree_gets_its_own_venv(made: Tree) -> None:
    copy = made.root.with_name("copy")
    shutil.copytree(made.root, copy, symlinks=True)
    assert made.just(program=str(copy / "scripts/just"))[0] == 0
    assert str(made.root) not in (copy / ".venv/.stamp").read_text()


def test_works_through_a_link_from_elsewhere_and_from_a_subfolder(made: Tree) -> None:
    (made.root / ".venv/bin/just").write_text('#!/bin/sh\necho "${JUST_JUSTFILE-unset}"\n')
    (made.bin / "link").symlink_to(made.root / "scripts/just")
    assert made.just(cwd=made.bin, program=str(made.bin / "link")) == (0, f"{made.root}/Justfile\n", "")
    assert made.just(cwd=made.root / "scripts", program="./just") == (0, "unset\n", "")
    assert made.just("just", cwd=made.root / "scripts", program=str(made.bin / "sh")) == (0, "unset\n", "")


def test_a_half_made_venv_is_not_taken_for_a_whole_one(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    half = tree.root / ".venv/bin"
    half.mkdir(parents=True)
    for name in ("just", "python"):
        (half / name).write_text("#!/bin/sh\nexit 1\n")
        (half / name).chmod(0o755)
    assert tree.just("ok")[:2] == (0, "<ok>\n")


def test_killed_in_the_middle_then_run_again(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    assert tree.just(ON_SYNC="touch .venv/half; kill -KILL $PPID")[0] == 128 + signal.SIGKILL
    assert tree.just("ok")[:2] == (0, "<ok>\n")
    assert not (tree.root / ".venv/half").exists()


def test_interrupted_without_a_traceback(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    code, out, err = tree.just(ON_SYNC="kill -INT $PPID; sleep 5")
    assert (code, out) == (130, "")
    assert len(err.splitlines()) == 1


def test_two_at_once_take_turns(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    both = [tree.start(name, ON_SYNC="sleep 0.3") for name in ("one", "two")]
    assert sorted(process.communicate(timeout=60)[0] for process in both) == ["<one>\n", "<two>\n"]
    assert tree.calls() == ["sync", "install"]


def test_too_old_a_python_is_named(tree: Tree) -> None:
    tree.program("python3", "#!/bin/sh\necho 3.10.13\nexit 1\n")
    assert_refused(tree.just(), "3.11", "python3 is 3.10.13", "PYTHON")
    assert_refused(tree.just(PYTHON="python3"), "PYTHON=python3", "3.10.13")
    assert_refused(tree.just(PYTHON="no-such"), "PYTHON=no-such")
    (tree.bin / "python3").unlink()
    assert_refused(tree.just(), "3.11", "PATH")


def test_the_first_python_that_is_new_enough_is_taken(tree: Tree) -> None:
    tree.python()
    (tree.bin / "python3").rename(tree.bin / "python3.12")
    tree.program("python3", "#!/bin/sh\necho 3.10.13\nexit 1\n")
    tree.program("uv", FAKE_UV)
    assert tree.just("ok")[:2] == (0, "<ok>\n")


def test_python_without_ensurepip(tree: Tree) -> None:
    tree.python("sys.modules['ensurepip'] = None")  # Debian has it in a package of its own
    assert_refused(tree.just(), "ensurepip", "python3-venv", "uv")


def test_no_network_for_pip(tree: Tree) -> None:
    pytest.importorskip("ensurepip")
    tree.python()
    result = tree.just(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull)
    assert_refused(result, "uv could not be downloaded", "network")
    assert not (tree.root / ".venv/.stamp").exists()


def test_no_network_for_uv(tree: Tree) -> None:
    tree.python()
    tree.program("uv", FAKE_UV)
    says = "echo 'error: Failed to fetch: X'; echo '  cause: Connection refused'; exit 2"
    assert_refused(tree.just(ON_SYNC=says), "requirements.lock", "(Connection refused)", "network")


MIRROR = "[global]\nindex-url = http://mirror/simple\ncert = /ca.pem\n"


@pytest.mark.many
@pytest.mark.parametrize(
    ("config", "env", "expected"),
    [
        (MIRROR, {}, "http://mirror/simple /ca.pem"),
        (MIRROR + "[install]\nindex-url = http://near/simple\n", {}, "http://near/simple /ca.pem"),
        (MIRROR, {"PIP_INDEX_URL": "http://env/simple", "PIP_CERT": "/env.pem"}, "http://env/simple /env.pem"),
        (MIRROR, {"UV_DEFAULT_INDEX": "http://uv/simple"}, "http://uv/simple /ca.pem"),
        (MIRROR, {"SSL_CERT_FILE": "/own.pem", "PIP_CERT": "/env.pem"}, "http://mirror/simple /own.pem"),
        (
            "no section = here\n",
            {"PIP_INDEX_URL": "http://env/simple", "PIP_CERT": "/e.pem"},
            "http://env/simple /e.pem",
        ),
    ],
    ids=["a file", "for install", "variables", "uv has its own index", "uv has its own certificate", "a broken file"],
)
def test_what_pip_was_told_reaches_uv(made: Tree, config: str, env: dict[str, str], expected: str) -> None:
    """Without a uv on PATH, a mirror or a certificate that only pip knows of is used; what uv was told goes first."""
    (made.bin / "uv").unlink()
    (made.root / "pyproject.toml").write_text("changed")
    file = made.root / "pip.conf"
    file.write_text(config)
    says = 'printf "%s %s" "$UV_DEFAULT_INDEX" "$SSL_CERT_FILE" > told; exit 0'
    code, _, err = made.just(cwd=None, program="", **{**env, "ON_SYNC": says, "PIP_CONFIG_FILE": str(file)})
    assert code == 0, err
    assert (made.root / "told").read_text() == expected


def test_a_failed_update_gives_its_reason_and_is_no_new_beginning(made: Tree) -> None:
    (made.root / ".venv/mine").touch()
    (made.root / "pyproject.toml").write_text("changed")
    says = "echo 'error: Failed to download'; echo '  cause: Hash mismatch for x'; exit 1"
    for _ in range(2):
        assert_refused(made.just(ON_SYNC=says), "requirements.lock", "Hash mismatch for x")
    assert made.just("ok")[:2] == (0, "<ok>\n")
    assert (made.root / ".venv/mine").exists()


def test_a_missing_file_is_an_error(made: Tree) -> None:
    (made.root / "scripts/requirements.lock").unlink()
    assert_refused(made.just(), "scripts/", "git")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_after_a_signal_is_the_apps(number: signal.Signals) -> None:
    """`just` would answer with 128 + the signal's number; the real project's `run` ends as the app does."""
    env = {**os.environ, "SERVICES_ENABLED": "hello-world", "LOG_FORMAT": "text"}
    with subprocess.Popen(
        [ROOT / "scripts/just", "run"], cwd="/", env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "all ready" in line:
                process.send_signal(number)
        assert process.wait(20) == 0


def test_a_recipe_of_the_users_own_named_run_wins(made: Tree) -> None:
    """It is run by just, as any other."""
    (made.root / ".venv/bin/just").write_text('#!/bin/sh\necho "just $*"\n')
    assert made.just("run", "x")[:2] == (0, "just run x\n")
