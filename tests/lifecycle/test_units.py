"""What an orchestrator is given to run: services, and those of the kernel's own around them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from kernel import service, started
from kernel.lifecycle.units import Unit, nest
from tests.lifecycle.parts import AnyService, sleeper

DB, CACHE, API, JOB = (
    Unit(one) for one in (sleeper("db"), sleeper("cache", "db"), sleeper("api", "cache", "db"), sleeper("job"))
)


def nested(units: Sequence[Unit], *outer: AnyService) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Return each unit: its name, whether it is the kernel's own, and what it starts after."""
    return [(unit.service.name, unit.internal, unit.after) for unit in nest(iter(units), outer)]


def test_a_unit_is_a_service_of_the_users() -> None:
    """What is not said is the usual: it is no command, nobody waits for it in a special way, nothing is around it."""
    unit = Unit(DB.service)
    assert attrs.astuple(unit, recurse=False) == (DB.service, None, False, False, False, None, None, ())


def test_nothing_is_around() -> None:
    """The units stay as they are."""
    assert nest([DB, CACHE], []) == [DB, CACHE]
    assert nest([], []) == []


def test_each_service_is_inside_all_that_are_around() -> None:
    """Each of those starts after the one before, the roots after the last, and all others after the roots anyway."""
    assert nested([API, JOB, CACHE, DB], sleeper("first"), sleeper("second"), sleeper("third")) == [
        ("first", True, ()),
        ("second", True, ("first",)),
        ("third", True, ("second",)),
        ("api", False, ()),
        ("job", False, ("third",)),
        ("cache", False, ()),
        ("db", False, ("third",)),
    ]


@pytest.mark.parametrize(
    ("depends", "after", "told"),
    [
        ([], (), ("around",)),
        (["db"], (), ()),
        ([started("db")], (), ()),
        (["elsewhere"], (), ("around",)),
        (["elsewhere", "db"], (), ()),
        (["db", "elsewhere"], (), ()),
        ([], ("db",), ("db",)),
        (["elsewhere"], ("db",), ("db",)),
    ],
    ids=range(8),
)
def test_which_services_are_roots(depends: list[str], after: tuple[str, ...], told: tuple[str, ...]) -> None:
    """Those that start after no other unit; dependencies that are not enabled do not count."""

    @service(depends=depends)
    async def one() -> None:
        """Do nothing."""

    assert nested([DB, Unit(one, after=after)], sleeper("around"))[-1] == ("one", False, told)
