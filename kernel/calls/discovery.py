"""NATS' own protocol of services (ADR-32): how a service is found, described and counted, by any client."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from kernel.calls import wire
from kernel.calls.contract import contract_of, digest
from kernel.calls.nats import Link, Subscribed

if TYPE_CHECKING:
    from kernel.calls.interface import Interface
    from kernel.calls.nats_client import Message

TYPE = "io.nats.micro.v1"
SCHEMA, CONTRACT, PREFIX = "schema", "contract", "prefix"  # of the metadata
_VERSION = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


@attrs.define(eq=False)
class Stats:
    """The calls of one method so far."""

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    seconds: float = 0.0


@attrs.frozen
class Offer:
    """A service that can be called from other processes.

    Args:
        prefix: The prefix of all subjects.
        service: The service's name.
        interface: The methods that can be called.
        version: The app's version.

    """

    prefix: str
    service: str
    interface: Interface
    version: str = "0.0.0"


class Announcement:
    """Answer questions about which services there are.

    Args:
        link: The connection.
        offer: The service.
        stats: The calls so far, by method.

    """

    def __init__(self, link: Link, offer: Offer, stats: Mapping[str, Stats]) -> None:
        self._link, self._stats = link, stats
        self._prefix, self._service, self._interface = offer.prefix, offer.service, offer.interface
        self._id = f"{link.id}-{offer.service}"
        self._version = offer.version if _VERSION.fullmatch(offer.version) else "0.0.0"
        self._contract = contract_of(offer.interface)
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def subscriptions(self) -> list[Subscribed]:
        """Return the subjects that it answers: each question to all, to its name, and to this instance."""
        pages = {"PING": self._ping, "INFO": self._info, "STATS": self._numbers}
        return [
            self._link.subscribe(".".join(["$SRV", verb, *names]), self._answering(page))
            for verb, page in pages.items()
            for names in ((), (self._service,), (self._service, self._id))
        ]

    def _answering(self, page: Any) -> Any:
        def receive(msg: Message) -> None:
            if msg.reply:
                self._link.post_soon(msg.reply, json.dumps(page()).encode())

        return receive

    def _about(self, kind: str) -> dict[str, Any]:
        metadata = {CONTRACT: digest(self._contract), PREFIX: self._prefix, "interface": self._interface.name}
        return {
            "type": f"{TYPE}.{kind}",
            "name": self._service,
            "id": self._id,
            "version": self._version,
            "metadata": metadata,
        }

    def _ping(self) -> dict[str, Any]:
        return self._about("ping_response")

    def _info(self) -> dict[str, Any]:
        return {
            **self._about("info_response"),
            "description": self._interface.text,
            "endpoints": [
                {
                    **self._endpoint(name),
                    "metadata": {"description": method.text, SCHEMA: json.dumps(self._contract[name])},
                }
                for name, method in self._interface.methods.items()
            ],
        }

    def _numbers(self) -> dict[str, Any]:
        return {
            **self._about("stats_response"),
            "started": self._started,
            "endpoints": [
                {
                    **self._endpoint(name),
                    "num_requests": stats.requests,
                    "num_errors": stats.errors,
                    "last_error": stats.last_error,
                    "processing_time": int(stats.seconds * 1e9),
                    "average_processing_time": int(stats.seconds * 1e9 / stats.requests) if stats.requests else 0,
                }
                for name, stats in self._stats.items()
            ],
        }

    def _endpoint(self, name: str) -> dict[str, Any]:
        subject = wire.subject(self._prefix, self._service, name)
        return {"name": name, "subject": subject, "queue_group": wire.QUEUE}


def offered(payload: bytes, prefix: str) -> dict[str, Any] | None:
    """Return the contract in the answer to INFO; None if it is not a service of this *prefix*."""
    try:
        info = json.loads(payload)
        if info["metadata"][PREFIX] != prefix:
            return None
        return {endpoint["name"]: json.loads(endpoint["metadata"][SCHEMA]) for endpoint in info["endpoints"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # another kind of service, of anybody's


def described(payload: bytes, prefix: str) -> tuple[str, list[str]]:
    """Return the name and the methods in the answer to INFO; an empty name if it is not a service of this *prefix*."""
    methods = offered(payload, prefix)
    return ("", []) if methods is None else (str(json.loads(payload)["name"]), list(methods))
