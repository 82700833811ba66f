"""Logging that a test may change."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

from kernel.observe import guard, logs


@contextlib.contextmanager
def logging_untouched() -> Iterator[logging.Logger]:
    """Leave everything that the process has of logging as it was; yield the root logger."""
    root = logging.getLogger()
    loggers = [(one, [*one.handlers], one.level) for one in (root, logs.logger)]
    kind, call_handlers, disabled = root.__class__, logging.Logger.callHandlers, vars(logging.Logger).get("disabled")
    kept, armed, levels = [*guard.kept], guard.armed, logs._levels
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield root
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.__class__ = kind
    guard.kept[:], guard.armed, logs._levels = kept, False, levels
    for one, handlers, level in loggers:
        one.handlers[:] = handlers
        one.setLevel(level)
    guard.armed = armed
    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]
    if disabled is not None:
        logging.Logger.disabled = disabled
    elif "disabled" in vars(logging.Logger):
        del logging.Logger.disabled
