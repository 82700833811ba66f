"""Keep the logs going when a library configures logging, as alembic's `env.py` does with `fileConfig`.

`fileConfig`, `dictConfig` and `basicConfig(force=True)` remove the root logger's handlers, set its level, and disable
every logger that was made before. In a process with one pipeline for all, that would silence everybody. So what they
do to the root logger's level and to the handlers that are kept is ignored, and so is the disabling. What a program
does itself (`logger.disabled = True`, `removeHandler`) holds; and `app/init.py` may configure what it likes, since
handlers are kept from the moment on when it was imported.
"""

from __future__ import annotations

import logging
import sys

kept: list[logging.Handler] = []
"""The handlers of the root logger that stay, and that get the kernel's own records in any case."""

_CONFIGURES = frozenset({"logging", "logging.config"})


def _configures() -> bool:
    """Whether the caller's caller is one of the functions that configure logging."""
    return sys._getframe(2).f_globals.get("__name__") in _CONFIGURES  # noqa: SLF001  (it is documented)


class _Disabled:
    """`Logger.disabled`, which `logging.config` cannot set. It has no `__get__`: to read it costs what it did."""

    def __set__(self, logger: logging.Logger, value: bool) -> None:  # noqa: FBT001  (the protocol's)
        if not (value and sys._getframe(1).f_globals.get("__name__") == "logging.config"):  # noqa: SLF001
            logger.__dict__["disabled"] = value


class _Root(logging.RootLogger):
    """The root logger, whose level and kept handlers are the app's."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (logging's name)
        if not (kept and _configures()):
            super().setLevel(level)

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (hdlr in kept and _configures()):
            super().removeHandler(hdlr)  # of what is kept, the kernel's own records go on

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (kept and _configures() and on_console(hdlr)):  # which would tell each record twice
            super().addHandler(hdlr)


def install() -> None:
    """Stand between the root logger and those who configure logging; nothing is kept yet."""
    root = logging.getLogger()
    kept.clear()
    logging.Logger.disabled = _Disabled()  # type: ignore[assignment]
    if type(root) is logging.RootLogger:
        root.__class__ = _Root


def keep(*handlers: logging.Handler) -> None:
    """Keep *handlers* on the root logger from now on."""
    kept.extend(handler for handler in handlers if handler not in kept)


def drop(handler: logging.Handler) -> None:
    """Stop keeping *handler*."""
    if handler in kept:
        kept.remove(handler)


def on_console(handler: logging.Handler) -> bool:
    """Whether *handler* writes where the pipeline does."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in {sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__}
