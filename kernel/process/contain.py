"""Contain what fails in the kernel's own threads and callbacks: say it once, and go on."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

_said: set[str] = set()


@contextlib.contextmanager
def contained(what: str) -> Generator[None]:
    """Let nothing out of the block; the first failure of each kind is logged, as far as that is possible.

    Args:
        what: What failed, in words that begin a log line: "the watch on the event loop".

    """
    try:
        yield
    except BaseException as error:  # noqa: ASYNC103, BLE001  (a thread of the kernel's, or a signal, must not end by it)
        say_once(what, error)


def say_once(what: str, error: BaseException) -> None:
    """Log that *what* failed; the same kind of failure of the same thing is logged once."""
    kind = f"{what}: {type(error).__name__}"
    if kind in _said:
        return
    _said.add(kind)
    with contextlib.suppress(BaseException):  # there may be no way left to say anything
        import logging  # there since before the run; the core without a log need not load it

        logging.getLogger("kernel").error("%s failed; it goes on", what, exc_info=error)
