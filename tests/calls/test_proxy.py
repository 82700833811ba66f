"""Calls within a process: by reference, or through JSON as if the service ran elsewhere."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any, Protocol

import anyio
import attrs
import pytest

from kernel import BadRequest, CallFailed, DeadlineExceeded, interface
from kernel.calls.proxy import behind, checked, methods_of, thin
from kernel.context import current_service
from kernel.errors import DeclarationError
from kernel.testing import BACKENDS, backend_options
from tests.calls.fake_link import found

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Calls within a process work on both, here in virtual time."""
    return request.param, backend_options(request.param)


@attrs.define
class Taken(Exception):
    name: str


class Other(Exception):
    pass


@interface(raises=[Taken], timeout=5)
class Users(Protocol):
    """Everything about users."""

    async def wait(self, seconds: float) -> str:
        """Wait so long."""

    async def fail(self, how: str) -> int: ...
    async def echo(self, value: list[int]) -> list[int]: ...


class Here:
    """What is called, and in which service's name."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.got: Any = None

    async def wait(self, seconds: float) -> str:
        self.names.append(current_service.get())
        await anyio.sleep(seconds)
        return "done"

    async def fail(self, how: str) -> Any:
        match how:
            case "declared":
                raise Taken("a")
            case "odd":
                raise Taken(1)  # type: ignore[arg-type]
            case "value":
                raise ValueError("bad")
            case "result":
                return "x"
            case "early":
                raise DeadlineExceeded("store", "get", "no answer")
        await anyio.sleep(4.96)
        raise DeadlineExceeded("store", "get", "no answer")

    async def echo(self, value: list[int]) -> list[int]:
        self.got = value
        return value


class Spans:
    """In place of the telemetry: which spans there were, in which service's name, and how they ended."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, str, str | None]] = []

    @contextlib.contextmanager
    def _span(self, side: str, service: str, method: str) -> Iterator[None]:
        self.log.append((side, service, method, current_service.get()))
        try:
            yield
        except BaseException as error:
            self.log.append((side, service, type(error).__name__, current_service.get()))
            raise
        self.log.append((side, service, "ended", current_service.get()))

    def client(self, service: str, method: str) -> Any:
        return self._span("client", service, method)

    def server(self, service: str, method: str) -> Any:
        return self._span("server", service, method)


BOTH = pytest.mark.parametrize("make", [thin, checked])


def proxy(make: Any, here: Any = None, spans: Any = None) -> Any:
    """Return a proxy of *here*."""
    return make(found(Users), "users", here or Here(), spans)


@BOTH
async def test_a_proxy_has_the_methods_and_nothing_else(make: Any) -> None:
    """With their names and texts; it tells what it is."""
    here = Here()
    users = proxy(make, here)
    assert repr(users) == f"<Users of users, {'local' if make is thin else 'checked'}>"
    assert inspect.getdoc(users) == "Everything about users."
    assert (users.wait.__name__, users.wait.__qualname__, users.wait.__doc__) == ("wait", "Users.wait", "Wait so long.")
    assert behind(users) is here
    assert behind(here) is here
    with pytest.raises(AttributeError):
        _ = users.names
    with pytest.raises(AttributeError):
        users.more = 1
    assert await users.wait(1) == "done"
    assert type(users) is type(proxy(make))


@BOTH
@pytest.mark.parametrize("spans", [None, Spans])
async def test_a_call_runs_in_the_name_of_its_service(make: Any, spans: Any) -> None:
    """And its caller goes on in its own, whether the call ended well or not."""
    here = Here()
    users = proxy(make, here, spans and spans())
    token = current_service.set("web")
    try:
        await users.wait(1)
        assert current_service.get() == "web"
        with pytest.raises(CallFailed):
            await users.fail("value")
        assert current_service.get() == "web"
    finally:
        current_service.reset(token)
    assert here.names == ["users"]


@BOTH
async def test_both_sides_have_a_span(make: Any) -> None:
    """The inner one in the name of the service, which sees the error as it was raised or as a failure."""
    spans = Spans()
    users = proxy(make, None, spans)
    token = current_service.set("web")
    try:
        await users.wait(seconds=1)
        with pytest.raises(Taken):
            await users.fail("declared")
    finally:
        current_service.reset(token)
    assert spans.log == [
        ("client", "users", "wait", "web"),
        ("server", "users", "wait", "users"),
        ("server", "users", "ended", "users"),
        ("client", "users", "ended", "web"),
        ("client", "users", "fail", "web"),
        ("server", "users", "fail", "users"),
        ("server", "users", "Taken", "users"),
        ("client", "users", "Taken", "web"),
    ]


async def test_by_reference_or_not() -> None:
    """A thin proxy passes what it got; a checked one passes a copy, as another process would."""
    here, value = Here(), [1]
    assert await proxy(thin, here).echo(value) is value is here.got
    back = await proxy(checked, here).echo(value)
    assert back == here.got == value
    assert back is not value
    assert here.got is not value
    assert back is not here.got


async def test_what_is_checked() -> None:
    """Arguments before the call, the result after it; by reference nobody looks."""
    here = Here()
    users = proxy(checked, here)
    with pytest.raises(BadRequest) as caught:
        await users.echo(value=["1"])
    assert str(caught.value) == "users.echo: value[0]: expected int, got str"
    assert here.got is None
    with pytest.raises(CallFailed, match="executed, but its result does not fit: expected int, got str"):
        await users.fail("result")
    thinly = proxy(thin)
    assert await thinly.fail("result") == "x"
    with pytest.raises(BadRequest, match="unexpected keyword argument 'more'"):
        await thinly.echo(more=1)


@attrs.define
class Picky:
    """Has a field that it does not take."""

    value: int = attrs.field()

    @value.validator
    def _check(self, _: object, value: int) -> None:
        if value == 3:
            raise ValueError("not 3")


@interface
class Gives(Protocol):
    async def get(self) -> Picky: ...


async def test_a_result_that_cannot_be_read() -> None:
    """It left, and does not arrive."""

    class Here:
        async def get(self) -> Picky:
            picky = Picky(1)
            object.__setattr__(picky, "value", 3)
            return picky

    with pytest.raises(CallFailed, match="executed, but its answer does not fit: Picky refuses it: ValueError: not 3"):
        await checked(found(Gives), "users", Here()).get()  # type: ignore[attr-defined]


@BOTH
@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("declared", (Taken, "a")),
        ("value", (CallFailed, "users.fail: ValueError: bad")),
        ("early", (CallFailed, "users.fail: DeadlineExceeded: store.get: no answer")),
    ],
)
async def test_each_end_of_a_call(make: Any, how: str, end: tuple[type, str]) -> None:
    """A declared error as itself, any other as a failure; the error that the service raised is its cause."""
    with pytest.raises(end[0]) as caught:
        await proxy(make).fail(how)
    assert (type(caught.value), str(caught.value)) == end
    if how == "declared":
        assert isinstance(caught.value, Taken)
        assert caught.value.name == "a"
    if make is checked or how != "declared":
        causes = {"declared": Taken, "value": ValueError, "early": DeadlineExceeded}
        assert type(caught.value.__cause__) is causes[how]


async def test_a_declared_error_that_cannot_cross() -> None:
    """Is a failure where it is checked."""
    with pytest.raises(CallFailed) as caught:
        await proxy(checked).fail("odd")
    assert str(caught.value) == "users.fail: Taken: 1 (name: expected str, got int)"
    assert caught.value.type == "Taken"
    with pytest.raises(Taken):
        await proxy(thin).fail("odd")


async def test_the_usual_timeout_where_it_is_checked() -> None:
    """As elsewhere; a call by reference has none, and a caller with a deadline has its own."""
    began = anyio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await proxy(checked).wait(60)
    assert str(caught.value) == "users.wait: no answer after 5 s"
    assert anyio.current_time() - began == 5
    assert await proxy(thin).wait(60) == "done"
    assert anyio.current_time() - began == 65
    with anyio.fail_after(30):
        assert await proxy(checked).wait(20) == "done"
    with anyio.move_on_after(30) as scope:
        await proxy(checked).wait(60)
    assert scope.cancelled_caught
    assert anyio.current_time() - began == 115


@pytest.mark.parametrize("deadline", [math.inf, 5.0])
async def test_an_inner_call_at_the_deadline(deadline: float) -> None:
    """Its timeout is this call's, whoever's deadline it is."""
    with anyio.CancelScope(deadline=anyio.current_time() + deadline), pytest.raises(DeadlineExceeded) as caught:
        await proxy(checked).fail("late")
    assert str(caught.value) == "users.fail: store.get: no answer"


class WithoutEcho(Here):
    echo = None  # type: ignore[assignment]


class Sync(Here):
    def echo(self, value: list[int]) -> list[int]:  # type: ignore[override]
        return value


class NotCallable(Here):
    echo = 3  # type: ignore[assignment]


class Callable:
    """An object that is called; what it returns is awaited."""

    def __call__(self, value: list[int]) -> Any:
        return Here().echo(value)


@BOTH
@pytest.mark.parametrize(
    ("cls", "what"),
    [(WithoutEcho, "has no such method"), (Sync, "is not async"), (NotCallable, "is not async")],
)
async def test_a_value_that_lacks_a_method(make: Any, cls: type[Here], what: str) -> None:
    """Is refused when it is served."""
    with pytest.raises(DeclarationError) as caught:
        proxy(make, cls())
    assert str(caught.value) == (
        f"users serves a {cls.__name__} as Users, whose 'echo' {what}; write `async def echo` in {cls.__name__}"
    )


async def test_any_object_that_is_called_will_do() -> None:
    """What it returns is awaited."""
    here = Here()
    here.echo = Callable()  # type: ignore[method-assign]
    assert list(methods_of(found(Users), "users", here)) == ["wait", "fail", "echo"]
    assert await proxy(checked, here).echo([1]) == [1]


@BOTH
async def test_a_call_that_nobody_awaits_any_more(make: Any) -> None:
    """It can be closed, from another context too."""
    import contextvars

    coroutine = proxy(make, None).wait(1)
    contextvars.copy_context().run(coroutine.send, None)
    contextvars.Context().run(coroutine.close)
