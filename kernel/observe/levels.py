"""LOG_LEVEL with separate levels for services and loggers: ``info,worker=debug``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping


class Levels(logging.Filter):
    """A handler's filter, which passes records according to the level of their service.

    Args:
        default: The level of all other services, unless their logger has its own.
        services: The level of each service.

    """

    def __init__(self, default: int, services: Mapping[str, int]) -> None:
        super().__init__()
        self._default = default
        self._services = services

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* passes. Its service must be set."""
        level = self._services.get(str(record.__dict__.get("service")))
        if level is not None:
            return record.levelno >= level
        if record.levelno >= self._default or record.name == "kernel":
            return record.levelno >= self._default
        # The loggers pass everything that the most verbose service needs, but this logger may have its own level.
        found: logging.Logger | None = logging.getLogger(record.name)
        while found is not None and not (found.level and found.parent is not None):
            found = found.parent
        return found is not None


def set_levels(text: str, services: Collection[str], ours: logging.Logger) -> Levels | None:
    """Set the levels of the loggers from *text*, such as ``INFO,worker=DEBUG``.

    Args:
        text: The default, followed by pairs of a service's or a logger's name and its level.
        services: The names of services; any other name is that of a logger.
        ours: The kernel's own logger, whose records are about services.

    Returns:
        The filter that every handler needs; None if no service has its own level.

    """
    default, *pairs = text.split(",")
    named = {name: logging.getLevelName(level) for name, _, level in (pair.partition("=") for pair in pairs)}
    of_services = {name: level for name, level in named.items() if name in services}
    least = min([logging.getLevelName(default), *of_services.values()])
    for logger in (logging.getLogger(), ours):
        logger.setLevel(least)
    for name, level in named.items():
        if name not in services:
            logging.getLogger(name).setLevel(level)
    return Levels(logging.getLevelName(default), of_services) if of_services else None
