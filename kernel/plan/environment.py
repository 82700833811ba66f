"""`app env`: every variable that the services, the kernel, NATS and OpenTelemetry read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from kernel.config.described import Described, otel_table
from kernel.config.field_texts import text_of_field
from kernel.config.nats import NATS_SETTINGS
from kernel.config.schema import UNKNOWN, Entry, entries, place, schema_of
from kernel.config.service_config import read_config
from kernel.config.setting import Setting
from kernel.config.settings import SETTINGS, Settings
from kernel.declare.service import Service, command_needs
from kernel.errors import ConfigError, PlanError
from kernel.masking import MASK, mask
from kernel.plan.registry import needs_of

KERNEL, NATS, OPENTELEMETRY = "kernel", "NATS", "OpenTelemetry"
Source = Literal["environment", ".env", "default", "unset"]


@attrs.frozen
class Variable:
    """One variable, with secrets masked.

    Args:
        name: The variable.
        reader: The service that reads it, or `KERNEL`, `NATS` or `OPENTELEMETRY`.
        type: Its type.
        expected: The expected format; empty if the type is explanation enough.
        default: The value if it is not set; None if it has no default.
        value: The current value; None if there is none.
        source: Where the current value comes from.
        required: Whether it must be set.
        secret: Whether its values are masked.
        meaning: Its description.
        declared: Where it is declared; empty for the kernel's own variables.
        problem: What is wrong with the value; empty if nothing is.
        common: Whether it is commonly set; the others are for fine tuning.
        line: The default as written in a `.env` file; empty if it should stay unset, None if no text represents it.
        active: Whether that line is active in the `.env` file, rather than a comment.

    """

    name: str
    reader: str
    type: str
    expected: str
    default: str | None
    value: str | None
    source: Source
    required: bool = False
    secret: bool = False
    meaning: str = ""
    declared: str = ""
    problem: str = ""
    common: bool = True
    line: str | None = None
    active: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the variable for the JSON format."""
        return {
            "name": self.name,
            "reader": self.reader,
            "type": self.type,
            "expected": self.expected,
            "default": self.default,
            "value": self.value,
            "source": self.source,
            "required": self.required,
            "secret": self.secret,
            "meaning": self.meaning,
            "declared": self.declared,
            "problem": self.problem,
        }


@attrs.frozen
class Surroundings:
    """The variables in the environment and those in a `.env` file.

    Args:
        environ: The environment.
        file: The variables in the `.env` file.

    """

    environ: Mapping[str, str]
    file: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, environ: Mapping[str, str], folder: str) -> Surroundings:
        """Return the variables in *environ*, and those in the `.env` file in *folder*, if there is one."""
        try:
            text = (Path(folder) / ".env").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return cls(environ)
        pairs = re.findall(r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
        return cls(environ, {name: value for name, value in pairs if value not in {"", "''", '""'}})

    def source(self, name: str, otherwise: Source) -> Source:
        """Return where the value of a variable comes from."""
        text = self.environ.get(name, "")
        if not text:
            return otherwise
        in_file = self.file.get(name)
        return ".env" if in_file is not None and text in {in_file, in_file[1:-1]} else "environment"

    @property
    def not_loaded(self) -> list[str]:
        """Return the variables in the file that are not set, which means that the file was not loaded."""
        return [name for name in self.file if name not in self.environ]


def variables_of(services: Mapping[str, Service[..., Any]], around: Surroundings) -> list[Variable]:
    """Return every variable: those of *services*, then the kernel's, NATS's and OpenTelemetry's."""
    return [
        *(variable for name, service in services.items() for variable in _of_service(name, service, around)),
        *(_of_kernel(KERNEL, setting, around) for setting in SETTINGS),
        *(_of_kernel(NATS, setting, around) for setting in NATS_SETTINGS),
        *_described(OPENTELEMETRY, otel_table(), around),
    ]


def _of_service(name: str, service: Service[..., Any], around: Surroundings) -> Iterator[Variable]:
    seen: set[str] = set()
    for cls, default in _configs(service):
        _, errors = read_config(name, cls, around.environ, default)
        problems = {name: _problem(error) for error in errors for name in error.where.split(", ")}
        for entry in entries(schema_of(name, cls), around.environ, default):
            variable = entry.leaf.variable
            if variable not in seen:
                seen.add(variable)
                yield _of_field(name, entry, around, problems.get(variable, ""))


def _configs(service: Service[..., Any]) -> Iterator[tuple[Any, object]]:
    """Yield the config class of a service, with its default; if it has none, those of its commands."""
    needs = needs_of(service)
    if needs is None or needs.config is not None:
        takers = [needs] if needs else []
    else:
        takers = []
        for fn in service.commands.values():
            with contextlib.suppress(PlanError):  # `app check` reports it
                takers.append(command_needs(service, fn))
    for taker in takers:
        if taker.config is not None:
            yield taker.config[1], taker.config_default


def _problem(error: ConfigError) -> str:
    """Return what is wrong with a value, without the variable and the value, which are shown beside it."""
    if error.hint.startswith("expected"):
        return error.hint.partition(" (")[0]
    return error.what.partition(": ")[2] or error.what


def _of_field(service: str, entry: Entry, around: Surroundings, problem: str) -> Variable:
    leaf, reader = entry.leaf, entry.leaf.reader
    text = around.environ.get(leaf.variable, "")
    default, line = _default(entry)
    known = default is not None
    default = mask(default) if default else default
    if entry.required and not text:
        problem = "not set"
    shown = repr(text)[1:-1] if not text.isprintable() else text
    return Variable(
        leaf.variable,
        service,
        reader.type,
        reader.words,
        default,
        (MASK if reader.secret else mask(shown)) if text else default,
        around.source(leaf.variable, "default" if known else "unset"),
        required=entry.required,
        secret=reader.secret,
        meaning=mask(text_of_field(leaf.owner, leaf.attribute.name, leaf.variable)),
        declared=place(leaf.owner, leaf.attribute.name),
        problem=problem,
        line=line,
        active=line is not None and not entry.idle,
    )


def _default(entry: Entry) -> tuple[str | None, str | None]:
    """Return a default as shown to people, and as written in a `.env` file; None for what does not exist."""
    default, reader = entry.default, entry.leaf.reader
    if default is attrs.NOTHING:
        return None, ""
    if default is UNKNOWN or default is None or reader.secret:
        return "(from other fields)" if default is UNKNOWN else "None" if default is None else MASK, ""
    if default in ("", (), [], {}, set(), b""):
        return '""' if default == "" else str(default), ""
    try:
        text = reader.written(default)
    except ValueError:
        return repr(default), None
    return text if text.isprintable() else repr(text)[1:-1], text


def _of_kernel(reader: str, setting: Setting, around: Surroundings) -> Variable:
    text = around.environ.get(setting.name, "").strip()
    shown = setting.default.replace("`", "")
    try:
        same = bool(setting.default) and setting.parse(setting.default) == getattr(Settings(), setting.field)
    except ValueError:
        same = False
    problem = ""
    if text:
        try:
            setting.parse(text)
        except ValueError:
            problem = f"expected {setting.expected}"
    return Variable(
        setting.name,
        reader,
        setting.type,
        setting.expected,
        shown or None,
        setting.shown(text) if text else shown or None,
        around.source(setting.name, "default" if shown else "unset"),
        secret=setting.secret,
        meaning=setting.meaning.replace("`", ""),
        problem=problem,
        line=setting.default if same else "",
    )


def _described(reader: str, table: Iterable[Described], around: Surroundings) -> Iterator[Variable]:
    """Yield the variables in a table of descriptions, with their values."""
    for described in table:
        text = around.environ.get(described.name, "")
        yield Variable(
            described.name,
            reader,
            described.type,
            "",
            described.default or None,
            (MASK if described.secret else mask(text)) if text else described.default or None,
            around.source(described.name, "default" if described.default else "unset"),
            secret=described.secret,
            meaning=described.meaning.replace("`", ""),
            common=described.common or bool(text),
            line="",
        )


def unreadable(services: Mapping[str, Service[..., Any]]) -> list[PlanError]:
    """Return an error for each config field that no variable can be read into."""
    configs = ((name, cls) for name, service in services.items() for cls, _ in _configs(service))
    return [error for name, cls in configs for error in schema_of(name, cls).errors]
