"""What a service is: the decorator, its dependencies, its commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import attrs
import pytest

from kernel.declare import app
from kernel.declare.app import command, lifespan
from kernel.declare.retry import Retry
from kernel.declare.service import SERVICE_NAME, Service, command_needs, service, started
from kernel.declare.serving import Serving, Work
from kernel.declare.signature import Edge, declared_at, to_parameter
from kernel.errors import DeclarationError
from tests.declare.parts import Config, Other, needs, refused

# -- the decorator -----------------------------------------------------------------------------------------------------


def test_without_parentheses() -> None:
    """`@service` takes the function as it is, with all defaults."""

    @service
    async def example_database() -> None:
        """Says what it is."""

    assert isinstance(example_database, Service)
    assert example_database.name == "example-database"
    assert example_database.__doc__ == "Says what it is."
    assert inspect.unwrap(example_database) is example_database.fn
    assert attrs.asdict(example_database, recurse=False) == {
        "fn": example_database.fn,
        "name": "example-database",
        "depends": (),
        "retry": Retry(),
        "allowed_failure": False,
        "oneshot": False,
        "start_timeout": 60.0,
        "stop_timeout": 30.0,
        "concurrency": 100,
        "asks": None,
        "commands": {},
    }
    assert example_database.where == declared_at(example_database.fn)
    assert example_database.where.startswith("tests/declare/test_service.py:")


def test_with_options() -> None:
    """`@service(...)` takes what the contract lists."""

    @service(
        depends=["a"], retries=2, allowed_failure=True, oneshot=True, start_timeout=None, stop_timeout=10, concurrency=1
    )
    async def b() -> None: ...

    assert b.depends == ("a",)
    assert repr(b).endswith("start_timeout=None, stop_timeout=10, concurrency=1)")
    assert b.retry == Retry(times=2)
    assert (b.allowed_failure, b.oneshot, b.start_timeout, b.stop_timeout) == (True, True, None, 10)


def test_a_retry() -> None:
    """`retries` may be a policy of its own."""
    retry = Retry(times=None, delay=5)

    @service(retries=retry)
    async def b() -> None: ...

    assert b.retry is retry


def test_it_is_called_like_the_function() -> None:
    """A service can be unit-tested by calling it with fakes."""

    @service(depends=["db"])
    async def api(db: str, *, suffix: str = "!") -> str:
        return db + suffix

    assert anyio.run(functools.partial(api, "fake", suffix="?")) == "fake?"


async def _generator() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (lambda: None, "is not async"),
        (_generator, "is an async generator"),
        (functools.partial(print), "is not async"),
    ],
    ids=["def", "generator", "partial"],
)
def test_what_is_not_async_is_refused(fn: Any, what: str) -> None:
    """The hint names the way to run blocking code."""
    with pytest.raises(DeclarationError, match=what) as caught:
        service(fn)
    assert "anyio.to_thread.run_sync(work)" in caught.value.hint


def test_a_decorated_async_function_is_taken() -> None:
    """What functools.wraps around an async function is one, with its signature."""

    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs)

        return wrapper

    @service
    @logged
    async def db(config: Config) -> None: ...

    assert db.needs.config == ("config", Config)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"retries": -1}, "retries is -1; it must not be negative"),
        ({"retries": True}, "retries is True; it must be a number or a Retry"),
        ({"retries": "3"}, "retries is '3'; it must be a number or a Retry"),
        ({"retries": None}, "retries is None; it must be a number or a Retry"),
        ({"start_timeout": -1}, "start_timeout is -1; it must not be negative"),
        ({"stop_timeout": -0.5}, "stop_timeout is -0.5; it must not be negative"),
        ({"stop_timeout": float("nan")}, "stop_timeout is nan; it must not be negative"),
        ({"concurrency": 0}, "concurrency is 0; it must be a number from 1"),
        ({"concurrency": True}, "concurrency is True; it must be a number from 1"),
        ({"concurrency": 1.5}, "concurrency is 1.5; it must be a number from 1"),
        ({"depends": "db"}, "depends is the string 'db'"),
    ],
    ids=str,
)
def test_a_bad_option_is_refused(options: dict[str, Any], what: str) -> None:
    """At the place where it is written, and with the service's name."""

    async def api() -> None: ...

    error = refused(api, **options) if "depends" not in options else None
    if error is None:
        with pytest.raises(DeclarationError) as caught:
            service(**options)(api)
        error = caught.value
        assert error.hint == 'write depends=["db"]'
    assert error.what == f"api: {what}"


# -- dependencies ------------------------------------------------------------------------------------------------------


def test_edges() -> None:
    """Names, launches and, in tests, service objects."""

    @service
    async def other_service() -> None: ...

    async def api() -> None: ...

    assert needs("a-b", started("c"), other_service)(api).edges == (
        Edge("a-b"),
        Edge("c", "started"),
        Edge("other-service"),
    )


def test_a_dependency_given_twice() -> None:
    """Also where it is given in two ways."""

    async def api() -> None: ...

    assert "names the dependency 'a' twice" in str(refused(api, "a", "a"))
    assert "names the dependency 'a' twice" in str(refused(api, "a", started("a")))


def test_a_dependency_that_is_no_service() -> None:
    """It is told what to give."""

    async def api() -> None: ...

    error = refused(api, 7)
    assert error.what == "api depends on 7, which is not a service"
    assert error.hint == "give its name"


# -- commands ----------------------------------------------------------------------------------------------------------


def test_commands_of_a_service() -> None:
    """They are named after their functions, which stay what they were."""

    @service
    async def db() -> None: ...

    @db.command
    async def show_all(*, steps: int = 1) -> int:
        return steps

    @db.command
    def import_() -> None: ...

    assert list(db.commands) == ["show-all", "import"]
    assert inspect.iscoroutinefunction(show_all)
    with pytest.raises(DeclarationError, match="db has two commands named 'import'") as caught:
        db.command(import_)
    assert caught.value.where == declared_at(import_)


@service(depends=["disk", started("log"), "clean"])
async def example(disk: int, config: Config) -> None: ...


@service
async def bare() -> None: ...


def _takes_values(disk: int, example: str, log: int, clean: int = 1, steps: int = 2) -> None: ...


def _takes_its_config(config: Config, other: Other = Other()) -> None: ...  # noqa: B008


def _may_take_its_config(*, config: Config = Config(7)) -> None: ...  # noqa: B008


def _takes_another(config: Other) -> None: ...


def _serves(serving: Serving[None]) -> None: ...


@pytest.mark.parametrize(
    ("owner", "fn", "edges", "config"),
    [
        (example, _takes_values, {"disk": False, "log": False, "clean": True, "example": False}, None),
        (example, _takes_its_config, {}, ("config", Config)),
        (example, _may_take_its_config, {}, ("config", Config)),
        (bare, _takes_another, {}, ("config", Other)),
        (bare, _may_take_its_config, {}, None),  # which the command line fills
        (bare, lambda: None, {}, None),
    ],
)
def test_what_a_command_needs(owner: Any, fn: Any, edges: dict[str, bool], config: object) -> None:
    """Values of its service and of what that depends on, and its config; nothing else comes with them."""
    found = command_needs(owner, fn)
    assert {edge.target: edge.optional for edge in found.edges} == edges
    assert all(edge.kind == "ready" and edge.parameter == edge.target for edge in found.edges)
    assert found.config == config
    assert found.config_default == (Config(7) if fn is _may_take_its_config and config else inspect.Parameter.empty)


@pytest.mark.parametrize(
    ("fn", "what", "hint"),
    [
        (_serves, "command '_serves' takes `Serving`", "only a service can serve"),
        (
            _takes_another,
            "command '_takes_another' takes Other, which is not the config of example",
            "take Config",
        ),
    ],
)
def test_what_a_command_cannot_have(fn: Any, what: str, hint: str) -> None:
    """It is told where it is declared."""
    with pytest.raises(DeclarationError) as caught:
        command_needs(example, fn)
    assert (caught.value.what, caught.value.hint, caught.value.where) == (what, hint, declared_at(fn))


# -- app/init.py and app/commands.py -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def extensions(monkeypatch: pytest.MonkeyPatch) -> app.Extensions:
    """What the app registers, empty."""
    fresh = app.Extensions()
    monkeypatch.setattr(app, "EXTENSIONS", fresh)
    return fresh


def test_commands_of_the_app(extensions: app.Extensions) -> None:
    """Each name once."""

    @command
    def say_hello() -> None: ...

    assert extensions.commands == {"say-hello": say_hello}
    with pytest.raises(DeclarationError, match="there are two commands named 'say-hello'"):
        command(say_hello)


def test_lifespans(extensions: app.Extensions) -> None:
    """They are kept in order."""

    @lifespan
    async def one() -> AsyncGenerator[None, None]:
        yield

    @lifespan
    async def two() -> AsyncGenerator[None, None]:
        yield

    assert extensions.lifespans == [one, two]


@asynccontextmanager
async def _context_manager() -> AsyncIterator[None]:
    yield


async def _takes(x: int) -> AsyncIterator[None]:
    yield


async def _yields_nothing() -> None: ...


async def _keyword_only(*, x: int) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("fn", [_context_manager, _takes, _yields_nothing, _keyword_only, lambda: None])
def test_what_is_no_lifespan(fn: Any) -> None:
    """It must be an async generator function without parameters."""
    with pytest.raises(DeclarationError, match="must be an `async def` without parameters that yields once"):
        lifespan(fn)


# -- odds and ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "db2", "example-database", "a-1-b"])
def test_service_names(name: str) -> None:
    """Kebab-case."""
    assert SERVICE_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "A", "2db", "-a", "a-", "a--b", "a_b", "a b", "ä"])
def test_what_is_no_service_name(name: str) -> None:
    """Anything else."""
    assert not SERVICE_NAME.fullmatch(name)


def test_to_parameter() -> None:
    """The parameter of a service is its name in snake_case."""
    assert to_parameter("example-database") == "example_database"


def test_declared_at_something_without_code() -> None:
    """What has no line is shown as it is."""
    assert declared_at(print) == repr(print)


def test_the_protocols_can_be_faked() -> None:
    """A fake needs nothing of the kernel's."""

    class FakeWork:
        def start_soon(self, func: Callable[..., Any], *args: Any, name: object = None) -> None: ...

        async def stop_requested(self) -> None: ...

        @property
        def stopping(self) -> bool:
            return False

        async def every(self, seconds: float, *, jitter: float = 0.0) -> AsyncIterator[int]:
            yield 0

        def unready(self, reason: str) -> AbstractContextManager[None]:
            return nullcontext()

    @asynccontextmanager
    async def fake(value: object = None, *, drain: bool = False) -> AsyncIterator[Work]:
        yield FakeWork()

    async def use(serving: Serving[str]) -> None:
        async with serving("x") as work:
            work.start_soon(anyio.sleep, 1)

    anyio.run(use, fake)


def test_a_declaration_is_frozen() -> None:
    """Nobody changes what a service was declared as; under another name it is a copy with the same commands."""

    @service
    async def api() -> None:
        """Serve."""

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        api.name = "other"  # type: ignore[misc]
    other = api.named("other")

    @api.command
    def tell() -> None:
        """Tell."""

    assert (api.name, other.name, other.fn) == ("api", "other", api.fn)
    assert other.commands == {"tell": tell}
    assert inspect.getdoc(other) == "Serve."
    assert api.named("api") is api
