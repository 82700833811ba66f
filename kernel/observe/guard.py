"""Keep logging working when a library configures it, as alembic's `env.py` does with `fileConfig`.

`fileConfig`, `dictConfig` and `basicConfig(force=True)` remove the root logger's handlers, set its level, and disable
every existing logger. In a process with one log pipeline, that would silence all services. So their changes to the
root logger's level and to kept handlers are ignored, and they cannot disable loggers. Explicit changes by a program
(`logger.disabled = True`, `removeHandler`) still work, and `app/init.py` may configure anything, since the console is
guarded only once it has been imported. A library that replaces `Logger.callHandlers` receives our records too.
"""

from __future__ import annotations

import logging
import sys

_CALL_HANDLERS = logging.Logger.callHandlers  # before any library replaces it

kept: list[logging.Handler] = []
"""The handlers that stay on the root logger. They always receive the kernel's own records."""

armed = False
"""Whether *kept* is complete: console handlers and levels set from now on come from a library."""

_CONFIGURES = frozenset({"logging", "logging.config"})


def _configures() -> bool:
    """Return whether the caller's caller is one of the functions that configure logging."""
    return sys._getframe(2).f_globals.get("__name__") in _CONFIGURES  # noqa: SLF001  (documented)


class _Disabled:
    """`Logger.disabled`, which `logging.config` cannot set. Without a `__get__`, reading it stays as fast."""

    def __set__(self, logger: logging.Logger, value: bool) -> None:  # noqa: FBT001  (a descriptor's signature)
        if not (value and sys._getframe(1).f_globals.get("__name__") == "logging.config"):  # noqa: SLF001
            logger.__dict__["disabled"] = value


class _Root(logging.RootLogger):
    """The root logger. The app controls its level and its kept handlers."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (logging's name)
        if not (armed and _configures()):
            super().setLevel(level)

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (hdlr in kept and _configures()):
            super().removeHandler(hdlr)  # a kept handler still receives the kernel's own records

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (armed and _configures() and on_console(hdlr)):  # it would print each record twice
            super().addHandler(hdlr)


def install() -> None:
    """Guard the root logger against functions that configure logging; no handlers are kept yet."""
    global armed  # noqa: PLW0603  (of the one pipeline)
    root = logging.getLogger()
    kept.clear()
    armed = False
    logging.Logger.disabled = _Disabled()  # type: ignore[assignment]
    if type(root) is logging.RootLogger:
        root.__class__ = _Root


def keep(*handlers: logging.Handler) -> None:
    """Keep *handlers* on the root logger from now on."""
    kept.extend(handler for handler in handlers if handler not in kept)


def arm() -> None:
    """Keep all handlers of the root logger, and its level, from now on."""
    global armed  # noqa: PLW0603
    keep(*logging.getLogger().handlers)
    armed = bool(kept)


def drop(handler: logging.Handler) -> None:
    """Stop keeping *handler*."""
    global armed  # noqa: PLW0603
    if handler in kept:
        kept.remove(handler)
    armed = armed and bool(kept)


class _Nobody(logging.Logger):
    """A logger to pass to hooks. It has no real handlers, so no record is written twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.propagate = False
        self.addHandler(logging.NullHandler())


def tell_hook(record: logging.LogRecord) -> None:
    """Pass *record* to a library that has replaced `Logger.callHandlers`, as Sentry does; our logger overrides it."""
    hook = logging.Logger.callHandlers
    if hook is not _CALL_HANDLERS:
        hook(_Nobody(record.name), record)


def unhook() -> None:
    """Restore the original `Logger.callHandlers`."""
    logging.Logger.callHandlers = _CALL_HANDLERS  # type: ignore[method-assign]


def on_console(handler: logging.Handler) -> bool:
    """Return whether *handler* writes to the same stream as the pipeline."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in {sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__}
