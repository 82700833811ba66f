"""Tell when an external program is ready: `tcp`, `http`, `output`, or any coroutine function of the `Program`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs
from anyio import Event, connect_tcp, fail_after, sleep, to_thread

from kernel.errors import ProgramError

if TYPE_CHECKING:
    from kernel.bricks.program import Program

EVERY = 0.02  # seconds between two attempts
PROBE = 1.0  # seconds for one attempt


Ready: TypeAlias = "Callable[[Program], Awaitable[object]]"


@attrs.frozen
class _Tcp:
    port: int
    host: str

    async def before(self, program: Program) -> None:
        """Raise if the port is in use: the program would fail, and its consumers would talk to another program."""
        if await self._answers():
            raise ProgramError(
                program.name, f"is not started: something is already listening on {self.host}:{self.port}"
            )

    async def __call__(self, _: Program) -> None:
        while not await self._answers():  # noqa: ASYNC110  (nothing signals this)
            await sleep(EVERY)

    async def _answers(self) -> bool:
        try:
            with fail_after(PROBE):
                stream = await connect_tcp(self.host, self.port)
        except (OSError, TimeoutError):
            return False
        await stream.aclose()
        return True


def tcp(port: int, host: str = "127.0.0.1") -> Ready:
    """Ready when it accepts TCP connections. The program is not started if something else listens on the port."""
    return _Tcp(port, host)


def http(url: str, *, status: int | None = None) -> Ready:
    """Ready when a GET of *url* returns *status*, or, if that is None, any status from 200 to 399."""

    async def wait(_: Program) -> None:
        while True:
            found = await to_thread.run_sync(_get, url, abandon_on_cancel=True)
            if found == status or (status is None and 200 <= found < 400):  # noqa: PLR2004
                return
            await sleep(EVERY)

    return wait


def output(pattern: str) -> Ready:
    """Ready when it writes a line to stdout or stderr that contains the regular expression *pattern*."""
    return _Output(re.compile(pattern))


@attrs.define
class _Output:
    pattern: re.Pattern[str]
    found: Event | None = None

    async def before(self, program: Program) -> None:
        """Listen from the first line on."""
        self.found = program.line_found(self.pattern)

    async def __call__(self, _: Program) -> None:
        assert self.found is not None
        await self.found.wait()


def _get(url: str) -> int:
    """Return the status of a GET, without following redirects; 0 if there is no answer."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PROBE)
    try:
        path = parts.path or "/"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
