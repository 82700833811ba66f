"""Logs: one pipeline to stderr, as text for people or as JSON for machines, whoever logs."""

from __future__ import annotations

import re

import pytest

from tests.conformance.program import App

CHATTY = """
import asyncio, warnings

@service
async def chatty(serving: Serving[None]) -> None:
    print("to stdout")
    logging.getLogger("some.library").warning("from a library")
    log.debug("details")
    log.info("with fields", extra={"user": "ann", "service": "mine", "message_id": 3})
    warnings.warn("old ways")
    thread = threading.Thread(target=broken, name="helper")
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    await anyio.to_thread.run_sync(log.info, "from a thread")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child)
    async with serving() as work:
        work.start_soon(child)
        await anyio.sleep_forever()

async def child() -> None:
    log.info("from a child")

def broken() -> None:
    raise OSError("nobody joined")
"""


def find(records: list[dict[str, object]], message: str) -> dict[str, object]:
    """The one record with this message."""
    (record,) = [one for one in records if one["message"] == message]
    return record


@pytest.mark.core
def test_json(app: App) -> None:
    """One object a line, with the fields of the contract, from the kernel, services and libraries alike."""
    app.service("chatty", CHATTY)
    result = app.run(LOG_LEVEL="debug", LOG_ADD_SOURCE="true").stop(after="all ready")
    assert result.code == 0
    assert result.stdout == "to stdout\n"
    records = result.records
    assert len(records) == len(result.lines)
    for record in records:
        assert list(record)[:6] == ["ts", "level", "logger", "message", "app", "version"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["ts"])
        assert (record["app"], record["version"]) == ("app", "0.1.0")
        assert re.search(r"\.py:\d+$", record["source"])
    assert [one["ts"] for one in records] == sorted(one["ts"] for one in records)
    ready = next(one for one in records if one.get("state") == "ready")
    assert (ready["service"], ready["previous"], ready["attempt"], ready["level"]) == ("chatty", "starting", 1, "info")
    assert find(records, "from a library")["service"] == "chatty"
    assert find(records, "from a thread")["service"] == "chatty"
    assert find(records, "details")["level"] == "debug"
    fields = find(records, "with fields")
    assert (fields["user"], fields["service"], fields["message_id"]) == ("ann", "mine", 3)
    assert {one["service"] for one in records if one["message"] == "from a child"} == {"chatty"}
    assert sum(one["message"] == "from a child" for one in records) == 2
    uncaught = find(records, "uncaught exception in thread helper")
    assert uncaught["error"] == "OSError: nobody joined"
    assert uncaught["level"] == "critical"
    warning = next(one for one in records if one["logger"] == "py.warnings")
    assert "old ways" in warning["message"]
    assert warning["service"] == "chatty"
    last = records[-1]
    assert last["exit_code"] == 0
    assert "service" not in last


@pytest.mark.core
def test_text(app: App) -> None:
    """Aligned columns for time, level and service; a traceback is indented below its line; no colours in a file."""
    app.service("chatty", CHATTY)
    app.service(
        "a_longer_name", "@service(allowed_failure=True)\nasync def f() -> None:\n    raise OSError('no\\nroute')"
    )
    result = app.run(LOG_FORMAT="text").stop(after="all ready")
    assert result.code == 0
    lines = [line for line in result.lines if not line.startswith("    ")]
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} (INFO    |WARNING |ERROR   |CRITICAL) \S.{12}  \S", line), line
    assert any(line[13:].startswith("INFO     mine           with fields user=ann message_id=3") for line in lines)
    assert any(line.endswith("a-longer-name  failed (allowed): OSError: no") for line in lines)
    assert "    Traceback (most recent call last):" in result.lines
    assert "details" not in result.stderr
    assert "\x1b" not in result.stderr
    assert "state=" not in result.stderr


def test_level_and_colours(app: App) -> None:
    """LOG_LEVEL holds for all; FORCE_COLOR colours, and NO_COLOR wins."""
    app.service("chatty", CHATTY + "    log.error('an error')\n")
    runs = [
        app.run(LOG_FORMAT="text", LOG_LEVEL="warning", FORCE_COLOR="1"),
        app.run(LOG_FORMAT="text", LOG_LEVEL="warning", FORCE_COLOR="1", NO_COLOR="1"),
    ]
    for run in runs:
        run.wait_for("nobody joined")
    coloured, plain = (run.stop(after="nobody joined") for run in runs)
    assert "\x1b[33mWARNING " in coloured.stderr
    assert "\x1b" not in plain.stderr
    for result in (coloured, plain):
        assert "INFO" not in result.stderr
        assert "from a library" in result.stderr


def test_handlers_of_the_users_own(app: App) -> None:
    """A handler that app/init.py adds gets every record, with the fields; one that fails breaks nothing."""
    app.init(
        """
        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise OSError("disk full")

        file = logging.FileHandler("app.log")
        file.setFormatter(logging.Formatter("%(app)s %(version)s %(service)s %(name)s %(message)s"))
        logging.getLogger().addHandler(Broken())
        logging.getLogger().addHandler(file)
        """
    )
    app.service("chatty", CHATTY)
    result = app.run().stop()
    assert result.code == 0
    assert result.ending("chatty") == "stopped"
    assert "disk full" in result.stderr
    written = (app.folder / "app.log").read_text()
    assert "app 0.1.0 chatty kernel ready after" in written
    assert "app 0.1.0 chatty some.library from a library" in written
    assert "app 0.1.0 mine test with fields" in written
    assert "app 0.1.0  kernel exit 0: stopped by SIGTERM" in written
    assert written.count("\n") >= len(result.records)


def test_broken_records(app: App) -> None:
    """A record that cannot be formatted, and values that JSON does not know, cost nobody anything."""
    app.service(
        "odd",
        """
        @service
        async def odd() -> None:
            log.info("%d things", "some")
            log.info("fields", extra={"path": __import__("pathlib").Path("x"), "when": {1, 2}, "app": "mine"})
            log.info("the end")
            await anyio.sleep_forever()
        """,
    )
    result = app.run().stop(after="the end")
    assert result.code == 0
    assert find(result.records, "fields")["path"] == "x"
    assert find(result.records, "fields")["app"] == "mine"


def test_kernel_is_quiet_where_asked(app: App) -> None:
    """`logging` works as everywhere: a user may silence a logger in app/init.py."""
    app.init("logging.getLogger('kernel').setLevel('ERROR')")
    app.service("odd", "@service(oneshot=True)\nasync def odd() -> None:\n    log.info('hello')")
    result = app.call("run")
    assert result.code == 0
    assert result.messages == ["odd: hello"]


@pytest.mark.parametrize(("setting", "folded"), [("folded", True), ("full", False), ("", False)])
def test_tracebacks_are_folded_on_a_terminal(app: App, setting: str, folded: bool) -> None:
    """Stderr is no terminal here: LOG_TRACEBACK decides."""
    app.service("broken", "import json\n@service\nasync def broken() -> None:\n    json.loads('{')")
    result = app.run(LOG_FORMAT="text", LOG_TRACEBACK=setting).result()
    assert ("frames in json" in result.stderr) is folded
    assert ("raw_decode" in result.stderr) is not folded


def test_one_service_says_more(app: App) -> None:
    """Its debug records are there, and the other's are not."""
    for name in ("worker", "api"):
        app.service(name, f"@service(oneshot=True)\nasync def {name}() -> None:\n    log.debug('deep in {name}')")
    result = app.run(LOG_LEVEL="info,worker=debug").result()
    assert result.said("deep in worker")
    assert not result.said("deep in api")
    assert result.said("api: done")


@pytest.mark.parametrize("abandoned", [False, True])
def test_no_thread_has_the_last_word(app: App, abandoned: bool) -> None:
    """One of a library's, such as asyncio's that wait for child processes, may go on until the process is gone."""
    end = "await never()" if abandoned else "pass"
    app.service(
        "talks",
        f"""
import threading

def talk() -> None:
    while True:
        logging.getLogger("lib").warning("still here")

async def never() -> None:
    while True:
        try:
            await anyio.sleep_forever()
        except BaseException:
            pass

@service
async def talks(serving: Serving[None]) -> None:
    try:
        async with serving():
            await anyio.sleep_forever()
    finally:
        for _ in range(3):
            threading.Thread(target=talk, daemon=True).start()
        {end}
""",
    )
    for _ in range(3):
        result = app.run(RUNNER_SHUTDOWN_TIMEOUT="0.3").stop(after="all ready")
        assert result.said("still here")
        assert result.messages[-1].startswith(f"exit {result.code}: ")
