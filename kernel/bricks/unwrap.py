"""Raise a single error as itself, instead of in the exception group that a task group creates."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def unwrapped() -> Generator[None]:
    """Wrap one of the kernel's task groups, so that users see a single error without a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        context = error.__context__
        try:
            raise error
        finally:
            with contextlib.suppress(Exception):  # a frozen error cannot be changed
                error.__context__ = context
