"""`app call`: make one call from the terminal, to a service that runs anywhere."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from kernel.calls import wire
from kernel.config.nats import Nats
from kernel.errors import ConfigError, NamingError, PlanError, did_you_mean, one_line
from kernel.masking import mask

USE = """app call users.get '{"id": 1}'"""


def call(nats: Nats | None, app: str, method: str, arguments: str, timeout: float) -> int:
    """Call *method*, print its result, and return the exit code: 1 if the call failed.

    Args:
        nats: The server.
        app: The app's name, the prefix of subjects if NATS_PREFIX is not set.
        method: The service and the method, joined by a dot.
        arguments: A JSON object.
        timeout: Seconds.

    Raises:
        PlanError: There is no NATS_URL, or *method* or *arguments* are malformed.

    """
    if nats is None:
        raise ConfigError("is not set", where="NATS_URL", hint="calls from the terminal go through NATS: `just nats`")
    service, dot, name = method.rpartition(".")
    if not (dot and service.replace("-", "").isalnum() and name.isidentifier()):
        raise NamingError(f"{method!r} is no method", hint=f"as in: {USE}")
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise PlanError(f"the arguments are no JSON: {error}", hint=f"as in: {USE}") from None
    if not isinstance(given, dict):
        raise PlanError(f"the arguments are no JSON object: {arguments}", hint=f"as in: {USE}")
    try:
        status, data, words = anyio.run(_ask, nats, app, (service, name), json.dumps(given).encode(), timeout)
    except (OSError, TimeoutError) as error:
        status, data, words = wire.FAILED, b"", one_line(error)
    if status == wire.OK:
        print(json.dumps(json.loads(data), indent=2, ensure_ascii=False))  # noqa: T201  (the result)
        return 0
    kind = ""
    if data:
        found = json.loads(data)
        kind = f"{found['type']}: " if isinstance(found, dict) and not words.startswith(str(found.get("type"))) else ""
    print(mask(f"error: {method}: {kind}{words or status}"), file=sys.stderr)  # noqa: T201
    return 1


async def _ask(nats: Nats, app: str, target: tuple[str, str], payload: bytes, seconds: float) -> tuple[str, bytes, str]:
    """Return the status, the payload and the message of the answer."""
    service, method = target
    from kernel.calls.nats import Callbacks, Link

    link = Link(nats, f"{app} call")
    prefix = nats.prefix or app
    found: list[Any] = []
    done = anyio.Event()

    def receive(msg: Any) -> None:
        headers = msg.headers or {}
        if wire.STATUS in headers or headers.get(wire.SERVER_STATUS) == wire.NO_RESPONDERS:
            found.append(msg)
            done.set()

    async with link.open(seconds):
        subject = wire.subject(prefix, service, method)
        reply = link.wait(token := link.token(), Callbacks(subject, receive, lambda _: done.set()))
        headers = {wire.TIMEOUT: f"{seconds:g}", wire.ID: f"{link.id}.{token}"}
        await link.post(subject, payload, reply, headers)
        with anyio.move_on_after(seconds):
            await done.wait()
        if subject in link.denied:
            return wire.FAILED, b"", link.denied[subject]
        if not found:
            return wire.LATE, b"", f"no answer after {seconds:g} s"
        answer = found[0]
        if wire.STATUS not in answer.headers:
            return wire.NOT_BEGUN, b"", await _nobody(link, prefix, service, method)
        return answer.headers[wire.STATUS], answer.data, answer.headers.get(wire.ERROR, "")


async def _nobody(link: Any, prefix: str, service: str, method: str) -> str:
    """Return why nothing serves it, with what there is instead."""
    from kernel.calls.discovery import described

    found: dict[str, list[str]] = {}

    def receive(msg: Any) -> None:
        name, methods = described(msg.data, prefix)
        found.setdefault(name, methods)

    from kernel.calls.nats import Callbacks

    reply = link.wait(link.token(), Callbacks("$SRV.INFO", receive, lambda _: None))
    await link.post("$SRV.INFO", b"", reply)
    await anyio.sleep(0.3)
    found.pop("", None)
    if service in found:
        hint = did_you_mean(method, found[service]) or f"there are: {', '.join(found[service])}"
        return f"{service} has no method {method!r}; {hint}"
    hint = did_you_mean(service, found) or (f"there are: {', '.join(sorted(found))}" if found else "nothing is served")
    return f"nobody serves {service} below {prefix!r} at {link.server}; {hint}"
