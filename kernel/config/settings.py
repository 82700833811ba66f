"""The kernel's own settings, and the table of their variables.

Reading, near misses, `app env` and the docs all use `SETTINGS`: to add a variable, add a row there and a field to
`Settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import attrs

from kernel.config.setting import Setting, read_each
from kernel.config.values import parse_bool, parse_duration, parse_list
from kernel.errors import ConfigError

if TYPE_CHECKING:
    from kernel.config.nats import Nats
    from kernel.config.otel import Otel


@attrs.frozen
class Address:
    """Where to listen.

    Args:
        host: An address or a host name.
        port: The port; 0 for any free port.
        asked_for: Whether the address was set. A default address may be replaced by a free one.

    """

    host: str
    port: int
    asked_for: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


LOOPBACK = "127.0.0.1"
IN_DEV = Address(LOOPBACK, 9090, asked_for=False)
_OFF = frozenset({"off", "none", "false", "no"})


def parse_address(text: str) -> Address | None:
    """Parse an address: ``host:port``, ``[::1]:port``, or a port on loopback. Return None for ``off``.

    Raises:
        ValueError: *text* is none of these.

    """
    if text.lower() in _OFF:
        return None
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or "/" in host:  # noqa: PLR2004
        raise ValueError(text)
    return Address(host or LOOPBACK, int(port))


@attrs.frozen
class Settings:
    """The settings that the kernel itself reads from the environment.

    Args:
        enabled: SERVICES_ENABLED, the patterns of names; None if not set.
        shutdown_timeout: RUNNER_SHUTDOWNTIMEOUT, seconds for the whole shutdown.
        drain_delay: RUNNER_DRAINDELAY, seconds between the request to stop and the stop itself.
        log_level: LOG_LEVEL, a level of `logging`, then pairs for services and loggers: ``INFO,worker=DEBUG``.
        log_json: Whether LOG_FORMAT is ``json``.
        log_source: Whether LOG_ADD_SOURCE is set: each record shows its file and line.
        dev: Whether ENV is ``dev``.
        backend: KERNEL_BACKEND.
        admin: ADMIN_ADDR, where health, metrics and status are served; None for off.
        otel: OTEL_*, what is exported; None for nothing.
        nats: NATS_*, the server for calls to other processes; None for no such calls.
        log_folded: LOG_TRACEBACK, whether frames of libraries are folded; None folds them on a terminal.

    """

    enabled: tuple[str, ...] | None = None
    shutdown_timeout: float = 10.0
    drain_delay: float = 0.0
    log_level: str = "INFO"
    log_json: bool = False
    log_source: bool = False
    dev: bool = False
    backend: str = "asyncio"
    admin: Address | None = None
    otel: Otel | None = None
    nats: Nats | None = None
    log_folded: bool | None = None


LONGEST = 100 * 86400.0  # longest deadline in seconds: longer ones are meant in another unit, such as nanoseconds

# -- the table ---------------------------------------------------------------------------------------------------


def _choice(name: str, field: str, known: Mapping[str, Any], default: str, meaning: str) -> Setting:
    """Return a setting whose value is one of the *known* words, in any case."""

    def parse(text: str) -> Any:
        try:
            return known[text.lower()]
        except KeyError:
            raise ValueError(text) from None

    words = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"  # noqa: PLR2004
    return Setting(name, field, " | ".join(known), default, meaning, words, parse)


def _duration(name: str, field: str, default: str, meaning: str) -> Setting:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if seconds > LONGEST:
            raise ValueError(text)
        return seconds

    words = "a duration such as 10s, 1m30s, 500ms or a number of seconds, at most 100 days"
    return Setting(name, field, "Seconds", default, meaning, words, parse)


def _bool(name: str, field: str, default: str, meaning: str) -> Setting:
    return Setting(name, field, "bool", default, meaning, "true/false, 1/0, yes/no or on/off", parse_bool)


LEVELS = ("debug", "info", "warning", "error", "critical")


def _levels(text: str) -> str:
    """Return the levels in *text*, normalized: the default, then those of services and loggers."""
    default, pairs = "INFO", []
    for word in parse_list(text):
        name, equals, level = (part.strip() for part in word.rpartition("="))
        if level.lower() not in LEVELS or bool(name) != bool(equals):
            raise ValueError(text)
        if name:
            pairs.append(f"{name}={level.upper()}")
        else:
            default = level.upper()
    return ",".join([default, *pairs])


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "SERVICES_ENABLED",
        "enabled",
        "list[str]",
        "all",
        "which services run: names and globs, `!name` to exclude one; names given to `app run` take precedence",
        "names or patterns",
        lambda text: tuple(parse_list(text)) or None,
    ),
    _duration("RUNNER_SHUTDOWNTIMEOUT", "shutdown_timeout", "10s", "the deadline for the whole shutdown"),
    _duration("RUNNER_DRAINDELAY", "drain_delay", "0", "how long to stay unready after a signal before stopping"),
    Setting(
        "ADMIN_ADDR",
        "admin",
        "address",
        "off; in `dev` `127.0.0.1:9090`",
        "where health, metrics and status are served over HTTP: an address, a port, or `off`",
        "an address such as 127.0.0.1:9090, a port, or off; 0.0.0.0:9090 listens on all interfaces",
        parse_address,
    ),
    Setting(
        "LOG_LEVEL",
        "log_level",
        "level",
        "info",
        "the lowest level of records to write; `info,worker=debug` for one service or logger",
        f"one of {', '.join(LEVELS)}, or a list such as info,worker=debug",
        _levels,
    ),
    _choice("LOG_FORMAT", "log_json", {"text": False, "json": True}, "text", "`json` writes one object per line"),
    _choice(
        "LOG_TRACEBACK",
        "log_folded",
        {"auto": None, "folded": True, "full": False},
        "auto",
        "`full` shows the frames of libraries; `folded` replaces them with one line; `auto` folds on a terminal",
    ),
    _bool("LOG_ADD_SOURCE", "log_source", "false", "each record shows its file and line"),
    _choice("ENV", "dev", {"dev": True, "prod": False}, "prod", "development or production; `just run` sets `dev`"),
    _choice(
        "KERNEL_BACKEND",
        "backend",
        {backend: backend for backend in ("asyncio", "uvloop", "trio")},
        "asyncio",
        "the event loop; `uvloop` is a faster loop for asyncio and must be installed",
    ),
)
"""Every variable that the kernel reads, except those of OpenTelemetry and NATS."""

KERNEL_VARIABLES: tuple[str, ...] = tuple(setting.name for setting in SETTINGS)


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[ConfigError]]:
    """Return the kernel's settings, with defaults instead of wrong values, and an error for each wrong value."""
    values, errors = read_each(SETTINGS, environ)
    if values.get("backend") == "uvloop" and find_spec("uvloop") is None:
        errors.append(
            ConfigError(
                "is uvloop, which is not installed",
                where="KERNEL_BACKEND",
                hint="run `just deps-add uvloop`, or unset the variable",
            )
        )
    if values.get("dev"):
        values.setdefault("admin", IN_DEV)
    # Most apps set none of these, and importing both modules takes 2 % of a small app's start.
    if _any_of("OTEL_", environ):
        from kernel.config.otel import read_otel

        otel, wrong = read_otel(environ)
        values["otel"] = otel or None
        errors += wrong
    if _any_of("NATS_", environ):
        from kernel.config.nats import read_nats

        values["nats"], wrong = read_nats(environ)
        errors += wrong
    settings = Settings(**values)
    if settings.drain_delay and settings.drain_delay >= settings.shutdown_timeout:
        errors.append(
            ConfigError(
                f"is {settings.drain_delay:g} s, which leaves no time within RUNNER_SHUTDOWNTIMEOUT"
                f" ({settings.shutdown_timeout:g} s)",
                where="RUNNER_DRAINDELAY",
                hint="the delay is part of the shutdown: raise RUNNER_SHUTDOWNTIMEOUT",
            )
        )
    return settings, errors


def _any_of(prefix: str, environ: Mapping[str, str]) -> bool:
    return any(name.startswith(prefix) for name in environ)
