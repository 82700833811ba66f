"""`app check` holds the stop timeouts against the budget; the rest of it is tried on the real program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NewType, Protocol

import anyio
import attrs
import pytest
from anyio import create_task_group

from kernel import Retry, Serving, service
from kernel.declare.service import Service
from kernel.plan.check import Findings, _check_budget, _check_retries, _check_shape, _check_values, check
from kernel.plan.registry import Registry
from tests.plan.parts import PLAIN, Written


def named(name: str, stop_timeout: float | None, *depends: str) -> Service[[], None]:
    """A service that says how long it takes to stop, or does not."""

    async def fn() -> None: ...

    made = (
        service(depends=depends)(fn)
        if stop_timeout is None
        else service(depends=depends, stop_timeout=stop_timeout)(fn)
    )
    return made.named(name)


def cut(*services: Service[[], None], budget: float = 10) -> dict[str, str]:
    """What is said of which service."""
    found = _check_budget(Registry({one.name: one for one in services}), budget)
    return {text.split(": ")[1].split(" has ")[0]: text for text in found}


def test_what_fits_is_fine() -> None:
    """Those at the same level stop at the same time."""
    assert not cut(named("db", 4), named("api", 4, "db"), named("other", 4, "db"))


def test_the_sum_along_a_chain_counts() -> None:
    """The lower one would still be stopping when the deadline is near: it gets what those above it leave."""
    found = cut(named("db", 5), named("api", 6, "db"))
    assert list(found) == ["db"]
    assert "may be cancelled after 3.5 s" in found["db"]


def test_more_than_the_budget() -> None:
    """One alone may not take longer than there is, less what the levels below it keep."""
    found = cut(named("db", None), named("api", 10, "db"))
    assert list(found) == ["api"]
    assert "may be cancelled after 8.5 s" in found["api"]


def test_the_default_says_nothing() -> None:
    """Thirty seconds stand for "I do not know", and would be a warning for each service."""
    assert not cut(named("db", None), named("api", None, "db"))


def test_a_cycle_is_reported_elsewhere() -> None:
    """There is no order to stop in."""
    assert not cut(named("a", 99, "b"), named("b", 99, "a"))


@pytest.mark.parametrize(
    ("retry", "warned"),
    [
        (Retry(times=None), False),
        (Retry(times=None, delay=0.01, factor=1), False),
        (Retry(times=3, delay=0), False),
        (Retry(times=None, delay=0), True),
        (Retry(times=None, max_delay=0), True),
        (Retry(times=None, factor=0.5), True),
    ],
)
def test_a_service_that_would_spin(retry: Retry, warned: bool) -> None:
    """One that crashes at once, and is tried for ever without a rest, is all that the process does."""
    found = _check_retries(attrs.evolve(named("db", None), retry=retry))
    assert bool(found) is warned
    assert not found or "db is retried forever" in found[0]


NEEDY = "@service(depends=['gone-one'])\nasync def needy(gone_one: int) -> None: ..."
LATER = "@service(depends=['gone-one'])\nasync def later() -> None: ..."


@pytest.mark.parametrize("patterns", [None, ["later"]])
def test_what_an_artifact_lacks_is_told_once(written: Written, patterns: list[str] | None) -> None:
    """Also where the service that needs it is enabled, so that it is wrong in two ways; and so with warnings."""
    findings = check(written("gone-one", needy=NEEDY, later=LATER), {}, (patterns, ""), 10.0)
    assert [str(error).partition("; ")[0].partition(": ")[2] for error in findings.errors] == [
        "needy needs the value of gone-one, which is not in this artifact"
    ]
    assert findings.warnings == ("later does not wait for gone-one, which is not in this artifact",)


@pytest.mark.parametrize(("name", "errors"), [("needy", 0), ("later", 0), ("odd", 1)])
def test_one_service_is_checked_alone(written: Written, name: str, errors: int) -> None:
    """What it depends on is not there, and nothing is said of that."""
    files = written(needy=NEEDY, later=LATER, odd="x = 1", gone_one=PLAIN.format("gone_one"))
    findings = check(files, {}, (["gone-one"], ""), 10.0, names=[name])
    assert len(findings.errors) == errors
    assert not findings.warnings


ODD_CONFIG = """
import attrs

@attrs.frozen
class Config:
    what: complex = 1j
    many: int = 0

@service
async def {}(config: Config) -> None: ...
"""


@pytest.mark.parametrize("values", [True, False])
def test_a_field_that_cannot_be_read_is_told_once(written: Written, values: bool) -> None:
    """Of each service, enabled or not; a wrong value only of those that are enabled, and only if values are checked."""
    files = written(one=ODD_CONFIG.format("one"), two=ODD_CONFIG.format("two"))
    environ = {"ONE_MANY": "x", "TWO_MANY": "x"}
    found = check(files, environ, (["one"], ""), 10.0, settings=values).errors
    assert sorted(error.where for error in found) == [*(["ONE_MANY"] if values else []), "ONE_WHAT", "TWO_WHAT"]


def test_a_near_miss_is_warned_of(written: Written) -> None:
    """If values are checked."""
    files = written(one=PLAIN.format("one"))
    environ = {"LOG_LEVELS": "info"}
    assert "did you mean LOG_LEVEL?" in check(files, environ, (None, ""), 10.0).warnings[0]
    assert not check(files, environ, (None, ""), 10.0, settings=False).warnings


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["worker"], []),
        (["*", "!worker"], []),
        (["wroker"], ["no service is named 'wroker'; did you mean 'worker' or 'br"]),
        (
            ["api", "wroker", "x*"],
            ["no service is named 'wroker'; did", "no service is named 'x*'; there are: api, bro"],
        ),
        (["!worker", "!api", "!broken"], ["!worker, !api, !broken selects no service; remove one of the exclusions"]),
        (["gone-one"], ["gone-one is not in this artifact; remove it"]),
    ],
)
def test_patterns_that_select_nothing(written: Written, patterns: list[str], told: list[str]) -> None:
    """Each is an error where it was written, beside those of the services."""
    files = written("gone-one", api=PLAIN.format("api"), worker=PLAIN.format("worker"), broken="x = [")
    found = [str(error) for error in check(files, {}, (patterns, "SERVICES_ENABLED"), 10.0).errors]
    named = [error for error in found if error.startswith("SERVICES_ENABLED: ")]
    assert len(named) == bool(told), found
    assert len(found) == len(named) + 1, found  # one of them cannot be imported
    for text in told:
        assert f"SERVICES_ENABLED: {text}" in named[0]


SHARED = """
@interface
class Users(Protocol):
    async def count(self) -> int: ...


class Own:
    async def count(self) -> int:
        return 1
"""
USERS = "from services.api import Own, Users\n\n@service\nasync def users(serving: Serving[Users]) -> None: ..."


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", ["api needs the value of users, which is not enabled"]),
        (" ", ["api needs the value of users, which is not enabled"]),
        ("nats://localhost:4222", []),
    ],
)
def test_what_is_called_elsewhere_need_not_be_enabled(written: Written, url: str, told: list[str]) -> None:
    """With a server for calls, a service that is used by its interface may run in another process."""
    files = written(api=SHARED + "\n@service(depends=['users'])\nasync def api(users: Users) -> None: ...", users=USERS)
    findings = check(files, {"NATS_URL": url}, (["api"], "SERVICES_ENABLED"), 10.0)
    assert len(findings.errors) == len(told), findings.errors
    for error, text in zip(findings.errors, told, strict=True):
        assert text in str(error)


IMPORTS = "import anyio\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from somewhere import Pool\n"
SERVER = "@service\nasync def server(serving: Serving[int]) -> None: ..."
WRONG = f"""{IMPORTS}
@service(depends=["server"], retries=Retry(times=None, delay=0), stop_timeout=9)
async def wrong(server: str) -> None:
    async with anyio.Lock():
        pass

@wrong.command
def up(pool: "Pool") -> None: ...

@wrong.command
def down(wrong: "Pool", x: int) -> None: ...

@wrong.command
def serve(serving: Serving[None]) -> None: ...

@wrong.command
async def again(wrong: "Pool") -> None: ...

@wrong.command
async def fine(server: "Pool", x: int) -> None: ...
"""
TWICE = """
@service(depends=["gone-one", "server", "broken"])
async def twice({}) -> None: ...

@twice.command
async def up(server: int, gone_one: int, broken: int) -> None: ...

@twice.command
async def down(server: int, gone_one: int, broken: int) -> None: ...
"""


def test_all_that_is_wrong_is_told(written: Written) -> None:
    """Errors of each command, and warnings of each kind, of all services."""
    findings = check(written(server=SERVER, wrong="from kernel import Retry\n" + WRONG), {}, (None, ""), 10.0)
    assert [error.what for error in findings.errors] == [
        "command 'up': the annotation of parameter 'pool' cannot be evaluated: name 'Pool' is not defined",
        "command 'serve' takes `Serving`",
        "wrong takes the value of wrong, which provides none",
    ]
    words = ["has a stop_timeout of 9 s", "is retried forever", "holds a resource", "takes 'server' as str"]
    assert len(findings.warnings) == len(words), findings.warnings
    assert all(word in text for word, text in zip(words, findings.warnings, strict=True)), findings.warnings
    assert findings.apart == ""


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("thing: int", "twice has a parameter 'thing' that nothing can fill"),
        ("server: int", "twice takes the value of server, which provides none"),
        ("", "twice takes the value of server, which provides none"),
        ("server: int = 1", "twice takes the value of server, which provides none"),
    ],
)
def test_an_error_of_several_commands_is_told_once(written: Written, parameters: str, told: str) -> None:
    """Whether the service has it too or not; what is left out is told by the command itself."""
    files = written("gone-one", server=PLAIN.format("server"), broken="x = [", twice=TWICE.format(parameters))
    first, *more = check(files, {}, (None, ""), 10.0).errors
    assert "service 'broken' cannot be imported" in str(first)
    assert [error.what for error in more] == [told]


def test_what_follows_from_a_failed_import_is_not_told(written: Written) -> None:
    """It is not known what the service would have been."""
    files = written(api="@service(depends=['broken'])\nasync def api(broken: int) -> None: ...", broken="x = [")
    (error,) = check(files, {}, (None, ""), 10.0).errors
    assert "service 'broken' cannot be imported" in error.what


TAKES = "from services.api import Users\n\n@service(depends=['users'])\nasync def {0}(users: Users) -> None: ..."
WRONG_TYPE = SHARED.replace("-> int: ...", "-> complex: ...", 1)


def test_interfaces_are_checked(written: Written) -> None:
    """What is wrong in one is told once; where nothing is wrong, it is told which services can run apart."""
    api = "\n@service\nasync def api(thing: int, serving: Serving[None]) -> None: ..."
    takers = {name: TAKES.format(name) for name in ("one", "two")}
    files = written(api=SHARED + PLAIN.format("api"), users=USERS, **takers)
    assert check(files, {}, (None, ""), 10.0) == Findings((), (), "can run apart: api | one | two | users")
    written(api=WRONG_TYPE + api)
    for name in [name for name in sys.modules if name.startswith("services")]:
        del sys.modules[name]
    thing, count = check(files, {}, (None, ""), 10.0).errors
    assert "'thing' that nothing can fill" in str(thing)
    assert "complex" in str(count)


def test_interfaces_cost_nothing_where_there_are_none(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    """Nothing of calls is imported."""
    files = written(api=PLAIN.format("api"))
    file = Path(files["api"].folder, "api.py")
    file.write_text(file.read_text().replace("interface, ", ""))
    monkeypatch.delitem(sys.modules, "kernel.calls.interface")
    monkeypatch.setitem(sys.modules, "kernel.calls.wiring", None)
    assert check(files, {}, (None, ""), 10.0) == Findings((), ())


async def _db(serving: Serving[int]) -> None: ...


async def _cache(serving: Serving[bool]) -> None: ...


async def _names(serving: Serving[list[str]]) -> None: ...


async def _maybe(serving: Serving[int | None]) -> None: ...


async def _takes_names(db: list[str]) -> None: ...


async def _takes_maybe(db: int | None) -> None: ...


async def _plain(serving: Serving) -> None: ...  # type: ignore[type-arg]


async def _takes_int(db: int) -> None: ...


async def _takes_str(db: str) -> None: ...


class Counts(Protocol):
    """What cannot be checked at run time."""

    def count(self) -> int: ...


async def _takes_counts(db: Counts) -> None: ...


UserId = NewType("UserId", int)


async def _takes_id(db: UserId) -> None: ...


async def _takes_wrongly(thing: int, serving: Serving[int]) -> None: ...


async def _takes_any(db: Any) -> None: ...


async def _has_a_default(db: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("provider", "consumer", "options", "told"),
    [
        (_db, _takes_int, ({}, {}), []),
        (_db, _takes_int, ({"allowed_failure": True}, {"allowed_failure": True}), []),
        (_db, _takes_int, ({"allowed_failure": True}, {}), ["is not allowed to fail"]),
        (_db, _has_a_default, ({"allowed_failure": True}, {}), []),
        (_db, _takes_str, ({}, {}), ["takes 'db' as str, but db serves int"]),
        (_db, _takes_str, ({"allowed_failure": True}, {}), ["is not allowed to fail", "takes 'db' as str"]),
        (_cache, _takes_int, ({}, {}), []),
        (_plain, _takes_str, ({}, {}), []),
        (_db, _takes_any, ({}, {}), []),
        (_db, _takes_counts, ({}, {}), []),
        (_takes_wrongly, _takes_str, ({}, {}), []),
        (_db, _takes_id, ({}, {}), ["takes 'db' as UserId, but db serves int"]),
        # -- what cannot be compared at run time may fit
        (_names, _takes_names, ({}, {}), []),
        (_names, _takes_str, ({}, {}), []),
        (_maybe, _takes_int, ({}, {}), []),
        (_db, _takes_maybe, ({}, {}), []),
        (_db, _takes_names, ({}, {}), []),
    ],
)
def test_values_that_fit_and_values_that_may_be_lost(
    provider: Any, consumer: Any, options: tuple[dict[str, Any], dict[str, Any]], told: list[str]
) -> None:
    """A warning for each, and none where types fit, where nothing is known, or where the parameter has a default."""
    db = service(**options[0])(provider).named("db")
    api = service(depends=["db"], **options[1])(consumer).named("api")
    found = _check_values(api, {"db": db, "api": api})
    assert len(found) == len(told)
    assert all(text in warning for warning, text in zip(found, told, strict=True)), found
    assert _check_values(api, {"api": api}) == []


# -- the shape of a service's function -------------------------------------------------------------------------------

POOLS: dict[str, Any] = {"db": None}


async def _holds() -> None:
    async with open_pool() as pool:
        print(pool)


async def _holds_what_is_made_elsewhere() -> None:
    async with POOLS["db"]() as pool, pool:
        print(pool)


async def _groups() -> None:
    async with anyio.create_task_group():
        pass


async def _holds_nothing() -> None:
    async def inner() -> None:
        async with open_pool():
            pass

    def plain() -> None:
        async def again() -> None:
            async with open_pool():
                pass

    with open_pool():
        await inner()
        plain()


async def _holds_around_its_work(serving: Serving[None]) -> None:
    async with open_pool(), serving():
        print("works")
        async with create_task_group(), open_pool():
            pass


async def _groups_in_its_work(serving: Serving[None]) -> None:
    async with serving() as work, anyio.create_task_group():
        print(work)


async def _groups_around_its_work(serving: Serving[None]) -> None:
    if serving:
        async with open_pool(), create_task_group():
            print("opens")
            async with anyio.create_task_group(), serving():
                pass


def open_pool() -> Any:
    """Something to hold."""


HOLDS = "holds a resource but takes no `Serving`, so it is cancelled as a whole"
GROUPS = "opens a task group around its serving block, so its tasks are not cancelled with the work"


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (_holds, [(HOLDS, 1)]),
        (_holds_what_is_made_elsewhere, [(HOLDS, 1)]),
        (_groups, []),
        (_holds_nothing, []),
        (_holds_around_its_work, []),
        (_groups_in_its_work, []),
        (_groups_around_its_work, [(GROUPS, 2), (GROUPS, 4)]),
    ],
)
def test_the_shape_of_a_function(fn: Any, told: list[tuple[str, int]]) -> None:
    """A resource without `Serving`, and task groups around the serving block, each with its line."""
    first = fn.__code__.co_firstlineno
    found = _check_shape(service(fn).named("db"))
    assert len(found) == len(told), found
    for warning, (text, line) in zip(found, told, strict=True):
        assert warning.startswith(f"tests/plan/test_check.py:{first + line}: db {text}")


def test_the_shape_of_what_need_not_serve() -> None:
    """A one-shot holds what it likes; a function without source, or with a wrong signature, is not looked at."""
    assert _check_shape(service(oneshot=True)(_holds)) == []
    made: dict[str, Any] = {}
    exec("async def made():\n    async with x(): pass", made)  # noqa: S102
    assert _check_shape(service(made["made"])) == []
    assert _check_shape(service(_takes_int)) == []
