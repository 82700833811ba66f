"""Fuzzes the HTTP servers of the real program: raw bytes, and what is nearly HTTP/1.1, HTTP/2 or a websocket.

Each seed gives one sequence of conversations. Between them the server is asked what any client would ask; it has to
answer within `SOON` seconds, stay the same process, and keep its memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.conformance.program import REPO, Process, Program, Result

SOON = 2.0  # seconds in which whoever asks properly is answered
BATCH = 40  # conversations between two looks
GROWTH = 32 * 1024  # KiB by which the program may grow once it is warm
WARM = 10  # batches until it is
OK = 200
STRANGE = (b"", b"\0", b"\xff\xfe", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b"%00", b":" * 50, b"A" * 5000, b"\x80")

METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"CONNECT", b"PRI", b"get", b"G\xffT", b"TRACE")
TARGETS = (
    *(b"/livez", b"/status", b"/metrics", b"/readyz", b"/startupz", b"/items", b"/", b"*", b"", b"//", b"/%2e%2e/"),
    *(
        b"http://localhost/livez",
        b"http://evil.example/",
        b"localhost:80",
        b"/items?x=%ff",
        b"/" + b"a" * 3000,
        b"/\xc3\xa4",
    ),
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"http/1.1", b"")
HEADERS = (
    *(b"Host: localhost", b"Host: evil.example", b"Host:", b"Host: a\r\nHost: b", b"Host: [::1"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 5, 6", b"Content-Length: 99999999999999999999"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade, HTTP2-Settings", b"Connection: \xff"),
    *(b"Upgrade: h2c", b"Upgrade: websocket", b"HTTP2-Settings: A", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    *(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Protocol: \xff"),
    *(
        b"Sec-WebSocket-Extensions: permessage-deflate; x=\xff",
        b"Expect: 100-continue",
        b"Accept: text/plain; version=x",
    ),
    *(b"Accept: application/openmetrics-text; version=abc; q=x", b" folded: x", b"No colon", b"X: \0", b"Cookie: a=b"),
    *(b"X: " + b"x" * 9000, b"Range: bytes=0-1,1-2", b"Content-Encoding: gzip", b"Content-Type: application/json"),
)
BODIES = (
    *(b"", b"hello", b'{"name": "tea"}', b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n"),
    *(b"0\r\nX: y\r\n\r\n", b"\xff" * 70_000),
)


class Broken(Exception):
    """The server did what it must not."""


def request(rand: random.Random) -> bytes:
    """A request, good or odd."""
    lines = [rand.choice(HEADERS) for _ in range(rand.choice([0, 1, 2, 3, 8, 200 if rand.random() < 0.05 else 4]))]
    if rand.random() < 0.7:
        lines.insert(0, b"Host: localhost")
    head = b" ".join(
        [
            rand.choice(METHODS[: rand.choice([2, 10])]),
            rand.choice(TARGETS),
            rand.choice(VERSIONS[: rand.choice([1, 7])]),
        ]
    )
    return b"\r\n".join([head, *lines, b"", rand.choice(BODIES) if rand.random() < 0.5 else b""])


def frame(rand: random.Random) -> bytes:
    """A frame of HTTP/2, whose length may be a lie."""
    payload = rand.choice(
        [b"", rand.randbytes(rand.randrange(60)), b"\x82\x86\x84\x02\x07:m\xff\xff", bytes(6), bytes(5)]
    )
    length = len(payload) if rand.random() < 0.9 else rand.randrange(2**24)
    kind, flags = rand.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255]), rand.choice([0, 1, 4, 5, 0x25, 255])
    return length.to_bytes(3) + bytes([kind, flags]) + rand.choice([0, 1, 2, 3, 2**31 - 1]).to_bytes(4) + payload


def http2(rand: random.Random) -> bytes:
    """The opening of HTTP/2, and frames."""
    frames = b"".join(frame(rand) for _ in range(rand.choice([0, 1, 5, 30])))
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + rand.choice([b"", bytes(3) + b"\4" + bytes(5)])
        + frames * rand.choice([1, 1, 100])
    )


def websocket(rand: random.Random) -> bytes:
    """The opening of a websocket, and frames."""
    lines = [
        b"GET / HTTP/1.1",
        b"Host: localhost",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
    ]
    lines += [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", rand.choice(HEADERS)]
    frames = bytes([rand.randrange(256), rand.randrange(256)]) + rand.randbytes(rand.randrange(40))
    return b"\r\n".join([*lines, b"", frames])


def mutated(rand: random.Random) -> bytes:
    """A good request with some bytes changed, taken out or doubled."""
    text = bytearray(rand.choice([request, http2, websocket])(rand))
    for _ in range(rand.choice([1, 2, 10])):
        place = rand.randrange(len(text) + 1)
        text[place : place + rand.choice([0, 1, 1, 10])] = rand.choice(
            [*STRANGE, rand.randbytes(1), bytes(text[place : place + 20])]
        )
    return bytes(text)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    request,
    http2,
    websocket,
    mutated,
    lambda rand: rand.randbytes(rand.choice([0, 1, 10, 1000, 100_000])),
    lambda rand: b"".join(request(rand) for _ in range(rand.choice([2, 10, 200]))),
    lambda rand: request(rand)[: rand.randrange(1, 60)],
)


def converse(rand: random.Random, port: int) -> None:
    """One conversation: send, maybe in pieces; read a little, all or nothing; leave politely or not."""
    text = rand.choice(KINDS)(rand)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=SOON) as client:
        client.settimeout(0.05)
        pieces = rand.choice([1, 1, 1, 3])
        size = len(text) // pieces + 1
        for start in range(0, len(text), size):
            client.sendall(text[start : start + size])
        if rand.random() < 0.5:
            client.shutdown(socket.SHUT_WR)
        for _ in range(rand.choice([0, 1, 20])):
            if not client.recv(65536):
                break
        if rand.random() < 0.2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def status(port: int, path: str) -> int:
    """What a usual client gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=SOON) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return int(client.recv(100).split()[1])


@attrs.frozen
class Target:
    """A server that is fuzzed, and what it is asked between."""

    name: str
    port: int
    path: str

    def look(self) -> None:
        """Ask what any client would.

        Raises:
            Broken: There is no answer, it is wrong, or it is late.

        """
        began = time.monotonic()
        try:
            got = status(self.port, self.path)
        except (OSError, IndexError, ValueError) as error:
            raise Broken(f"{self.name} does not answer: {error!r}") from error
        took = time.monotonic() - began
        if got != OK or took > SOON:
            raise Broken(f"{self.name} answers {got} after {took:.2f} s")


def rss(pid: int) -> int:
    """The memory of a process in KiB; 0 where there is no /proc."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return 0


@contextlib.contextmanager
def running(folder: Path, backend: str) -> Iterator[tuple[Process, list[Target]]]:
    """The program of this repository, with its servers; the example API runs on asyncio alone."""
    program = Program(REPO, EXAMPLE_DATABASE_PATH=str(folder / f"{backend}.db"), EXAMPLE_API_PORT="0", ADMIN_ADDR="0")
    names = (
        ["example-api", "example-catalog", "example-database", "example-flaky", "example-migrator"]
        if backend != "trio"
        else ["hello-world"]
    )
    try:
        run = program.run(*names, KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="10s", LOG_LEVEL="info")
        run.wait_for("all ready")
        found: Any = re.search(r"status and health at http://127.0.0.1:(\d+)", run.output)
        targets = [Target("the admin server", int(found[1]), "/livez")]
        api: Any = re.search(r"listening on http://127.0.0.1:(\d+)", run.output)
        targets += [Target("the example API", int(api[1]), "/")] if api else []
        yield run, targets
    finally:
        program.close()


def fuzz(folder: Path, backend: str, number: int, seconds: float, ended: threading.Event | None = None) -> int:
    """Fuzz for *seconds*, or until *ended*, and tell how many conversations there were.

    Raises:
        Broken: What went wrong, with the seed that shows it.

    """
    end, count, warm = time.monotonic() + seconds, 0, 0
    with running(folder, backend) as (run, targets):
        try:
            while time.monotonic() < end and not (ended and ended.is_set()):
                rand = random.Random(number + count)  # noqa: S311  (the same seed, the same bytes)
                for target in targets:
                    for _ in range(BATCH):
                        converse(rand, target.port)
                    target.look()
                count += BATCH * len(targets)
                if count <= WARM * BATCH * len(targets):
                    warm = rss(run.pid)
                look_at_memory(warm, rss(run.pid))
            run.send(signal.SIGTERM)
            judge(run.result())
        except (Broken, AssertionError) as error:
            what = f"HTTP on {backend}, SEED={number}, after {count} conversations: {error}"
            raise Broken(f"{what}\n{run.output[-3000:]}") from error
    return count


def look_at_memory(warm: int, now: int) -> None:
    """Complain of memory that has grown from *warm* KiB to *now*.

    Raises:
        Broken: It has.

    """
    if now > warm + GROWTH:
        raise Broken(f"its memory grew from {warm} KiB to {now} KiB")


def judge(result: Result) -> None:
    """Complain of an end that was not asked for, of restarts, and of errors of the kernel's.

    uvicorn logs errors about some requests that it refuses; those end their connection and nothing else.

    Raises:
        Broken: There are some.

    """
    bad = [one for one in result.records if one["level"] in {"error", "critical"} and one["logger"] == "kernel"]
    bad += [one for one in result.records if one.get("attempt", 1) > 1 and one["service"] != "example-flaky"]
    if result.code or bad:
        raise Broken(f"it ended with {result.code}, after {bad[:2]}")
