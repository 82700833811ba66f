"""A PostgreSQL for the tests of several pages, started once for a worker."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cookbook.pages import ENOUGH
from tests.ports import free_port

FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
"""Debian's, which are not on the PATH."""
BIN = FOUND[-1] if FOUND else Path(shutil.which("postgres") or "/usr/lib/postgresql/bin/postgres").parent
USER = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
AS_USER: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": ()} if USER else {}


class Postgres:
    """A server, with as many databases as there are tests."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._numbers = itertools.count(1)
        data = folder / "data"
        self._do("initdb", "--username=app", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync", str(data))
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command = [str(BIN / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in options.items())]
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(command, **AS_USER, stderr=log, cwd=folder)
        end = time.monotonic() + ENOUGH
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > end:
                self.stop()
                raise AssertionError((folder / "log").read_text())
            time.sleep(0.02)

    def _answers(self) -> bool:
        return subprocess.run([BIN / "pg_isready", *self._where], check=False, capture_output=True).returncode == 0

    @property
    def _where(self) -> tuple[str, ...]:
        return ("--host=127.0.0.1", f"--port={self.port}", "--username=app")

    def _do(self, name: str, *words: str) -> None:
        subprocess.run([BIN / name, *words], **AS_USER, check=True, capture_output=True)

    def database(self) -> str:
        """The address of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self._do("createdb", *self._where, name)
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        """The address of a database, which may not exist."""
        return f"postgresql://app@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End it, whoever is connected."""
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(ENOUGH)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """A folder that the user of PostgreSQL can reach: those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="cookbook-postgres-") as name:
        if USER:
            os.chown(name, pwd.getpwnam(USER).pw_uid, -1)
        yield Path(name)


@pytest.fixture(scope="session")
def postgres(postgres_folder: Path) -> Iterator[Postgres]:
    """The server."""
    server = Postgres(postgres_folder)
    yield server
    server.stop()
