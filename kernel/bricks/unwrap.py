"""Raise a single error as itself, instead of the exception group that a task group makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def unwrapped() -> Generator[None]:
    """Wrap one of the kernel's own task groups: users see a single error without its group."""
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
