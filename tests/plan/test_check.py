"""`app check` holds the stop timeouts against the budget; the rest of it is tried on the real program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from kernel import Retry, Serving, service
from kernel.declare.service import Service
from kernel.plan.check import _check_budget, _check_retries, _check_values, check
from kernel.plan.discovery import Catalogue, find_services
from kernel.plan.registry import Registry


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


Written = Callable[..., Catalogue]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes services with these texts, and returns them."""

    def write(*absent: str, **texts: str) -> Catalogue:
        (tmp_path / "services").mkdir()
        for name, text in texts.items():
            (tmp_path / "services" / f"{name}.py").write_text(HEAD + text)
            monkeypatch.delitem(sys.modules, f"services.{name}", raising=False)
        monkeypatch.delitem(sys.modules, "services", raising=False)
        return Catalogue(find_services(str(tmp_path)), absent)

    return write


HEAD = "from typing import Protocol\n\nfrom kernel import Serving, interface, service\n\n\n"
NEEDY = "@service(depends=['gone-one'])\nasync def needy(gone_one: int) -> None: ..."
PLAIN = "@service\nasync def {}() -> None: ..."


def test_what_an_artifact_lacks_is_told_once(written: Written) -> None:
    """Also where the service that needs it is enabled, so that it is wrong in two ways."""
    findings = check(written("gone-one", needy=NEEDY), {}, (None, ""), 10.0)
    assert [str(error).partition("; ")[0].partition(": ")[2] for error in findings.errors] == [
        "needy needs the value of gone-one, which is not in this artifact"
    ]


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


async def _db(serving: Serving[int]) -> None: ...


async def _cache(serving: Serving[bool]) -> None: ...


async def _names(serving: Serving[list[str]]) -> None: ...


async def _maybe(serving: Serving[int | None]) -> None: ...


async def _takes_names(db: list[str]) -> None: ...


async def _takes_maybe(db: int | None) -> None: ...


async def _plain(serving: Serving) -> None: ...  # type: ignore[type-arg]


async def _takes_int(db: int) -> None: ...


async def _takes_str(db: str) -> None: ...


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
