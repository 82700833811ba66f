"""The pipeline of log records: the logger, what is added to each record, both formats, and how it is set up."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from kernel.config.settings import read_settings
from kernel.context import current_service
from kernel.identity import Identity
from kernel.observe import guard, logs
from kernel.observe.logs import Context, JsonFormatter, TextFormatter
from tests.observe.untouched import logging_untouched

IDENTITY = Identity("app", "1.2", "")
TRACE, SPAN = "a" * 32, "b" * 16


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, which has no handler yet."""
    with logging_untouched() as found:
        guard.install()
        yield found


class Keeps(logging.Handler):
    """Keeps records, or fails."""

    def __init__(self, level: int = logging.NOTSET, error: BaseException | None = None) -> None:
        super().__init__(level)
        self.error = error
        self.records: list[logging.LogRecord] = []

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep it."""
        if self.error is not None:
            raise self.error
        self.records.append(record)
        return True

    @property
    def texts(self) -> list[str]:
        """Their messages."""
        return [record.getMessage() for record in self.records]


def record(message: str = "text", levelno: int = logging.INFO, **more: Any) -> logging.LogRecord:
    """A record with extra fields."""
    made = logging.LogRecord("some.where", levelno, "/x/f.py", 7, message, (), None)
    made.created, made.msecs = 1_000_000_000.123456, 123.456
    made.__dict__.update(more)
    return made


# -- the logger ------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> logging.Logger:
    """One of the kernel's kind, without parents."""
    made = logs._Logger("tests.kernel")
    made.setLevel("INFO")
    return made


def test_each_handler_is_asked_once(logger: logging.Logger) -> None:
    """Those of the logger and its parents, as far as it propagates, and those that are kept, if the level is theirs."""
    near, far, kept, grave = Keeps(), Keeps(), Keeps(), Keeps(logging.ERROR)
    parent = logs._Logger("parent")
    parent.handlers = [far, kept]
    logger.parent, logger.handlers = parent, [near, grave]
    guard.kept[:] = [kept, near]
    logger.info("one")
    logger.error("two")
    logger.propagate = False
    logger.debug("less than its level")
    logger.info("three")
    assert [handler.texts for handler in (near, far, kept, grave)] == [
        ["one", "two", "three"],
        ["one", "two"],
        ["one", "two", "three"],
        ["two"],
    ]


def test_what_silences_libraries_does_not_silence_the_kernel(logger: logging.Logger) -> None:
    """Neither `logging.disable` nor being disabled."""
    logger.handlers = [handler := Keeps()]
    logger.disabled = True
    logging.disable(logging.CRITICAL)
    try:
        logger.info("one")
    finally:
        logging.disable(logging.NOTSET)
    assert handler.texts == ["one"]


def test_a_handler_that_a_library_prints_with(logger: logging.Logger) -> None:
    """It is passed over once the app's own are complete, since these print the record too."""
    printing = logging.StreamHandler(sys.stderr)
    printing.handle = (calls := []).append  # type: ignore[method-assign, assignment, var-annotated]
    own, quiet = Keeps(), Keeps()
    logger.handlers = [printing, quiet]
    guard.kept[:] = [own]
    logger.info("before")
    guard.armed = True
    logger.info("after")
    guard.kept[:] = [own, printing]
    logger.info("kept")
    assert [call.getMessage() for call in calls] == ["before", "kept"]
    assert own.texts == quiet.texts == ["before", "after", "kept"]


@pytest.mark.parametrize("error", [ValueError("full"), KeyboardInterrupt()], ids=["error", "not even an Exception"])
def test_a_handler_that_fails(logger: logging.Logger, error: BaseException) -> None:
    """It is disabled, which the others are told; each of them has the record."""
    before, fails, after = Keeps(), Keeps(error=error), Keeps()
    logger.handlers = [before, fails, after]
    guard.kept[:] = [fails]
    logger.warning("one")
    logger.warning("two")
    assert before.texts == ["one", f"log handler {fails!r} failed and was disabled", "two"]
    assert after.texts == [f"log handler {fails!r} failed and was disabled", "one", "two"]
    assert before.records[1].exc_info
    assert before.records[1].exc_info[1] is error
    assert (logger.handlers, guard.kept) == ([before, after], [])


def test_a_kept_handler_that_fails_where_a_library_has_removed_it(logger: logging.Logger) -> None:
    """It is kept no more."""
    guard.kept[:] = [Keeps(error=ValueError()), own := Keeps()]
    logger.info("one")
    assert guard.kept == [own]
    assert own.texts[-1] == "one"


def test_without_handlers(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is grave is printed, as Python does, unless even that was turned off."""
    logger.warning("grave")
    logger.info("not so")
    logger.handlers = [Keeps()]
    logger.warning("handled")
    logger.handlers, guard.kept[:] = [], [Keeps()]
    logger.warning("kept")
    guard.kept.clear()
    assert capsys.readouterr().err == "grave\n"
    monkeypatch.setattr(logging, "lastResort", None)
    logger.warning("nobody")
    assert capsys.readouterr().err == ""


def test_a_hook_that_fails(logger: logging.Logger) -> None:
    """It is removed, which is said; the record is handled all the same."""
    logger.handlers = [own := Keeps()]

    def hook(*_: object) -> None:
        raise ValueError("hook")

    original = logging.Logger.callHandlers
    logging.Logger.callHandlers = hook  # type: ignore[method-assign, assignment]
    logger.info("one")
    logger.info("two")
    assert own.texts == ["one", "a hook of Logger.callHandlers failed and was removed", "two"]
    assert logging.Logger.callHandlers is original


# -- what is added to each record ------------------------------------------------------------------------------------


def test_the_context_of_a_record() -> None:
    """The app, its version and the service whose code logs; what the record says itself stays."""
    token = current_service.set("db")
    try:
        usual, own = record(), record(service="api", app="other", version="7")
        assert Context(IDENTITY).filter(usual)
        assert Context(IDENTITY).filter(own)
    finally:
        current_service.reset(token)
    about = [(one.__dict__["app"], one.__dict__["version"], one.__dict__["service"]) for one in (usual, own)]
    assert about == [("app", "1.2", "db"), ("other", "7", "api")]
    assert Context(Identity("second", "2", "")).filter(usual)  # of another handler
    assert usual.__dict__["app"] == "app"


def test_the_span_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that its code is in, if the record is of this service; then the one that its error left; then a phase."""
    here, left, phase = (SpanContext(number, number + 1, is_remote=False) for number in (16, 32, 48))
    monkeypatch.setattr(logs, "left_by", {"boom": left}.get)
    monkeypatch.setattr(logs, "phase_of", {"db": phase}.get)

    def ids(error: str = "", **more: Any) -> tuple[int, int]:
        made = record(**more)
        if error:
            made.exc_info = (ValueError, error, None)  # type: ignore[assignment]
        found: Any = {}
        monkeypatch.setattr(logs, "mask_record", lambda one, _: found.update(vars(one)))
        Context(IDENTITY).filter(made)
        assert (len(found["trace_id"]), len(found["span_id"])) in {(32, 16), (0, 0)}
        return int(found["trace_id"] or "0", 16), int(found["span_id"] or "0", 16)

    with trace.use_span(NonRecordingSpan(here)):
        assert ids() == (16, 17)
        assert ids("boom") == (16, 17)
        assert ids(service="db") == (48, 49)
        assert ids("boom", service="db") == (32, 33)
        assert ids(service="api") == (0, 0)
    assert ids("boom") == (32, 33)
    assert ids("other") == (0, 0)


@pytest.mark.parametrize(
    ("trace_id", "span_id", "own"),
    [
        (TRACE, SPAN, True),
        ("A1" * 16, "00" + "0f" * 7, True),
        ("\u0661" * 32, SPAN, False),
        (TRACE, "", False),
        (TRACE, "b" * 15, False),
        (TRACE, "x" * 16, False),
        (TRACE, "0" * 16, False),
        (TRACE, " " + "b" * 15, False),
        ("0x" + "a" * 30, SPAN, False),
        ("_".join(["a" * 15, "a" * 16]), SPAN, False),
        (7, 8, False),
    ],
)
def test_ids_that_the_user_gives(trace_id: object, span_id: object, own: bool) -> None:
    """They stay if they are ids; else they are fields of that name which are something else."""
    made = record(trace_id=trace_id, span_id=span_id)
    Context(IDENTITY).filter(made)
    fields = made.__dict__
    told = (trace_id, span_id)
    assert (fields["trace_id"], fields["span_id"]) == (told if own else ("", ""))
    assert (fields.get("extra_trace_id"), fields.get("extra_span_id")) == ((None, None) if own else told)


# -- the formats -----------------------------------------------------------------------------------------------------


def failed() -> logging.LogRecord:
    """A record with an error, and a stack."""
    made = record("failed", logging.ERROR, stack_info="Stack:\n  here")
    made.exc_info = (ValueError, ValueError("boom"), None)
    return made


def as_json(made: logging.LogRecord, *, source: bool = False) -> dict[str, Any]:
    """The record as it is read from a line."""
    line = JsonFormatter(source=source).format(made)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_json() -> None:
    """What is empty is left out; fields of the user's with one of our names are told as such."""
    usual = {"ts": "2001-09-09T01:46:40.123456Z", "level": "info", "logger": "some.where", "message": "text"}
    assert as_json(record()) == usual
    late = record()
    late.created = 1_000_000_000.9999995
    assert as_json(late)["ts"] == "2001-09-09T01:46:40.999999Z"
    assert as_json(record(service="db", app="", version="1")) == {**usual, "service": "db", "version": "1"}
    assert as_json(record(level="loud", n=1, color_message="text")) == {**usual, "extra_level": "loud", "n": 1}
    assert as_json(record(source="mine"), source=True) == {**usual, "source": "/x/f.py:7", "extra_source": "mine"}
    assert as_json(record(source="mine")) == {**usual, "source": "mine"}
    broken = as_json(failed())
    assert broken["error"] == "ValueError: boom"
    assert broken["exception"] == "ValueError: boom"
    assert broken["stack"] == "Stack:\n  here"
    bare = record()
    bare.exc_info = (None, None, None)  # of `log.exception` where there is none
    assert as_json(bare) == usual


def as_text(made: logging.LogRecord, **options: Any) -> str:
    """The record as a line, without the time."""
    given = {"colour": False, "source": False, "clock": False, **options}
    return TextFormatter(8, **given).format(made)


def test_text() -> None:
    """The level, the service or else the logger, the message, what was given with it, and what is told below it."""
    assert as_text(record(service="db")) == "INFO     db        text"
    assert as_text(record("a\nb", n=1, color_message="x")) == "INFO     some.where  a\n    b n=1"
    assert as_text(record(service="db"), source=True) == "INFO     db        text (/x/f.py:7)"
    kernels = record(service="db", state="ready")
    kernels.name = "kernel"
    assert as_text(kernels) == "INFO     db        text"
    assert as_text(failed()) == "ERROR    some.where  failed\n    ValueError: boom\n    Stack:\n      here"
    bare = record(service="db")
    bare.exc_info = (None, None, None)
    assert as_text(bare) == "INFO     db        text"


def test_text_with_the_time() -> None:
    """To the millisecond; it goes on."""
    formatter = TextFormatter(8, colour=False, source=False)
    lines = []
    for seconds in (0, 0, 1, 61):
        made = record(service="db")
        made.created += seconds
        lines.append(formatter.format(made))
    assert [line[2:] for line in lines] == [
        *[f":46:40.123 {'INFO':<8} {'db':<8}  text"] * 2,
        f":46:41.123 {'INFO':<8} {'db':<8}  text",
        f":47:41.123 {'INFO':<8} {'db':<8}  text",
    ]


@pytest.mark.parametrize(
    ("level", "code"), [("DEBUG", "2"), ("INFO", ""), ("WARNING", "33"), ("ERROR", "31"), ("CRITICAL", "1;31")]
)
def test_colours(level: str, code: str) -> None:
    """Of the level, the service, and what is less important."""
    made = record("text", logging.getLevelNamesMapping()[level], service="db", n=1)
    shown = f"\x1b[{code}m{level:<8}\x1b[0m" if code else f"{level:<8}"
    line = as_text(made, colour=True, source=True)
    service = f"\x1b[{TextFormatter.SERVICES[sum(b'db') % 8]}mdb      \x1b[0m"
    assert line == f"{shown} {service}  text\x1b[2m n=1\x1b[0m\x1b[2m (/x/f.py:7)\x1b[0m"
    clocked = as_text(made, colour=True, clock=True)
    assert clocked.startswith("\x1b[2m")
    assert clocked.partition(" ")[0].endswith(":46:40.123\x1b[0m")


@pytest.mark.parametrize(
    ("env", "terminal", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_who_wants_colour(env: dict[str, str], terminal: bool, colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal does, unless somebody has said otherwise."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    stream = SimpleNamespace(isatty=lambda: terminal)
    assert logs._coloured(stream) is colour  # type: ignore[arg-type]


# -- how it is set up ------------------------------------------------------------------------------------------------


class Output:
    """A standard error that can write little, as one of some systems; it is there from `configured` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self._raw = monkeypatch, io.BytesIO()
        self.stream = io.TextIOWrapper(self._raw, encoding="ascii")
        for name in ("FORCE_COLOR", "JOURNAL_STREAM"):
            monkeypatch.delenv(name, raising=False)

    def configured(self, *names: str, **env: str) -> None:
        """Set the pipeline up as a run does."""
        self._monkeypatch.setattr(sys, "stderr", self.stream)
        settings, errors = read_settings({"LOG_FORMAT": "text", **env})
        assert not errors
        logs.configure(settings, IDENTITY, names)

    @property
    def lines(self) -> list[str]:
        """What was written."""
        return self._raw.getvalue().decode().splitlines()


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Nothing was written yet."""
    return Output(monkeypatch)


def test_one_handler_prints_all(root: logging.Logger, output: Output) -> None:
    """Also characters that the stream lacks, and warnings; errors that nobody caught are logged with their place."""
    output.configured("db", "a-longer-name")
    assert len(root.handlers) == 1
    logging.getLogger("lib").info("größe", extra={"service": "db"})
    logging.getLogger("lib").debug("less than the level")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    sys.excepthook(ValueError, ValueError("main"), None)
    thread = threading.Thread(name="worker")
    for value, of in ((ValueError("thread"), thread), (ValueError("no thread"), None), (None, thread)):
        threading.excepthook(SimpleNamespace(exc_type=ValueError, exc_value=value, exc_traceback=None, thread=of))  # type: ignore[arg-type]
    for value in (ValueError("late"), None):
        for message in ("in a finalizer", None):
            about = {"exc_type": ValueError, "exc_value": value, "exc_traceback": None}
            sys.unraisablehook(SimpleNamespace(**about, err_msg=message, object=7))
    lines = [line[13:] for line in output.lines if not line.startswith(" ")]
    assert lines[0] == "INFO     db             gr\\xf6\\xdfe"
    assert "UserWarning: old" in lines[1]
    assert lines[2:] == [
        "CRITICAL kernel         uncaught exception",
        "CRITICAL kernel         uncaught exception in thread worker",
        "CRITICAL kernel         uncaught exception in thread ?",
        "ERROR    kernel         in a finalizer: 7",
        "ERROR    kernel         exception ignored in: 7",
    ]
    assert [line.strip() for line in output.lines if "ValueError" in line] == [
        *(f"ValueError: {what}" for what in ("main", "thread", "no thread", "late", "late"))
    ]


@pytest.mark.parametrize(("names", "width"), [((), 6), (("a",), 1), (("a", "bcd"), 3), (("x" * 100, "a"), 28)])
def test_the_width_of_the_services(names: tuple[str, ...], width: int, output: Output) -> None:
    """That of the longest name, within reason."""
    output.configured(*names)
    logging.getLogger("lib").info("text", extra={"service": "a"})
    assert output.lines[0][13:] == f"INFO     {'a':<{width}}  text"


def test_as_json_and_with_the_source(output: Output) -> None:
    """As the settings say."""
    output.configured(LOG_FORMAT="json", LOG_ADD_SOURCE="true")
    logging.getLogger("lib").info("text")
    (line,) = output.lines
    found = json.loads(line)
    assert (found["message"], found["app"], found["version"]) == ("text", "app", "1.2")
    assert __file__ in found["source"]


def test_levels_of_services_hold_for_every_handler(root: logging.Logger, output: Output) -> None:
    """Also for those that the app adds; each is configured once."""
    output.configured("db", LOG_LEVEL="warning,db=debug")
    root.addHandler(own := Keeps())
    logs.add_context(IDENTITY)
    logs.add_context(IDENTITY)
    assert [[type(one).__name__ for one in handler.filters] for handler in root.handlers] == [["Context", "Levels"]] * 2
    logging.getLogger("lib").info("none")
    logging.getLogger("lib").debug("text", extra={"service": "db"})
    assert len(output.lines) == 1
    output.configured("db")
    assert [type(one).__name__ for one in root.handlers[0].filters] == ["Context"]
    assert own not in root.handlers


def test_each_run_begins_without_what_was_kept(root: logging.Logger, output: Output) -> None:
    """As when commands are called one after the other in one process."""
    guard.keep(before := Keeps())
    guard.arm()
    root.__class__ = logging.RootLogger
    output.configured()
    assert (guard.kept, guard.armed) == ([], False)
    assert type(root) is not logging.RootLogger
    logs.logger.info("one")
    assert before.texts == []


def test_a_handler_that_comes_and_goes(root: logging.Logger, output: Output) -> None:
    """While it is kept it gets the kernel's records, wherever it is; then none."""
    output.configured()
    own = Keeps()
    root.addHandler(own)
    logs.keep_handler(own)
    logs.keep_handlers()
    assert guard.armed
    root.removeHandler(own)
    logs.logger.info("one")
    root.addHandler(own)
    logs.drop_handler(own)
    logs.logger.info("two")
    assert own.texts == ["one"]
    assert own not in root.handlers
    assert len(output.lines) == 2


class Flushes(Keeps):
    """Counts how often it is flushed."""

    flushed = 0

    def flush(self) -> None:
        """Count, or fail."""
        self.flushed += 1
        if self.error is not None:
            raise self.error


def test_the_last_line_is_flushed(root: logging.Logger, monkeypatch: pytest.MonkeyPatch, output: Output) -> None:
    """As is all that comes before it, whatever fails on the way; the signal and the code are in it."""
    own, fails = Flushes(), Flushes(error=ValueError())
    root.handlers[:] = [fails, own]
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", output.stream)
    output.stream.write("before")
    logs.flush()
    assert (own.flushed, fails.flushed, output.lines) == (1, 1, ["before"])
    fails.error = None
    logs.say_forced_exit(143, "SIGTERM")
    assert own.texts == ["exit 143: received another signal (SIGTERM); exiting now without clean-up"]
    assert own.records[0].__dict__["exit_code"] == 143
    assert (own.flushed, fails.flushed) == (2, 2)


def test_the_last_line_is_the_last(root: logging.Logger, output: Output) -> None:
    """What threads and libraries say after it is not written; a handler of the user's own gets all."""
    output.configured("db")
    own = Keeps()
    root.addHandler(own)
    logs.only_last_line()

    def talk(name: str, **extra: Any) -> None:
        thread = threading.Thread(target=lambda: logging.getLogger(name).error("from a thread", extra=extra))
        thread.start()
        thread.join()

    talk("asyncio")
    talk("kernel")
    talk("lib", exit_code=1)
    logging.getLogger("lib").error("from a library")
    assert output.lines == []
    logs.logger.error("why there is none")
    talk("kernel", exit_code=70)
    assert len(output.lines) == 2
    assert len(own.records) == 6


def test_a_write_within_a_write(tmp_path: Any) -> None:
    """As in a signal handler: the line goes out beside it; what cannot be written at all is dropped."""
    with (tmp_path / "stderr").open("wb") as file:

        def write(_: str) -> None:
            raise RuntimeError("reentrant call")

        stream: Any = SimpleNamespace(write=write, fileno=file.fileno, flush=lambda: None)
        handler = logs._ToStderr(stream)
        handler.handle(record("größe \udc80"))
    assert (tmp_path / "stderr").read_bytes() == "größe \\udc80\n".encode()
    handler.handle(record("closed"))
    stream.write = types.MethodType(lambda *_: 1 // 0, stream)
    handler.handle(record("odd"))
