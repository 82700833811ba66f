"""Modules that no file holds."""

from __future__ import annotations

import importlib.abc
import importlib.util
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoFile(importlib.abc.Loader):
    """What loads them: nothing. From 3.15 on, a traceback through a module without a loader is a warning."""

    def get_source(self, name: str) -> None:
        """Return None: there is no text to show."""


def new_module(name: str) -> ModuleType:
    """Return an empty module, which tests fill by `exec`."""
    return importlib.util.module_from_spec(ModuleSpec(name, _NoFile()))
