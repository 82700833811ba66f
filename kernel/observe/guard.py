"""Keep the logs going when a library configures logging, as alembic's `env.py` does with `fileConfig`.

`fileConfig`, `dictConfig` and `basicConfig(force=True)` remove the root logger's handlers, set its level, and disable
every existing logger. In a process with one log pipeline, that would silence everybody. So their changes to the root
logger's level and to kept handlers are ignored, and so is the disabling. What a program does itself
(`logger.disabled = True`, `removeHandler`) still works, and `app/init.py` may configure what it likes, since the
console is guarded only once it has been imported. A library that replaces `Logger.callHandlers` hears our records, too.
"""

from __future__ import annotations

import logging
import sys

_CALL_HANDLERS = logging.Logger.callHandlers  # as it was before any library came

kept: list[logging.Handler] = []
"""The handlers that stay on the root logger; they always get the kernel's own records."""

armed = False
"""Whether *kept* is complete, so that further handlers for the console, and another level, are a library's."""

_CONFIGURES = frozenset({"logging", "logging.config"})


def _configures() -> bool:
    """Return whether the caller's caller is one of the functions that configure logging."""
    return sys._getframe(2).f_globals.get("__name__") in _CONFIGURES  # noqa: SLF001  (it is documented)


class _Disabled:
    """`Logger.disabled`, which `logging.config` cannot set. Without a `__get__`, reading it costs no more."""

    def __set__(self, logger: logging.Logger, value: bool) -> None:  # noqa: FBT001  (the protocol's)
        if not (value and sys._getframe(1).f_globals.get("__name__") == "logging.config"):  # noqa: SLF001
            logger.__dict__["disabled"] = value


class _Root(logging.RootLogger):
    """The root logger; the app owns its level and its kept handlers."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (logging's name)
        if not (armed and _configures()):
            super().setLevel(level)

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (hdlr in kept and _configures()):
            super().removeHandler(hdlr)  # a kept handler still gets the kernel's own records

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if not (armed and _configures() and on_console(hdlr)):  # it would print each record twice
            super().addHandler(hdlr)


def install() -> None:
    """Guard the root logger against functions that configure logging; no handler is kept yet."""
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
    """A logger for hooks: what they call in the end finds no handler that would get the record a second time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.propagate = False
        self.addHandler(logging.NullHandler())


def tell_hook(record: logging.LogRecord) -> None:
    """Tell *record* to a library that has replaced `Logger.callHandlers`, as Sentry does: our logger has its own."""
    hook = logging.Logger.callHandlers
    if hook is not _CALL_HANDLERS:
        hook(_Nobody(record.name), record)


def unhook() -> None:
    """Take the library's function away again."""
    logging.Logger.callHandlers = _CALL_HANDLERS  # type: ignore[method-assign]


def on_console(handler: logging.Handler) -> bool:
    """Return whether *handler* writes to the same place as the pipeline."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in {sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__}
