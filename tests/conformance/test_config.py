"""Configs of services in the real program: every type arrives, and all that is wrong is told in one go."""

from __future__ import annotations

import json

import pytest

from tests.conformance.program import App, NewApp
from tests.conformance.test_bad_input import Mistake, check_all, idle

HEAD = """\
from __future__ import annotations
from typing import TYPE_CHECKING, NewType
from kernel import *
import anyio, attrs
"""


def takes(fields: str, annotation: str = "C", before: str = "") -> str:
    """The source of a service `c` whose config class has these *fields*."""
    lines = "".join(f"    {line}\n" for line in fields.splitlines())
    return (
        f"{HEAD}{before}\n@attrs.frozen\nclass C:\n{lines}\n"
        f"@service\nasync def c(config: {annotation}) -> None:\n    await anyio.sleep_forever()\n"
    )


UNREADABLE = takes(
    "tags: deque[str] = attrs.field(factory=deque)\nrest: Mapping[str, int] = attrs.field(factory=dict)\n"
    "hook: Callable[[], int] = int\nrows: list[list[int]] = attrs.field(factory=list)\nwhat: complex = 0j",
    before="from collections import deque\nfrom collections.abc import Callable, Mapping",
)
UNREADABLE_ERRORS = [
    r"C_TAGS cannot be read: its field is of type deque\[str\]; write list\[str\] \(C.tags, services/c.py:\d+\)$",
    r"C_REST cannot be read: its field is of type Mapping\[str, int\]; write dict\[str, int\]",
    r"C_HOOK cannot be read: its field is of type Callable\[\[\], int\]; use attrs.field\(init=False\) for what does",
    r"C_ROWS cannot be read: its field is of type list\[list\[int\]\]; lists cannot be nested: write str",
    r"C_WHAT cannot be read: its field is of type complex; write str, and convert it in the service",
]
CHECKED = takes(
    "batch: int = attrs.field(default=1, validator=attrs.validators.ge(1))\nevery: Seconds = 1.0\n"
    "size: int = attrs.field(default=1, validator=attrs.validators.le(9))"
)
TELLING = takes(
    "token: Token = attrs.field(default=Token(Secret('none')))\n@token.validator\n"
    "def tell(self, _, value):\n    raise ValueError(f'bad token {value.reveal()}')\n",
    before="Token = NewType('Token', Secret[str])",
)
HIDDEN = takes("where: Path | None = None\nn: int = 0", before="if TYPE_CHECKING:\n    from pathlib import Path")
INSIDE = takes(
    "db: Database = Database()\nmust: Needy = attrs.field(kw_only=True)",
    before="@attrs.frozen\nclass Database:\n    host: str = 'localhost'\n    port: int = 5432\n"
    "@attrs.frozen\nclass Needy:\n    url: str\n",
)
DATA = f"{HEAD}from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = 0\n"
MODEL = f"{HEAD}from pydantic import BaseModel\nclass C(BaseModel):\n    x: int = 0\n"
TAKES_C = "@service\nasync def c(config: C) -> None: ...\n"

MISTAKES = {
    "unreadable types, unset": Mistake({"c.py": UNREADABLE}, UNREADABLE_ERRORS),
    "unreadable types, set": Mistake({"c.py": UNREADABLE}, UNREADABLE_ERRORS, env={"C_TAGS": "a", "C_WHAT": "1j"}),
    "unreadable types, checked": Mistake({"c.py": UNREADABLE}, UNREADABLE_ERRORS, words=("check",)),
    "unreadable types, checked although not enabled": Mistake(
        {"c.py": UNREADABLE, "a": idle("a")}, UNREADABLE_ERRORS, words=("check",), env={"SERVICES_ENABLED": "a"}
    ),
    "a value that cannot be read, and one that a validator refuses": Mistake(
        {"c.py": CHECKED},
        [
            r"C_EVERY is 'often'; expected a duration such as .+ \(C.every, services/c.py:\d+\)",
            r"C_BATCH is '0': 'batch' must be >= 1: 0; declared at C.batch, services/c.py:\d+",
        ],
        env={"C_BATCH": "0", "C_EVERY": "often"},
    ),
    "two values that validators refuse": Mistake(
        {"c.py": CHECKED},
        [r"C_BATCH is '0': 'batch' must be >= 1: 0; declared", r"C_SIZE is '10': 'size' must be <= 9: 10; declared"],
        env={"C_BATCH": "0", "C_SIZE": "10"},
    ),
    "a secret by another name": Mistake(
        {"c.py": TELLING}, [r"C_TOKEN is \*{8}: ValueError; declared at C.token"], env={"C_TOKEN": "hunter2"}
    ),
    "a type that only a type checker sees": Mistake(
        {"c.py": HIDDEN},
        [
            (
                r"C_WHERE cannot be read: the type of its field cannot be evaluated: name 'Path' is not defined; import"
                r" it at run time, not under TYPE_CHECKING \(C.where, services/c.py:\d+\)"
            ),
            r"C_N is 'x'; expected a whole number",
        ],
        env={"C_N": "x"},
    ),
    "a class inside": Mistake(
        {"c.py": INSIDE},
        [
            r"C_DB_PORT is 'http'; expected a whole number \(Database.port, services/c.py:\d+\)",
            r"C_MUST_URL is not set, and has no default; expected a text \(Needy.url, services/c.py:\d+\)",
        ],
        env={"C_DB_PORT": "http", "C_DB_HOST": "x"},
    ),
    "a dataclass": Mistake(
        {"c.py": DATA + TAKES_C},
        [
            (
                r"services/c.py:\d+: c has a parameter 'config' that nothing can fill: C is a dataclass; for a config,"
                r" make it an attrs class: decorate it with @attrs.frozen"
            )
        ],
    ),
    "a pydantic model": Mistake(
        {"c.py": MODEL + TAKES_C},
        [r".+ that nothing can fill: C is a pydantic model; for a config, make it an attrs class"],
    ),
    "a generic class without its type": Mistake(
        {
            "c.py": f"{HEAD}from typing import Generic, TypeVar\nT = TypeVar('T')\n@attrs.frozen\n"
            f"class C(Generic[T]):\n    x: T\n{TAKES_C}"
        },
        [r"C_X cannot be read: its field is of type T; give the class a type argument, such as Config\[int\]"],
    ),
    "a typo in depends": Mistake(
        {"api": idle("api", "depends=['databse']", "database: int"), "database": idle("database")},
        [r"services/api.py:8: api depends on 'databse', which does not exist; did you mean 'database'\?"],
    ),
    "a typo in depends, and a parameter that nothing fills whatever the name": Mistake(
        {
            "api": idle("api", "depends=['databse']", "database: int, other: int, third: int"),
            "database": idle("database"),
        },
        [
            r"services/api.py:8: api depends on 'databse', which does not exist; did you mean 'database'\?",
            r"services/api.py:8: api has a parameter 'other' that nothing can fill; name it after a dependency",
            r"services/api.py:8: api has a parameter 'third' that nothing can fill; name it after a dependency",
        ],
    ),
    "a name in depends like no other": Mistake(
        {"api": idle("api", "depends=['xyz']", "database: int"), "database": idle("database")},
        [r"services/api.py:8: api depends on 'xyz', which does not exist; there are: api, database"],
    ),
}


def test_each_mistake(new_app: NewApp) -> None:
    """One clear error for each, exit code 2, no traceback, and nothing starts."""
    check_all(new_app, MISTAKES)


ARRIVING = """
import enum, ipaddress, uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Generic, NewType, TypeVar

T = TypeVar("T")
Token = NewType("Token", Secret[str])

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Swapped(enum.Enum):
    A = "B"
    B = "A"

@attrs.frozen
class Database:
    host: str = "localhost"
    port: int = 5432

@attrs.frozen
class Config(Generic[T]):
    item: T
    names: Sequence[str] = ()
    maybe: Sequence[str] | None = None
    bare: list = attrs.field(factory=list)
    level: Level = Level.LOW
    swapped: Swapped = Swapped.A
    fee: Decimal = Decimal("0.1")
    day: date | None = None
    wait: timedelta = timedelta(0)
    id: uuid.UUID | None = None
    data: bytes = b""
    host: ipaddress.IPv4Address | None = None
    rates: dict[str, float] = attrs.field(factory=dict)
    db: Database = Database(port=6432)
    token: Token = Token(Secret(""))

@service(oneshot=True)
async def api(config: Config[int]{rest}) -> None:
    assert config == Config(
        7, ("ab", "c"), ("ab",), ["a", "b"], Level.HIGH, Swapped.B, Decimal("0.25"), date(2026, 11, 25),
        timedelta(minutes=1),
        uuid.UUID(int=1), b"hello", ipaddress.IPv4Address("10.0.0.1"), {"a": 0.5}, Database("prod.internal", 6432),
        Token(Secret("hunter2")),
    ), config
    log.info("as it should be: %s", config)
"""
VALUES = {
    "API_ITEM": "7",
    "API_NAMES": "ab,c",
    "API_MAYBE": "ab",
    "API_BARE": "a,b",
    "API_LEVEL": "2",
    "API_SWAPPED": "A",
    "API_FEE": "0.25",
    "API_DAY": "2026-11-25",
    "API_WAIT": "1m",
    "API_ID": "00000000-0000-0000-0000-000000000001",
    "API_DATA": "aGVsbG8=",
    "API_HOST": "10.0.0.1",
    "API_RATES": "a=0.5",
    "API_DB_HOST": "prod.internal",
    "API_TOKEN": "hunter2",
}


@pytest.mark.core
@pytest.mark.parametrize("rest", ["", " | None", " | None = None"], ids=["config", "optional", "with a default"])
def test_every_type_arrives(app: App, rest: str) -> None:
    """In a generic class, a class inside of it included; whether or not the parameter may be None."""
    app.service("api", ARRIVING.replace("{rest}", rest))
    result = app.call("run", **VALUES)
    assert result.code == 0, result.stderr
    assert result.said("as it should be")
    assert "hunter2" not in result.stderr


@pytest.mark.many
@pytest.mark.parametrize(
    ("parameter", "env", "value"),
    [
        ("C | None = None", {}, "C(x=1)"),
        ("C | None", {"API_X": "2"}, "C(x=2)"),
        ("C = C(5)", {}, "C(x=5)"),
        ("C = C(5)", {"API_X": "2"}, "C(x=2)"),
        ("Needy | None = None", {}, "None"),
        ("Needy | None = None", {"API_Y": "2"}, "Needy(y=2)"),
    ],
)
def test_a_config_that_may_be_none(app: App, parameter: str, env: dict[str, str], value: str) -> None:
    """It is filled like any other; None is left only where the class needs a value and none of its variables is set."""
    classes = "@attrs.frozen\nclass C:\n    x: int = 1\n@attrs.frozen\nclass Needy:\n    y: int\n"
    body = "@service(oneshot=True)\nasync def api(config: {}) -> None:\n    log.info('config: %r', config)\n"
    app.service("api", classes + body.format(parameter))
    result = app.call("run", **env)
    assert result.code == 0, result.stderr
    assert f"api: config: {value}" in result.messages


def test_what_everybody_has_is_no_near_miss(app: App) -> None:
    """No warning of a variable that shells, systems and tools set, whatever the fields are called."""
    fields = (
        "http_proxy: str = ''\nuser: str = ''\nhome: str = ''\nlang: str = ''\nssh_auth_sock: str = ''\npath: str = ''"
    )
    app.write("services/c.py", takes(fields))
    everywhere = dict.fromkeys(("HTTP_PROXY", "http_proxy", "USER", "LANG", "SSH_AUTH_SOCK", "LOGNAME"), "x")
    result = app.run(**everywhere).stop()
    assert result.code == 0
    assert not [one for one in result.records if one["level"] == "warning"]


LISTED = '''
@attrs.frozen
class Config:
    """What it reads.

    Args:
        batch: How many at a time.

    """

    batch: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    token: Secret[str]
    every: Seconds = 60.0  # between two batches
    path: Path = Path("a.db")
    """Where it is kept."""

@service
async def api(config: Config) -> None:
    print("never imported for this")
'''.replace("    token: Secret[str]\n", "    token: Secret[str] = attrs.field(kw_only=True)\n")


@pytest.mark.core
def test_every_variable_is_listed(app: App) -> None:
    """With its meaning from the source, in an artifact too; secrets masked; what is wrong or missing is told."""
    app.service("api", LISTED.replace("@attrs", "from pathlib import Path\n@attrs", 1))
    app.service("other", idle("other"))
    result = app.call("env", "api", API_BATCH="0", API_EVERY="2m")
    assert result.code == 0, result.stderr
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert rows["API_TOKEN"].split()[1:] == ["Secret[str]", "required", "NOT", "SET"]
    assert "WRONG: 'batch' must be >= 1: 0" in rows["API_BATCH"]
    assert rows["API_EVERY"].split(maxsplit=5)[2:] == ["60s", "2m", "environment", "between two batches"]
    assert rows["API_PATH"].split(maxsplit=5)[2:] == ["a.db", "a.db", "default", "Where it is kept."]
    assert "RUNNER_SHUTDOWNTIMEOUT" in rows
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in rows
    token = {"API_TOKEN": "hunter2"}
    shown = app.call("env", "api", "--format", "json", **token)
    found = {one["name"]: one for one in json.loads(shown.stdout)}
    assert (found["API_TOKEN"]["value"], found["API_TOKEN"]["source"]) == ("********", "environment")
    assert found["API_BATCH"]["meaning"] == "How many at a time."
    assert "API_TOKEN=\n" in app.call("env", "--format", "dotenv", **token).stdout


def test_what_cannot_be_listed_is_told(app: App) -> None:
    """A broken service, a field that cannot be read: the rest is listed, and the exit code is 2."""
    app.service("broken", "raise OSError('broken')")
    app.write("services/c.py", UNREADABLE)
    app.service("api", LISTED.replace("@attrs", "from pathlib import Path\n@attrs", 1))
    result = app.call("env")
    assert result.code == 2
    assert "API_BATCH" in result.stdout
    assert result.said("service 'broken' cannot be imported: OSError: broken")
    assert result.said("C_TAGS cannot be read")
    assert "Traceback" not in result.stderr
    assert app.call("env", "nosuch").code == 2
    assert app.call("env", "--format", "xml").code == 2


def test_the_config_of_a_command(app: App) -> None:
    """It is that of the service; where the service takes none, the command's own."""
    classes = "@attrs.frozen\nclass C:\n    x: int = 1\n@attrs.frozen\nclass D:\n    y: int\n"
    commands = (
        "@{0}.command\ndef show(config: C) -> None:\n    print(config)\n"
        "@{0}.command\ndef more(config: C = C(5), *, n: int = 2) -> None:\n    print(config, n)\n"
        "@{0}.command\ndef maybe(config: C | None = None) -> None:\n    print(config)\n"
    )
    takes_none = f"{classes}@service\nasync def a() -> None: ...\n{commands.format('a')}"
    app.service("a", f"{takes_none}@a.command\ndef other(config: D) -> None: ...\n")
    app.service("b", f"{classes}@service\nasync def b(config: C) -> None: ...\n{commands.format('b')}")
    calls = {
        ("a", "show"): "C(x=7)\n",
        ("b", "show"): "C(x=8)\n",
        ("b", "more", "--n", "3"): "C(x=8) 3\n",
        ("b", "maybe"): "C(x=8)\n",
    }
    runs = {words: app.start(*words, A_X="7", B_X="8") for words in calls}
    refused, listed = app.start("a", "other", LOG_FORMAT="text"), app.start("env", "a", "b")
    for words, run in runs.items():
        assert run.result().stdout == calls[words], words
    result = refused.result()
    assert result.code == 2
    assert result.errors[0].startswith("A_Y is not set, and has no default; expected a whole number (D.y, ")
    assert {"A_X", "A_Y", "B_X"} <= {*listed.result().stdout.split()}
