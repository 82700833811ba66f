"""An error as what it is, and not as the group of one that a task group makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def unwrapped() -> Generator[None]:
    """Around a task group of the kernel's own: of an error that comes alone, users see no group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            with contextlib.suppress(Exception):  # one that is frozen keeps what it got
                error.__context__ = context
