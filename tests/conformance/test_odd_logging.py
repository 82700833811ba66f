"""Logging: libraries that configure it, values that are no JSON, texts that forge lines or cannot be encoded."""

from __future__ import annotations

import json
import signal
import textwrap
from pathlib import Path

import httpx
import pytest

from tests.conformance.program import CALM, App
from tests.ports import free_port
from tests.receiver import receiving

BACKENDS = ("asyncio", "trio")


# -- logging that somebody reconfigures ------------------------------------------------------------------------------

ALEMBIC = """
[alembic]
script_location = migrations
sqlalchemy.url = sqlite:///app.sqlite
[loggers]
keys = root,sqlalchemy,alembic
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARNING
handlers = console
qualname =
[logger_sqlalchemy]
level = WARNING
handlers =
qualname = sqlalchemy.engine
[logger_alembic]
level = INFO
handlers =
qualname = alembic
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
"""

MIGRATE = """
@service(oneshot=True)
async def migrate() -> None:
    from alembic import command, config, script
    from alembic.config import Config
    folder = os.path.join(os.environ["FOLDER"], "migrations")
    if not os.path.exists(folder):
        with open(os.devnull, "w") as nowhere:
            command.init(Config("alembic.ini", stdout=nowhere), folder)
    settings = Config(os.path.join(os.environ["FOLDER"], "alembic.ini"))
    settings.set_main_option("script_location", folder)
    settings.set_main_option("sqlalchemy.url", "sqlite://")
    await anyio.to_thread.run_sync(command.upgrade, settings, "head")
"""

CONFIGURES = {
    "fileConfig": """
        import logging.config
        logging.config.fileConfig(os.environ["INI"])
    """,
    "dictConfig": """
        import logging.config
        logging.config.dictConfig({"version": 1})
    """,
    "dictConfig with a root": """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "ERROR", "handlers": ["console"]},
        })
    """,
    "basicConfig": "logging.basicConfig(force=True, level=logging.ERROR)",
    "disable": "logging.disable(logging.CRITICAL)",
    "handlers cleared": "logging.getLogger().handlers.clear()",
    "handlers removed": """
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
    """,
    "disabled": """
        for name in list(logging.root.manager.loggerDict):
            logging.getLogger(name).disabled = True
    """,
}


@pytest.mark.parametrize("how", CONFIGURES)
def test_the_kernel_is_heard_whatever_is_done_to_logging(app: App, how: str, tmp_path: Path) -> None:
    """Its last lines come, in its own format and once; a service's logger that was made before goes on as well."""
    (tmp_path / "logging.ini").write_text(ALEMBIC)
    body = textwrap.indent(textwrap.dedent(CONFIGURES[how]).strip(), " " * 4)
    app.service(
        "guest",
        f"@service(oneshot=True)\nasync def guest() -> None:\n    {body.strip()}\n    log.info('goes on')\n"
        "    await anyio.sleep(0.01)\n    raise OSError('no route')",
    )
    result = app.run(INI=str(tmp_path / "logging.ini")).result()
    assert result.code == 1
    assert result.messages[-1] == "exit 1: guest failed: OSError: no route"
    assert sum("failed: OSError" in line and '"state"' in line for line in result.lines) == 1
    assert all(line.startswith("{") for line in result.lines), result.stderr
    if "Config" in how:
        assert result.said("guest: goes on")


def test_alembic(app: App) -> None:
    """Its `env.py` calls `fileConfig`, which disables all loggers that it does not know."""
    app.service("migrate", MIGRATE)
    app.service(
        "after",
        '@service(depends=["migrate"], oneshot=True)\nasync def after() -> None:\n    log.info("migrated")\n',
    )
    result = app.run(FOLDER=str(app.root)).result()
    assert result.code == 0, result.stderr
    assert result.said("Context impl SQLiteImpl")  # alembic's own
    assert result.said("after: migrated")
    assert result.messages[-1] == "exit 0: every service has ended"
    assert all(line.startswith("{") for line in result.lines), result.stderr


@pytest.mark.parametrize("exported", [False, True], ids=["stderr", "exported too"])
def test_the_users_own_configuration_holds(app: App, *, exported: bool) -> None:
    """What `app/init.py` does to logging is the user's wish; a later call of a library changes nothing of it.

    What the kernel logs before `app/init.py` is imported goes to stderr as well, whether records are exported or not.
    """
    app.init(
        """
        import logging.config
        logging.getLogger("kernel").warning("early")
        logging.config.dictConfig({
            "version": 1,
            "formatters": {"own": {"format": "OWN %(message)s"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "own"}},
            "root": {"level": "INFO", "handlers": ["console"]},
        })
        """
    )
    app.service("once", "@service(oneshot=True)\nasync def once() -> None:\n    logging.basicConfig(force=True)")
    with receiving() as collector:
        env = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.url}/v1/logs"} if exported else {}
        result = app.run(**env).result()
    assert [line for line in result.messages if "early" in line], result.stderr
    assert result.lines[-1] == "OWN exit 0: every service has ended"
    assert exported is ("early" in {one.body.string_value for _, one in collector.logs})


HOOK = """
    usual = logging.Logger.callHandlers
    def hooked(self, record):
        try:
            return usual(self, record)
        finally:
            {does}
    logging.Logger.callHandlers = hooked
"""


def test_a_library_that_replaces_call_handlers(app: App) -> None:
    """It hears the kernel's records as well as a service's, each once; and nothing is printed twice."""
    app.init(HOOK.format(does='print(record.name, getattr(record, "service", ""), record.getMessage(), flush=True)'))
    app.service("guest", "@service\nasync def guest() -> None:\n    log.error('mine')\n    raise OSError('no route')")
    result = app.run().result()
    heard = result.stdout.splitlines()
    assert heard.count("kernel guest failed: OSError: no route") == 1
    assert heard.count("test guest mine") == 1
    assert heard[-1] == "kernel  exit 1: guest failed: OSError: no route"
    assert len([line for line in result.messages if line.startswith("exit 1")]) == 1
    assert result.said("guest: mine")
    assert all(line.startswith("{") for line in result.lines), result.stderr


def test_a_library_that_replaces_call_handlers_and_fails(app: App) -> None:
    """It is removed, and said so; nothing else changes."""
    app.init(HOOK.format(does='raise LookupError("no hook") if record.name != "test" else None'))
    app.service("calm", CALM)
    result = app.run().stop()
    assert result.code == 0
    assert (
        len([line for line in result.messages if "a hook of Logger.callHandlers failed and was removed" in line]) == 1
    )
    assert result.said("all ready")


# -- texts that do not fit -------------------------------------------------------------------------------------------

ODD = """
class Odd:
    def __str__(self) -> str:
        raise ValueError("no text")
    __repr__ = __str__

circle: dict[Any, Any] = {}
circle["self"] = circle

@service
async def odd(serving: Serving[None]) -> None:
    log.info("nan", extra={"value": float("nan"), "top": [float("inf"), -float("inf")]})
    log.info("keys", extra={"value": {(1, 2): 3, None: 4}})
    log.info("circle", extra={"value": circle})
    log.info("no text %s", Odd(), extra={"value": Odd()})
    log.info("number %d", "x")
    log.info("too %s %s", "few")
    log.info(Odd())
    log.info("huge", extra={"value": 10**5000})
    log.info("caf\\udce9", extra={"value": "caf\\udce9"})
    log.info("mine", extra=dict(level=3, ts="now", logger="me", attempt=7, state="idle", reason="why", seconds=2.5,
        previous="before", trace_id="mine", span_id=9, error="not one", exception="neither", source="here", stack="no"))
    log.info("forged\\r12:00:00 INFO nobody was here\\x1b[2K\\x9b1m\\u2028", extra={"who": "a\\rb\\x1b[1m"})
    log.info("started", extra={"color_message": "\\x1b[1mstarted\\x1b[0m"})
    async with serving():
        log.info("told")
        await anyio.sleep_forever()
"""


def test_json_is_json(app: App) -> None:
    """Whatever is logged: each line is strict JSON, no record is lost, and every extra is told."""
    app.service("odd", ODD)
    result = app.run(LOG_ADD_SOURCE="true").stop(after="told")
    assert result.code == 0

    def refuse(word: str) -> None:
        raise AssertionError(word)

    records = {one["message"]: one for one in (json.loads(line, parse_constant=refuse) for line in result.lines)}
    assert records["nan"]["value"] == "nan"
    assert records["nan"]["top"] == ["Infinity", "-Infinity"]
    assert records["keys"]["value"] == {"(1, 2)": 3, "None": 4}
    assert records["circle"]["value"] == {"self": "..."}
    assert any(message.startswith("no text ") for message in records)
    assert any(message.startswith("number %d") and "x" in message for message in records)
    assert any(message.startswith("too %s %s") for message in records)
    assert any(message.startswith("(no text: ") for message in records)
    assert records["huge"]["value"].startswith("0x")
    assert records["caf\\udce9"]["value"] == "caf\\udce9"
    mine = records["mine"]
    taken = {"level": 3, "ts": "now", "logger": "me", "source": "here", "trace_id": "mine", "span_id": 9}
    for name, value in taken.items():
        assert mine[f"extra_{name}"] == value
    free = {"attempt": 7, "state": "idle", "reason": "why", "seconds": 2.5, "previous": "before", "error": "not one"}
    assert free.items() <= mine.items()
    assert "color_message" not in result.stderr
    assert "Logging error" not in result.stderr


def test_text_forges_no_line(app: App) -> None:
    """Control characters are escaped; the user's fields are told, whatever they are called."""
    app.service("odd", ODD)
    result = app.run(LOG_FORMAT="text").stop(after="told")
    assert result.code == 0
    assert not set("\r\x1b\x9b\u2028") & set(result.stderr)
    (line,) = [line for line in result.lines if "forged" in line]
    assert line.endswith(r"forged\r12:00:00 INFO nobody was here\x1b[2K\x9b1m\u2028 who=a\rb\x1b[1m")
    (line,) = [line for line in result.lines if " mine " in line]
    assert "level=3 ts=now logger=me attempt=7 state=idle reason=why seconds=2.5 previous=before" in line
    assert "Logging error" not in result.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_that_is_no_utf8(app: App, backend: str) -> None:
    """Health and status answer, and what is exported arrives, as do the records and spans beside it."""
    app.service(
        "odd",
        """
        @service(retries=Retry(times=None, delay=100), allowed_failure=True)
        async def odd() -> None:
            from opentelemetry import metrics, trace
            tracer = trace.get_tracer("mine")
            with tracer.start_as_current_span("beside"):
                pass
            with tracer.start_as_current_span("caf\\udce9", attributes={"file": "caf\\udce9"}):
                pass
            log.info("beside")
            raise OSError(os.fsdecode(b"caf\\xe9"))
        """,
    )
    app.service("calm", CALM)
    port = free_port()
    with receiving() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "ADMIN_ADDR": str(port), "KERNEL_BACKEND": backend}
        run = app.run(**env)
        run.wait_for("retry 1")
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz")
        assert answer.status_code == 503
        assert "caf\\udce9" in answer.json()["services"]["odd"]["reason"]
        assert httpx.get(f"http://127.0.0.1:{port}/status").status_code == 200
        run.send(signal.SIGTERM)
        result = run.result()
    assert result.code == 0
    assert not result.said("cannot be sent"), result.stderr
    assert not result.said("not sent")


@pytest.mark.parametrize("words", [("list",), ("--help",), ("graph",), ("check",), ("odd", "--help")], ids=" ".join)
def test_a_poor_encoding(app: App, words: tuple[str, ...]) -> None:
    """What the encoding of stdout lacks is escaped."""
    app.write(
        "services/odd.py",
        '"""Odd \u2014 it has a dash."""\nfrom kernel import *\n'
        "@service\nasync def odd() -> None: ...\n"
        '@odd.command\ndef tell() -> None:\n    """Tell \u2014 or not."""\n',
    )
    result = app.call(*words, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert result.code == 0, result.stderr
    assert "Traceback" not in result.stderr
    if words[0] != "check" and words[0] != "graph":
        assert r"\u2014" in result.stdout
