"""A service that is called, and what it gives: the same wherever it runs."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Protocol

import anyio
import attrs

from kernel import Serving, interface, service
from kernel.declare.service import Service


@attrs.frozen
class User:
    id: int
    name: str = "x"


class NoSuchUser(Exception):
    def __init__(self, id: int) -> None:  # noqa: A002
        super().__init__(f"there is no user {id}")
        self.id = id


@interface(raises=[NoSuchUser], timeout=5)
class Users(Protocol):
    """Everything about users."""

    async def get(self, id: int) -> User:  # noqa: A002
        """Give one user."""

    async def rename(self, id: int, name: str, *, notify: bool = False) -> User: ...  # noqa: A002
    async def fail(self, how: str) -> int: ...
    async def slow(self, seconds: float, name: str = "") -> str: ...
    async def size(self, text: str) -> int: ...
    async def grow(self, size: int) -> str: ...


class UsersHere:
    """The object behind it, which remembers what was called."""

    def __init__(self, name: str = "here") -> None:
        self.name = name
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.done: list[str] = []
        self.news = anyio.Event()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def until(self, test: Any) -> None:
        """Wait until *test* holds."""
        with anyio.fail_after(30):
            while not test():
                await self.news.wait()

    async def get(self, id: int) -> User:  # noqa: A002
        if id == 0:
            raise NoSuchUser(id)
        return User(id, f"user {id}")

    async def rename(self, id: int, name: str, *, notify: bool = False) -> User:  # noqa: A002
        return User(id, f"{name}{'!' if notify else ''}")

    async def fail(self, how: str) -> int:
        match how:
            case "exit":
                sys.exit(3)
            case "cancel":
                raise asyncio.CancelledError
            case "group":
                raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
            case "type":
                return "x"  # type: ignore[return-value]
            case "base":
                raise BaseException("base")  # noqa: TRY002
        raise ValueError(how)

    async def slow(self, seconds: float, name: str = "") -> str:
        self.begun.append(name)
        self._tell()
        try:
            await anyio.sleep(seconds)
        except BaseException:
            self.cancelled.append(name)
            self._tell()
            raise
        self.done.append(name)
        self._tell()
        return name

    async def size(self, text: str) -> int:
        return len(text)

    async def grow(self, size: int) -> str:
        return "x" * size


def users_of(here: UsersHere, **options: Any) -> Service[..., Any]:
    """A service that serves *here*."""

    @service(**options)
    async def users(serving: Serving[Users]) -> None:
        async with serving(here):
            await anyio.sleep_forever()

    return users


def web_of(body: Any = None) -> Service[..., Any]:
    """A service that takes `Users`, and does *body* with it."""

    @service(depends=["users"])
    async def web(users: Users, serving: Serving[Any]) -> None:
        async with serving(users):
            if body is not None:
                await body(users)
            await anyio.sleep_forever()

    return web


class Middle:
    """Passes on what it gets."""

    def __init__(self, users: Users) -> None:
        self.users = users

    def __getattr__(self, name: str) -> Any:
        return getattr(self.users, name)


def hops() -> tuple[Service[..., Any], Service[..., Any]]:
    """Two services before `users`: one that calls it for the other."""

    @service(depends=["users"])
    async def middle(users: Users, serving: Serving[Users]) -> None:
        async with serving(Middle(users)):
            await anyio.sleep_forever()

    @service(depends=["middle"])
    async def web(middle: Users, serving: Serving[Any]) -> None:
        async with serving(middle):
            await anyio.sleep_forever()

    return web, middle


async def outcome(call: Any) -> Any:
    """What a call ends with, so that two can be compared."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001
        fields = {name: value for name, value in vars(error).items() if name not in {"trace_id", "__notes__"}}
        return type(error).__name__, str(error), fields


SCRIPT: list[Any] = [
    lambda users: users.get(3),
    lambda users: users.get(id=4),
    lambda users: users.get(0),
    lambda users: users.rename(1, "a", notify=True),
    lambda users: users.rename(id=1, name="b"),
    lambda users: users.get("3"),
    lambda users: users.get(True),
    lambda users: users.get(),
    lambda users: users.get(1, 2),
    lambda users: users.get(1, more=2),
    lambda users: users.fail("value"),
    lambda users: users.fail("exit"),
    lambda users: users.fail("cancel"),
    lambda users: users.fail("group"),
    lambda users: users.fail("base"),
    lambda users: users.fail("type"),
    lambda users: users.size("ä" * 1000),
]

BY_REFERENCE = frozenset({5, 6, 7, 8, 9, 15})
"""The calls with arguments or a result of a wrong type, which nobody looks at where they are passed by reference."""


async def play(users: Any) -> list[Any]:
    """What each call of the script ends with."""
    return [await outcome(call(users)) for call in SCRIPT]
