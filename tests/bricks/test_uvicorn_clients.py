"""The limits of uvicorn's connections, without a server: connections that only say what state they are in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kernel.bricks import uvicorn_clients as module
from kernel.bricks.clients import Complaints, Limits
from kernel.bricks.uvicorn_clients import Clients


class Transport:
    """A transport with unsent bytes."""

    def __init__(self) -> None:
        self.unsent = 0
        self.did: list[Any] = []

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.did.append("abort")

    def close(self) -> None:
        self.did.append("close")

    def write(self, data: bytes) -> None:
        self.did.append(data)


class Base:
    """What uvicorn's class of HTTP connections has: its parser raises what it is told to."""

    def __init__(self, connections: set[Any]) -> None:
        self.connections = connections
        self.cycle: Any = None
        self.flow = SimpleNamespace(read_paused=False)
        self.transport: Any = None
        self.got: list[Any] = []
        self.raises: Exception | None = None
        self.answers = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._do(data)

    def handle_events(self) -> None:
        self._do("events")

    def resume_writing(self) -> None:
        self.got.append("resume")

    def send_400_response(self, msg: str) -> None:
        self.got.append(msg)

    def shutdown(self) -> None:
        self.got.append("shutdown")

    def _do(self, what: Any) -> None:
        self.got.append(what)
        if self.answers:
            self.cycle.response_complete = True
        if self.raises is not None:
            raise self.raises


class Websocket:
    """A connection of a websocket, which counts when it was asked to end."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.asked = 0

    def shutdown(self) -> None:
        self.asked += 1


class Event:
    """An event of asyncio."""

    is_set = False

    def set(self) -> None:
        self.is_set = True


def request(**state: Any) -> Any:
    """What uvicorn calls a cycle: a request whose body has not come, and that has no answer yet."""
    usual = {"more_body": True, "response_started": False, "response_complete": False, "disconnected": False}
    return SimpleNamespace(**{**usual, "message_event": Event(), **state})


class Server:
    """A server's connections, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, most: int = 100, silence: float = 30.0) -> None:
        self.now = 1000.0
        self.connections: set[Any] = set()
        self.complaints = Complaints()
        state: Any = SimpleNamespace(connections=self.connections)
        self.clients = Clients(Limits(most, silence), state, self.complaints)
        monkeypatch.setattr(module, "current_time", lambda: self.now)

    def join(self, cycle: Any = None) -> Any:
        """A new connection, with a request or without one."""
        one = self.clients.protocol(Base)(self.connections)
        one.connection_made(Transport())
        one.cycle = cycle
        return one

    @property
    def counted(self) -> dict[str, int]:
        """What was complained of."""
        return dict(self.complaints._counts)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """One with room for all."""
    return Server(monkeypatch)


def test_the_class_tells_what_it_is(server: Server) -> None:
    """A tracker of objects shows it by its name."""
    assert type(server.join()).__name__ == "LimitedBase"


# -- who waits for whom ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cycle", "head", "body", "waited"),
    [
        (None, True, False, 5),
        (request(), False, True, 5),
        (request(more_body=False), False, False, 0),
        (request(response_started=True), False, False, 0),
        (request(response_complete=True, more_body=False), False, False, 5),
        (request(response_complete=True), False, False, 5),
        (request(waiting_for_100_continue=True), False, False, 0),
        (request(waiting_for_100_continue=False), False, True, 5),
    ],
)
def test_who_waits(server: Server, cycle: Any, head: bool, body: bool, waited: float) -> None:
    """The server waits for a head, for a body that the app may read, and between two requests."""
    one = server.join(cycle)
    server.now += 5
    assert (one.reads_head, one.reads_body, one.waited(server.now)) == (head, body, waited)


def test_who_is_told_to_wait_is_not_waited_for(server: Server) -> None:
    """An app that does not read lets the client wait."""
    one = server.join(request())
    one.flow.read_paused = True
    server.now += 5
    assert not one.reads_body
    assert one.waited(server.now) == 0


def test_the_time_of_a_head_runs_from_its_beginning(server: Server) -> None:
    """Bytes that trickle in do not extend it; the next head has time of its own."""
    one = server.join()
    for _ in range(5):
        server.now += 1
        one.data_received(b"x")
    assert one.waited(server.now) == 5
    one.cycle = request(response_complete=True)
    one.data_received(b"x")
    server.now += 2
    one.data_received(b"x")
    server.now += 1
    assert one.reads_head
    assert one.waited(server.now) == 3 + 5  # it was the same head until the request had begun
    one.cycle = request()
    one.data_received(b"head ends")
    one.cycle.response_complete = True
    assert not one.reads_head
    server.now += 4
    assert one.waited(server.now) == 4
    one.data_received(b"x")
    server.now += 1
    assert one.reads_head
    assert one.waited(server.now) == 1


def test_the_time_of_a_body_runs_from_its_last_byte(server: Server) -> None:
    """A client that goes on sending is not silent."""
    one = server.join(request())
    for _ in range(5):
        server.now += 1
        one.data_received(b"x")
    server.now += 2
    assert one.waited(server.now) == 2


def test_the_time_of_an_answer_runs_from_its_last_byte(server: Server) -> None:
    """A client that goes on receiving is not silent, whatever the request does; only a smaller rest counts."""
    one = server.join(request(more_body=False))
    one.transport.unsent = 100
    assert one.waited(server.now) == 0
    server.now += 3
    assert one.waited(server.now) == 3
    assert not one.reads_head
    one.transport.unsent = 90
    assert one.waited(server.now) == 0
    server.now += 2
    one.transport.unsent = 95
    assert one.waited(server.now) == 2
    one.resume_writing()
    assert one.got == ["resume"]
    assert one.waited(server.now) == 0
    server.now += 2
    assert one.waited(server.now) == 2
    one.transport.unsent = 0
    assert one.waited(server.now) == 0
    one.transport.unsent = 50
    assert one.waited(server.now) == 0


# -- who is closed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cycle", "unsent", "limit"),
    [(None, 0, 10.0), (request(), 0, 30.0), (request(more_body=False), 10, 30.0), (None, 10, 30.0)],
)
def test_who_takes_too_long(server: Server, cycle: Any, unsent: int, limit: float) -> None:
    """10 s for a head, and for all else what the service says."""
    one = server.join(cycle)
    one.transport.unsent = unsent
    server.clients.look()
    server.now += limit
    server.clients.look()
    assert one.transport.did == []
    server.now += 0.1
    server.clients.look()
    assert one.transport.did == ["abort"]


def test_other_connections_are_left_alone(server: Server) -> None:
    """Those of websockets, which have limits of their own; what was counted is told then."""
    server.connections.add(Websocket(Transport()))
    server.complaints.add("things")
    server.clients.look()
    assert server.counted == {}


def test_a_full_server_closes_the_one_it_has_waited_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that has just come, and none that waits; where there is none, the new one is refused."""
    server = Server(monkeypatch, most=3)
    waits = server.join(request(more_body=False))
    old = server.join()
    server.now += 1
    middle = server.join()
    assert server.counted == {}
    server.now += 0.3
    new = server.join()
    assert (waits.transport.did, old.transport.did, middle.transport.did) == ([], ["abort"], [])
    assert server.connections == {waits, middle, new}
    assert server.counted == {"connections more than 3": 1}
    another = server.join()
    assert middle.transport.did == ["abort"]
    server.now += 0.25
    last = server.join()
    assert last.transport.did == [module.FULL, "close"]
    assert new.transport.did == another.transport.did == []
    assert server.counted == {"connections more than 3": 3}


def test_a_big_server_closes_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 32, since looking for them takes time."""
    server = Server(monkeypatch, most=64)
    old = [server.join() for _ in range(64)]
    server.now += 1
    server.join()
    assert [one.transport.did for one in old].count(["abort"]) == 2
    assert len(server.connections) == 63


# -- the stop ----------------------------------------------------------------------------------------------------


def test_a_stop_ends_all_connections(server: Server) -> None:
    """After their requests; one that has just come may say what it wants first, for a tenth of a second."""
    old, busy = server.join(), server.join(request())
    websocket = Websocket(Transport())
    server.connections.add(websocket)
    server.now += 5
    new = server.join()
    server.clients.part()
    server.clients.part()
    assert (old.got, busy.got, new.got) == (["shutdown"], ["shutdown"], [])
    assert websocket.asked == 1
    server.now += 0.1
    server.clients.part()
    assert new.got == ["shutdown"]
    server.now += 0.9
    server.clients.part()
    assert websocket.transport.did == []
    server.now += 0.1
    server.clients.part()
    assert websocket.transport.did == ["abort"]
    assert websocket.asked == 1


@pytest.mark.parametrize(
    ("cycle", "unsent", "limit"), [(request(), 0, 2.0), (request(more_body=False), 10, 0.5), (None, 0, 0.5)]
)
def test_a_stop_waits_for_no_client(server: Server, cycle: Any, unsent: int, limit: float) -> None:
    """2 s for a part of a body, and half a second for one of an answer; a client that waits has all the time."""
    one, patient = server.join(cycle), server.join(request(more_body=False))
    server.now += 1
    server.clients.part()
    if cycle is not None:
        one.data_received(b"x")
    one.transport.unsent = unsent
    server.clients.part()
    assert one.transport.did == (["abort"] if cycle is None else [])
    if cycle is not None:
        server.now += limit
        server.clients.part()
        assert one.transport.did == []
        server.now += 0.1
        server.clients.part()
        assert one.transport.did == ["abort"]
    server.now += 100
    server.clients.part()
    assert patient.transport.did == []


# -- what is no HTTP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["data_received", "handle_events"])
@pytest.mark.parametrize("state", [None, {}, {"response_complete": True}], ids=["none", "open", "answered"])
def test_an_error_of_the_parser_is_the_clients(server: Server, call: str, state: Any) -> None:
    """The connection is closed, an app in the middle of a request sees that its client is gone, and it is counted."""
    cycle = None if state is None else request(**state)
    one, other = server.join(cycle), server.join()
    server.connections.add(Websocket(one.transport))  # its handshake has failed
    one.raises = LookupError()
    getattr(one, call)(*([b"x"] if call == "data_received" else []))
    assert one.transport.did == ["abort"]
    assert server.counted == {module.NOT_HTTP: 1}
    assert server.connections == {one, other}
    if cycle is not None:
        gone = not cycle.response_complete
        assert (cycle.disconnected, cycle.message_event.is_set) == (gone, gone)


def test_a_head_that_does_not_end(server: Server) -> None:
    """64 KiB are enough; the next head begins anew, and a body is none."""
    one = server.join()
    one.data_received(bytes(40_000))
    one.data_received(bytes(25_536))
    assert one.transport.did == []
    one.data_received(b"x")
    assert one.transport.did == ["abort"]
    body = server.join(request())
    for _ in range(3):
        body.data_received(bytes(60_000))
    assert body.transport.did == []
    body.cycle.response_complete = True
    for _ in range(2):
        body.data_received(bytes(30_000))
    assert body.transport.did == []
    body.cycle = request()
    body.data_received(bytes(60_000))
    body.cycle.response_complete = True
    body.data_received(bytes(60_000))
    assert body.transport.did == []


def test_a_head_that_does_not_end_of_a_client_that_does_not_read(server: Server) -> None:
    """That its answer waits for it makes it no better."""
    one = server.join(request(response_complete=True))
    one.transport.unsent = 10
    server.clients.look()
    assert not one.reads_head
    one.data_received(bytes(65_537))
    assert one.transport.did == ["abort"]


def test_a_body_that_comes_while_the_answer_is_completed(server: Server) -> None:
    """It is no head."""
    one = server.join(request())
    one.answers = True
    one.data_received(bytes(65_537))
    assert one.transport.did == []


@pytest.mark.parametrize(
    ("cycle", "answers", "closes", "leaves"),
    [
        (None, True, False, False),
        (request(), True, False, True),
        (request(response_started=True), False, True, True),
        (request(response_complete=True), True, False, False),
    ],
)
def test_a_request_that_is_refused(server: Server, cycle: Any, answers: bool, closes: bool, leaves: bool) -> None:
    """It is answered, unless another answer has begun; the app sees that its client is gone."""
    one = server.join(cycle)
    one.send_400_response("bad")
    assert one.got == ["bad"] * answers
    assert one.transport.did == ["abort"] * closes
    assert server.counted == {module.NOT_HTTP: 1}
    if cycle is not None:
        assert (cycle.disconnected, cycle.message_event.is_set) == (leaves, leaves)


def test_another_protocol_is_not_worth_a_warning(server: Server) -> None:
    """HTTP lets a server ignore that wish."""
    server.join()._unsupported_upgrade_warning()
    assert server.counted == {}
