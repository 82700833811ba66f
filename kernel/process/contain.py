"""Contain failures in the kernel's own threads and callbacks: log each once, and continue."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

_said: set[str] = set()


@contextlib.contextmanager
def contained(what: str) -> Generator[None]:
    """Suppress every exception in the block; log the first of each kind, if possible.

    Args:
        what: What fails, as the beginning of a log line: "the event loop watch".

    """
    try:
        yield
    except BaseException as error:  # noqa: ASYNC103, BLE001  (it must not end a thread or a signal handler)
        say_once(what, error)


def say_once(what: str, error: BaseException) -> None:
    """Log that *what* failed with *error*, once for each combination of *what* and type of error."""
    kind = f"{what}: {type(error).__name__}"
    if kind in _said:
        return
    _said.add(kind)
    with contextlib.suppress(BaseException):  # logging may fail too
        import logging  # loaded before any run; the core alone does not need it

        logging.getLogger("kernel").error("%s failed; continuing", what, exc_info=error)
