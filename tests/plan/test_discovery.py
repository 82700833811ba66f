"""Which names a service may have, and what may be in the folder beside services."""

from __future__ import annotations

import importlib.resources
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.errors import DeclarationError, KernelError, NamingError, NotImportable, Problems
from kernel.plan.discovery import Catalogue, ServiceFile, _refuse_name, find_services, load, load_all
from tests.plan.parts import HEAD, PLAIN, Written


@pytest.mark.parametrize("name", ["admin", "kernel", "log", "otel", "runner", "services", "env"])
def test_a_name_that_means_something_else_is_reserved(name: str) -> None:
    """Its variables, or its records, would be taken for those of the kernel."""
    file = ServiceFile(name, f"services.{name}", f"services/{name}.py", None, str)  # type: ignore[arg-type]
    assert f"the name {name!r} is reserved" in str(_refuse_name(file, [name], ()))


@pytest.fixture
def services() -> Iterator[Path]:
    """A folder of services that any user may come to, with one service in a group."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        folder = Path(root, "services")
        (folder / "billing").mkdir(parents=True)
        (folder / "billing" / "worker.py").write_text('"""Works."""')
        yield folder


def _leads_to_itself(folder: Path) -> None:
    (folder / "billing" / "self.py").symlink_to("self.py")


def _leads_up(folder: Path) -> None:
    (folder / "billing" / "again").symlink_to("..")


def _leads_round(folder: Path) -> None:
    (folder / "shipping").mkdir()
    (folder / "shipping" / "there").symlink_to("../billing")
    (folder / "billing" / "back").symlink_to("../shipping")


def _leads_nowhere(folder: Path) -> None:
    (folder / "gone.py").symlink_to("nowhere.py")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.py"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_leads_to_itself, "services/billing/self.py: the link is broken; delete it"),
        (_leads_up, "services/billing/again: the link leads back to a parent folder; delete it"),
        (_leads_round, "the link leads back to a parent folder; delete it"),
        (_leads_nowhere, "services/gone.py: the link is broken; delete it"),
        (_pipe, "services/pipe.py: this is not a file but a pipe, a socket or a device; delete it"),
        (_socket, "services/socket.py: this is not a file but a pipe, a socket or a device; delete it"),
    ],
)
def test_what_is_no_module(services: Path, make: Callable[[Path], None], told: str) -> None:
    """Each is told as what it is, at once: nothing hangs, and nothing is walked for ever."""
    make(services)
    with pytest.raises(KernelError) as refused:
        find_services(str(services.parent))
    assert told in str(refused.value), str(refused.value)


def test_a_folder_that_cannot_be_read(services: Path) -> None:
    """By the user that the app runs as."""
    (services / "billing").chmod(0)
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        with pytest.raises(KernelError, match="services/billing: the folder cannot be read; let the"):
            find_services(str(services.parent))
    finally:
        os.seteuid(before)
        (services / "billing").chmod(0o755)


def test_links_that_lead_somewhere_are_followed(services: Path) -> None:
    """To a file, and to a folder, also twice to the same."""
    shutil.copytree(services / "billing", services.parent / "elsewhere")
    (services / "linked.py").symlink_to("billing/worker.py")
    (services / "one").symlink_to("../elsewhere")
    (services / "two").symlink_to("../elsewhere")
    assert list(find_services(str(services.parent))) == ["billing-worker", "linked", "one-worker", "two-worker"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("_helper.py", []),
        ("_shared/helper.py", []),
        ("billing/_helper.py", []),
        ("billing/_shared/deep/helper.py", []),
        ("_package/__init__.py", []),
        ("package/__init__.py", ["package"]),
        ("package/inner.py", ["package-inner"]),
        ("billing/deep/er.py", ["billing-deep-er"]),
        ("notes.txt", []),
        ("__pycache__/x.py", []),
    ],
)
def test_what_is_a_service_and_what_is_none(services: Path, path: str, found: list[str]) -> None:
    """A name that begins with _ hides a file, a package, and a folder with all that is in it."""
    (services / path).parent.mkdir(parents=True, exist_ok=True)
    (services / path).write_text("")
    assert list(find_services(str(services.parent))) == sorted(["billing-worker", *found])


def test_a_package_is_one_service_whatever_is_in_it(services: Path) -> None:
    """Its modules are its own."""
    for path in ("package/__init__.py", "package/inner.py", "package/deep/er.py"):
        (services / path).parent.mkdir(parents=True, exist_ok=True)
        (services / path).write_text("")
    assert list(find_services(str(services.parent))) == ["billing-worker", "package"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("2nd.py", "services/2nd.py: '2nd' is not a valid module name; rename it, for example to my_service.py"),
        ("a-b/x.py", "services/a-b/x.py: 'a-b' is not a valid module name; rename it, for example to my_service.py"),
        ("class.py", "services/class.py: 'class' is not a valid module name; rename it, for example to my_service.py"),
        ("Api.py", "'Api' is not a valid service name; use lower-case letters, digits and underscores"),
        ("log.py", "services/log.py: the name 'log' is reserved; rename the file"),
        ("list.py", "services/list.py: the app has a command named 'list'; rename the file"),
        ("billing_worker.py", "two services are named 'billing-worker'; rename one of them"),
    ],
)
def test_what_no_service_can_be_called(services: Path, path: str, told: str) -> None:
    """Each error says where and what to do; several are told together."""
    (services / path).parent.mkdir(exist_ok=True)
    (services / path).write_text("")
    with pytest.raises(NamingError) as refused:
        find_services(str(services.parent), ["list"])
    assert told in str(refused.value)
    assert str(services / path) in refused.value.where
    (services / "again-.py").write_text("")
    with pytest.raises(Problems) as both:
        find_services(str(services.parent), ["list"])
    assert len(both.value.errors) == 2


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ('"""Works."""', "Works"),
        ("\n# a comment\n\n  '''  Works hard.\n\nAnd more.'''", "Works hard"),
        ("r'Works.'\nx = 1", "Works"),
        ('R"""Works\n"""', "Works"),
        ('""""""', ""),
        ("x = 1\n'no docstring'", ""),
        ("# only a comment", ""),
        ("", ""),
        (f'"""W\u00f6rks."""{"#" * 3000}\n', "W\u00f6rks"),
    ],
)
def test_a_summary(services: Path, text: str, summary: str) -> None:
    """The first line of the docstring, without importing the file."""
    file = services / "billing" / "worker.py"
    file.write_text(text, encoding="utf-8")
    (found,) = find_services(str(services.parent)).values()
    assert found.summary == summary
    file.unlink()
    assert found.summary == ""


# -- inside a zip file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "app/", "very/deep/"])
def test_services_in_a_zip(services: Path, inside: str) -> None:
    """The same ones as in the tree, wherever in the file they are; what is hidden is ignored."""
    archive = services.parent / "app.zip"
    texts = {
        "services/billing/worker.py": "'Works.'",
        "services/api.py": "'Serves.'",
        "services/.hidden.py": "",
        "services/billing/.git/x.py": "",
        "services/_shared.py": "",
        "servicesx/b.py": "",
        "other/services/c.py": "",
    }
    with zipfile.ZipFile(archive, "w") as opened:
        for path, text in texts.items():
            opened.writestr(inside + path, text)
    root = str(archive / inside) if inside else str(archive)
    found = find_services(root)
    assert {name: file.summary for name, file in found.items()} == {"api": "Serves", "billing-worker": "Works"}
    assert found["billing-worker"].path.endswith(f"app.zip/{inside}services/billing/worker.py")
    assert found["api"].module == "services.api"
    assert found["api"].folder == os.path.join(root, "services")  # noqa: PTH118


@pytest.mark.parametrize("root", ["/nowhere/at/all", "nowhere", ""])
def test_there_is_no_folder(root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then there is no service, whether or not the path is absolute."""
    monkeypatch.chdir(tmp_path)
    assert find_services(root) == {}
    assert find_services(str(tmp_path)) == {}


# -- importing them ----------------------------------------------------------------------------------------------------


def test_a_service_has_the_name_of_its_file(written: Written) -> None:
    """In a group too; a service that is imported from another file is not the file's own."""
    files = written(
        **{
            "api": "from services.billing.worker import other\n\n"
            + PLAIN.format("something")
            + "\n\nagain = something",
            "billing/worker": PLAIN.format("other"),
            "package/__init__": "from services.package.inner import inner",
            "package/inner": PLAIN.format("inner"),
        }
    )
    found, errors = load_all(files)
    assert not errors
    assert {name: service.fn.__name__ for name, service in found.items()} == {
        "api": "something",
        "billing-worker": "other",
        "package": "inner",
    }
    assert all(service.name == name for name, service in found.items())


@pytest.mark.parametrize("zipped", [False, True])
def test_a_group_has_data(written: Written, tmp_path: Path, zipped: bool) -> None:
    """A file beside its services is found as a resource, also in a zip file."""
    files = written(**{"billing/worker": PLAIN.format("worker"), "billing/rates.txt": "7 %"})
    if zipped:
        archive = shutil.make_archive(str(tmp_path / "app"), "zip", tmp_path, "services")
        shutil.rmtree(tmp_path / "services")
        files = Catalogue(find_services(archive))
    assert load(files["billing-worker"]).fn.__module__ == "services.billing.worker"
    assert importlib.resources.files("services.billing").joinpath("rates.txt").read_text().endswith("7 %")


LINES = HEAD.count("\n")
EXCLUDE = ", or exclude the service by SERVICES_ENABLED"
HELPER = "decorate an async function with @service, or begin the file's name with _ if it is a helper module"


@pytest.mark.parametrize(
    ("texts", "kind", "line", "what", "hint"),
    [
        (
            {"api": "import nosuch"},
            NotImportable,
            1,
            "service 'api' cannot be imported: ModuleNotFoundError: No module named 'nosuch'",
            f"install the missing package{EXCLUDE}",
        ),
        (
            {"api": "x = 1\nx = 1 / 0"},
            NotImportable,
            2,
            "service 'api' cannot be imported: ZeroDivisionError: division by zero",
            f"fix the file{EXCLUDE}",
        ),
        (
            {"api": "x = 1\n\nx = ["},
            NotImportable,
            3,
            "service 'api' cannot be imported: SyntaxError: '[' was never closed",
            f"fix the file{EXCLUDE}",
        ),
        (
            {"api": "import services._other\n", "_other": "\nx = ["},
            NotImportable,
            2,
            "service 'api' cannot be imported: SyntaxError: '[' was never closed",
            f"fix the file{EXCLUDE}",
        ),
        (
            {"api": "raise SyntaxError('no file')"},
            NotImportable,
            1,
            "service 'api' cannot be imported: SyntaxError: no file",
            f"fix the file{EXCLUDE}",
        ),
        ({"api": "raise SystemExit(7)"}, NotImportable, 0, "service 'api' called sys.exit(7) when imported", ""),
        (
            {"api": "@service\ndef api() -> None: ..."},
            DeclarationError,
            1,
            "service 'api' is not async",
            "write `async def`; run blocking code in a thread: `await anyio.to_thread.run_sync(work)`",
        ),
        (
            {"api": f"{PLAIN.format('one')}\n{PLAIN.format('two')}"},
            DeclarationError,
            0,
            "2 services in one file: one, two",
            "move each to a separate file",
        ),
        ({"api": "x = 1"}, DeclarationError, 0, "contains no service", HELPER),
        ({"api/__init__": "x = 1", "api/part": "service = 1"}, DeclarationError, 0, "contains no service", HELPER),
        (
            {
                "api/__init__": "x = 1",
                "api/deep/b": "if x:\n    @kernel.service(retries=1)\n    async def b() -> None: ...",
                "api/a": PLAIN.format("a"),
                "api/helper": "x = '@service'",
                "api/notes.txt": PLAIN.format("no_module"),
            },
            DeclarationError,
            0,
            "contains no service, and hides the services in a.py, deep/b.py",
            "delete the __init__.py to make the folder a group, or import one service in it",
        ),
    ],
)
def test_what_cannot_be_loaded(
    written: Written, texts: dict[str, str], kind: type[KernelError], *, line: int, what: str, hint: str
) -> None:
    """What is wrong, where, and what to do; those that can be loaded are loaded."""
    found, (error,) = load_all(written(**texts, well=PLAIN.format("well")))
    assert list(found) == ["well"]
    assert type(error) is kind
    assert (error.what, error.hint) == (what, hint)
    file = [*texts][-1] if "_other" in texts else next(iter(texts))
    assert error.where.endswith(f"/services/{file}.py:{LINES + line}" if line else f"/services/{file}.py")
