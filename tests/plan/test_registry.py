"""Whether the services fit together, and what they read."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import attrs
import pytest

from kernel import Serving, interface, service, started
from kernel.errors import ConfigError, CycleError, DeclarationError, LeftOutError, NamingError, PlanError
from kernel.plan.registry import Registry, needs_of, taken_interface
from tests.lifecycle.parts import AnyService


@interface
class Users(Protocol):
    """What other processes may call."""

    async def count(self) -> int:
        """How many there are."""
        ...


@attrs.frozen
class Config:
    """A config."""

    port: int = 80
    level: str = "x"


@attrs.frozen
class Inner:
    """A class inside."""

    port: int = 1


@attrs.frozen
class Outer:
    """A config with a class inside."""

    b: Inner = Inner()


async def _reads_inner(config: Inner) -> None: ...


async def _reads_outer(config: Outer) -> None: ...


async def _runs() -> None: ...


async def _serves(serving: Serving[str]) -> None: ...


async def _reads(config: Config) -> None: ...


async def _takes(db: str) -> None: ...


async def _may_take(db: str = "") -> None: ...


async def _takes_users(db: Users) -> None: ...


async def _takes_more(database: str, thing: int) -> None: ...


async def _takes_database(database: str) -> None: ...


def named(name: str, fn: Any, *depends: Any, **options: Any) -> AnyService:
    """A service of this name."""
    return service(depends=depends, **options)(fn).named(name)


def registry(*services: AnyService, **options: Any) -> Registry:
    """What is made of them."""
    return Registry({one.name: one for one in services}, **options)


@pytest.mark.parametrize("oneshot", [True, False])
def test_a_value_from_a_service_without_serving_is_refused(oneshot: bool) -> None:
    """It has none to hand over."""
    cache = named("cache", _takes, "db")
    (error,), _ = registry(named("db", _runs, oneshot=oneshot), cache).check()
    assert isinstance(error, DeclarationError)
    assert error.what == "cache takes the value of db, which provides none"
    assert error.where == cache.where
    assert error.hint == "let db take `Serving[...]`, or remove the parameter 'db'"


@pytest.mark.parametrize(
    ("db", "consumer"),
    [
        (_serves, named("api", _takes, "db")),
        (_serves, named("api", _may_take, "db")),
        (_runs, named("api", _runs, "db")),
        (_runs, named("api", _runs, started("db"))),
        (_takes_more, named("api", _takes, "db")),  # which is wrong in itself, and is told as that
    ],
    ids=["value", "default", "order", "start", "wrong"],
)
def test_what_fits(db: Any, consumer: AnyService) -> None:
    """A value from a service that serves one, and order from any."""
    provider = named("db", db)
    assert registry(provider, consumer).check_edge(consumer, consumer.needs.edges[0]) is None


LEFT_OUT = "add db to SERVICES_ENABLED, run with --with-dependencies,"
DEFAULT = "or give the parameter 'db' a default"
ELSEWHERE = "or set NATS_URL, since Users can be called in another process"


@pytest.mark.parametrize(
    ("fn", "options", "found"),
    [
        (_runs, {"known": ["db"]}, "api does not wait for db, which is not enabled"),
        (_runs, {"absent": ["db"]}, "api does not wait for db, which is not in this artifact"),
        (
            _may_take,
            {"known": ["db"]},
            "api runs without the value of db, which is not enabled: its parameter takes its default",
        ),
        (
            _takes,
            {"known": ["db"]},
            f"api needs the value of db, which is not enabled; {LEFT_OUT} {DEFAULT}",
        ),
        (
            _takes,
            {"absent": ["db"]},
            f"api needs the value of db, which is not in this artifact; build one with it, {DEFAULT}",
        ),
        (
            _takes_users,
            {"known": ["db"]},
            f"api needs the value of db, which is not enabled; {LEFT_OUT} {DEFAULT[3:]}, {ELSEWHERE}",
        ),
        (_takes_users, {"known": ["db"], "remote": True}, None),
        (_takes, {"known": ["db"], "remote": True}, "api needs the value of db, which is not enabled"),
        (_takes, {"known": ["db"], "chosen": ["db", "api"]}, None),
        (_runs, {"known": ["d", "db1"]}, "api depends on 'db', which does not exist; did you mean 'db1' or 'd'?"),
        (_runs, {"known": ["x"], "absent": ["yy"]}, "api depends on 'db', which does not exist; there are: x, yy"),
        (_runs, {}, "api depends on 'db', which does not exist; there are: api"),
    ],
)
def test_what_is_left_out(fn: Any, options: dict[str, Any], found: str | None) -> None:
    """A warning where only the order is lost, or a default takes its place; else an error that says what to do."""
    api = named("api", fn, "db")
    problem = registry(api, **options).check_edge(api, api.needs.edges[0])
    if isinstance(problem, PlanError):
        assert problem.where == api.where
        assert isinstance(problem, NamingError if "does not exist" in problem.what else LeftOutError)
        problem = f"{problem.what}; {problem.hint}"
    assert (problem or "").startswith(found or "nothing" * bool(problem))
    errors, warnings = registry(api, **options).check()
    assert [*(error.what for error in errors), *warnings] == ([str(found).partition(";")[0]] if found else [])


@pytest.mark.parametrize(
    ("consumer", "told"),
    [
        (named("api", _takes_database, "databse"), ["'databse', which does not exist"]),
        (
            named("api", _takes_more, "databse"),
            ["'databse', which does not exist", "a parameter 'thing' that nothing can fill"],
        ),
        (
            named("api", _takes_more, "databse", "qqq"),
            ["'databse', which does not exist", "'qqq', which does not exist"],
        ),
        (named("api", _takes_more, "database"), ["a parameter 'thing' that nothing can fill"]),
        (named("api", _takes_more, "clean"), ["'database' that nothing can fill", "'thing' that nothing can fill"]),
        (named("api", _takes_more, "databse", "databse"), ["names the dependency 'databse' twice"]),
    ],
)
def test_a_wrong_declaration_is_explained(consumer: AnyService, told: list[str]) -> None:
    """Names that do not exist come first; the parameters are judged by what was meant."""
    errors, warnings = registry(named("database", _serves), named("clean", _runs), consumer).check()
    lines = [line for error in errors for line in str(error).splitlines()]
    assert len(lines) == len(told), lines
    assert all(text in line for text, line in zip(told, lines, strict=True)), lines
    assert not warnings


def test_a_cycle_says_where_its_members_are() -> None:
    """The file and the line of each."""
    a, b, c = named("a", _runs, "b"), named("b", _runs, "a", "c"), named("c", _serves)
    (error,), warnings = registry(c, a, b).check()
    assert isinstance(error, CycleError)
    assert error.where == f"{a.where}, {b.where}"
    assert not warnings
    with pytest.raises(CycleError):
        registry(a, b).units({})


def test_each_cycle_is_told() -> None:
    """One that shares a member with another is told once that one is gone."""
    pairs = {"a": "b", "b": "a", "c": "d", "d": "c", "e": "c"}
    errors, _ = registry(*(named(name, _runs, target) for name, target in pairs.items())).check()
    assert [error.members for error in errors if isinstance(error, CycleError)] == [("a", "b"), ("c", "d")]
    both = registry(named("a", _runs, "b", "c"), named("b", _runs, "a"), named("c", _runs, "a"))
    assert len(both.check()[0]) == 1


def test_the_graph() -> None:
    """The dependencies that are enabled, and the units in their order, each with its config."""
    wrong = named("wrong", _takes_more)
    found = registry(
        named("api", _takes, "db", "wrong", "gone"), wrong, named("db", _serves), named("reader", _reads, "api")
    )
    assert found.graph == {"api": ["db"], "db": [], "reader": ["api"]}
    assert needs_of(wrong) is None
    units = found.units({"reader": Config(81), "other": 1})
    assert [(unit.service.name, unit.config) for unit in units] == [("db", None), ("api", None), ("reader", Config(81))]


def test_the_configs() -> None:
    """One for each service that takes one, and an error for each value that is wrong."""
    found = registry(named("a", _reads), named("b", _runs), named("wrong", _takes_more), named("c", _reads))
    assert found.read_configs({"A_PORT": "81"}) == ({"a": Config(81), "c": Config()}, [], [])
    configs, errors, _ = found.read_configs({"A_PORT": "x", "C_PORT": "y"})
    assert configs == {"a": None, "c": None}
    assert [error.where for error in errors] == ["A_PORT", "C_PORT"]


def test_a_variable_has_one_reader() -> None:
    """Two services, or a service and the kernel, may not read the same."""
    found = registry(named("a", _reads_outer), named("a-b", _reads_inner), named("c", _reads), named("log", _reads))
    _, errors, _ = found.read_configs({})
    assert {type(error) for error in errors} == {ConfigError}
    assert [str(error) for error in errors] == [
        "A_B_PORT is read by a and by a-b (for Inner.port); rename the field or the service",
        "LOG_LEVEL is read by the kernel and by log (for Config.level); rename the field or the service",
    ]


@pytest.mark.parametrize(
    ("environ", "missed"),
    [
        ({"A_PORTS": "1"}, ["A_PORTS is set, but nothing reads it; did you mean A_PORT?"]),
        ({"AB_PORT": "1", "GA_PORT": "1", "A_PORT": "1"}, []),
        ({"LOG_LEVELS": "info"}, ["LOG_LEVELS is set, but nothing reads it; did you mean LOG_LEVEL?"]),
    ],
)
def test_variables_that_nobody_reads(environ: dict[str, str], missed: list[str]) -> None:
    """A near miss is told, but not one that a service reads which is not enabled, or not there."""
    known = registry(named("a", _reads), known=["a", "ab"], absent=["ga"])
    assert known.read_configs(environ)[2] == missed
    alone = registry(named("a", _reads)).read_configs(environ)[2]
    assert alone == missed or [text.partition(" ")[0] for text in alone] == ["AB_PORT", "GA_PORT"]


def test_interfaces_cost_nothing_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of calls is imported."""
    api = named("api", _takes_users, "db")
    assert taken_interface(api, api.needs.edges[0]) == "Users"
    monkeypatch.delitem(sys.modules, "kernel.calls.interface")
    monkeypatch.setitem(sys.modules, "kernel.calls.wiring", None)
    assert taken_interface(api, api.needs.edges[0]) == ""
