"""Which services run, and what those that are chosen bring with them."""

from __future__ import annotations

import re

import pytest

from kernel.declare.service import command_needs
from kernel.errors import ConfigError, PlanError, Problems
from kernel.plan.discovery import Catalogue, ServiceFile, load
from kernel.plan.selection import make_plan, plan_command, select
from tests.plan.parts import Written

FILES = Catalogue(
    {name: ServiceFile(name, f"services.{name}", f"services/{name}.py", "services", bytes) for name in "abcd"},
    absent=["elsewhere", "elsewhere-too"],
)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, "abcd"),
        ([], "abcd"),
        (["c", "a"], "ac"),
        (["a", "!b"], "a"),
        (["!b"], "acd"),
        (["!b", "!d"], "ac"),
        (["!b", "a", "b"], "a"),
        (["[ab]", "d"], "abd"),
        (["*", "![ab]"], "cd"),
        (["!elsewhere"], "abcd"),
        (["a", "!elsewhere*"], "a"),
        ([" a ", "! b"], "a"),
    ],
)
def test_what_patterns_choose(patterns: list[str] | None, names: str) -> None:
    """In the order of the files; only exclusions stand for all others, one name beside them for that one alone."""
    assert select(FILES, patterns, "SERVICES_ENABLED") == list(names)


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["a", "x"], ["no service is named 'x'; there are: a, b, c, d, elsewhere, elsewhere-too"]),
        (["!x", "!y"], ["no service is named 'x'", "no service is named 'y'"]),
        (["elsewhere", "a"], ["elsewhere is not in this artifact; remove it, or build an artifact with it"]),
        (["elsewhere*"], ["elsewhere, elsewhere-too is not in this artifact"]),
        (["elsewher"], ["no service is named 'elsewher'; did you mean 'elsewhere'"]),
        (["a", "!a"], ["a, !a selects no service; remove one of the exclusions"]),
        (["![abcd]"], ["![abcd] selects no service"]),
    ],
)
def test_what_chooses_nothing(patterns: list[str], told: list[str]) -> None:
    """Every pattern that matches nothing is told, with where it comes from."""
    with pytest.raises(PlanError) as caught:
        select(FILES, patterns, "here")
    said = str(caught.value)
    assert re.findall(r"here: ", said) == ["here: "] * len(told)
    assert all(text in said for text in told), said


def test_there_is_nothing_to_choose_from() -> None:
    """Whatever was asked for."""
    for patterns in (None, ["a"], ["!a"]):
        with pytest.raises(
            PlanError,
            match=r"services: there is no service; write an async function with @service in services/hello.py",
        ):
            select(Catalogue({}), patterns, "here")


# -- what is imported ------------------------------------------------------------------------------------------------

SERVES = "@service(depends={1})\nasync def {0}({2}serving: Serving[int]) -> None: ..."
CONFIG = """
import attrs

@attrs.frozen
class Config:
    port: int = 80
    must: str = "x"

"""


@pytest.fixture
def shop(written: Written) -> Catalogue:
    """Services that need each other: api needs the value of db, which needs that of disk, and waits for clean."""
    return written(
        "elsewhere",
        alone=SERVES.format("alone", [], ""),
        api=SERVES.format("api", ["clean", "db"], "db: int, "),
        broken="x = [",
        clean=SERVES.format("clean", ["dust"], ""),
        db=CONFIG + SERVES.format("db", ["disk"], "disk: int, config: Config, "),
        disk=SERVES.format("disk", [], ""),
        dust=SERVES.format("dust", [], ""),
        late=SERVES.format("late", ["broken", "elsewhere"], "broken: int, "),
    )


def names_in(files: Catalogue, patterns: list[str] | None, *, dependencies: bool) -> list[str]:
    """What is run."""
    plan = make_plan(files, {}, patterns, "here", with_dependencies=dependencies)
    return [unit.service.name for unit in plan.units]


@pytest.mark.parametrize(
    ("patterns", "dependencies", "names"),
    [
        (["alone"], False, ["alone"]),
        (["alone"], True, ["alone"]),
        (["clean"], False, ["clean"]),
        (["clean"], True, ["dust", "clean"]),
        (["api"], True, ["disk", "dust", "db", "clean", "api"]),
        (["api", "!clean"], True, ["disk", "db", "api"]),
        (["api", "!disk"], True, ["dust", "disk", "clean", "db", "api"]),  # whose value is needed
        (["!broken", "!late", "!api"], True, ["alone", "disk", "dust", "db", "clean"]),
    ],
)
def test_dependencies_are_added(shop: Catalogue, patterns: list[str], dependencies: bool, names: list[str]) -> None:
    """If that is asked for; one that is excluded only where its value is needed."""
    assert sorted(names_in(shop, patterns, dependencies=dependencies)) == sorted(names)


def test_all_with_their_dependencies(written: Written) -> None:
    """Without a pattern there is nothing to add."""
    files = written(api=SERVES.format("api", ["db"], "db: int, "), db=SERVES.format("db", [], ""))
    for dependencies in (False, True):
        assert names_in(files, None, dependencies=dependencies) == ["db", "api"]


def test_all_that_is_wrong_is_told_together(shop: Catalogue) -> None:
    """What was found before, what cannot be imported, what does not fit, and wrong values; near misses are noted."""
    before = ConfigError("is wrong", where="LOG_LEVEL")
    environ = {"DB_PORT": "x", "DB_MUSTS": "y"}
    with pytest.raises(Problems) as caught:
        make_plan(shop, environ, ["late", "api", "db"], "here", errors=[before], with_dependencies=True)
    told = [str(error).partition("; ")[0] for error in caught.value.errors]
    assert told[0] == "LOG_LEVEL is wrong"
    assert "service 'broken' cannot be imported" in told[1]
    assert told[2:] == ["DB_PORT is 'x'"]
    assert caught.value.__notes__ == ["DB_MUSTS is set, but nothing reads it; did you mean DB_MUST?"]
    with pytest.raises(Problems) as caught:
        make_plan(shop, {}, ["nobody"], "here", errors=[before])
    assert [str(error).partition("; ")[0] for error in caught.value.errors] == [
        "LOG_LEVEL is wrong",
        "here: no service is named 'nobody'",
    ]


def test_a_plan(shop: Catalogue) -> None:
    """The units with their configs, and what the operator should know."""
    plan = make_plan(shop, {"DB_PORT": "81", "DB_MUSTS": "y"}, ["db", "disk", "clean"], "here")
    assert [(unit.service.name, getattr(unit.config, "port", None)) for unit in plan.units] == [
        ("clean", None),
        ("disk", None),
        ("db", 81),
    ]
    assert plan.warnings == (
        "DB_MUSTS is set, but nothing reads it; did you mean DB_MUST?",
        "clean does not wait for dust, which is not enabled",
    )


CALLED = """
@interface
class Users(Protocol):
    async def count(self) -> int: ...

@service(depends=["elsewhere"])
async def web(elsewhere: Users) -> None: ...
"""


@pytest.mark.parametrize(("url", "wrong"), [("", True), ("  ", True), ("nats://localhost", False)])
def test_a_service_may_be_called_elsewhere(written: Written, url: str, wrong: bool) -> None:
    """With a server for calls, an interface need not be served here."""
    files = written("elsewhere", web=CALLED)
    if wrong:
        with pytest.raises(PlanError, match="web needs the value of elsewhere, which is not in this artifact"):
            make_plan(files, {"NATS_URL": url}, None, "here")
    else:
        assert make_plan(files, {"NATS_URL": url}, None, "here").warnings == ()


# -- commands ----------------------------------------------------------------------------------------------------------

COMMANDS = """
@attrs.frozen
class Other:
    level: int = 3

@db.command
async def both(db: int, disk: int, config: Config) -> None: ...

@db.command
async def own(config: Config) -> None: ...

@db.command
async def one(disk: int) -> None: ...
"""


def test_what_a_command_needs(written: Written) -> None:
    """Its providers, with what they need, whatever is enabled; and the config of its service."""
    files = written(
        api=SERVES.format("api", ["db"], "db: int, "),
        clean=SERVES.format("clean", [], ""),
        db=CONFIG + SERVES.format("db", ["disk", "clean"], "disk: int, config: Config, ") + COMMANDS,
        disk=SERVES.format("disk", [], ""),
    )
    db = load(files["db"])

    def planned(command: str, environ: dict[str, str], enabled: list[str] | None = None) -> tuple[list[str], object]:
        plan, config = plan_command(db, command_needs(db, db.commands[command]), files, environ, enabled=enabled)
        return sorted(unit.service.name for unit in plan.units), getattr(config, "port", None)

    assert planned("both", {"DB_PORT": "81"}) == (["clean", "db", "disk"], 81)
    assert planned("both", {}, ["api", "!clean", "!disk"]) == (["db", "disk"], 80)
    assert planned("own", {"DB_PORT": "81"}, ["api"]) == ([], 81)
    assert planned("one", {"DB_PORT": "81"}) == (["disk"], None)
    assert planned("one", {"DB_PORT": "x"}) == (["disk"], None)  # which it does not read
    for command in ("both", "own"):
        with pytest.raises(ConfigError, match="DB_PORT is 'x'"):
            planned(command, {"DB_PORT": "x"})


def test_a_command_with_a_config_of_its_own(written: Written) -> None:
    """Where its service has none, it has the service's variables."""
    files = written(
        db=CONFIG + SERVES.format("db", ["gone"], "") + "\n@db.command\nasync def up(config: Config) -> None: ...",
        gone="x = [",
    )
    db = load(files["db"])
    needs = command_needs(db, db.commands["up"])
    plan, config = plan_command(db, needs, files, {"DB_PORT": "81"})
    assert (plan.units, getattr(config, "port", None)) == ((), 81)
    before = ConfigError("is wrong", where="LOG_LEVEL")
    with pytest.raises(Problems) as caught:
        plan_command(db, needs, files, {"DB_PORT": "x"}, errors=[before])
    assert [str(error).partition("; ")[0] for error in caught.value.errors] == ["LOG_LEVEL is wrong", "DB_PORT is 'x'"]


def test_a_command_whose_providers_do_not_fit(written: Written) -> None:
    """It is refused with all that is wrong, but not with what is wrong with others."""
    files = written(
        "elsewhere",
        api="@service\nasync def api(thing: int) -> None: ...",
        db=SERVES.format("db", ["disk", "plain", "elsewhere"], "")
        + "\n@db.command\nasync def up(disk: int, plain: int, elsewhere: int) -> None: ...",
        disk=SERVES.format("disk", ["broken"], "broken: int, "),
        plain="@service\nasync def plain() -> None: ...",
        broken="x = [",
    )
    db = load(files["db"])
    with pytest.raises(Problems) as caught:
        plan_command(db, command_needs(db, db.commands["up"]), files, {})
    told = [error.what for error in caught.value.errors]
    assert "service 'broken' cannot be imported" in told[0]
    assert told[1:] == [
        "db takes the value of plain, which provides none",
        "db needs the value of elsewhere, which is not in this artifact",
    ]
