"""`just service` and `just service-remove`, on real clones."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from tests.scripts.projects import Done, Project

DEPENDS = """
from kernel import service

@service(depends=["billing"])
async def shipping() -> None: ...
"""


def refused(done: Done, *words: str) -> bool:
    """Whether it ended with 2 and one line that says all of *words*."""
    assert (done.code, done.out) == (2, ""), done
    assert done.err.count("\n") == 1, done.err
    assert all(word in done.err for word in words), done.err
    return True


@pytest.mark.many
@pytest.mark.parametrize(
    "words",
    [
        ("service", "NAME=billing-worker"),
        ("service", "billing-worker"),
        ("NAME=billing-worker", "service"),
        ("NAME=other", "service", "NAME=billing-worker"),
    ],
)
@pytest.mark.parametrize("program", ["./scripts/just", "just"])
def test_it_writes_a_service_and_its_test(owned: Project, words: tuple[str, ...], program: str) -> None:
    """However the name is given: two files, and nothing else."""
    before = owned.files()
    done = owned.just(*words, program=program)
    assert done.code == 0, done.err
    new = owned.files().keys() - before.keys()
    assert new == {"services/billing_worker.py", "tests/services/test_billing_worker.py"}
    assert all(path in done.out for path in new)


@pytest.mark.minutes
@pytest.mark.parametrize(
    "name", ["x", "match", "billing-worker", "a-name-so-long-that-its-lines-have-to-be-broken-up-by-someone-7"]
)
def test_it_is_clean_typed_tested_and_runs(owned: Project, name: str) -> None:
    """Lint, format, types, its test, and the app with it, which reads its config from the environment."""
    assert owned.just("service", name).code == 0
    module = name.replace("-", "_")
    made = [f"services/{module}.py", f"tests/services/test_{module}.py"]
    python = owned.root / ".venv" / "bin" / "python"
    for words in (
        ["ruff", "check", "--no-cache", *made],
        ["ruff", "format", "--check", "--no-cache", *made],
        ["mypy", f"--cache-dir={owned.machine.folder / 'mypy'}", *made],
        ["pytest", "-q", "-p", "no:cacheprovider", made[1]],
        ["app", "check"],
    ):
        done = owned.machine.call(str(python), "-m", *words, cwd=owned.root)
        assert done.code == 0, done.out + done.err
    env = {**owned.machine.env, f"{module.upper()}_GREETING": "good day"}
    with subprocess.Popen(
        ["./scripts/just", "run", name], cwd=owned.root, env=env, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "good day" in line:
                run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0


@pytest.mark.minutes
@pytest.mark.parametrize("kind", ["http", "worker", "periodic", "program"])
def test_every_kind_is_clean_typed_and_tested(owned: Project, kind: str) -> None:
    """Lint, format, types, its test, and what the app says of it."""
    text = (owned.root / "pyproject.toml").read_text()
    packages = "".join(f'    "{name}",\n' for name in ("fastapi", "uvicorn", "redis", "httpx"))  # else they are added
    owned.write("pyproject.toml", text.replace("dependencies = [\n", f"dependencies = [\n{packages}", 1))
    done = owned.just("service", "NAME=billing-worker", f"KIND={kind}")
    assert done.code == 0, done.err
    made = ["services/billing_worker.py", "tests/services/test_billing_worker.py"]
    python = owned.root / ".venv" / "bin" / "python"
    for words in (
        ["ruff", "check", "--no-cache", *made],
        ["ruff", "format", "--check", "--no-cache", *made],
        ["mypy", f"--cache-dir={owned.machine.folder / 'mypy'}", *made],
        ["pytest", "-q", "-p", "no:cacheprovider", made[1]],
        ["app", "check"],
    ):
        done = owned.machine.call(str(python), "-m", *words, cwd=owned.root)
        assert done.code == 0, done.out + done.err


def test_a_kind_that_is_none(owned: Project) -> None:
    """The nearest one is suggested, and nothing is written."""
    with owned.unchanged():
        assert refused(owned.just("service", "billing", "KIND=periodical"), "did you mean 'periodic'?")
        assert refused(owned.just("KIND=grpc", "service", "billing"), "there are: plain, http, worker")


@pytest.mark.minutes
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("class", "a word of Python"),
        ("print", "a word of Python"),
        ("test-runner", "test"),
        ("kernel", "reserved"),
        ("run", "command"),
        ("seed", "command"),
        ("anyio", "imports"),
        ("log", "reserved"),
        ("hello-world", "already"),
        ("billing-worker", "already, in services/billing/worker.py"),
        ("billing", "services/billing exists already"),
        ("kept", "tests/services/test_kept.py exists already"),
        ("", "needs a name; usage: just service NAME=billing"),
    ],
)
def test_a_name_that_is_taken(owned: Project, name: str, word: str) -> None:
    """By Python, the kernel, a command, another service, or a file; nothing is written."""
    owned.write("app/commands.py", "from kernel import command\n\n@command\nasync def seed() -> None: ...\n")
    owned.write("services/billing/worker.py", DEPENDS)
    owned.write("tests/services/test_kept.py", "")
    with owned.unchanged():
        assert refused(owned.just("service", f"NAME={name}"), word)


def test_underscores_are_no_second_name(owned: Project) -> None:
    """`my-x` and `my_x` would be one file."""
    assert owned.just("service", "my-x").code == 0
    with owned.unchanged():
        assert refused(owned.just("service", "my-x"), "there is a service 'my-x' already, in services/my_x.py")
        assert refused(owned.just("service", "my_x"), "not a valid name for a service")


def test_remove_takes_both_away(owned: Project) -> None:
    """A service that is committed, and that nobody depends on."""
    before = owned.files()
    owned.just("service", "billing")
    owned.commit()
    done = owned.just("service-remove", "NAME=billing")
    assert done.code == 0, done.err
    assert done.out == "removed services/billing.py\nremoved tests/services/test_billing.py\n"
    assert owned.files() == before


def test_what_is_not_committed_is_not_removed(owned: Project) -> None:
    """But with FORCE=1, and then a backup has it; new, changed or staged, it comes to the same."""
    owned.just("service", "billing")
    with owned.unchanged():
        assert refused(owned.just("service-remove", "billing"), "services/billing.py", "FORCE=1")
    owned.commit()
    owned.write("tests/services/test_billing.py", "# mine\n")
    with owned.unchanged():
        assert refused(owned.just("service-remove", "billing"), "tests/services/test_billing.py would be lost")
    done = owned.just("FORCE=1", "service-remove", "billing")
    assert done.code == 0, done.err
    backup = re.search(r"backups/(\S+)", done.out)
    assert backup is not None
    assert not (owned.root / "services" / "billing.py").exists()
    assert owned.just("backup-restore", f"BACKUP={backup[1]}", stdin="y\n").code == 0
    assert (owned.root / "tests" / "services" / "test_billing.py").read_text() == "# mine\n"


def test_a_service_that_others_depend_on_is_not_removed(owned: Project) -> None:
    """They are named; FORCE=1 knows better. One that does not import may depend on it, too."""
    owned.just("service", "billing")
    owned.write("services/shipping.py", DEPENDS)
    owned.commit()
    with owned.unchanged():
        assert refused(owned.just("service-remove", "billing"), "shipping depend on billing", "FORCE=1")
    owned.write("services/shipping.py", "import nothing_of_that_name\n")
    with owned.unchanged():
        assert refused(
            owned.just("service-remove", "billing"),
            "cannot tell which services depend on billing",
            "nothing_of_that_name",
            "FORCE=1",
        )
    assert owned.just("service-remove", "billing", FORCE="1").code == 0
    assert not (owned.root / "services" / "billing.py").exists()


def test_a_package_goes_as_a_whole(owned: Project) -> None:
    """A service that is a folder, or lies in one that groups."""
    before = owned.files()
    owned.write("services/billing/__init__.py", DEPENDS.replace('"billing"', ""))
    owned.write("services/billing/helper.py", "")
    owned.write("services/group/worker.py", DEPENDS.replace('"billing"', ""))
    owned.commit()
    assert owned.just("service-remove", "billing").code == 0
    assert owned.just("service-remove", "group-worker").code == 0
    assert owned.files() == before
    assert not (owned.root / "services" / "billing").exists()


def test_one_that_is_not_there(owned: Project) -> None:
    """The nearest name is suggested."""
    with owned.unchanged():
        assert refused(owned.just("service-remove", "helo-world"), "did you mean 'hello-world'?")
        assert refused(owned.just("service-remove"), "usage: just service-remove NAME=billing")
