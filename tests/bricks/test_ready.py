"""When a program counts as ready, without a program, in virtual time."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kernel.bricks import ready
from kernel.bricks.ready import EVERY
from kernel.bricks.ready import http as by_http
from kernel.errors import ProgramError

pytestmark = pytest.mark.anyio

nobody: Any = None  # the program, which does not matter here


class Network:
    """What becomes of attempts to connect, in order: an error, the seconds they take, or a connection at once."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[Any] = []
        self.closed = 0

    async def connect(self, host: str, port: int) -> Any:
        self.asked.append((host, port))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        await anyio.sleep(outcome)
        return self

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1


async def test_a_port_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again with a pause, also when nobody answers for a second; the connection is not kept."""
    network = Network(OSError(), ConnectionRefusedError(), 5.0, 0.5)
    monkeypatch.setattr(ready, "connect_tcp", network.connect)
    began = anyio.current_time()
    await ready.tcp(80)(nobody)
    assert network.asked == [("127.0.0.1", 80)] * 4
    assert anyio.current_time() - began == pytest.approx(3 * EVERY + 1.0 + 0.5)
    assert network.closed == 1


async def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the program is started, nobody may answer there."""
    network = Network(OSError(), 0.0)
    monkeypatch.setattr(ready, "connect_tcp", network.connect)
    program: Any = SimpleNamespace(name="db")
    wait: Any = ready.tcp(80, "::1")
    await wait.before(program)
    with pytest.raises(ProgramError, match=r"^db is not started: something is already listening on ::1:80"):
        await wait.before(program)
    assert network.asked == [("::1", 80)] * 2


@pytest.mark.parametrize(
    ("status", "answers", "tries"),
    [
        (None, [200], 1),
        (None, [399], 1),
        (None, [0, 199, 400, 500, 204], 5),
        (503, [200, 0, 503], 3),
        (404, [404], 1),
    ],
)
async def test_which_answers_are_right(
    monkeypatch: pytest.MonkeyPatch, status: int | None, answers: list[int], tries: int
) -> None:
    """The status that is wanted, or any that is good; it is tried again and again, with a pause."""
    asked: list[str] = []

    def get(url: str) -> int:
        asked.append(url)
        return answers[len(asked) - 1]

    monkeypatch.setattr(ready, "_get", get)
    began = anyio.current_time()
    await by_http("http://x/up", status=status)(nobody)
    assert asked == ["http://x/up"] * tries
    assert anyio.current_time() - began == pytest.approx(EVERY * (tries - 1))


async def test_who_waits_may_be_cancelled_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt goes on in its thread, and nobody waits for it."""
    begun, over = threading.Event(), threading.Event()

    def get(_: str) -> int:
        begun.set()
        over.wait(10)
        return 200

    monkeypatch.setattr(ready, "_get", get)
    wait: Any = by_http("http://x/")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, nobody)
            while not begun.is_set():  # noqa: ASYNC110
                await anyio.sleep(0.001)
            scope.cancel()
    assert scope.cancelled_caught
    assert not over.is_set()
    over.set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is asked of whom, by connections that are all closed."""
    asked: list[Any] = []
    open_ones: list[str] = []

    def kind(scheme: str) -> Any:
        class Connection:
            def __init__(self, host: str, port: int | None, timeout: float) -> None:
                open_ones.append(host)
                asked.append((scheme, host, port, timeout))

            def request(self, method: str, path: str) -> None:
                asked.append((method, path))

            def getresponse(self) -> Any:
                answer = answers.pop()
                if isinstance(answer, Exception):
                    raise answer
                return SimpleNamespace(status=answer)

            def close(self) -> None:
                open_ones.pop()

        return Connection

    answers: list[Any] = [http.client.BadStatusLine("?"), TimeoutError(), 302]
    monkeypatch.setattr(http.client, "HTTPConnection", kind("http"))
    monkeypatch.setattr(http.client, "HTTPSConnection", kind("https"))
    yield asked
    assert not open_ones


@pytest.mark.parametrize(
    ("url", "to", "path"),
    [
        ("http://127.0.0.1:9200/up?now=1", ("http", "127.0.0.1", 9200, 1.0), "/up?now=1"),
        ("https://example.org", ("https", "example.org", None, 1.0), "/"),
        ("http://[::1]:80?x", ("http", "::1", 80, 1.0), "/?x"),
        ("http:///up", ("http", "", None, 1.0), "/up"),
    ],
)
def test_what_is_asked(asked: list[Any], url: str, to: tuple[Any, ...], path: str) -> None:
    """The status comes as it is: nothing is followed, and who does not answer, or not in HTTP, has none."""
    assert [ready._get(url) for _ in range(3)] == [302, 0, 0]
    assert asked == [to, ("GET", path)] * 3


async def test_a_program_may_be_ready_by_its_output() -> None:
    """It is listened to before it starts."""
    found = anyio.Event()
    patterns: list[Any] = []

    def line_found(pattern: Any) -> anyio.Event:
        patterns.append(pattern)
        return found

    program: Any = SimpleNamespace(line_found=line_found)
    wait: Any = ready.output("^up")
    await wait.before(program)
    assert [pattern.pattern for pattern in patterns] == ["^up"]
    with anyio.move_on_after(1) as scope:
        await wait(program)
    assert scope.cancelled_caught
    found.set()
    await wait(program)
