"""What is added to a plan so that its services can call each other: links, stand-ins and exports."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from kernel import Serving, interface, service
from kernel.calls.proxy import Proxy, behind
from kernel.calls.wiring import Wiring, connect, read_interfaces, served_by, taken_by, unlike
from kernel.config.nats import Nats, read_nats
from kernel.declare.service import Service
from kernel.errors import ConfigError, DeclarationError, Problems
from kernel.lifecycle.units import Unit


@interface
class Users(Protocol):
    async def get(self, id: int) -> str: ...  # noqa: A002


@interface
class Narrow(Protocol):
    async def get(self, id: int) -> str: ...  # noqa: A002


@interface
class Changed(Protocol):
    async def get(self, id: str) -> str: ...  # noqa: A002
    async def more(self) -> str: ...


@interface
class Bad(Protocol):
    def get(self) -> str: ...


@interface
class Worse(Protocol):
    async def get(self) -> object: ...


class Here:
    async def get(self, id: int) -> str:  # noqa: A002
        return str(id)


@service(concurrency=7)
async def users(serving: Serving[Users]) -> None: ...


@service(depends=["users", "plain"])
async def web(users: Users) -> None: ...


@service(depends=["users"])
async def lenient(users: Users | None = None) -> None: ...


@service(depends=["users"])
async def after() -> None: ...


@service
async def plain(serving: Serving[int]) -> None: ...


def nats(**environ: str) -> Nats:
    settings, errors = read_nats({"NATS_URL": "nats://127.0.0.1:4222", **environ})
    assert settings is not None, errors
    return settings


def wired(*services: Service[..., Any], **options: Any) -> Wiring:
    """The wiring of a plan of these services."""
    given = {"app": "shop", "version": "1.2.3", "nats": nats(), **options}
    return connect([Unit(each) for each in services], **given)


def names(wiring: Wiring) -> list[str]:
    return [unit.service.name for unit in wiring.units]


def unit(wiring: Wiring, name: str) -> Unit:
    return next(unit for unit in wiring.units if unit.service.name == name)


def edges(wiring: Wiring, name: str) -> list[tuple[str, str | None, bool]]:
    return [(edge.target, edge.parameter, edge.optional) for edge in unit(wiring, name).service.needs.edges]


# -- what there is to wire ---------------------------------------------------------------------------------------


def test_what_a_service_serves_and_takes() -> None:
    """By its annotations; a value that is no interface, and an edge without a value, are none."""
    served, bare = served_by(users), served_by(plain)
    assert served is not None
    assert (served.cls, bare) == (Users, None)
    takes = {each.name: [taken_by(each, edge) for edge in each.needs.edges] for each in (web, lenient, after)}
    assert takes == {"web": [served, None], "lenient": [served], "after": [None]}


def test_the_problems_of_interfaces_are_told_at_once() -> None:
    """Of those that are served and of those that are taken, each once."""

    @service
    async def bad(serving: Serving[Bad]) -> None: ...

    @service(depends=["bad", "worse"])
    async def uses(bad: Bad, worse: Worse) -> None: ...

    found = [str(error) for error in read_interfaces([bad, uses, users, web])]
    assert len(found) == 2
    assert "interface Bad: get is not async" in found[0]
    assert "interface Worse: the result of get: object may be anything" in found[1]
    with pytest.raises(Problems):
        wired(bad, uses)
    assert read_interfaces([users, web, lenient]) == []


def test_an_interface_that_is_not_the_one_that_is_served() -> None:
    """Fits if its contract does; if not, each difference is told, with what to take."""

    @service(depends=["users", "plain", "gone"])
    async def fits(users: Narrow, plain: Users, gone: Users) -> None: ...

    @service(depends=["users"])
    async def differs(users: Changed) -> None: ...

    assert unlike([users, web, lenient, after, plain, fits]) == []
    found = unlike([users, differs])
    assert [type(error) for error in found] == [DeclarationError] * 2
    assert [str(error).partition("interface")[0].partition(": ")[2] for error in found] == [
        "differs takes Changed, which users does not serve: get: parameter 'id' is str here, and int there; take Users",
        "differs takes Changed, which users does not serve: there is no method 'more'; take Users",
    ]
    assert all(str(error).startswith(differs.where) for error in found)


# -- within one process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dev", [False, True])
def test_within_one_process(dev: bool) -> None:
    """What is served is called through a proxy, thin or checked; nothing else is added or changed."""
    wiring = wired(users, web, plain, nats=None, dev=dev)
    assert names(wiring) == ["users", "web", "plain"]
    assert (wiring.link, wiring.clients, wiring.exporters) == (None, {}, {})
    wrap, here = unit(wiring, "users").wrap, Here()
    assert wrap is not None
    made = wrap(here)
    assert isinstance(made, Proxy)
    assert repr(made) == f"<Users of users, {'checked' if dev else 'local'}>"
    assert unit(wiring, "web").wrap is unit(wiring, "plain").wrap is None
    nothing: dict[str, Any] = {"server": None, "connected": False, "error": None, "reconnects": 0}
    assert wiring.status() == {**nothing, "calls": {}, "serves": {}}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_connection_where_nothing_is_called(backend: str) -> None:
    """Also on trio: no value that is no interface crosses."""
    assert names(wired(plain, after, backend=backend)) == ["plain", "after"]
    assert names(wired(users, web, plain, export=False, backend=backend)) == ["users", "web", "plain"]


def test_calls_between_processes_need_asyncio() -> None:
    """The error says what to leave out."""
    for services in ([users], [web]):
        with pytest.raises(ConfigError, match="KERNEL_BACKEND is trio, and calls between processes need asyncio"):
            wired(*services, backend="trio")


# -- between processes -------------------------------------------------------------------------------------------


def test_a_service_that_runs_elsewhere() -> None:
    """A link comes first, then a stand-in with its name, for which consumers wait without limit."""
    wiring = wired(web, plain)
    assert names(wiring) == ["nats", "users", "web", "plain"]
    assert edges(wiring, "nats") == []
    assert edges(wiring, "users") == [("nats", None, False)]
    assert edges(wiring, "web") == [("users", "users", False), ("plain", None, False)]
    for name in ("nats", "users"):
        own = unit(wiring, name)
        assert (own.internal, own.awaited) == (True, True)
        assert (own.service.start_timeout, own.service.stop_timeout) == (None, 5.0)
        assert own.service.needs.serving == "serving"
        assert not own.service.allowed_failure
    assert unit(wiring, "users").doing == wiring.clients["users"].doing
    assert wiring.link is not None
    assert unit(wiring, "nats").doing == wiring.link.doing
    assert wiring.clients["users"].prefix == "shop"
    assert wired(web, nats=nats(NATS_PREFIX="other")).clients["users"].prefix == "other"
    wiring.link.error = "refused"
    wiring.link.reconnects = 2
    told = wiring.status()
    assert {name: told[name] for name in ("server", "connected", "error", "reconnects")} == {
        "server": None,
        "connected": False,
        "error": "refused",
        "reconnects": 2,
    }
    wiring.link.server, wiring.link.error = "here:4222", ""
    assert (wiring.status()["server"], wiring.status()["connected"]) == ("here:4222", True)
    assert wiring.status()["error"] is None
    assert list(wiring.status()["calls"]) == ["users"]


def test_a_service_that_nobody_requires() -> None:
    """Its one stand-in may fail."""
    wiring = wired(lenient)
    assert names(wiring) == ["nats", "users", "lenient"]
    assert unit(wiring, "users").service.allowed_failure
    assert edges(wiring, "lenient") == [("users", "users", True)]


@pytest.mark.parametrize("services", [(web, lenient), (lenient, web)], ids=["required first", "required last"])
def test_a_service_that_some_require(services: Any) -> None:
    """Those who can do without have a stand-in of their own, since they do not wait for long."""
    wiring = wired(*services)
    assert sorted(names(wiring)) == ["lenient", "nats", "users", "users (if there)", "web"]
    assert not unit(wiring, "users").service.allowed_failure
    assert unit(wiring, "users (if there)").service.allowed_failure
    assert edges(wiring, "web")[0] == ("users", "users", False)
    assert edges(wiring, "lenient") == [("users (if there)", "users", True)]
    assert list(wiring.clients) == ["users"]
    assert lenient.needs.edges[0].target == "users"  # the service itself is as it was


def test_an_order_alone_is_no_call() -> None:
    """What is not here need not be elsewhere."""
    assert names(wired(after)) == ["after"]


def test_what_is_served_is_exported() -> None:
    """The export takes the value, so it ends before the service does; it may take long."""
    wiring = wired(users, plain, web)
    assert names(wiring) == ["nats", "users", "plain", "web", "users export"]
    export = unit(wiring, "users export")
    assert (export.internal, export.awaited) == (True, True)
    assert edges(wiring, "users export") == [("nats", None, False), ("users", "value", False)]
    assert export.service.stop_timeout == 3600
    exporter = wiring.exporters["users"]
    assert (exporter._prefix, exporter._concurrency) == ("shop", 7)
    assert exporter._announcement._version == "1.2.3"
    assert list(wiring.status()["serves"]) == ["users"]
    assert names(wired(web, users, plain, export=False, nats=nats())) == ["web", "users", "plain"]


def test_through_the_server_within_one_process() -> None:
    """As in a test: who calls waits for the export, and what it gets knows the object."""

    @service(depends=["users", "plain"])
    async def reads(users: Users, plain: int) -> None: ...

    @service(depends=["users"])
    async def follows() -> None: ...

    wiring = wired(users, reads, follows, plain, through=True)
    assert unit(wiring, "reads").after == ("users export",)
    assert unit(wiring, "follows").after == unit(wiring, "users").after == ()
    assert list(wiring.clients) == ["users"]
    assert wiring.clients["users"].prefix == "shop"
    wrap, here = unit(wiring, "users").wrap, Here()
    assert wrap is not None
    made = wrap(here)
    assert repr(made) == "<Users of users, elsewhere>"
    assert behind(made) is here
    assert unit(wiring, "plain").wrap is None


def test_the_calls_in_progress_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """When metrics are collected, by service."""
    from kernel.calls.telemetry import Telemetry

    watched: dict[str, Any] = {}
    monkeypatch.setattr(Telemetry, "watch", lambda _, name, text, count: watched.update({name: (text, count)}))
    wiring = wired(users, lenient, telemetry=True, through=True)
    wiring.clients["users"].in_flight = 3
    assert {name: count() for name, (_, count) in watched.items()} == {
        "kernel.calls.sent": {"users": 3},
        "kernel.calls.running": {"users": 0},
        "kernel.calls.waiting": {"users": 0},
    }
    exporter = wiring.exporters["users"]
    exporter.running, exporter.waiting = {1, 2}, [1]  # type: ignore[arg-type,assignment]
    assert watched["kernel.calls.running"][1]() == {"users": 2}
    assert watched["kernel.calls.waiting"][1]() == {"users": 1}
    assert wiring.clients["users"].telemetry is not None
    assert wired(web).clients["users"].telemetry is None
