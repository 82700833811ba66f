"""The connection to NATS: how it is made, kept and closed, and what happens to messages meanwhile."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlparse

import anyio
import anyio.lowlevel
import pytest
from nats.errors import Error as NatsError

from kernel.calls import nats as nats_module
from kernel.calls.nats import Callbacks, Link, NotConnected
from kernel.calls.nats_client import Message
from kernel.config.nats import read_nats
from kernel.testing import FakeServing
from tests.calls.fake_link import IN_VIRTUAL_TIME

pytestmark = pytest.mark.anyio

URL = "nats://me:hidden@here:4222"  # pragma: allowlist secret
SHOWN = "nats://********@here:4222"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The connection needs asyncio."""
    return IN_VIRTUAL_TIME


class FakeClient:
    """In place of the library's client: it connects as the server says."""

    max_payload = 1_000_000

    def __init__(self, servers: Servers, *, encrypted: bool) -> None:
        self.servers, self.encrypted = servers, encrypted
        self.is_connected = False
        self.pending_data_size = 0
        self.last_error: Exception | None = None
        self.connected_url: Any = None
        self.discovered_servers: list[Any] = []
        self.options: dict[str, Any] = {}
        self.log: list[tuple[Any, ...]] = []
        self.receivers: dict[int, Callable[[Message], None]] = {}

    async def connect(self, address: str, **options: Any) -> None:
        self.options = options
        self.servers.tried.append((anyio.current_time(), address))
        await self.servers.connects(self)
        self.is_connected = True
        self.connected_url = urlparse(address if "://" in address else f"nats://{address}")

    async def listen(self, subject: str, queue: str, receive: Callable[[Message], None]) -> int:
        self.receivers[len(self.receivers) + 1] = receive
        self.log.append(("listen", subject, queue))
        return len(self.receivers)

    async def unlisten(self, number: int) -> None:
        self.log.append(("unlisten", number))

    def forget(self, number: int) -> None:
        self.log.append(("forget", number))

    def send(self, subject: str, payload: bytes, reply: str, headers: Any) -> None:
        self.log.append(("send", subject, payload, reply, headers))
        if subject.startswith("_INBOX.") and self.servers.echoes:  # a fence
            self.receivers[1](Message(subject, reply, payload, headers or {}))

    async def close(self) -> None:
        self.log.append(("close",))
        await self.servers.closes(self)
        await self.drop(None)

    async def drop(self, error: Exception | None) -> None:
        """Lose the connection."""
        was, self.is_connected, self.last_error = self.is_connected, False, error
        if was:
            await self.options["closed_cb"]()


class Servers:
    """What there is to connect to, and what became of it."""

    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.tried: list[tuple[float, str]] = []
        self.errors: list[BaseException] = []  # of the next attempts
        self.hang = False
        self.closing_takes = 0.0
        self.echoes = True

    def __call__(self, *, encrypted: bool = False) -> FakeClient:
        self.clients.append(FakeClient(self, encrypted=encrypted))
        return self.clients[-1]

    @property
    def client(self) -> FakeClient:
        """The latest."""
        return self.clients[-1]

    async def connects(self, client: FakeClient) -> None:
        if self.hang:
            await anyio.sleep_forever()
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, Told):
                await client.options["error_cb"](error.told)
            raise error

    async def closes(self, _: FakeClient) -> None:
        await anyio.sleep(self.closing_takes)


class Told(NatsError):
    """An error of the library that says less than what the server told before."""

    def __init__(self, told: Exception) -> None:
        super().__init__("nats: no servers available for connection")
        self.told = told


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    """What there is to connect to."""
    made = Servers()
    monkeypatch.setattr(nats_module, "FastClient", made)
    return made


def link_to(*urls: str, **environ: str) -> Link:
    settings, errors = read_nats({"NATS_URL": ",".join(urls or (URL,)), **environ})
    assert settings is not None, errors
    return Link(settings, "shop")


@asynccontextmanager
async def serving(link: Link) -> AsyncIterator[FakeServing]:
    """Keep the connection for as long as the block lasts."""
    async with anyio.create_task_group() as tasks:
        fake = FakeServing()
        tasks.start_soon(link.serve, fake)
        await link.connected()
        await anyio.lowlevel.checkpoint()
        yield fake
        fake.stop()


# -- connecting --------------------------------------------------------------------------------------------------


async def test_how_it_connects(servers: Servers) -> None:
    """By the URL without its login, and with the library's own reconnecting left off."""
    link = link_to()
    assert link.doing() == f"connecting to {SHOWN}"
    async with serving(link) as fake:
        assert servers.tried == [(0.0, "nats://here:4222")]
        options = dict(servers.client.options)
        assert callable(options.pop("error_cb"))
        assert callable(options.pop("closed_cb"))
        assert options == {
            "name": "shop",
            "allow_reconnect": False,
            "connect_timeout": 2.0,
            "reconnect_time_wait": 0.01,
            "max_reconnect_attempts": 1,
            "ping_interval": 10,
            "skip_subject_validation": True,
            "tls": None,
            "user": "me",
            "password": "hidden",
        }
        assert servers.client.encrypted is False
        assert (link.server, link.error, link.reconnects) == ("here:4222", "", 0)
        assert servers.client.log == [("listen", f"{link.inbox}.*", "")]
        assert fake.value is link
    assert link.server == ""
    assert [entry[0] for entry in servers.client.log] == ["listen", "send", "close"]


async def test_a_server_with_tls(servers: Servers) -> None:
    """The client must not talk to it without."""
    async with serving(link_to("tls://here:4222")):
        assert servers.client.encrypted is True
        assert servers.client.options["tls"] is not None


async def test_each_server_is_tried_again_and_again(servers: Servers, caplog: Any) -> None:
    """After pauses that double up to a second; each different error is logged once, without secrets."""
    caplog.set_level(logging.INFO)
    link = link_to(URL, "nats://there:4222")
    errors: list[BaseException] = [OSError("refused"), NatsError("nats: 'empty response'")]
    servers.errors = errors * 6 + [OSError("refused")]
    async with serving(link):
        times = [round(when, 6) for when, address in servers.tried if "here" in address.replace("there", "")]
        pauses = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
        assert [address.removeprefix("nats://") for _, address in servers.tried[:3]] == [
            "here:4222",
            "there:4222",
            "here:4222",
        ]
        assert link.server == "there:4222"
        assert link.error == ""
    wanted = "cannot connect to NATS: nats://there:4222: empty response; trying again until it answers"
    assert caplog.messages.count(wanted) == 1
    assert "hidden" not in caplog.text


async def test_the_last_error_is_told(servers: Servers) -> None:
    """By what it waits for, with the server."""
    link = link_to()
    servers.errors = [OSError("Connection refused")]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.serve, FakeServing())
        await anyio.sleep(0.01)
        assert link.doing() == f"connecting to {SHOWN}: {SHOWN}: Connection refused"
        tasks.cancel_scope.cancel()


async def test_a_server_that_does_not_answer(servers: Servers) -> None:
    """Is left after twice the library's own timeout, and its client is closed, for at most a second."""
    servers.hang, servers.closing_takes = True, 60
    link = link_to(URL, "nats://there:4222")
    with anyio.move_on_after(9):
        await link._connect()
    assert servers.tried == [(0.0, "nats://here:4222"), (5.0, "nats://there:4222")]
    assert link.error == f"{SHOWN}: TimeoutError"
    assert servers.clients[0].log == [("close",)]


async def test_what_the_server_told_counts(servers: Servers, caplog: Any) -> None:
    """More than the library's own error; a refusal ends the first attempt, and later ones go on."""
    link = link_to()
    servers.errors = [Told(NatsError("nats: 'maximum connections exceeded'"))]
    async with serving(link):
        assert len(servers.tried) == 2
        told = f"cannot connect to NATS: {SHOWN}: maximum connections exceeded; trying again until it answers"
        assert caplog.messages == [told]
        servers.errors = [Told(NatsError("nats: 'Authorization Violation'"))] * 2
        await servers.client.drop(None)
        await anyio.sleep(0.01)
        refused = f"{SHOWN} refused the login: Authorization Violation"
        assert link.error.startswith(refused)
        await link.connected()
        assert len(servers.tried) == 5
    servers.errors = [Told(NatsError("nats: 'Authorization Violation'"))]
    with pytest.raises(PermissionError, match="refused the login: Authorization Violation; see NATS_USER"):
        await link_to().serve(FakeServing())


async def test_a_lost_connection_is_made_again(servers: Servers, caplog: Any) -> None:
    """With all subscriptions, and it is logged both times."""
    caplog.set_level(logging.INFO)
    link = link_to()
    async with serving(link):
        await link.begin([link.subscribe("a", lambda _: None, "q")])
        first = servers.client
        servers.errors = [OSError("refused")] * 2
        await first.drop(NatsError("nats: 'stale connection'"))
        assert (link.server, link.error) == ("", "stale connection")
        await anyio.lowlevel.checkpoint()
        with pytest.raises(NotConnected):
            await link.post("x", b"")
        await link.connected()
        await anyio.lowlevel.checkpoint()
        assert link.reconnects == 1
        assert servers.client is not first
        assert servers.client.log == [("listen", f"{link.inbox}.*", ""), ("listen", "a", "q")]
        await first.drop(None)  # a client of before has no say any more
        assert link.server == "here:4222"
        await servers.client.drop(None)
        await anyio.lowlevel.checkpoint()
        await link.connected()
    lost = [message for message in caplog.messages if message.startswith("lost")]
    assert lost == [
        f"lost the connection to NATS at {SHOWN}: stale connection",
        f"lost the connection to NATS at {SHOWN}: it was closed",
    ]
    assert sum(message.startswith("connected to NATS again, at here:4222, after ") for message in caplog.messages) == 2


async def test_the_other_servers_of_a_cluster(servers: Servers) -> None:
    """Are learned from the one that answers, with the same scheme and login, each once."""
    link = link_to(URL)
    async with serving(link):
        assert link._servers == [URL]
        servers.client.discovered_servers = [urlparse(f"nats://{host}:4222") for host in ("here", "there")]
        servers.errors = [OSError()]
        await servers.client.drop(None)
        assert link._servers == [URL, "nats://me:hidden@there:4222"]
        await anyio.lowlevel.checkpoint()
        await link.connected()
        assert link.server == "there:4222"
    bare = link_to("here:4222")
    async with serving(bare):
        servers.client.discovered_servers = [urlparse("nats://there:4222")]
        await servers.client.drop(None)
        assert bare._servers == ["here:4222", "there:4222"]


# -- closing -----------------------------------------------------------------------------------------------------


async def test_what_is_still_to_be_sent_is_sent_first(servers: Servers) -> None:
    """Then a fence, and then the connection is closed, for which there is a second."""
    link = link_to()

    async def later() -> None:
        await anyio.sleep(0.5)
        await link.post("late", b"")

    async with serving(link):
        link.spawn(later())
        servers.closing_takes = 60
    subjects = [entry[1] for entry in servers.client.log if entry[0] == "send"]
    assert subjects[0] == "late"
    assert subjects[1].startswith(link.inbox)
    assert servers.client.log[-1] == ("close",)
    assert anyio.current_time() == 1.5


async def test_a_block_with_a_connection(servers: Servers, caplog: Any) -> None:
    """As for a command: it is closed after it, and what fails is an error and not a line of the log."""
    link = link_to()
    async with link.open(3):
        assert link.server == "here:4222"
        link.subscribe("a", lambda _: None)
    assert servers.client.log[-1] == ("close",)
    assert not nats_module.logger.disabled
    began = anyio.current_time()
    servers.hang = True
    with pytest.raises(TimeoutError) as caught:
        async with link_to().open(3):
            pytest.fail("entered")
    assert str(caught.value) == f"cannot connect to NATS: {SHOWN}"
    assert anyio.current_time() - began == 3
    servers.hang = False
    servers.errors = [OSError("refused")] * 100
    with pytest.raises(TimeoutError, match=r"cannot connect to NATS: .*: refused"):
        async with link_to().open(3):
            pytest.fail("entered")
    assert caplog.messages == []
    assert not nats_module.logger.disabled


async def test_a_block_whose_login_is_refused(servers: Servers) -> None:
    """Is not tried again."""
    servers.errors = [Told(NatsError("nats: 'Authorization Violation'"))]
    with pytest.raises(PermissionError):
        async with link_to().open(3):
            pytest.fail("entered")
    assert anyio.current_time() == 0
    assert not nats_module.logger.disabled


# -- messages ----------------------------------------------------------------------------------------------------


async def test_a_full_connection_is_waited_for(servers: Servers) -> None:
    """Until it takes more, or until the deadline; a mebibyte may wait."""
    link = link_to()
    async with serving(link):
        client = servers.client
        client.log.clear()
        client.pending_data_size = 1 << 20
        await link.post("a", b"1", "r", {"h": "v"})
        assert client.log == [("send", "a", b"1", "r", {"h": "v"})]
        client.pending_data_size += 1
        began = anyio.current_time()
        with pytest.raises(NotConnected):
            await link.post("b", b"", until=began + 1)
        assert anyio.current_time() - began == pytest.approx(1, abs=0.006)
        link.post_soon("c", b"2", {"x": "y"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.post, "d", b"")
            await anyio.sleep(0.1)
            assert len(client.log) == 1
            client.pending_data_size = 0
            began = anyio.current_time()
        assert anyio.current_time() - began <= 0.005
        assert sorted(entry[1:] for entry in client.log[1:]) == [("c", b"2", "", {"x": "y"}), ("d", b"", "", None)]
        assert link._sending == set()


async def test_a_message_that_is_given_up(servers: Servers, caplog: Any) -> None:
    """Where nobody waits, the log tells."""
    link = link_to()
    async with serving(link):
        servers.client.pending_data_size = 2 << 20
        link.post_soon("a", b"")
        await anyio.lowlevel.checkpoint()
        servers.client.is_connected = False
        await anyio.sleep(0.1)
        servers.client.is_connected = True
        servers.client.pending_data_size = 0
    assert caplog.messages == ["an answer to a could not be given: there is no connection to NATS"]


async def test_how_large_a_message_may_be(servers: Servers) -> None:
    """Payload and headers together, as the server counts them."""
    link = link_to()
    assert link.excess(b"x" * 2_000_000, {}) == ""  # nothing is known before there is a connection
    async with serving(link):
        servers.client.max_payload = 20_000
        few = {"a": "ä"}  # 14 + 1 + 2 + 4 bytes
        assert link.excess(b"x" * (20_000 - 21), few) == ""
        assert link.excess(b"x" * (20_000 - 20), few) == "20001 bytes, but the server accepts at most 20000"
        many = {f"{number}": "x" * 4_000 for number in range(5)}
        assert link.excess(b"", many) == ""  # five small ones never take more than is spared, so nobody counts
        assert link.excess(b"", {**many, "more": ""}) == "20047 bytes, but the server accepts at most 20000"


async def test_answers_find_who_waits(servers: Servers) -> None:
    """By a token of its own for each, until it is forgotten."""
    link = link_to()
    got: list[tuple[str, bytes]] = []
    async with serving(link):
        tokens = [link.token() for _ in range(20)]
        assert len(set(tokens)) == 20
        replies = [
            link.wait(token, Callbacks("s", lambda msg, token=token: got.append((token, msg.data)), lambda _: None))  # type: ignore[misc]
            for token in tokens[:2]
        ]
        receive = servers.client.receivers[1]
        for subject in (*replies, f"{link.inbox}.zz"):
            receive(Message(subject, "", b"1", {}))
        link.forget(tokens[0])
        link.forget(tokens[0])
        receive(Message(replies[0], "", b"2", {}))
    assert got == [(tokens[0], b"1"), (tokens[1], b"1")]
    assert link_to().inbox != link.inbox


async def test_what_the_server_refuses(servers: Servers, caplog: Any) -> None:
    """Those who wait for an answer to it are told, and the log once; other errors are none of theirs."""
    link = link_to()
    told: list[str] = []
    async with serving(link):
        link.wait("1", Callbacks("a.b", lambda _: None, lambda words: told.append(f"1: {words}")))
        link.wait("2", Callbacks("a.c", lambda _: None, lambda words: told.append(f"2: {words}")))
        failed = servers.client.options["error_cb"]
        await failed(NatsError('nats: Permissions Violation for Publish to "a.b"'))
        await failed(NatsError('nats: permissions violation for publish to "a.b"'))
        await failed(NatsError('nats: permissions violation for Subscription to "x.y" using queue "q"'))
        await failed(NatsError("nats: 'slow consumer'"))
        publish, subscribe = (f"the server does not allow to {what}" for what in ("publish to a.b", "subscribe to x.y"))
        assert told == [f"1: {publish}"] * 2
        assert link.denied == {"a.b": publish, "x.y": subscribe}
        assert caplog.messages == [publish, subscribe]
        with pytest.raises(PermissionError, match=r"subscribe to x\.y"):
            await link.begin([link.subscribe("x.y", lambda _: None)])


# -- fences and subscriptions ------------------------------------------------------------------------------------


async def test_a_fence(servers: Servers) -> None:
    """Comes back once the server has processed what was sent before; it waits for five seconds."""
    link = link_to()
    async with serving(link):
        await link.fence()
        servers.echoes = False
        began = anyio.current_time()
        with pytest.raises(TimeoutError):
            await link.fence()
        assert anyio.current_time() - began == 5
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.fence)
            await anyio.sleep(0.1)
            link._failed(NatsError(f'nats: permissions violation for subscription to "{link.inbox}.other"'))
            began = anyio.current_time()
            await servers.client.drop(None)  # then there is nothing to wait for
        assert anyio.current_time() - began <= 0.5
        await link.connected()
        servers.echoes = True
        assert link._waiting == {}
    await link.fence()  # without a connection there is nothing to wait for


async def test_a_fence_that_is_refused(servers: Servers) -> None:
    """Is an error with the subject."""
    link = link_to()
    async with serving(link), anyio.create_task_group() as tasks:
        servers.echoes = False
        tasks.start_soon(_refuse, link)
        with pytest.raises(PermissionError, match="does not allow to subscribe to _INBOX"):
            await link.fence()
        assert anyio.current_time() == 0.1
        servers.echoes = True


async def _refuse(link: Link) -> None:
    await anyio.sleep(0.1)
    link._failed(NatsError(f'nats: permissions violation for subscription to "{link.inbox}.*"'))


async def test_a_subscription_ends_when_what_was_sent_has_arrived(servers: Servers) -> None:
    """The server is told first, then comes the fence, and only then is the rest dropped."""
    link = link_to()
    async with serving(link):
        client = servers.client
        one, other = (link.subscribe(subject, lambda _: None, queue) for subject, queue in (("a", "q"), ("b", "")))
        await link.begin([one, other])
        await link.begin([one])  # which is begun already
        assert client.log[1:3] == [("listen", "a", "q"), ("listen", "b", "")]
        assert [entry[0] for entry in client.log] == ["listen"] * 3 + ["send"] * 2
        client.log.clear()
        await link.leave([one, link.subscribe("never begun", lambda _: None)])
        assert [entry[0] for entry in client.log] == ["unlisten", "send", "forget"]
        assert client.log[0] == ("unlisten", 2)
        assert client.log[2] == ("forget", 2)
        await client.drop(None)
        await anyio.lowlevel.checkpoint()
        await link.connected()
        assert [entry[1] for entry in servers.client.log] == [f"{link.inbox}.*", "b"]
        client.log.clear()
        other.now = client, 3  # type: ignore[assignment]  # of the connection before
        await link.leave([other])
        assert client.log == [("forget", 3)]
        assert ("unlisten", 3) not in servers.client.log


async def test_it_begins_nothing_without_a_connection() -> None:
    """It is begun with the next one."""
    link = link_to()
    await link.begin([link.subscribe("a", lambda _: None)])
    assert [subscribed.subject for subscribed in link._subscribed] == ["a"]
