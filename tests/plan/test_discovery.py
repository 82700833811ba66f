"""Which names a service may have, and what may be in the folder beside services."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.errors import KernelError
from kernel.plan.discovery import ServiceFile, _refuse_name, find_services


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
