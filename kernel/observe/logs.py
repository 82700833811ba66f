"""Logging: standard `logging` from everywhere through one pipeline to stderr, as text or as JSON lines.

A filter on each handler of the root logger gives every record its context: `app`, `version` and, from anywhere in a
service's task tree, `service`. (A record factory could not: `logging` refuses an ``extra`` that names an attribute
which the record has already.)
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

from kernel.config.settings import Settings
from kernel.context import current_service
from kernel.errors import one_line
from kernel.identity import Identity
from kernel.observe.shown import Masked, mask_record, traceback_text
from kernel.stacks import without_kernel


class _Logger(logging.Logger):
    """Takes no harm from a handler of somebody else's: one that fails is reported to the others, and asked no more."""

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        asked = False
        one: logging.Logger | None = self
        while one is not None:
            for handler in list(one.handlers):
                asked = True
                if record.levelno >= handler.level:
                    self._ask(handler, record, one)
            one = one.parent if one.propagate else None
        if not asked and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)

    def _ask(self, handler: logging.Handler, record: logging.LogRecord, whose: logging.Logger) -> None:
        try:
            handler.handle(record)
        except Exception as error:  # noqa: BLE001  (it is not ours)
            whose.removeHandler(handler)
            self.error("log handler %r failed and was disabled", handler, exc_info=error)


def _make_logger() -> logging.Logger:
    usual = logging.getLoggerClass()
    logging.setLoggerClass(_Logger)
    try:
        return logging.getLogger("kernel")
    finally:
        logging.setLoggerClass(usual)


logger = _make_logger()

LIFECYCLE = frozenset({"state", "previous", "attempt", "seconds", "reason"})
"""Fields of lifecycle records, which their text says already."""

_CONTEXT = ("app", "version", "service", "trace_id", "span_id")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *_CONTEXT}


def no_phase(_: str) -> Any:
    """What holds where phases of services have no spans."""
    return None


phase_of: Callable[[str], Any] = no_phase
"""Gives the context of the span that stands for the present phase of a service's life, if there is one."""


def _span_ids(service: str) -> tuple[str, str]:
    """The ids of the trace and the span that a record of *service* is made in; empty where it is in none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return "", ""
    # A move of one service is told in the context of another that has led to it, whose span is not meant.
    span = trace.get_current_span().get_span_context() if service == current_service.get() else None
    if span is None or not span.is_valid:
        span = phase_of(service)
    return (f"{span.trace_id:032x}", f"{span.span_id:016x}") if span is not None else ("", "")


class Context(logging.Filter):
    """Gives each record the context in which it was made."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._fields = {"app": identity.name, "version": identity.version}

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is not there; keep what an ``extra`` has set."""
        fields = record.__dict__
        if "service" not in fields:
            fields["service"] = current_service.get()
        for name, value in self._fields.items():
            fields.setdefault(name, value)
        if "trace_id" not in fields:
            fields["trace_id"], fields["span_id"] = _span_ids(fields["service"])
        mask_record(record, text_of_traceback)
        return True


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``."""
    fields = record.__dict__
    if fields.keys() <= _STANDARD:  # as most are: ten times as fast as a look at each
        return {}
    return {name: value for name, value in fields.items() if name not in _STANDARD}


def text_of_traceback(error: BaseException) -> str:
    """Its traceback, without the kernel's own lines; without secrets, and of a bounded length."""
    return traceback_text(error, without_kernel(error))


class _Formatter(logging.Formatter):
    """What both formats share: where tracebacks begin, and the record's source."""

    def __init__(self, *, source: bool) -> None:
        super().__init__()
        self._source = source
        self._second = -1
        self._clock = ""

    def _time(self, record: logging.LogRecord, form: str, convert: Callable[[float], time.struct_time]) -> str:
        """Its time to the second, which many records share: to format that takes as long as all the rest."""
        second = int(record.created)
        if second != self._second:
            self._clock, self._second = time.strftime(form, convert(second)), second
        return self._clock

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        return text_of_traceback(ei[1])

    def _where(self, record: logging.LogRecord) -> str:
        return f"{record.pathname}:{record.lineno}"


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def __init__(self, *, source: bool) -> None:
        super().__init__(source=source)
        import json  # only where the logs are JSON

        self._encode = json.JSONEncoder(default=str, ensure_ascii=False).encode

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        micros = int(record.created % 1 * 1_000_000)
        fields: dict[str, Any] = {
            "ts": f"{self._time(record, '%Y-%m-%dT%H:%M:%S', time.gmtime)}.{micros:06d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _CONTEXT:
            value = record.__dict__.get(name)
            if value:
                fields[name] = value
        fields.update((name, value) for name, value in extras(record).items() if name not in fields)
        if self._source:
            fields["source"] = self._where(record)
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = one_line(record.exc_info[1])
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return self._encode(fields)


class TextFormatter(_Formatter):
    """Aligned text for people, with a column for the service; coloured on a terminal.

    Args:
        width: The width of the service's column.
        colour: Whether to colour.
        source: Whether each record names its file and line.

    """

    LEVELS: Mapping[int, str] = {
        logging.DEBUG: "2",
        logging.WARNING: "33",
        logging.ERROR: "31",
        logging.CRITICAL: "1;31",
    }
    SERVICES = ("36", "35", "34", "32", "96", "95", "94", "92")

    def __init__(self, width: int, *, colour: bool, source: bool) -> None:
        super().__init__(source=source)
        self._width = width
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and its traceback indented below it."""
        clock = self._time(record, "%H:%M:%S", time.localtime)
        service = record.__dict__.get("service") or record.name
        message = record.getMessage()
        shown = {name: value for name, value in extras(record).items() if name not in LIFECYCLE}
        if shown and record.name != logger.name:
            message += self._paint("".join(f" {name}={value}" for name, value in shown.items()), "2")
        if self._source:
            message += self._paint(f" ({self._where(record)})", "2")
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            message += "\n" + record.stack_info
        parts = [f"{clock}.{int(record.msecs):03d}", f"{record.levelname:<8}", f"{service:<{self._width}}"]
        if self._colour:
            codes = ["2", self.LEVELS.get(record.levelno, ""), self._of(service)]
            parts = [self._paint(part, code) for part, code in zip(parts, codes, strict=True)]
        return f"{' '.join(parts)}  " + message.replace("\n", "\n    ")

    def _of(self, service: str) -> str:
        return self.SERVICES[sum(service.encode()) % len(self.SERVICES)]  # hash() differs from run to run

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text


def _coloured(stream: TextIO) -> bool:
    """By the conventions of NO_COLOR and FORCE_COLOR, else whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def configure(settings: Settings, identity: Identity, names: tuple[str, ...] = ()) -> None:
    """Set the pipeline up: one handler on the root logger, warnings and uncaught exceptions included.

    Args:
        settings: Level and format.
        identity: The app's name and version.
        names: The services whose names should fit into the column.

    """
    if sys.stderr is None:  # closed by who started us: the next file to be opened would get its number, and our words
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    width = min(max((len(name) for name in names), default=len("kernel")), 28)
    formatter: logging.Formatter
    if settings.log_json:
        formatter = JsonFormatter(source=settings.log_source)
    else:
        formatter = TextFormatter(width, colour=_coloured(sys.stderr), source=settings.log_source)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Masked(formatter))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    add_context(identity)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def add_context(identity: Identity) -> None:
    """Give the handlers that `app/init.py` has added to the root logger what the kernel's own has."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(one, Context) for one in handler.filters):
            handler.addFilter(Context(identity))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: Any) -> None:
    if args.exc_value is not None:
        name = args.thread.name if args.thread else "?"
        logger.critical(
            "uncaught exception in thread %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )


def _log_unraisable(args: Any) -> None:
    if args.exc_value is not None:
        logger.error(
            "%s: %r",
            args.err_msg or "exception ignored in",
            args.object,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def say_forced_exit(code: int, name: str) -> None:
    """Say that the signal *name* ends the process at once, with exit *code*."""
    message = "exit %d: received another signal (%s); exiting now without clean-up"
    logger.critical(message, code, name, extra={"exit_code": code})
    flush()


def flush() -> None:
    """Flush every handler of the root logger, and what was printed."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    if sys.stdout is not None:
        sys.stdout.flush()
