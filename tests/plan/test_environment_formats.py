"""The table and the example file of `app env`, for a few variables of each kind."""

from __future__ import annotations

import json

from kernel.plan.environment import Variable
from kernel.plan.environment_formats import FORMATS, as_dotenv, as_json, as_table

LONG = "x" * 31
VARIABLES = (
    Variable("API_URL", "api", "str", "a text", None, None, "unset", required=True, meaning="where it is", line=""),
    Variable(
        *("API_KEY", "api", "Secret[str]", "a text", None, "********", "environment"),
        required=True,
        secret=True,
        line="",
        active=True,
    ),
    Variable(
        *("API_PORT", "api", "int", "a whole number", "80", "x", ".env"),
        meaning="where it listens",
        problem="expected a whole number",
        line="80",
        active=True,
    ),
    Variable("API_ODD", "api", "list[str]", "a list", "['a,b']", "['a,b']", "default", meaning="odd ones"),
    Variable("API_MAYBE", "api", LONG[1:], "a list", LONG, f"{LONG}x", "default", line=LONG, meaning=LONG),
    Variable("API_IDLE", "api", "str", "a text", None, None, "unset", problem="not looked at", line=""),
    Variable("LOG_LEVEL", "kernel", "level", "one", "info", "info", "default", meaning="the lowest level", line="info"),
    Variable("OTEL_A", "OpenTelemetry", "str", "", None, None, "unset", common=False, line=""),
    Variable("OTEL_B", "OpenTelemetry", "int", "", "1", "2", "environment", meaning="the second", line=""),
    Variable("OTEL_C", "OpenTelemetry", "str", "", None, None, "unset", common=False, line=""),
)
TABLE = """\
  variable   type                            default                         value                           from         meaning

api
  API_URL    str                             required                        NOT SET                                      where it is
  API_KEY    Secret[str]                     required                        ********                        environment
  API_PORT   int                             80                              x                               .env         WRONG: expected a whole number
  API_ODD    list[str]                       ['a,b']                         ['a,b']                         default      odd ones
  API_MAYBE  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  xxxxxxxxxxxxxxxxxxxxxxxxxxx...  xxxxxxxxxxxxxxxxxxxxxxxxxxx...  default      xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
  API_IDLE   str

kernel
  LOG_LEVEL  level                           info                            info                            default      the lowest level

OpenTelemetry
  OTEL_B     int                             1                               2                               environment  the second

and 2 more variables of OpenTelemetry, none of them set: `--format json` lists them"""  # noqa: E501
FILE = f"""\
# What shop reads from the environment, with defaults. Copy this file to .env, which the recipes load;
# variables that are set in the environment take precedence. An empty variable counts as not set.

# -- api --

# where it is (str, required)
#API_URL=

# (Secret[str], required)
API_KEY=

# where it listens (int)
API_PORT=80

# odd ones (list[str], default: ['a,b'])
#API_ODD=

# {LONG} ({LONG[1:]})
#API_MAYBE={LONG}

# (str)
#API_IDLE=

# -- kernel --

# the lowest level (level)
#LOG_LEVEL=info

# -- OpenTelemetry --

# the second (int, default: 1)
#OTEL_B="""


def test_the_table() -> None:
    """Columns as wide as they must be, and no wider than is useful; what is rare and not set is counted."""
    assert as_table(VARIABLES) == TABLE
    common = [variable for variable in VARIABLES if variable.common]
    assert as_table(common).endswith("  the second")


def test_the_example_file() -> None:
    """Each default, active only where that changes nothing; nothing that is set now."""
    assert as_dotenv(VARIABLES, "shop") == FILE
    assert "OpenTelemetry" not in as_dotenv([variable for variable in VARIABLES if not variable.common], "shop")


def test_texts_are_quoted_for_the_file() -> None:
    """Only where they must be."""

    def line(text: str) -> str:
        variable = Variable("X", "api", "str", "", text, None, "default", line=text, active=True)
        return as_dotenv([variable], "shop").splitlines()[-1]

    plain = "aZ0_./:@%+,=-"
    assert line(plain) == f"X={plain}"
    assert line("") == "X="
    assert line('a b#$"') == "X='a b#$\"'"
    assert line("é") == "X='é'"
    assert line("it's $5\n\\") == 'X="it\'s \\$5\\n\\\\"'
    assert line("two\nlines") == 'X="two\\nlines"'


def test_all_for_programs() -> None:
    """Each field of each variable, in letters that people read."""
    text = as_json([*VARIABLES, Variable("API_É", "api", "str", "a text", "é", "é", "default")])
    found = json.loads(text)
    assert [one["name"] for one in found] == [*(variable.name for variable in VARIABLES), "API_É"]
    assert found[2] == {
        "name": "API_PORT",
        "reader": "api",
        "type": "int",
        "expected": "a whole number",
        "default": "80",
        "value": "x",
        "source": ".env",
        "required": False,
        "secret": False,
        "meaning": "where it listens",
        "declared": "",
        "problem": "expected a whole number",
    }
    assert "É" in text
    assert text.startswith('[\n  {\n    "name": "API_URL"')
    assert dict(FORMATS) == {"table": as_table, "json": as_json, "dotenv": as_dotenv}
