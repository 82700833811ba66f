"""Errors that are hard to handle, for tests in this process and, as source, for those of the real program."""

from __future__ import annotations

import dataclasses
import inspect


class Unprintable(Exception):
    """Raises where somebody wants to read it."""

    def __str__(self) -> str:
        raise RuntimeError("no words for it")


@dataclasses.dataclass(frozen=True)
class Unchangeable(Exception):
    """Takes neither a note nor a cause, as every frozen dataclass."""

    code: int = 5


SOURCE = "\nimport dataclasses\n\n" + inspect.getsource(Unprintable) + "\n" + inspect.getsource(Unchangeable) + "\n"
