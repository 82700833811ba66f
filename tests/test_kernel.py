"""The names that the package offers."""

from __future__ import annotations

import pytest

import kernel


@pytest.mark.parametrize("name", kernel.__all__)
def test_each_public_name_is_there(name: str) -> None:
    """Also those that are imported at first use, which are then kept."""
    value = getattr(kernel, name)
    assert value is not None
    assert vars(kernel)[name] is value


def test_what_is_imported_at_first_use_is_public() -> None:
    """A name that nobody may use would be of no use."""
    assert {*kernel._LAZY} <= {*kernel.__all__}


@pytest.mark.parametrize("name", ["nothing", "servce"])
def test_a_name_that_is_not_there(name: str) -> None:
    """It is missing as it is from any module."""
    assert not hasattr(kernel, name)
    with pytest.raises(AttributeError, match=f"module 'kernel' has no attribute '{name}'"):
        getattr(kernel, name)
