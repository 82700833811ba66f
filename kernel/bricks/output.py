"""Turn the output of an external program into log records of its service."""

from __future__ import annotations

import collections
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio.lowlevel
from anyio import CancelScope, Event, move_on_after, wait_readable

CHUNK = 65536  # bytes per read
LONGEST = 65536  # maximum bytes of a line; a longer line becomes several records
STEP = 50  # records after which other tasks get a turn on the event loop
BURST = 5000  # maximum lines in a burst that are all logged
RATE = 1000  # lines per second after that; with more, the app would only be logging
TAIL = 20  # last lines to keep for the error, and to log after lines were dropped
QUIET = 1.0  # seconds without a line after which a flood counts as over
INSIDE = range(0x80, 0xC0)  # bytes with which no character begins in UTF-8

ANSI = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName", "app", "version", "service", "trace_id", "span_id"),
}
LEVELS: Mapping[str, int] = {
    **dict.fromkeys(("trace", "debug", "verbose", "10", "20"), logging.DEBUG),
    **dict.fromkeys(("info", "information", "notice", "log", "30"), logging.INFO),
    **dict.fromkeys(("warn", "warning", "40"), logging.WARNING),
    **dict.fromkeys(("error", "err", "50"), logging.ERROR),
    **dict.fromkeys(("fatal", "critical", "panic", "alert", "emergency", "60"), logging.CRITICAL),
}
"""The names of levels in structured logs; the numbers are those of pino."""


class Output:
    """The lines of one stream of a program.

    Args:
        fd: The read end of its pipe, which is closed at the end.
        log: The logger for the records.
        level: The level of lines that do not set one.
        hear: Called with each line.

    """

    def __init__(self, fd: int, log: logging.Logger, level: int, hear: Callable[[str], None]) -> None:
        self.tail: collections.deque[tuple[int, str]] = collections.deque(maxlen=TAIL)
        self.scope = CancelScope(shield=True)
        self.ended = Event()
        self._fd = fd
        self._log = log
        self._level = level
        self._hear = hear
        self._rest = b""
        self._tokens = float(BURST)
        self._counted_at = time.monotonic()
        self._left_out = 0
        self._held: collections.deque[str] = collections.deque(maxlen=TAIL)
        os.set_blocking(fd, False)

    async def read(self) -> None:
        """Read until the stream ends, that is, until the program and all its descendants have ended.

        This is not cancelled from outside, since output during the stop is especially valuable.
        """
        with self.scope:
            while True:
                with move_on_after(QUIET if self._left_out else None):
                    await wait_readable(self._fd)
                try:
                    data = os.read(self._fd, CHUNK)
                except BlockingIOError:
                    self._end_flood()
                    continue
                if not data:
                    break
                await self._take(data)
            if self._rest:
                await self._take(b"\n")
        self._end_flood()
        os.close(self._fd)
        self.ended.set()

    async def _take(self, data: bytes) -> None:
        *whole, last = (self._rest + data).split(b"\n")
        lines = [piece for line in whole for piece in (_pieces(line) if len(line) > LONGEST else (line,))]
        *pieces, self._rest = _pieces(last)
        lines += pieces
        now = time.monotonic()
        self._tokens = min(self._tokens + RATE * (now - self._counted_at), BURST)
        self._counted_at = now
        allowed = int(self._tokens)
        if self._left_out and allowed < RATE:
            allowed = 0  # limit the records to a readable amount
        else:
            self._end_flood()
        self._tokens -= min(allowed, len(lines))
        for number, line in enumerate(lines[:allowed], 1):
            self._say(_text(line))
            if not number % STEP:
                await anyio.lowlevel.checkpoint()
        rest = lines[allowed:]
        if rest:
            self._left_out += len(rest)
            for line in rest[-TAIL:]:
                text = _text(line)
                self._held.append(text)
                self._remember(text)

    def _end_flood(self) -> None:
        """Log how many lines were dropped, and the last ones of them."""
        if not self._left_out:
            return
        missing = self._left_out - len(self._held)
        if missing:
            self._log.warning("%d lines are left out: the program writes more than %d a second", missing, RATE)
        self._left_out = 0
        while self._held:
            self._record(self._held.popleft())

    def _say(self, text: str) -> None:
        self._remember(text)
        self._record(text)

    def _remember(self, text: str) -> None:
        if text:
            self.tail.append((time.monotonic_ns(), text))
            self._hear(text)

    def _record(self, text: str) -> None:
        fields = _fields(text)
        level = self._level
        message = text
        if fields is not None:
            level = next((found for key in ("level", "severity", "lvl") if (found := _level(fields, key))), level)
            message = str(next((fields.pop(key) for key in ("message", "msg", "event") if key in fields), text))
        if not text or not self._log.isEnabledFor(level):
            return
        record = self._log.makeRecord(self._log.name, level, "(program)", 0, message, (), None)
        for name, value in (fields or {}).items():
            record.__dict__[f"{name}_" if name in RESERVED else name] = value
        self._log.handle(record)


def _pieces(line: bytes) -> Iterator[bytes]:
    """Yield *line* in pieces of at most LONGEST bytes, cut between characters; the same ones however it arrives."""
    start = 0
    while len(line) - start > LONGEST:
        end = start + LONGEST
        cut = next((at for at in range(end, end - 4, -1) if line[at] not in INSIDE), end)
        yield line[start:cut]
        start = cut
    yield line[start:]


def _text(line: bytes) -> str:
    """Return the line as a terminal would show it: without colours, and after the last carriage return."""
    return ANSI.sub(b"", line.rstrip(b"\r").rpartition(b"\r")[2]).decode(errors="replace").rstrip()


def _fields(text: str) -> dict[str, Any] | None:
    """Return the fields of a line if it is a JSON object; None for any other line."""
    if not text.startswith("{") or not text.endswith("}"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _level(fields: dict[str, Any], key: str) -> int | None:
    """Remove the level from the field *key* of *fields*, and return it; None if it is not a known level."""
    found = LEVELS.get(str(fields.get(key)).lower())
    if found is not None:
        del fields[key]
    return found
