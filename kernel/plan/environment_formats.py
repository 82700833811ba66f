"""Format the variables of `app env` as a table, as JSON, and as a `.env.example`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from kernel.plan.environment import Variable

WIDEST = 30  # maximum characters in a column of the table; the first and last are not limited


def as_table(variables: Sequence[Variable], _: str = "") -> str:
    """Return a table for people, with a heading for each reader. Rare variables that are not set are only counted."""
    shown = [variable for variable in variables if variable.common]
    head = ("variable", "type", "default", "value", "from", "meaning")
    rows = {
        variable.name: (
            variable.name,
            _cut(variable.type),
            "required" if variable.required else _cut(variable.default or ""),
            "NOT SET" if variable.required and variable.value is None else _cut(variable.value or ""),
            variable.source if variable.source != "unset" else "",
            f"WRONG: {variable.problem}" if variable.value and variable.problem else variable.meaning,
        )
        for variable in shown
    }
    widths = [max(len(row[n]) for row in [head, *rows.values()]) for n in range(len(head) - 1)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            [*(f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]
        ).rstrip()

    lines: list[str] = []
    for reader in dict.fromkeys(variable.reader for variable in shown):
        lines += [reader, *(f"  {line(rows[variable.name])}" for variable in shown if variable.reader == reader), ""]
    rest = len(variables) - len(shown)
    closing = f"and {rest} more variables of OpenTelemetry, none of them set: `--format json` lists them"
    return "\n".join([f"  {line(head)}", "", *lines, *([closing] if rest else [])]).rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def as_dotenv(variables: Sequence[Variable], app: str) -> str:
    """Return a `.env.example`: every default, with comments. It contains no current value."""
    lines = [
        f"# What {app} reads from the environment, with defaults. Copy this file to .env, which the recipes load;",
        "# variables that are set in the environment take precedence. An empty variable counts as not set.",
    ]
    for reader in dict.fromkeys(variable.reader for variable in variables if variable.common):
        lines += ["", f"# -- {reader} --"]
        for variable in (variable for variable in variables if variable.reader == reader and variable.common):
            about = [
                variable.type,
                "required" if variable.required else "",
                "" if variable.active else _untold(variable),
            ]
            lines += ["", f"# {variable.meaning} ({', '.join(word for word in about if word)})".replace("#  (", "# (")]
            lines.append(f"{'' if variable.active else '#'}{variable.name}={_quoted(variable.line or '')}")
    return "\n".join(lines)


def _untold(variable: Variable) -> str:
    """Return the default if the line below the comment does not show it."""
    return f"default: {variable.default}" if variable.default and variable.default != variable.line else ""


def _quoted(text: str) -> str:
    """Quote *text* for a `.env` file, so that nothing in it is read as a comment or a variable."""
    if re.fullmatch(r"[\w./:@%+,=-]*", text, re.ASCII):
        return text
    if not re.search(r"['\\\n]", text):
        return f"'{text}'"
    escaped = re.sub(r'([\\"$])', r"\\\1", text).replace("\n", "\\n")
    return f'"{escaped}"'


def as_json(variables: Sequence[Variable], _: str = "") -> str:
    """Return all variables with all their fields, for programs."""
    return json.dumps([variable.as_json() for variable in variables], indent=2, ensure_ascii=False)


FORMATS: Mapping[str, Callable[[Sequence[Variable], str], str]] = {
    "table": as_table,
    "json": as_json,
    "dotenv": as_dotenv,
}
