"""Logging: standard `logging` through one pipeline to stderr, as text or as JSON lines.

A filter on each handler of the root logger adds context to every record: `app`, `version` and, anywhere in a service's
task tree, `service`. (A record factory cannot do that: `logging` rejects an ``extra`` with the name of an existing
attribute.)
"""

from __future__ import annotations

import contextlib
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
from kernel.errors import one_line, text_of
from kernel.identity import Identity
from kernel.observe import console, guard
from kernel.observe.journal import is_journal, prioritized
from kernel.observe.levels import Levels, set_levels
from kernel.observe.plain import escaped, json_encoder, message_of
from kernel.observe.shown import Rewritten, mask_record, masked
from kernel.observe.tracebacks import text_of_traceback


class _Logger(logging.Logger):
    """A logger that works regardless of how logging is configured, and survives failing handlers.

    A handler that fails is reported to the other handlers and disabled. Kept handlers are called even if a library has
    removed them from the root logger.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  (logging's name)
        return level >= self.getEffectiveLevel()  # `logging.disable` affects libraries only

    def handle(self, record: logging.LogRecord) -> None:
        self.callHandlers(record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802
        asked: list[logging.Handler] = []
        source: logging.Logger | None = self
        while source is not None:
            for handler in list(source.handlers):
                if guard.armed and handler not in guard.kept and guard.on_console(handler):
                    continue  # it would be printed twice
                asked.append(handler)
                self._ask(handler, record, source)
            source = source.parent if source.propagate else None
        for handler in list(guard.kept):
            if handler not in asked:
                asked.append(handler)
                self._ask(handler, record, logging.getLogger())
        if not asked and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)
        try:
            guard.tell_hook(record)
        except BaseException as error:  # noqa: ASYNC103, BLE001  (the hook is not ours)
            guard.unhook()
            self.error("a hook of Logger.callHandlers failed and was removed", exc_info=error)

    def _ask(self, handler: logging.Handler, record: logging.LogRecord, whose: logging.Logger) -> None:
        if record.levelno < handler.level:
            return
        try:
            handler.handle(record)
        except BaseException as error:  # noqa: ASYNC103, BLE001  (the handler is not ours)
            guard.drop(handler)
            whose.removeHandler(handler)
            self.error("log handler %r failed and was disabled", handler, exc_info=error)


logger = logging.getLogger("kernel")
logger.__class__ = _Logger  # also if another module has asked for it before

LIFECYCLE = frozenset({"state", "previous", "attempt", "seconds", "reason"})
"""Fields of the kernel's own lifecycle records."""

_CONTEXT = ("app", "version", "service", "trace_id", "span_id")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "_told", *_CONTEXT}
_LENGTHS = {"trace_id": 32, "span_id": 16}  # hexadecimal digits
REDUNDANT = frozenset({"color_message"})
"""Extra fields that repeat the message: uvicorn's, with escapes for its own formatter."""


_levels: Levels | None = None
"""The filter of each handler, if a service has its own level."""


def no_phase(_: str) -> Any:
    """Return no span: the default if the phases of services have no spans."""
    return None


phase_of: Callable[[str], Any] = no_phase
"""Returns the context of the span for the current phase of a service, if there is one."""


def no_span(_: BaseException) -> Any:
    """Return no span: the default if nothing is traced."""
    return None


left_by: Callable[[BaseException], Any] = no_span
"""Returns the context of the span that an exception has just left, if there is one."""


def _span_ids(service: str, error: BaseException | None) -> tuple[str, str]:
    """Return the trace id and span id for a record of *service* about *error*; empty if there is no span."""
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None:  # not imported, or another thread is importing it
        return "", ""
    # A transition may be reported in the context of the service that caused it, whose span is not the right one.
    span = current_span().get_span_context() if service == current_service.get() else None
    if span is None or not span.is_valid:
        span = (left_by(error) if error is not None else None) or phase_of(service)
    return (f"{span.trace_id:032x}", f"{span.span_id:016x}") if span is not None else ("", "")


class Context(logging.Filter):
    """Adds to each record the context in which it was created."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._fields = {"app": identity.name, "version": identity.version}

    def filter(self, record: logging.LogRecord) -> bool:
        """Add missing fields; keep fields that were set by ``extra``."""
        fields = record.__dict__
        if "_told" in fields:  # set by another handler's filter
            return True
        fields["_told"] = True
        if "service" not in fields:
            fields["service"] = current_service.get()
        for name, value in self._fields.items():
            fields.setdefault(name, value)
        if not all(_is_id(fields.get(name), length) for name, length in _LENGTHS.items()):
            for name in _LENGTHS.keys() & fields.keys():  # the user has given this name to another field
                fields[f"extra_{name}"] = fields[name]
            fields["trace_id"], fields["span_id"] = _span_ids(
                fields["service"], record.exc_info[1] if record.exc_info else None
            )
        mask_record(record, text_of_traceback)
        return True


def _is_id(value: object, length: int) -> bool:
    return isinstance(value, str) and len(value) == length and value.isalnum() and _is_hexadecimal(value)


def _is_hexadecimal(text: str) -> bool:
    try:
        return any(bytes.fromhex(text))
    except ValueError:
        return False


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields given as ``extra``."""
    fields = record.__dict__
    if fields.keys() <= _STANDARD:  # the usual case: ten times as fast as checking each name
        return {}
    return {name: value for name, value in fields.items() if name not in _STANDARD and name not in REDUNDANT}


class _Formatter(logging.Formatter):
    """The base of both formats: the first frame of tracebacks, and the record's source."""

    def __init__(self, *, source: bool, folded: bool = False) -> None:
        super().__init__()
        self._source = source
        self._folded = folded
        self._second = -1
        self._clock = ""

    def _time(self, record: logging.LogRecord, form: str, convert: Callable[[float], time.struct_time]) -> str:
        """Return its time to the second, cached since many records share it: formatting takes as long as the rest."""
        second = int(record.created)
        if second != self._second:
            self._clock, self._second = time.strftime(form, convert(second)), second
        return self._clock

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        return text_of_traceback(ei[1], folded=self._folded)

    def _where(self, record: logging.LogRecord) -> str:
        return f"{record.pathname}:{record.lineno}"


class JsonFormatter(_Formatter):
    """Format records as one JSON object per line."""

    def __init__(self, *, source: bool) -> None:
        super().__init__(source=source)
        self._encode = json_encoder()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON. An extra field named like one of ours becomes ``extra_<name>``."""
        micros = int(record.created % 1 * 1_000_000)
        fields: dict[str, Any] = {
            "ts": f"{self._time(record, '%Y-%m-%dT%H:%M:%S', time.gmtime)}.{micros:06d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        for name in _CONTEXT:
            value = record.__dict__.get(name)
            if value:
                fields[name] = value
        given = extras(record)
        if self._source:
            fields["source"] = self._where(record)
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = one_line(record.exc_info[1])
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        for name, value in given.items():
            fields[f"extra_{name}" if name in fields else name] = value
        return self._encode(fields)


class TextFormatter(_Formatter):
    """Aligned text for people, with a column for the service; coloured on a terminal.

    Args:
        width: The width of the service's column.
        colour: Whether to use colour.
        source: Whether each record shows its file and line.
        folded: Whether to fold frames of libraries in tracebacks.
        clock: Whether each line begins with the time.

    """

    LEVELS: Mapping[int, str] = {
        logging.DEBUG: "2",
        logging.WARNING: "33",
        logging.ERROR: "31",
        logging.CRITICAL: "1;31",
    }
    SERVICES = ("36", "35", "34", "32", "96", "95", "94", "92")

    def __init__(self, width: int, *, colour: bool, source: bool, folded: bool = False, clock: bool = True) -> None:
        super().__init__(source=source, folded=folded)
        self._told_time = clock
        self._width = width
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, with its traceback indented below."""
        service = escaped(text_of(record.__dict__.get("service") or record.name))
        message = escaped(message_of(record))
        shown = extras(record) if record.name != logger.name else {}  # the message already contains everything
        if shown:
            message += self._paint(escaped("".join(f" {name}={text_of(value)}" for name, value in shown.items())), "2")
        if self._source:
            message += self._paint(f" ({self._where(record)})", "2")
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + escaped(self.formatException(record.exc_info))
        if record.stack_info:
            message += "\n" + escaped(record.stack_info)
        parts = [f"{escaped(record.levelname):<8}", f"{service:<{self._width}}"]
        if self._colour:
            codes = [self.LEVELS.get(record.levelno, ""), self._of(service)]
            parts = [self._paint(part, code) for part, code in zip(parts, codes, strict=True)]
        if self._told_time:
            clock = self._time(record, "%H:%M:%S", time.localtime)
            parts.insert(0, self._paint(f"{clock}.{int(record.msecs):03d}", "2"))
        return f"{' '.join(parts)}  " + message.replace("\n", "\n    ")

    def _of(self, service: str) -> str:
        return self.SERVICES[sum(service.encode()) % len(self.SERVICES)]  # hash() differs from run to run

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to stderr if possible; failures to write are not reported."""

    ending = False
    """Whether only the last line is written. A thread that waits for the lock has passed all filters by now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, even in a signal handler that has interrupted another write."""
        if self.ending and not _is_last_line(record):
            return
        text = self.format(record) + self.terminator
        try:
            self.stream.write(text)
            self.stream.flush()
        except RuntimeError:  # reentrant write
            with contextlib.suppress(OSError, ValueError):
                os.write(self.stream.fileno(), text.encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001  (logging must not fail for the caller)
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Ignore the failure: stderr is closed or full."""


def _coloured(stream: TextIO) -> bool:
    """Return whether to use colour, according to NO_COLOR and FORCE_COLOR, else whether *stream* is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def configure(settings: Settings, identity: Identity, names: tuple[str, ...] = ()) -> None:
    """Set up the pipeline: one handler on the root logger, including warnings and uncaught exceptions.

    Args:
        settings: Level and format.
        identity: The app's name and version.
        names: The services whose names should fit in the column.

    """
    console.prepare()
    width = min(max((len(name) for name in names), default=len("kernel")), 28)
    formatter: logging.Formatter
    journal = is_journal(sys.stderr) and not settings.log_json  # a JSON record is one line, and contains its level
    if settings.log_json:
        formatter = JsonFormatter(source=settings.log_source)
    else:
        folded = sys.stderr.isatty() if settings.log_folded is None else settings.log_folded
        colour = _coloured(sys.stderr)
        formatter = TextFormatter(width, colour=colour, source=settings.log_source, folded=folded, clock=not journal)
    handler = _ToStderr(sys.stderr)
    shown = masked(formatter)
    if journal:
        shown = Rewritten(shown, lambda text, record: prioritized(text, record.levelno))
    handler.setFormatter(shown)
    guard.install()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    global _levels  # noqa: PLW0603  (there is one pipeline)
    _levels = set_levels(settings.log_level, names, logger)
    add_context(identity)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def add_context(identity: Identity) -> None:
    """Configure handlers that `app/init.py` has added to the root logger like the kernel's own."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(added, Context) for added in handler.filters):
            handler.addFilter(Context(identity))
            if _levels is not None:
                handler.addFilter(_levels)


def keep_handler(handler: logging.Handler) -> None:
    """Keep *handler* from now on, even if a library configures logging."""
    guard.keep(handler)


def drop_handler(handler: logging.Handler) -> None:
    """Stop passing records to *handler*."""
    guard.drop(handler)
    logging.getLogger().removeHandler(handler)


def keep_handlers() -> None:
    """Keep the root logger's handlers, from now on, when a library configures logging."""
    guard.arm()


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


def only_last_line() -> None:
    """Write nothing to stderr from now on but the line with the exit code, whatever threads and libraries log."""
    for handler in (*logging.getLogger().handlers, *guard.kept):
        if isinstance(handler, _ToStderr):
            handler.ending = True


def _is_last_line(record: logging.LogRecord) -> bool:
    """Return whether *record* has the exit code, or says why there is no such record."""
    return record.name == "kernel" and (
        "exit_code" in record.__dict__ or record.thread == threading.main_thread().ident
    )


def say_forced_exit(code: int, name: str) -> None:
    """Log that the signal *name* ends the process at once, with exit *code*."""
    message = "exit %d: received another signal (%s); exiting now without clean-up"
    logger.critical(message, code, name, extra={"exit_code": code})
    flush()


def flush() -> None:
    """Flush every handler of the root logger, and standard output, if possible."""
    for handler in logging.getLogger().handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
