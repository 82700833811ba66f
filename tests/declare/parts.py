"""What these tests declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from kernel.declare.service import service
from kernel.declare.signature import Needs
from kernel.errors import DeclarationError

NOTHING_FITS = "name it after a dependency, annotate it `Serving[...]` or an attrs class, or give it a default"


@attrs.frozen
class Config:
    """A config."""

    x: int = 0


@attrs.frozen
class Other:
    """Another one."""


def needs(*depends: Any, **options: Any) -> Callable[[Any], Needs]:
    """Declare a function as a service and tell what it needs."""
    return lambda fn: service(depends=depends, **options)(fn).needs


def refused(fn: Any, *depends: Any, **options: Any) -> DeclarationError:
    """The error with which a function is refused as a service."""
    with pytest.raises(DeclarationError) as caught:
        needs(*depends, **options)(fn)
    error = caught.value
    assert error.where.startswith("tests/declare/test_s")
    return error
