"""What a service tells whoever asks which services there are, and what we understand of what others tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol

import anyio.lowlevel
import pytest

from kernel import interface
from kernel.calls.contract import contract_of, digest
from kernel.calls.discovery import Announcement, Offer, Stats, described, offered
from tests.calls.fake_link import IN_VIRTUAL_TIME, PREFIX, FakeLink, found, info

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Calls need asyncio."""
    return IN_VIRTUAL_TIME


@interface
class Users(Protocol):
    """Everything about users."""

    async def get(self, id: int) -> str:  # noqa: A002
        """Give one user."""

    async def all(self) -> list[str]: ...


async def asked(verb: str, version: str = "1.2.3", **stats: Stats) -> dict[str, Any]:
    """Return the one answer to a question, which is the same to all, to the name, and to the instance."""
    link = FakeLink()
    announcement = Announcement(link, Offer(PREFIX, "users", found(Users), version), stats)
    announcement.subscriptions()
    names = ["", ".users", f".users.{link.id}-users"]
    for name in names:
        link.deliver(f"$SRV.{verb}{name}", reply=f"reply{name}")
        link.deliver(f"$SRV.{verb}{name}")  # to which nobody wants an answer
        link.deliver(f"$SRV.{verb}{name}.more", reply="none")
    await anyio.lowlevel.checkpoint()
    assert [sent.subject for sent in link.sent] == [f"reply{name}" for name in names]
    told = [json.loads(sent.payload) for sent in link.sent]
    assert told[0] == told[1] == told[2]
    assert told[0].pop("id") == f"{link.id}-users"
    answer: dict[str, Any] = told[0]
    return answer


CONTRACT = contract_of(found(Users))
ABOUT = {
    "name": "users",
    "version": "1.2.3",
    "metadata": {"contract": digest(CONTRACT), "prefix": PREFIX, "interface": "Users"},
}
GET = {"name": "get", "subject": f"{PREFIX}.users.get", "queue_group": "q"}
ALL = {"name": "all", "subject": f"{PREFIX}.users.all", "queue_group": "q"}


async def test_it_answers_a_ping() -> None:
    """With what it is, and nothing else."""
    assert await asked("PING") == {"type": "io.nats.micro.v1.ping_response", **ABOUT}


@pytest.mark.parametrize(
    ("version", "told"),
    [("1.2.3", "1.2.3"), ("1.2.3-rc.1+5", "1.2.3-rc.1+5"), ("1.2", "0.0.0"), ("", "0.0.0"), ("1.2.3 x", "0.0.0")],
)
async def test_a_version_has_three_numbers(version: str, told: str) -> None:
    """As the protocol requires."""
    assert (await asked("PING", version))["version"] == told
    assert Offer(PREFIX, "users", found(Users)).version == "0.0.0"


async def test_it_describes_its_methods() -> None:
    """With their schemas, as JSON in their metadata."""
    told = await asked("INFO")
    endpoints = told.pop("endpoints")
    assert told == {"type": "io.nats.micro.v1.info_response", **ABOUT, "description": "Everything about users."}
    for wanted, endpoint, text in zip((GET, ALL), endpoints, ("Give one user.", ""), strict=True):
        metadata = endpoint.pop("metadata")
        assert endpoint == wanted
        assert metadata["description"] == text
        assert json.loads(metadata["schema"]) == CONTRACT[wanted["name"]]


async def test_it_counts_its_calls() -> None:
    """Times are in nanoseconds; those of a method that nobody has called are 0."""
    before = datetime.now(UTC)
    told = await asked("STATS", get=Stats(4, 1, "500:bad", 8.0), all=Stats())
    endpoints, started = told.pop("endpoints"), told.pop("started")
    assert told == {"type": "io.nats.micro.v1.stats_response", **ABOUT}
    assert started.endswith("Z")
    assert 0 <= (datetime.fromisoformat(started) - before).total_seconds() < 60
    assert endpoints == [
        {
            **GET,
            "num_requests": 4,
            "num_errors": 1,
            "last_error": "500:bad",
            "processing_time": 8_000_000_000,
            "average_processing_time": 2_000_000_000,
        },
        {
            **ALL,
            "num_requests": 0,
            "num_errors": 0,
            "last_error": "",
            "processing_time": 0,
            "average_processing_time": 0,
        },
    ]


def test_what_is_understood() -> None:
    """The contract and the methods of a service of ours; nothing of others."""
    payload, _ = info(Users)
    assert offered(payload, PREFIX) == CONTRACT
    assert described(payload, PREFIX) == ("users", ["get", "all"])
    assert offered(payload, "other") is None
    assert described(payload, "other") == ("", [])


OURS = {"metadata": {"prefix": PREFIX}}


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        [],
        {},
        {"metadata": None},
        {"metadata": {}},
        OURS,
        {**OURS, "endpoints": [{}]},
        {**OURS, "endpoints": [{"name": "get", "metadata": {"schema": "{"}}]},
        {**OURS, "endpoints": [{"name": "get", "metadata": {"schema": 3}}]},
        {**OURS, "endpoints": [{"name": "get", "metadata": []}]},
        {**OURS, "endpoints": 3},
    ],
    ids=range(12),
)
def test_what_is_no_service_of_ours(told: Any) -> None:
    """Anybody may answer."""
    assert offered(json.dumps(told).encode(), PREFIX) is None
    assert described(json.dumps(told).encode(), PREFIX) == ("", [])
    assert offered(b"\xff", PREFIX) is offered(b"[" * 100_000, PREFIX) is None
