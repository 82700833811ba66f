"""LOG_LEVEL for single services and loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from kernel.config.settings import read_settings
from kernel.observe.levels import Levels, set_levels

OURS = logging.getLogger("tests.kernel")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the levels of loggers as they were."""
    loggers = [logging.getLogger(), OURS, *map(logging.getLogger, ("lib", "lib.part", "worker", "other"))]
    before = [one.level for one in loggers]
    yield
    for one, level in zip(loggers, before, strict=True):
        one.setLevel(level)


def passes(levels: Levels | None, logger: str, level: int, service: str = "") -> bool:
    """Whether a record would be written."""
    one = logging.getLogger(logger)
    record = logging.makeLogRecord({"name": logger, "levelno": level, "service": service})
    return one.isEnabledFor(level) and (levels is None or levels.filter(record))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("debug", "DEBUG"),
        ("info,worker=debug", "INFO,worker=DEBUG"),
        ("worker=debug", "INFO,worker=DEBUG"),
        (" worker = Debug , warning ", "WARNING,worker=DEBUG"),
        ("info,sqlalchemy.engine=debug,a=error", "INFO,sqlalchemy.engine=DEBUG,a=ERROR"),
    ],
)
def test_what_it_may_say(text: str, level: str) -> None:
    """A default, and pairs."""
    settings, errors = read_settings({"LOG_LEVEL": text})
    assert not errors
    assert settings.log_level == level


@pytest.mark.parametrize("text", ["loud", "info,worker=loud", "info,=debug", "worker", "info,worker=", "=debug"])
def test_what_it_may_not_say(text: str) -> None:
    """One error, which shows how it is written."""
    (error,) = read_settings({"LOG_LEVEL": text})[1]
    assert str(error).endswith("or a list such as info,worker=debug")


def test_a_service_that_says_more() -> None:
    """Its records, from whatever logger, and nobody else's."""
    levels = set_levels("INFO,worker=DEBUG", ["worker", "api"], OURS)
    assert passes(levels, "lib", logging.DEBUG, "worker")
    assert passes(levels, OURS.name, logging.DEBUG, "worker")
    assert not passes(levels, "lib", logging.DEBUG, "api")
    assert not passes(levels, "lib", logging.DEBUG)
    assert passes(levels, "lib", logging.INFO, "api")


def test_a_logger_with_the_name_of_a_service() -> None:
    """The level is that of the service: other services may use a logger of this name, which says as much as any."""
    levels = set_levels("INFO,worker=ERROR", ["worker", "api"], OURS)
    assert logging.getLogger("worker").level == logging.NOTSET
    assert passes(levels, "worker", logging.INFO, "api")


def test_a_service_that_says_less() -> None:
    """Of the kernel's records about it, too."""
    levels = set_levels("INFO,worker=ERROR", ["worker"], OURS)
    assert not passes(levels, "lib", logging.WARNING, "worker")
    assert not passes(levels, OURS.name, logging.WARNING, "worker")
    assert passes(levels, "lib", logging.ERROR, "worker")
    assert passes(levels, "lib", logging.INFO, "api")


def test_a_logger_of_its_own_level() -> None:
    """Of whatever service; those below it have its level."""
    levels = set_levels("WARNING,lib=DEBUG,worker=DEBUG", ["worker"], OURS)
    assert passes(levels, "lib.part", logging.DEBUG, "api")
    assert not passes(levels, "other", logging.INFO, "api")
    assert passes(levels, "other", logging.DEBUG, "worker")


def test_without_services_there_is_nothing_to_filter() -> None:
    """Loggers do that by themselves."""
    assert set_levels("INFO,lib=ERROR", ["api"], OURS) is None
    assert not passes(None, "lib", logging.WARNING)
