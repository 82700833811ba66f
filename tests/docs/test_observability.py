"""docs/observability.md: its code runs, and its tables say what is there."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import attrs
import httpx
import pytest

from kernel import events
from kernel.config.otel import OTEL_VARIABLES
from kernel.lifecycle.events import State
from kernel.observe import metrics
from kernel.observe.logs import LIFECYCLE
from kernel.observe.spans import NAMES
from tests.conformance.program import REPO, App, Program
from tests.ports import free_port
from tests.receiver import Received, Receiver, receiving

PAGE = (REPO / "docs" / "observability.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of the table that begins with *head*."""
    table = PAGE[PAGE.index(head) :].partition("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def named(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app with the service of the page."""
    app = App(tmp_path / "tree")
    source, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    app.write("services/oracle.py", source)
    yield app
    app.close()


def test_the_service_of_the_page(app: App) -> None:
    """Its spans hang where the comments say."""
    with receiving() as collector:
        run = app.run(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", ADMIN_ADDR="0")
        collector.wait_for(lambda got: got.named("oracle answer") and got.named("oracle start"))
        run.send(signal.SIGTERM)
        assert run.result().code == 0
    assert collector.one("oracle connect").parent == collector.one("oracle start").ids
    assert collector.one("oracle answer").parent is None
    spans = {cell[0].partition(" of ")[0].strip("`") for cell in rows("| span | from | to |")}
    assert spans == {*NAMES.values(), "attempt", "restart", "waiting"}
    told = {name for span in collector.spans for name in span.attributes if name.startswith("kernel.")}
    assert told <= {*re.findall(r"kernel\.\w+", PAGE)}


CONSUMED = """
@service(retries=Retry(2, delay=0.05, jitter=0))
async def database(serving: Serving[list[str]]) -> None:
    async with serving(served):
        while len(served) < 3:
            await anyio.sleep(0.01)
        if not crashed:
            crashed.append(1)
            raise OSError("gone")
        await anyio.sleep_forever()

served: list[str] = []
crashed: list[int] = []
"""
CONSUMER = """
@service(depends=["database"])
async def {name}(database: list[str], serving: Serving[None]) -> None:
    async with serving():
        database.append("{name}")
        await anyio.sleep_forever()
"""


def listing(begin: str) -> Counter[tuple[str, ...]]:
    """The rows of the listing on the page that begins with *begin*: each with what it is in."""
    (text,) = re.findall(rf"```text\n({begin} .*?)```", PAGE, re.DOTALL)
    found: list[tuple[str, ...]] = []
    for line in text.splitlines():
        label = re.split(r"  +", line.strip())[0]
        found.append((*(found[-1] if found else ())[: (len(line) - len(line.lstrip())) // 2], label))
    return Counter(found)


def sent(collector: Receiver, root: Received) -> Counter[tuple[str, ...]]:
    """The same of the spans that came with *root*."""
    spans = {one.ids: one for one in collector.spans if one.ids[0] == root.ids[0]}

    def path(one: Received) -> tuple[str, ...]:
        above = path(spans[one.parent]) if one.parent else ()
        return (*above, f"{one.service}: {one.raw.name}")

    return Counter(map(path, spans.values()))


def test_a_start_as_the_page_lists_it(tmp_path: Path) -> None:
    """The examples send the rows that it shows."""
    examples = Program(REPO, EXAMPLE_DATABASE_PATH=str(tmp_path / "items.db"), EXAMPLE_API_PORT="0")
    with receiving() as collector:
        run = examples.run(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", ADMIN_ADDR="off")
        collector.wait_for(lambda got: got.named("app start"))
        run.send(signal.SIGTERM)
        run.result()
    examples.close()
    assert sent(collector, collector.one("app start")) == listing("app: start")


def test_a_crash_as_the_page_lists_it(app: App) -> None:
    """It is one trace, with the three consumers that it takes along."""
    app.service("database", CONSUMED)
    names = ("api", "mail", "report")
    for name in names:
        app.service(name, CONSUMER.format(name=name))
    with receiving() as collector:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces", "ADMIN_ADDR": "off"}
        run = app.run("database", *names, **env)
        collector.wait_for(lambda got: got.named("database restart"))
        run.send(signal.SIGTERM)
        assert run.result().code == 0
    assert sent(collector, collector.one("database restart")) == listing("database: restart")


STOCK = """
import sqlite3
from contextlib import closing
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

def count(connection: Any) -> int:
    with closing(connection.cursor()) as cursor:
        return cursor.execute("SELECT 3").fetchone()[0]

async def answer(request: Any) -> JSONResponse:
    log.info("counting")
    return JSONResponse(await anyio.to_thread.run_sync(count, request.app.state.connection))

@service
async def stock(serving: Serving[None]) -> None:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    {DATABASE}
    app = Starlette(routes=[Route("/stock", answer)])
    app.state.connection = connection
    {REQUESTS}
    with closing(connection):
        await serve_asgi(app, port={PORT}, serving=serving, server="uvicorn")
"""
SHOP = """
import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(request: Any) -> JSONResponse:
    found = await request.app.state.client.get("http://127.0.0.1:{STOCK}/stock")
    return JSONResponse(10 * found.json())

async def broken(request: Any) -> JSONResponse:
    raise LookupError("no price")

@service(depends=["stock"])
async def shop(serving: Serving[None]) -> None:
    app = Starlette(routes=[Route("/price", answer), Route("/broken", broken)])
    async with httpx.AsyncClient(trust_env=False) as client:
        app.state.client = client
        {CLIENT}
        {REQUESTS}
        await serve_asgi(app, port={PORT}, serving=serving, server="uvicorn")
"""
CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # trace and span of whoever sends the request


def filled(source: str, **places: object) -> str:
    """*source* with each place filled, and what has several lines indented as its place is."""
    for name, value in places.items():
        source = re.sub(
            rf"^( *)(.*){{{name}}}",
            lambda found, value=value: found[1] + found[2] + str(value).replace("\n", f"\n{found[1]}"),  # type: ignore[misc]
            source,
            flags=re.MULTILINE,
        )
    return source


def shop(app: App) -> int:
    """Write two services with the lines that the page shows; the port of the first."""
    requests, client, database = re.findall(r"```python\n(if tracing_enabled.*?)\n```", PAGE, re.DOTALL)
    ports = [free_port(), free_port()]
    app.service("stock", filled(STOCK, DATABASE=database, REQUESTS=requests, PORT=ports[1]))
    app.service("shop", filled(SHOP, CLIENT=client, REQUESTS=requests, PORT=ports[0], STOCK=ports[1]))
    return ports[0]


def test_from_the_request_to_the_query(app: App) -> None:
    """What the page adds to a server, a client and a database makes one trace, in which each service has its name."""
    port = shop(app)
    with receiving() as collector:
        run = app.run(
            "shop", "stock", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", ADMIN_ADDR="off"
        )
        run.wait_for("all ready")
        with httpx.Client(trust_env=False) as client:
            headers = {"traceparent": "00-{}-{}-01".format(*CALLER)}
            assert client.get(f"http://127.0.0.1:{port}/price", headers=headers).json() == 30
            assert client.get(f"http://127.0.0.1:{port}/broken").status_code == 500
        run.send(signal.SIGTERM)
        result = run.result()
    assert result.code == 0
    (tree,) = re.findall(r"```text\n(shop: GET.*?)```", PAGE, re.DOTALL)
    parent, trace = tuple(bytes.fromhex(one) for one in CALLER), set()
    for line in tree.splitlines():
        span = collector.one(line.strip().replace(": ", " "))
        assert span.parent == parent
        parent = span.ids
        trace.add(span.ids)
    assert {one.ids for one in collector.spans if one.ids[0].hex() == CALLER[0]} == trace
    (counting,) = (one for one in result.records if one["message"] == "counting")
    assert ids_of(counting) == collector.one("stock GET /stock").ids
    (failed,) = (one for one in result.records if "no price" in one.get("error", ""))
    broken = collector.one("shop GET /broken")
    assert ids_of(failed) == broken.ids
    assert broken.failed
    assert "in broken" in failed["exception"]


def ids_of(record: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The trace and the span of a record."""
    return bytes.fromhex(record["trace_id"]), bytes.fromhex(record["span_id"])


def test_without_traces_nothing_is_loaded_for_requests(app: App) -> None:
    """The lines of the page cost a run without traces no import."""
    shop(app)
    app.write("services/last.py", LAST)
    run = app.run("shop", "stock", "last", ADMIN_ADDR="off")
    run.wait_for("all ready")
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0
    assert "httpx" in result.stdout.split()
    assert not [name for name in result.stdout.split() if name.startswith(("opentelemetry", "wrapt", "asgiref"))]


LAST = """
import atexit, sys
from kernel import service

atexit.register(lambda: print(*sys.modules))

@service(oneshot=True)
async def last() -> None:
    pass
"""


def leaves(value: object, path: str = "") -> Iterator[str]:
    """The paths of all fields, with `*` for a service's name; the shares by service are one."""
    if isinstance(value, Mapping) and path != "loop.shares":
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{'*' if path == 'services' else key}".lstrip("."))
    else:
        yield path


def test_the_schema_of_the_status(app: App) -> None:
    """Each field that is there is told, and no other."""
    run = app.run(ADMIN_ADDR="0")
    run.wait_for("status and health at")
    (url,) = re.findall(r"at (http://[\d.:]+)", run.output)
    run.wait_for("all ready")
    with httpx.Client(trust_env=False) as client:
        status: dict[str, Any] = client.get(f"{url}/status").json()
        pages = client.get(url).text.split()
        lines = client.get(f"{url}/metrics").text
    run.send(signal.SIGTERM)
    assert run.result().code == 0
    assert {name for cell in rows("| field | |") for name in named(cell[0])} == {*leaves(status)}
    assert [named(cell[0])[0] for cell in rows("| page | |")] == pages
    (states,) = (cell[1] for cell in rows("| field | |") if cell[0] == "`services.*.state`")
    assert named(states) == [state.value for state in State]
    for metric, _, cell, _ in rows(METRICS):
        (name,) = named(cell)
        seen = re.search(rf"^{name}(?:_count)?(?:{{(.*?)}})? ", lines, re.MULTILINE)
        assert seen or "loop_share" in name or "stop_duration" in name, name  # which come with time
        if seen:
            labels = {*re.findall(r"(\w+)=", seen[1] or "")}
            assert "service" in labels or named(metric)[0] in {"kernel.ready", "kernel.loop.delay"}


METRICS = "| metric | unit | at `/metrics` | |"


def test_the_table_of_metrics() -> None:
    """Every instrument of the kernel stands in it, with its unit."""
    own = {name: unit for name, unit, *_ in (*metrics._GAUGES, *metrics._COUNTERS)}
    own |= {f"kernel.service.{kind}.duration": "s" for kind in ("start", "stop")}
    assert {named(metric)[0]: unit.strip("`") for metric, unit, *_ in rows(METRICS)} == own


def test_the_fields_of_records() -> None:
    """Those of a lifecycle step that is exported are all told."""
    assert {f"kernel.{name}" for name in LIFECYCLE} <= {*named(PAGE.partition("## Logs")[2])}


def test_the_table_of_variables() -> None:
    """Each of them is one of OpenTelemetry's."""
    found = {name for cell in rows("| variable | |") for one in cell for name in named(one) if name.startswith("OTEL_")}
    assert found <= {*OTEL_VARIABLES}
    assert len(found) > 8


def test_the_commands_are_recipes() -> None:
    """`just jaeger` and its kin are there."""
    recipes = (REPO / "scripts" / "kernel" / "kernel.just").read_text()
    names = re.findall(r"^just (\S+)", PAGE, re.MULTILINE)
    assert {"jaeger", "jaeger-stop"} <= {*names}
    for name in names:
        assert re.search(rf"^{name}( \*args)?:", recipes, re.MULTILINE), name


def test_the_table_of_events() -> None:
    """Each event that an observer gets is in it, with all of its fields."""
    table = {named(cell[0])[0]: {*named(cell[2])} for cell in rows("| event | when | its fields |")}
    found = {one.__name__: {field.name for field in attrs.fields(one)} for one in get_args(events.Event)}
    assert table == found


LIFE = """
@service(retries=Retry(1, delay=0.01, jitter=0))
async def shaky() -> None:
    raise OSError("no disk")

"""
OTHER = """
@service
async def calm(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
"""


def test_the_lines_of_the_page_are_logged(tmp_path: Path) -> None:
    """The real program says what the table shows, and a line in JSON has the fields of the other table, and no more."""
    app = App(tmp_path)
    app.service("shaky", LIFE)
    app.service("calm", OTHER)
    result = app.call("run", LOG_FORMAT="json", LOG_LEVEL="info")
    assert result.code == 1, result.stderr
    table = PAGE.partition("## Logs")[2].partition("With `LOG_FORMAT=json`")[0]
    shown = {words for line in table.splitlines() if line.startswith("| `") for words in re.findall(r"`([^`]+)`", line)}
    assert len(shown) > 15
    for begin in (
        *("starting", "ready after", "OSError: no disk; retry 1 of", "stopping (requested)", "stopped after"),
        *("failed after", "ended after", "exit 1: "),
    ):
        assert any(words.startswith(begin) for words in shown), begin
        assert any(record["message"].startswith(begin) for record in result.records), begin
    fields = PAGE.partition("With `LOG_FORMAT=json`")[2].partition("\n\nIn JSON")[0]
    firsts = [line.split("|")[1] for line in fields.splitlines() if line.startswith("| `")]
    named = {name for first in firsts for name in re.findall(r"`(\w+)`", first)}
    assert {name for record in result.records for name in record} <= named
