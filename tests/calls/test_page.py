"""docs/calls.md is true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import kernel
from kernel.calls.interface import interface_of
from kernel.config.nats import NATS_VARIABLES
from kernel.errors import CallError
from tests.modules import new_module

PAGE = (Path(__file__).parents[2] / "docs" / "calls.md").read_text()


def test_the_first_block_declares_an_interface() -> None:
    """As it stands there."""
    module = new_module("page")
    sys.modules["page"] = module
    try:
        exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], vars(module))  # noqa: S102
        found = interface_of(module.Users)
        assert found is not None
        assert list(found.methods) == ["get", "rename"]
        assert list(found.methods["get"].raises) == ["NoSuchUser"]
    finally:
        del sys.modules["page"]


def test_each_variable_and_each_error_is_told() -> None:
    """None is left out, and each error is public."""
    assert set(re.findall(r"`(NATS_\w+)`", PAGE)) == set(NATS_VARIABLES)
    for error in CallError.__subclasses__():
        assert f"| `{error.__name__}` |" in PAGE
        assert getattr(kernel, error.__name__) is error
