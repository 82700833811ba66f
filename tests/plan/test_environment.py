"""`app env`: what is listed of each variable, and files that are made of it."""

from __future__ import annotations

import enum
import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel import Seconds, Secret, Service, Serving, service
from kernel.config.described import otel_table
from kernel.config.nats import NATS_SETTINGS, NATS_VARIABLES
from kernel.config.otel import OTEL_VARIABLES
from kernel.config.service_config import read_config
from kernel.config.settings import KERNEL_VARIABLES
from kernel.plan.environment import Surroundings, Variable, variables_of
from kernel.plan.environment_formats import as_dotenv, as_json, as_table
from tests.conformance.program import REPO

JUST = REPO / ".venv" / "bin" / "just"


class Level(enum.IntEnum):
    """Something to choose from."""

    LOW = 1
    HIGH = 2


@attrs.frozen
class Smtp:
    """A class inside."""

    host: str = "localhost"
    port: int = 25


@attrs.frozen
class Account:
    """A class inside that needs a value."""

    name: str
    password: Secret[str]


@attrs.frozen
class Everything:
    """Thirty fields of all types."""

    must: str  # what has no default
    key: Secret[str]  # what has none, and is not shown
    text: str = 'it\'s $HOME, "quoted" # and \\ more'
    lines: str = "one\ntwo"
    empty: str = ""
    spaces: str = "  two  "
    whole: int = 5
    number: float = 0.25
    big: float = 1e300
    yes: bool = True
    path: Path = Path("/var/lib/a b")
    every: Seconds = 90.0
    wait: timedelta = timedelta(milliseconds=1500)
    fee: Decimal = Decimal("0.10")
    at: datetime = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)
    day: date = date(2026, 11, 25)
    clock: time = time(10, 30)
    ident: uuid.UUID = attrs.field(default=uuid.UUID(int=7))
    data: bytes = b"\x00\xff"
    host: IPv4Address = attrs.field(default=IPv4Address("10.0.0.1"))
    net: IPv6Network = attrs.field(default=IPv6Network("fd00::/8"))
    level: Level = Level.HIGH
    mode: Literal["fast", "safe"] = "safe"
    names: tuple[str, ...] = ("a", "b c")
    none: list[int] = attrs.field(factory=list)
    sizes: Sequence[int] = (1, 2)
    odd: tuple[str, ...] = ("a,b",)
    few: int = attrs.field(default=1, validator=attrs.validators.le(3))
    rates: dict[str, float] = attrs.field(factory=lambda: {"a": 0.5})
    maybe: int | None = None
    token: Secret[str] = attrs.field(default=Secret("default-token"))
    double: int = attrs.field()
    smtp: Smtp = Smtp(port=587)
    backup: Smtp | None = None
    spare: Smtp | None = Smtp(port=465)
    account: Account | None = None

    @double.default
    def _double(self) -> int:
        return 2 * self.whole


@service
async def api(config: Everything) -> None:
    """A service that reads it."""


def listed(environ: Mapping[str, str], one: Service[..., Any] = api) -> dict[str, Variable]:
    """What is listed, by variable."""
    return {variable.name: variable for variable in variables_of({"api": one}, Surroundings(environ))}


def test_everything_is_listed() -> None:
    """Every variable of the service, the kernel and OpenTelemetry, once."""
    names = [one.name for one in variables_of({"api": api}, Surroundings({}))]
    assert len(names) == len(set(names))
    assert {*KERNEL_VARIABLES, *NATS_VARIABLES, *OTEL_VARIABLES} <= {*names}
    assert {one.name for one in otel_table()} == {*OTEL_VARIABLES}
    assert all(one.meaning and one.type for one in otel_table())
    assert all(one.meaning and one.type for one in NATS_SETTINGS)
    assert len([name for name in names if name.startswith("API_")]) == 32 + 2 * 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("API_MUST", {"required": True, "default": None, "value": None, "source": "unset", "problem": "not set"}),
        (
            "API_KEY",
            {"required": True, "secret": True, "type": "Secret[str]", "meaning": "what has none, and is not shown"},
        ),
        ("API_WHOLE", {"type": "int", "default": "5", "value": "5", "source": "default", "required": False}),
        ("API_EVERY", {"type": "Seconds", "default": "90s"}),
        ("API_TOKEN", {"default": "********", "value": "********", "secret": True, "line": ""}),
        ("API_LEVEL", {"type": "1 | 2", "default": "2", "expected": "one of 1, 2"}),
        ("API_NONE", {"default": "[]"}),
        ("API_MAYBE", {"default": "None", "type": "int | None", "line": ""}),
        ("API_DOUBLE", {"default": "(from other fields)", "line": ""}),
        ("API_SMTP_PORT", {"default": "587"}),
        ("API_BACKUP_PORT", {"default": "25", "required": False, "active": False}),
        ("API_SPARE_PORT", {"default": "465", "required": False, "active": True}),
        ("API_ACCOUNT_NAME", {"default": None, "required": False, "problem": ""}),
        ("API_EMPTY", {"default": '""', "value": '""', "line": "", "active": True}),
        ("API_LINES", {"default": "one\\ntwo", "line": "one\ntwo"}),
        ("API_ODD", {"default": "('a,b',)", "line": None, "active": False}),
        ("API_YES", {"default": "true", "line": "true", "active": True}),
        (
            "LOG_LEVEL",
            {
                "reader": "kernel",
                "type": "level",
                "default": "info",
                "value": "info",
                "source": "default",
                "line": "info",
                "required": False,
                "secret": False,
                "common": True,
                "active": False,
                "declared": "",
                "problem": "",
                "meaning": "the lowest level of records to write; info,worker=debug for one service or logger",
            },
        ),
        ("ADMIN_ADDR", {"default": "off; in dev 127.0.0.1:9090", "line": ""}),
        ("NATS_USER", {"reader": "NATS", "default": None, "value": None, "source": "unset", "secret": True}),
        (
            "OTEL_SERVICE_NAME",
            {"reader": "OpenTelemetry", "default": "the app's name", "source": "default", "expected": "", "line": ""},
        ),
        ("OTEL_SDK_DISABLED", {"meaning": "true turns traces, metrics and logs off", "common": True}),
        ("OTEL_LOG_LEVEL", {"default": None, "value": None, "source": "unset", "common": False, "secret": False}),
    ],
)
def test_what_is_told(name: str, told: dict[str, object]) -> None:
    """Type, default, value, and whether it must be set; what is secret is masked."""
    variable = listed({})[name]
    assert {key: getattr(variable, key) for key in told} == told
    if name.startswith("API_"):
        assert "tests/plan/test_environment.py:" in variable.declared


def test_what_is_set() -> None:
    """The value now, where it comes from, and what is wrong with it; secrets masked, also in a table or in JSON."""
    environ = {
        "API_WHOLE": "7",
        "API_KEY": "hunter2",
        "API_NUMBER": "many",
        "LOG_LEVEL": "loud",
        "API_ACCOUNT_NAME": "me",
    }
    environ |= {"API_FEW": "4", "API_LINES": "a\tb", "NATS_USER": "me"}
    environ |= {"NATS_URL": "nats://me:hunter2@host:4222", "API_PATH": "postgres://me:hunter2@host/db"}
    environ |= {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2", "OTEL_BSP_MAX_QUEUE_SIZE": "9"}
    found = listed(environ)
    assert (found["API_WHOLE"].value, found["API_WHOLE"].source) == ("7", "environment")
    assert (found["API_KEY"].value, found["API_KEY"].problem) == ("********", "")
    assert found["API_NUMBER"].problem == "expected a number"
    assert found["API_FEW"].problem == "'few' must be <= 3: 4"
    assert found["LOG_LEVEL"].problem.startswith("expected one of debug")
    assert found["API_ACCOUNT_PASSWORD"].required
    assert (found["API_LINES"].value, found["API_PATH"].value) == ("a\\tb", "postgres://me:********@host/db")
    assert (found["LOG_LEVEL"].value, found["LOG_LEVEL"].source, found["LOG_LEVEL"].line) == (
        "loud",
        "environment",
        "info",
    )
    assert (found["NATS_URL"].value, found["NATS_URL"].problem) == ("nats://********@host:4222", "")
    assert (found["NATS_USER"].value, found["NATS_USER"].source) == ("********", "environment")
    headers, queue = found["OTEL_EXPORTER_OTLP_HEADERS"], found["OTEL_BSP_MAX_QUEUE_SIZE"]
    assert (headers.value, headers.secret, headers.source) == ("********", True, "environment")
    assert (queue.value, queue.common, queue.default) == ("9", True, "65536")
    table, text = as_table([*found.values()]), as_json([*found.values()])
    assert "hunter2" not in table + text + as_dotenv([*found.values()], "app")
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in table
    assert "OTEL_BSP_EXPORT_TIMEOUT" not in table
    assert "WRONG: expected a number" in table
    assert [one["name"] for one in json.loads(text)] == [*found]


@attrs.frozen
class Partly:
    """One that needs one of its values."""

    must: str
    may: int = 3
    inner: Smtp = Smtp()


@pytest.mark.parametrize(
    ("environ", "required", "active"),
    [({}, False, False), ({"API_MAY": "4"}, True, True), ({"API_INNER_HOST": "h"}, True, True)],
)
def test_a_config_that_may_be_none(environ: dict[str, str], required: bool, active: bool) -> None:
    """Unless one of its variables is set, none must be, and an example file sets none."""

    @service
    async def maybe(config: Partly | None = None) -> None: ...

    found = listed(environ, maybe)
    assert found["API_MUST"].required is required
    assert [found[f"API_{name}"].active for name in ("MUST", "MAY", "INNER_HOST", "INNER_PORT")] == [active] * 4
    config, errors = read_config("api", Partly, environ, None)
    assert config is None
    assert bool(errors) is required


async def takes_nothing() -> None: ...


async def takes_what_it_cannot(thing: int) -> None: ...


def asks(config: Partly) -> None: ...


def asks_for_more(config: Smtp) -> None: ...


def asks_wrongly(serving: Serving[None]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "commands", "names"),
    [
        (takes_nothing, [], []),
        (takes_nothing, [asks], ["MUST", "MAY", "INNER_HOST", "INNER_PORT"]),
        (
            takes_nothing,
            [asks_wrongly, asks_for_more, asks],
            ["HOST", "PORT", "MUST", "MAY", "INNER_HOST", "INNER_PORT"],
        ),
        (takes_what_it_cannot, [asks], []),
    ],
)
def test_what_commands_read(fn: Any, commands: list[Any], names: list[str]) -> None:
    """Where the service itself has no config; what is declared wrongly is told elsewhere."""
    declared = service(fn)
    for command in commands:
        declared.command(command)
    found = [name for name in listed({}, declared) if name.startswith("API_")]
    assert found == [f"API_{name}" for name in names]


def test_what_comes_from_a_file(tmp_path: Path) -> None:
    """What `.env` says and is so is told as from there; what it says and is not set, as not loaded."""
    (tmp_path / ".env").write_text(
        "# API_NET=x\nAPI_WHOLE=7\nexport API_TEXT='a b'\nAPI_NUMBER = 3\nAPI_DAY=\nAPI_MODE=fast\n"
        "LOG_LEVEL=debug\nOTEL_LOG_LEVEL=info\nAPI_EMPTY=''\nAPI_NAMES=\"\"\n"
    )
    environ = {"API_WHOLE": "7", "API_TEXT": "a b", "API_NUMBER": "4", "API_BIG": "2"}
    environ |= {"LOG_LEVEL": "debug", "OTEL_LOG_LEVEL": "debug"}
    around = Surroundings.of(environ, str(tmp_path))
    found = {one.name: one.source for one in variables_of({"api": api}, around)}
    assert [found[name] for name in ("API_WHOLE", "API_TEXT", "LOG_LEVEL")] == [".env"] * 3
    assert [found[name] for name in ("API_NUMBER", "API_BIG", "OTEL_LOG_LEVEL")] == ["environment"] * 3
    assert [found[name] for name in ("API_MODE", "API_MUST")] == ["default", "unset"]
    assert around.not_loaded == ["API_MODE"]
    assert Surroundings.of(environ, str(tmp_path / "nowhere")).not_loaded == []


def loaded(folder: Path, text: str) -> dict[str, str]:
    """The variables that the real `just` reads from a `.env` with this text."""
    (folder / ".env").write_text(text)
    (folder / "Justfile").write_text("set dotenv-load\n\nshow:\n    @env -0\n")
    done = subprocess.run([JUST, "show"], cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    pairs = (pair.partition("=") for pair in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs if name.startswith(("API_", *KERNEL_VARIABLES, "OTEL_"))}


def test_an_example_file_has_the_defaults(tmp_path: Path) -> None:
    """A `.env.example`, loaded by the recipes' own program, is the same as nothing set."""
    environ = loaded(tmp_path, as_dotenv([*listed({}).values()], "app"))
    assert environ["API_TEXT"] == Everything.__attrs_attrs__.text.default
    assert environ["API_LINES"] == "one\ntwo"
    assert environ["API_SMTP_PORT"] == "587"
    assert "API_BACKUP_PORT" not in environ
    assert not {*environ} & {*KERNEL_VARIABLES}
    filled = {"API_MUST": "x", "API_KEY": "k"}
    config, errors = read_config("api", Everything, environ | filled)
    assert errors == []
    assert config == read_config("api", Everything, filled)[0]
    assert config == Everything("x", Secret("k"))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=20))
def test_any_default_survives_the_file(tmp_path: Path, texts: list[str]) -> None:
    """Quotes, dollars, line ends, comments: each text comes back as it was."""
    cls = attrs.make_class("Texts", {f"f{n}": attrs.field(type=str, default=text) for n, text in enumerate(texts)})

    async def reads(config: Any) -> None: ...

    reads.__annotations__["config"] = cls
    environ = loaded(tmp_path, as_dotenv([*listed({}, service(reads)).values()], "app"))
    assert [environ[f"API_F{n}"] for n in range(len(texts))] == texts
