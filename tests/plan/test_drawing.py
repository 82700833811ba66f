"""How the dependency graph is drawn, and which services can run apart."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol

import pytest

from kernel import Retry, Serving, interface, service, started
from kernel.declare.service import Service
from kernel.errors import CycleError
from kernel.plan.drawing import apart, draw, told_apart


@interface
class Users(Protocol):
    """What other processes may call."""

    async def count(self) -> int:
        """How many there are."""
        ...


async def _runs() -> None: ...


async def _serves(serving: Serving[str]) -> None: ...


async def _serves_users(serving: Serving[Users]) -> None: ...


async def _takes_db(db: str) -> None: ...


async def _may_take_db(db: str = "") -> None: ...


async def _takes_two(db: str, cache: str) -> None: ...


async def _takes_users(users: Users) -> None: ...


async def _takes_both(db: str, users: Users) -> None: ...


def services(**declared: Service[..., Any]) -> dict[str, Service[..., Any]]:
    """Services by name, in the order in which they are given."""
    return {name: one.named(name) for name, one in declared.items()}


ALL = services(
    api=service(depends=["db", "clean", started("log"), "gone"])(_takes_db),
    clean=service(oneshot=True, allowed_failure=True, retries=2, start_timeout=None)(_runs),
    db=service(stop_timeout=5)(_serves),
    log=service(oneshot=True, retries=Retry(times=None))(_runs),
    cache=service(depends=["db"], allowed_failure=True)(_may_take_db),
)
CALLED = services(
    web=service(depends=["users"])(_takes_users),
    both=service(depends=["db", "users"])(_takes_both),
    users=service(_serves_users),
    db=service(_serves),
)
DRAWN: dict[Literal["text", "mermaid", "dot"], str] = {
    "text": """\
clean  [one-shot, may fail]
db
log    [one-shot]
cache  <- db  [may fail]
api    <- db, clean (order), log (started), gone (order) (left out)""",
    "mermaid": """\
graph LR
    clean[clean]
    db[db]
    log[log]
    cache[cache]
    api[api]
    db --> cache
    db --> api
    clean -.-> api
    log -. started .-> api
    gone -.-> api""",
    "dot": """\
digraph services {
    rankdir=LR;
    "clean" [style=dashed];
    "db";
    "log";
    "cache" [style=dashed];
    "api";
    "db" -> "cache" [style=solid];
    "db" -> "api" [style=solid];
    "clean" -> "api" [style=dashed];
    "log" -> "api" [style=dotted];
    "gone" -> "api" [style=dashed];
}""",
}
CALLS: dict[Literal["text", "mermaid", "dot"], str] = {
    "text": """\
users
db
web    <- users (Users)
both   <- db, users (Users)

can run apart: users | db, both | web""",
    "mermaid": """\
graph LR
    users[users]
    db[db]
    web[web]
    both[both]
    users -- Users --> web
    db --> both
    users -- Users --> both""",
    "dot": """\
digraph services {
    rankdir=LR;
    "users";
    "db";
    "web";
    "both";
    "users" -> "web" [style=solid, label="Users"];
    "db" -> "both" [style=solid];
    "users" -> "both" [style=solid, label="Users"];
}""",
}


@pytest.mark.parametrize("style", DRAWN)
def test_a_drawing(style: Literal["text", "mermaid", "dot"]) -> None:
    """Each service after its dependencies, with the kind of each dependency, and interfaces by name."""
    assert draw(ALL, style) == DRAWN[style]
    assert draw(CALLED, style) == CALLS[style]


def test_a_drawing_for_programs() -> None:
    """All that is declared."""
    drawn = draw(ALL, "json")
    assert drawn.startswith('{\n  "clean": {\n    "depends": {}')
    found = json.loads(drawn)
    assert list(found) == ["clean", "db", "log", "cache", "api"]
    assert found["api"] == {
        "depends": {"db": "value", "clean": "order", "log": "started", "gone": "order"},
        "interfaces": {},
        "optional": [],
        "oneshot": False,
        "allowed_failure": False,
        "retries": 0,
        "start_timeout": 60.0,
        "stop_timeout": 30.0,
    }
    assert found["cache"]["optional"] == ["db"]
    clean = found["clean"]
    assert (clean["oneshot"], clean["allowed_failure"], clean["retries"], clean["start_timeout"]) == (
        True,
        True,
        2,
        None,
    )
    assert (found["log"]["retries"], found["db"]["stop_timeout"]) == (None, 5)
    assert json.loads(draw(CALLED, "json"))["both"]["interfaces"] == {"users": "Users"}


def test_a_cycle_cannot_be_drawn() -> None:
    """The error names its members."""
    with pytest.raises(CycleError, match="a -> b -> a"):
        draw(services(a=service(depends=["b"])(_runs), b=service(depends=["a"])(_runs)), "text")


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        (ALL, [["db", "api", "cache"], ["clean"], ["log"]]),
        (CALLED, [["web"], ["db", "both"], ["users"]]),
        (
            services(
                first=service(depends=["db"])(_takes_db),
                db=service(_serves),
                second=service(depends=["first", "db"])(_takes_db),
                alone=service(depends=["db", "first"])(_runs),
                lost=service(depends=["elsewhere"])(_runs),
            ),
            [["db", "first", "second"], ["alone"], ["lost"]],
        ),
        (
            services(db=service(_serves), cache=service(_serves), two=service(depends=["db", "cache"])(_takes_two)),
            [["cache", "db", "two"]],
        ),
        (
            services(
                db=service(_serves),
                cache=service(depends=["db"])(_takes_db),
                two=service(depends=["db", "cache"])(_takes_two),
            ),
            [["db", "cache", "two"]],
        ),
    ],
)
def test_who_must_share_a_process(given: dict[str, Service[..., Any]], groups: list[list[str]]) -> None:
    """Those that pass each other values, directly or through others; order and interfaces bind nobody."""
    assert apart(given) == groups


def test_what_can_run_apart_is_told_where_there_is_an_interface() -> None:
    """Without one, services need not know of processes."""
    assert told_apart(ALL) == ""
    assert told_apart(CALLED) == "can run apart: web | db, both | users"
