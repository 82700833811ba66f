"""The page on Sentry, with its real SDK and a server that takes what it sends."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.program import App
from tests.cookbook.pages import code_of

PASSWORD = "-".join(["swordfish"] * 2)

CRASHES = """
@service
async def till(serving: Serving[None]) -> None:
    opened_with = "-".join(["swordfish"] * 2)
    log.info("it is open")
    async with serving():
        raise LookupError("no change")
"""


class Ingest:
    """Takes envelopes, as Sentry does."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        taken = self.bodies

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                taken.append(body.decode())
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.dsn = f"http://key@127.0.0.1:{self.server.server_address[1]}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes."""
        found = []
        for body in self.bodies:
            lines = body.splitlines()
            for head, payload in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(head).get("type") == "event":
                    found.append(json.loads(payload))
        return found

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    """A server for the envelopes."""
    server = Ingest()
    yield server
    server.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app whose till crashes."""
    made = App(tmp_path / "tree")
    made.service("till", CRASHES)
    yield made
    made.close()


def test_sentry(app: App, ingest: Ingest) -> None:
    """A crash is an event of its service, and is sent before the end; no variable is."""
    app.write("app/init.py", code_of("sentry")["app/init.py"])
    result = app.run(SENTRY_DSN=ingest.dsn, RUNNER_SHUTDOWNTIMEOUT="10s").result()
    assert result.code == 1
    crashes = [event for event in ingest.events if "exception" in event]
    assert [event["tags"] for event in crashes] == [{"service": "till"}]
    assert crashes[0]["exception"]["values"][-1]["type"] == "LookupError"
    assert crashes[0]["level"] == "error"
    assert not any("it is open" in json.dumps(event.get("logentry")) for event in ingest.events)
    assert PASSWORD not in "".join(ingest.bodies)
    assert app.run().result().code == 1  # without a DSN nothing is sent, and nothing changes


def test_sentry_naive(app: App, ingest: Ingest) -> None:
    """Local variables are sent, and no service."""
    app.write("app/init.py", code_of("sentry")["naive"])
    assert app.run(SENTRY_DSN=ingest.dsn).result().code == 1
    crashes = [event for event in ingest.events if "exception" in event]
    assert not any("service" in event.get("tags", {}) for event in crashes)
    assert PASSWORD in "".join(ingest.bodies)
