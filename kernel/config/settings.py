"""The environment as typed values: the kernel's own settings.

There are no config files. Every wrong value is collected, so that all are reported in one go, each with its
variable, its value (secrets masked), what was expected, and where the field is declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from kernel.config.otel import OTEL_VARIABLES, Otel, read_otel
from kernel.config.values import (
    Seconds,
    expected,
    parse_bool,
    parse_duration,
    parse_list,
)
from kernel.errors import ConfigError


@attrs.frozen
class Address:
    """Where to listen.

    Args:
        host: An address or a host name.
        port: The port; 0 takes any that is free.
        asked_for: Whether somebody has named it: a default one may give way to another that is free.

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
    """The address that *text* spells: ``host:port``, ``[::1]:port``, or a port, which is one of loopback. None for off.

    Raises:
        ValueError: It is none of these.

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
    """What the kernel itself reads from the environment.

    Args:
        enabled: SERVICES_ENABLED, the patterns of names; None where it is not set.
        shutdown_timeout: RUNNER_SHUTDOWNTIMEOUT, seconds for the whole shutdown.
        drain_delay: RUNNER_DRAINDELAY, seconds between the request to stop and its begin.
        log_level: LOG_LEVEL, as `logging` names it.
        log_json: Whether LOG_FORMAT is ``json``.
        log_source: LOG_ADD_SOURCE, whether each record names its file and line.
        dev: Whether ENV is ``dev``.
        backend: KERNEL_BACKEND.
        admin: ADMIN_ADDR, where health, metrics and status are served; None for nowhere.
        otel: OTEL_*, what is exported.

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
    otel: Otel = attrs.field(factory=Otel)


KERNEL_VARIABLES: tuple[str, ...] = (
    "SERVICES_ENABLED",
    "RUNNER_SHUTDOWNTIMEOUT",
    "RUNNER_DRAINDELAY",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "LOG_ADD_SOURCE",
    "ENV",
    "KERNEL_BACKEND",
    "ADMIN_ADDR",
)
_LEVELS = ("debug", "info", "warning", "error", "critical")


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[ConfigError]]:
    """The kernel's settings, with defaults in place of what is wrong, and all that is wrong."""
    errors: list[ConfigError] = []
    values: dict[str, Any] = {}

    def read(name: str, field: str, parse: Callable[[str], Any], what: str) -> None:
        text = environ.get(name, "").strip()
        if text:
            try:
                values[field] = parse(text)
            except ValueError:
                errors.append(ConfigError(f"is {text!r}", where=name, hint=f"expected {what}"))

    def choice(*known: str) -> Callable[[str], str]:
        def parse(text: str) -> str:
            if text.lower() not in known:
                raise ValueError(text)
            return text.lower()

        return parse

    duration = expected(Seconds)
    read("SERVICES_ENABLED", "enabled", lambda text: tuple(parse_list(text)) or None, "names or patterns")
    read("RUNNER_SHUTDOWNTIMEOUT", "shutdown_timeout", parse_duration, duration)
    read("RUNNER_DRAINDELAY", "drain_delay", parse_duration, duration)
    read("LOG_LEVEL", "log_level", lambda text: choice(*_LEVELS)(text).upper(), f"one of {', '.join(_LEVELS)}")
    read("LOG_FORMAT", "log_json", lambda text: choice("text", "json")(text) == "json", "text or json")
    read("LOG_ADD_SOURCE", "log_source", parse_bool, expected(bool))
    read("ENV", "dev", lambda text: choice("dev", "prod")(text) == "dev", "dev or prod")
    read("KERNEL_BACKEND", "backend", choice("asyncio", "trio"), "asyncio or trio")
    hint = "an address such as 127.0.0.1:9090, a port, or off; 0.0.0.0:9090 listens to everybody"
    read("ADMIN_ADDR", "admin", parse_address, hint)
    if values.get("dev"):
        values.setdefault("admin", IN_DEV)
    values["otel"], wrong = read_otel(environ)
    errors += wrong
    settings = Settings(**values)
    if settings.drain_delay and settings.drain_delay >= settings.shutdown_timeout:
        errors.append(
            ConfigError(
                f"is {settings.drain_delay:g} s, which leaves nothing of RUNNER_SHUTDOWNTIMEOUT"
                f" ({settings.shutdown_timeout:g} s)",
                where="RUNNER_DRAINDELAY",
                hint="the delay counts towards it: raise RUNNER_SHUTDOWNTIMEOUT",
            )
        )
    return settings, errors


# -- variables that nobody reads ---------------------------------------------------------------------------------

_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)\w*|PORT(_\d+_(TCP|UDP)\w*)?)$")


def near_misses(environ: Mapping[str, str], known: Collection[str]) -> Iterable[str]:
    """A sentence for each variable that nobody reads but that nearly has the name of one in *known*."""
    every = {*known, *KERNEL_VARIABLES, *OTEL_VARIABLES}
    joined = {name.replace("_", ""): name for name in every}
    # Comparing texts is slow, so only those are compared that share their first or last word with one of ours.
    firsts = {name.partition("_")[0] for name in every}
    lasts = {name.rpartition("_")[2] for name in every if not name.startswith("OTEL_")}  # which are words of all kinds
    for name in sorted(environ.keys() - every):
        hint = joined.get(name.replace("_", ""), "")
        if not hint and (name.partition("_")[0] in firsts or name.rpartition("_")[2] in lasts):
            hint = _nearest(name, joined.values())
        if hint and not _SERVICE_LINK.search(name):
            yield f"{name} is set, but nothing reads it; did you mean {hint}?"


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.8)
    return near[0] if near else ""
