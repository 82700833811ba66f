"""The corners: servers that go and come back, streams and taps, permissions, versions, and messages of anybody."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from nats import connect
from nats.micro import add_service
from nats.micro.service import ServiceConfig

from kernel import CallError, DeadlineExceeded, Serving, Unavailable, interface, service
from kernel.calls import instances as instances_module
from tests.calls.conftest import App, Server, apps, until
from tests.calls.scene import NoSuchUser, User, UsersHere, outcome, users_of, web_of

pytestmark = pytest.mark.anyio

Start = Callable[..., Server]


async def test_the_server_is_killed_and_comes_back(own_nats: Start, prefix: str) -> None:
    """What was sent waits until its deadline; what was not is sent when it is back. Nobody is restarted."""
    server, here = own_nats(), UsersHere()
    web, users = App((web_of(),), server.url, prefix), App((users_of(here),), server.url, prefix)
    sent: list[Any] = []

    async def call() -> None:
        with anyio.move_on_after(1) as scope:
            sent.append(await outcome(web.value("web").slow(60, "a")))
        sent.append(scope.cancelled_caught)

    async with apps(web, users), anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await here.until(lambda: here.begun == ["a"])
        server.kill()
        link = web.wiring.link
        assert link is not None
        await until(lambda: not link.server)
        assert web.wiring.status()["connected"] is False
        assert web.orchestrator.ready  # later loss restarts nobody
        tasks.start_soon(anyio.to_thread.run_sync, server.start)
        with anyio.fail_after(60):
            assert await web.value("web").get(3) == User(3, "user 3")
        assert web.wiring.status()["connected"] is True
        assert web.orchestrator.supervisors["web"].attempt == 1
    assert sent == [True]
    assert here.done == []


async def test_a_frozen_server(own_nats: Start, prefix: str) -> None:
    """A call ends at its deadline, and the next one is right when the server has thawed."""
    server = own_nats()
    web, users = App((web_of(),), server.url, prefix), App((users_of(UsersHere()),), server.url, prefix)
    async with apps(web, users):
        server.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError), anyio.fail_after(0.5):
            await web.value("web").get(3)
        server.signal(signal.SIGCONT)
        with anyio.fail_after(60):
            assert await web.value("web").get(3) == User(3, "user 3")


async def test_a_tap_on_everything(nats: str, prefix: str) -> None:
    """Somebody who listens to all changes nothing."""
    tap = await connect(nats)
    heard: list[str] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.subject)

    await tap.subscribe(">", cb=hear)
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(web, users):
        assert await web.value("web").get(3) == User(3, "user 3")
        users.stop()
        await until(lambda: users.report is not None)
        with pytest.raises(CallError), anyio.fail_after(1):
            await web.value("web").get(3)
    assert f"{prefix}.users.get" in heard
    await tap.close()


async def test_a_stream_over_the_prefix(own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """Its acknowledgements are no answers; with nobody there the call is Unavailable."""
    server = own_nats("-js", "-sd", str(tmp_path / "js"))
    raw = await connect(server.url)
    await raw.jetstream().add_stream(name="ALL", subjects=[f"{prefix}.>"])
    web, users = App((web_of(),), server.url, prefix), App((users_of(UsersHere()),), server.url, prefix)
    async with apps(web, users):
        for number in range(1, 20):
            assert (await web.value("web").get(number)).id == number
        users.stop()
        await until(lambda: users.report is not None)
        with pytest.raises(Unavailable, match="nobody serves"), anyio.fail_after(2):
            await web.value("web").get(3)
        async with apps(App((users_of(UsersHere()),), server.url, prefix)):
            assert (await web.value("web").get(3)).id == 3
    await raw.close()


# -- permissions -------------------------------------------------------------------------------------------------


def with_permissions(folder: Path, permissions: str) -> tuple[str, str]:
    """Options for a server on which `me` may do only this."""
    file = folder / "server.conf"
    me = f"{{user: me, password: hidden, permissions: {{{permissions}}}}}"
    file.write_text(f"authorization {{ users = [ {me}, {{user: all, password: hidden}} ] }}\n")
    return "-c", str(file)


ME = {"NATS_USER": "me", "NATS_PASSWORD": "hidden"}
ALL = {"NATS_USER": "all", "NATS_PASSWORD": "hidden"}


async def test_no_permission_to_subscribe(own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """The export fails its start, by the name of the subject."""
    server = own_nats(*with_permissions(tmp_path, f'subscribe: {{deny: "{prefix}.users.get"}}'))
    users = App((users_of(UsersHere()),), server.url, prefix, environ=ME)
    async with apps(users):
        await until(lambda: users.report is not None)
    assert users.report is not None
    assert users.report.exit_code == 1
    error = users.orchestrator.supervisors["users export"].error
    assert isinstance(error, PermissionError)
    assert f"{prefix}.users.get" in str(error)


async def test_no_permission_to_publish(own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """The call is Unavailable, at once, by the name of the subject."""
    server = own_nats(*with_permissions(tmp_path, f'publish: {{deny: "{prefix}.users.get"}}'))
    web = App((web_of(),), server.url, prefix, environ=ME)
    users = App((users_of(UsersHere()),), server.url, prefix, environ=ALL)
    async with apps(web, users):
        with pytest.raises(Unavailable, match=f"does not allow to publish to {prefix}.users.get"), anyio.fail_after(30):
            await web.value("web").get(3)
        assert await web.value("web").size("abc") == 3


async def test_a_wrong_password(own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """The link fails its start, says which variables to look at, and shows no secret."""
    server = own_nats(*with_permissions(tmp_path, ""))
    wrong = {"NATS_USER": "me", "NATS_PASSWORD": "secret-but-wrong"}  # pragma: allowlist secret
    web = App((web_of(),), server.url, prefix, environ=wrong)
    async with apps(web):
        await until(lambda: web.report is not None)
    assert web.report is not None
    assert web.report.exit_code == 1
    error = web.orchestrator.supervisors["nats"].error
    assert "refused the login" in str(error)
    assert "NATS_PASSWORD" in str(error)
    assert "secret-but-wrong" not in str(error)


# -- versions ----------------------------------------------------------------------------------------------------


@interface(raises=[NoSuchUser], timeout=5)
class UsersV2(Protocol):
    async def get(self, id: int, *, deep: bool = False) -> User: ...  # noqa: A002
    async def rename(self, id: int, name: str, *, notify: bool = False) -> User: ...  # noqa: A002
    async def fail(self, how: str) -> int: ...
    async def slow(self, seconds: float, name: str = "") -> str: ...
    async def size(self, text: str) -> int: ...
    async def grow(self, size: int) -> str: ...
    async def count(self) -> int: ...


class UsersHereV2(UsersHere):
    async def get(self, id: int, *, deep: bool = False) -> User:  # noqa: A002
        return User(id, "deep" if deep else "new")

    async def count(self) -> int:
        return 7


async def test_an_old_version_beside_a_new_one(nats: str, prefix: str) -> None:
    """Old callers live with both; what only the new one understands gets there, and nothing runs twice."""

    @service
    async def users(serving: Serving[UsersV2]) -> None:
        async with serving(UsersHereV2()):
            await anyio.sleep_forever()

    @service(depends=["users"])
    async def web(users: UsersV2, serving: Serving[Any]) -> None:
        async with serving(users):
            await anyio.sleep_forever()

    old, new = App((users_of(UsersHere()),), nats, prefix), App((users,), nats, prefix)
    old_web, new_web = App((web_of(),), nats, prefix), App((web,), nats, prefix)
    async with apps(old, new), apps(old_web, new_web):
        for number in range(1, 30):
            assert (await old_web.value("web").get(number)).name in {"new", f"user {number}"}
            assert await new_web.value("web").get(number, deep=True) == User(number, "deep")
            assert await new_web.value("web").count() == 7
        new.stop()
        await until(lambda: new.report is not None)
        assert (await old_web.value("web").get(3)).name == "user 3"
        with pytest.raises(Unavailable, match="contract: takes no argument 'deep'"), anyio.fail_after(1):
            await new_web.value("web").get(3, deep=True)


# -- anybody's messages ------------------------------------------------------------------------------------------


async def test_no_message_of_anybody_ends_an_instance(nats: str, prefix: str) -> None:
    """Headers and payloads of any kind, on each subject that an app listens to."""
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    rand = random.Random(7)  # noqa: S311
    names = ["rpc-timeout", "rpc-id", "rpc-contract", "rpc-status", "traceparent", "Nats-Service-Error", "x"]
    texts = ["", "0", "-1", "nan", "inf", "1e999", "abc", "ä", "ok", "error", "not-begun", "00-1-2-3", "9" * 300]
    payloads = [b"", b"{}", b"[]", b"null", b'{"id": "x"}', b'{"id": 1, "id": 2}', b"\xff\x00", b"[" * 5000, b"{" * 9]
    raw = await connect(nats)
    async with apps(web, users):
        link = web.wiring.link
        assert link is not None
        subjects = [
            *(f"{prefix}.users.{name}" for name in ("get", "fail", "slow", "nothing", "_cancel")),
            *("$SRV.PING", "$SRV.INFO.users", "$SRV.STATS", f"{link.inbox}.1", f"{link.inbox}.zz"),
        ]
        for _ in range(600):
            headers = {name: rand.choice(texts) for name in rand.sample(names, rand.randrange(4))} or None
            reply = rand.choice(["", raw.new_inbox(), f"{link.inbox}.2", f"{prefix}.users.get"])
            await raw.publish(rand.choice(subjects), rand.choice(payloads), reply, headers)
        await raw.flush()
        with anyio.fail_after(60):
            assert await web.value("web").get(3) == User(3, "user 3")
        assert web.orchestrator.ready
        assert users.orchestrator.ready
        answer = await raw.request(f"{prefix}.users.get", b'{"id": 1}', headers={"rpc-timeout": "soon"}, timeout=30)
        assert (answer.headers or {})["Nats-Service-Error-Code"] == "400"
    await raw.close()


async def test_answers_of_anybody_are_no_answers(nats: str, prefix: str) -> None:
    """One that serves our subject and does not speak as we do ends a call with an error, and no more."""
    raw = await connect(nats)
    answers = [{"rpc-status": "ok"}, {"rpc-status": "error"}, {"rpc-status": "failed"}, {"rpc-status": "what"}]
    payloads = [b"", b"{}", b"[]", b"\xff", b'{"type": 3}', b'{"type": "NoSuchUser"}', b'{"id": "x"}']
    rand = random.Random(8)  # noqa: S311

    async def answer(msg: Any) -> None:
        await raw.publish(msg.reply, rand.choice(payloads), headers=rand.choice(answers))

    web = App((web_of(),), nats, prefix)
    async with apps(web, App((users_of(UsersHere()),), nats, f"{prefix}"), wait=True):
        await raw.subscribe(f"{prefix}.users.get", queue="q", cb=answer)
        await raw.flush()
        good = 0
        for _ in range(200):
            try:
                good += await web.value("web").get(3) == User(3, "user 3")
            except (CallError, NoSuchUser):
                continue
        assert good
        assert web.orchestrator.ready
    await raw.close()


async def test_a_slow_consumer(nats: str, prefix: str) -> None:
    """Many large results at once: each arrives, or its call says why; the connections live on."""
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(web, users):
        found: list[int] = []

        async def one() -> None:
            found.append(len(await web.value("web").grow(200_000)))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(one)
        assert found == [200_000] * 200


# -- discovery ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:datetime.*utcnow:DeprecationWarning")  # by the other client, since Python 3.12
async def test_the_protocol_of_services(nats: str, prefix: str) -> None:
    """Another client lists, describes, counts and calls our services, and we ignore those of others."""
    raw = await connect(nats)
    other = await add_service(raw, ServiceConfig(name="users", version="9.9.9"))
    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(web, users):
        answer = await raw.request(f"{prefix}.users.get", b'{"id": 3}', timeout=30)
        assert answer.data == b'{"id":3,"name":"user 3"}'
        answer = await raw.request(f"{prefix}.users.get", b'{"id": 0}', timeout=30)
        assert (answer.headers or {})["Nats-Service-Error"] == "there is no user 0"
        inbox = raw.new_inbox()
        sub = await raw.subscribe(inbox)
        for verb in ("PING", "INFO", "STATS"):
            await raw.publish(f"$SRV.{verb}.users", b"", inbox)
        import json

        found: dict[str, Any] = {}
        while len(found) < 3:
            told = json.loads((await sub.next_msg(30)).data)
            if told.get("metadata", {}).get("prefix") == prefix:
                found[told["type"].rpartition(".")[2]] = told
        assert {one["name"] for one in found.values()} == {"users"}
        assert len({one["id"] for one in found.values()}) == 1
        info, stats = found["info_response"], found["stats_response"]
        assert info["description"] == "Everything about users."
        assert info["version"] == "1.2.3"
        get = info["endpoints"][0]
        assert (get["name"], get["subject"], get["queue_group"]) == ("get", f"{prefix}.users.get", "q")
        assert json.loads(get["metadata"]["schema"])["parameters"] == {"id": {"type": "int"}}
        assert get["metadata"]["description"] == "Give one user."
        numbers = stats["endpoints"][0]
        assert (numbers["num_requests"], numbers["num_errors"]) == (2, 1)
        assert numbers["last_error"] == "422:there is no user 0"
    await other.stop()
    await raw.close()


async def test_the_deadline_of_a_killed_provider(nats: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers what had begun: DeadlineExceeded, at the deadline."""
    monkeypatch.setattr(instances_module, "ANSWER", 0.2)
    raw = await connect(nats)

    async def swallow(msg: Any) -> None: ...

    web, users = App((web_of(),), nats, prefix), App((users_of(UsersHere()),), nats, prefix)
    async with apps(web, users):
        users.stop()
        await until(lambda: users.report is not None)
        await raw.subscribe(f"{prefix}.users.get", queue="q", cb=swallow)
        await raw.flush()
        web.wiring.clients["users"].interface.methods  # noqa: B018
        call = web.value("web").get(1)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await call
        assert 4.5 < anyio.current_time() - began < 30
    await raw.close()
