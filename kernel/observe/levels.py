"""LOG_LEVEL with levels of its own for services and loggers: ``info,worker=debug``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping


class Levels(logging.Filter):
    """Lets records pass by the level of the service that they are of; a handler's filter.

    Args:
        default: The level of all others, unless their logger has one of its own.
        services: The levels by service.

    """

    def __init__(self, default: int, services: Mapping[str, int]) -> None:
        super().__init__()
        self._default = default
        self._services = services

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record*, which knows its service by now, passes."""
        level = self._services.get(str(record.__dict__.get("service")))
        if level is not None:
            return record.levelno >= level
        if record.levelno >= self._default or record.name == "kernel":
            return record.levelno >= self._default
        # The loggers let through what the most talkative service says; this one may have a level of its own.
        found: logging.Logger | None = logging.getLogger(record.name)
        while found is not None and not (found.level and found.parent is not None):
            found = found.parent
        return found is not None


def set_levels(text: str, services: Collection[str], ours: logging.Logger) -> Levels | None:
    """Set the levels of the loggers by *text*, as in ``INFO,worker=DEBUG``.

    Args:
        text: The default, and then pairs of a service's or a logger's name and its level.
        services: The names of services; any other is a logger's.
        ours: The kernel's own logger, whose records are about services.

    Returns:
        The filter that every handler needs; None where no service has a level of its own.

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
