"""A host without 127.0.0.1: a network namespace that has ::1 alone."""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest

from tests.conformance.program import CALM, App, Process

NAMESPACE = 'ip link set lo up && ip addr del 127.0.0.1/8 dev lo && exec "$@"'
SERVER = """
async def answer(scope, receive, send): ...

@service
async def api(serving: Serving[None]) -> None:
    await serve_asgi(answer, "localhost", 0, serving=serving)
"""

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("ip")), reason="there is no unshare, or no ip"),
]


def run(app: App, **env: str) -> Process:
    """Run it where there is no IPv4."""
    app._argv = ["unshare", "-n", "sh", "-c", NAMESPACE, "sh", *app._argv]
    return app.run(**env)


def test_the_default_address_that_cannot_be_had_is_a_warning(app: App) -> None:
    """Nobody has asked for it, so the app starts without."""
    app.service("calm", CALM)
    result = run(app, ENV="dev").stop()
    assert result.code == 0
    assert result.said("no admin server: cannot listen on 127.0.0.1:9090: Cannot assign requested address")


@pytest.mark.parametrize(("address", "where"), [("localhost:0", r"\[::1\]"), ("[::]:0", r"\[::\]")])
def test_addresses_that_can_be_had(app: App, address: str, where: str) -> None:
    """`localhost` is what of it there is, and so for serve_asgi."""
    app.service("api", SERVER)
    process = run(app, ADMIN_ADDR=address)
    process.wait_for("all ready")
    process.send(signal.SIGTERM)
    result = process.result()
    assert result.code == 0
    assert result.said(rf"status and health at http://{where}:\d+")
    assert re.search(r"listening on http://\[::1\]:\d+", result.stderr)


def test_an_address_that_was_asked_for_is_an_error(app: App) -> None:
    """It says what to do."""
    app.service("calm", CALM)
    result = run(app, ADMIN_ADDR="127.0.0.1:9090").result()
    assert result.code == 2
    assert "ADMIN_ADDR is 127.0.0.1:9090: cannot listen there" in result.stderr
