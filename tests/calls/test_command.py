"""`app call` by itself: what it asks for, and what it makes of each answer."""

from __future__ import annotations

import json
from typing import Any, Protocol

import anyio
import pytest

from kernel import interface
from kernel.calls.command import call
from kernel.calls.nats import Link
from kernel.config.nats import Nats, read_nats
from kernel.errors import ConfigError, NamingError, PlanError
from kernel.testing import backend_options
from tests.calls.fake_link import NOBODY, SERVER, Answer, FakeLink, Sent, info

METHOD = "app.users.get"


@interface
class Users(Protocol):
    async def get(self, id: int) -> str: ...  # noqa: A002
    async def all(self) -> str: ...


@interface
class Stores(Protocol):
    async def put(self) -> None: ...


class There(FakeLink):
    """What answers: the call, and the question which services there are."""

    calls: list[Answer] = []  # noqa: RUF012  (set by each test)
    services: list[Answer] = []  # noqa: RUF012
    denied_subject = ""
    made: There

    def __init__(self, nats: Nats, name: str) -> None:
        super().__init__(self.answers)
        self.name = name
        There.made = self

    def answers(self, sent: Sent) -> list[Answer]:
        if sent.subject == self.denied_subject:
            self._failed(Exception(f'nats: permissions violation for publish to "{sent.subject}"'))
        return self.services if sent.subject == "$SRV.INFO" else self.calls

    async def _connect(self, *, first: bool = False) -> None:
        assert first


@pytest.fixture(autouse=True)
def there(monkeypatch: pytest.MonkeyPatch) -> type[There]:
    """No server, and no time that passes."""
    real = anyio.run
    monkeypatch.setattr("kernel.calls.nats.Link", There)
    monkeypatch.setattr(anyio, "run", lambda *args: real(*args, backend_options=backend_options("asyncio")))
    for name, value in (("calls", []), ("services", []), ("denied_subject", "")):
        monkeypatch.setattr(There, name, value)
    return There


def nats(**environ: str) -> Nats:
    settings, errors = read_nats({"NATS_URL": f"nats://{SERVER}", **environ})
    assert settings is not None, errors
    return settings


def called(capsys: Any, method: str = "users.get", **environ: str) -> tuple[int, str, str]:
    """Return the exit code, and what was printed."""
    code = call(nats(**environ), "app", method, '{"id": 1}', 2.5)
    return code, *capsys.readouterr()


def test_a_result_is_printed_as_json(there: type[There], capsys: Any) -> None:
    """Indented, for people; the call goes below the prefix, with its timeout and an id."""
    there.calls = [('{"name":"ä","tags":[]}'.encode(), {"rpc-status": "ok"})]
    assert called(capsys) == (0, '{\n  "name": "ä",\n  "tags": []\n}\n', "")
    (sent,) = there.made.sent
    assert (sent.subject, json.loads(sent.payload)) == (METHOD, {"id": 1})
    assert sent.headers == {"rpc-timeout": "2.5", "rpc-id": f"{there.made.id}.1"}
    assert there.made.name == "app call"
    called(capsys, NATS_PREFIX="other.app")
    assert there.made.sent[0].subject == "other.app.users.get"


def test_an_answer_of_something_else_is_none(there: type[There], capsys: Any) -> None:
    """As of a stream that stores what is sent; the one after it counts."""
    there.calls = [(b'{"stream":"ALL"}', {}), (b"3", {"rpc-status": "ok"})]
    assert called(capsys)[:2] == (0, "3\n")


RAISED: dict[str, str] = {"rpc-status": "error", "Nats-Service-Error": "no user 1"}
FAILED: dict[str, str] = {"rpc-status": "failed", "Nats-Service-Error": "ValueError: bad"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((b"", {"rpc-status": "bad-request", "Nats-Service-Error": "id: expected int"}), "id: expected int"),
        ((b"", {"rpc-status": "overloaded"}), "overloaded"),
        ((b'{"type":"ValueError"}', FAILED), "ValueError: bad"),
        ((b'{"type":"NoSuchUser"}', RAISED), "NoSuchUser: no user 1"),
        ((b"[]", FAILED), "ValueError: bad"),
    ],
    ids=range(5),
)
def test_an_error_is_one_line(answer: Answer, words: str, there: type[There], capsys: Any) -> None:
    """With its kind, once."""
    there.calls = [answer]
    assert called(capsys) == (1, "", f"error: users.get: {words}\n")


def test_no_answer(capsys: Any) -> None:
    """In time."""
    assert called(capsys) == (1, "", "error: users.get: no answer after 2.5 s\n")


def test_what_the_server_does_not_allow(there: type[There], capsys: Any) -> None:
    """Is told by its subject."""
    there.denied_subject = METHOD
    assert called(capsys) == (1, "", f"error: users.get: the server does not allow to publish to {METHOD}\n")


NOTHING = f"nobody serves {{}} below 'app' at {SERVER}; "


@pytest.mark.parametrize(
    ("method", "services", "words"),
    [
        ("users.gat", [info(Users)], "users has no method 'gat'; did you mean 'get'?"),
        ("users.xyz", [info(Users)], "users has no method 'xyz'; there are: get, all"),
        ("user.get", [info(Users), info(Stores, "stores")], NOTHING.format("user") + "did you mean 'users'?"),
        ("x.get", [info(Users), info(Stores, "stores"), info(Users)], NOTHING.format("x") + "there are: stores, users"),
        ("x.get", [(b"{}", {})], NOTHING.format("x") + "nothing is served"),
        ("x.get", [], NOTHING.format("x") + "nothing is served"),
    ],
    ids=range(6),
)
def test_nobody_serves_it(method: str, services: list[Answer], words: str, there: type[There], capsys: Any) -> None:
    """But perhaps something like it; services of others do not count."""
    there.calls, there.services = [NOBODY], services
    assert called(capsys, method) == (1, "", f"error: {method}: {words}\n")


@pytest.mark.parametrize(
    "error", [OSError("broken"), TimeoutError("cannot connect to NATS: here"), PermissionError("no")]
)
def test_no_connection(error: Exception, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told with its reason."""

    async def fails(_: Link, *, first: bool = False) -> None:
        raise error

    monkeypatch.setattr(There, "_connect", fails)
    code, out, err = called(capsys)
    assert (code, out) == (1, "")
    assert err.startswith("error: users.get: ")
    assert str(error) in err


@pytest.mark.parametrize(
    ("method", "arguments", "error", "says"),
    [
        ("users", "{}", NamingError, "'users' is no method"),
        ("us ers.get", "{}", NamingError, "'us ers.get' is no method"),
        ("users.g-t", "{}", NamingError, "'users.g-t' is no method"),
        (".get", "{}", NamingError, "'.get' is no method"),
        ("users.", "{}", NamingError, "'users.' is no method"),
        ("users.get", "{", PlanError, "the arguments are no JSON: Expecting property name"),
        ("users.get", "[1]", PlanError, "the arguments are no JSON object: [1]"),
    ],
)
def test_what_no_call_can_be_made_of(method: str, arguments: str, error: type[Exception], says: str) -> None:
    """The error shows how it is written; nothing is sent."""
    with pytest.raises(error) as caught:
        call(nats(), "app", method, arguments, 1)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert """as in: app call users.get '{"id": 1}'""" in str(caught.value)


def test_a_service_with_a_dash(there: type[There], capsys: Any) -> None:
    """Is a name as good as any."""
    there.calls = [(b"1", {"rpc-status": "ok"})]
    assert called(capsys, "my-users.get")[0] == 0
    assert there.made.sent[0].subject == "app.my-users.get"


def test_without_a_server() -> None:
    """The variable is named, and how to start one."""
    with pytest.raises(ConfigError, match=r"NATS_URL is not set; calls from the terminal go through NATS: `just nats`"):
        call(None, "app", "users.get", "{}", 1)
