"""Errors without the groups of one around them."""

from __future__ import annotations

import pytest

from kernel.bricks.unwrap import unwrapped


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_single_error_comes_alone(depth: int) -> None:
    """However deep it is, and with the context that it had: no group is shown above it."""
    before, error = OSError("before"), LookupError("one")
    error.__context__ = before
    raised: BaseException = error
    for _ in range(depth):
        raised = BaseExceptionGroup("group", [raised])
    with pytest.raises(LookupError) as caught, unwrapped():
        raise raised
    assert caught.value is error
    assert error.__context__ is before


def test_several_errors_stay_together() -> None:
    """Also where a group of one is around them, which goes."""
    inner = ExceptionGroup("inner", [LookupError(), OSError()])
    for raised in (inner, ExceptionGroup("outer", [inner])):
        with pytest.raises(ExceptionGroup) as caught, unwrapped():
            raise raised
        assert caught.value is inner


def test_an_error_without_a_group_is_as_it_was() -> None:
    """And so is no error."""
    error = LookupError()
    with pytest.raises(LookupError) as caught, unwrapped():
        raise error
    assert caught.value is error
    with unwrapped():
        pass


def test_an_error_that_has_exceptions_and_is_no_group() -> None:
    """Only groups are opened."""

    class Several(Exception):
        """Has what a group has."""

        exceptions = (LookupError(),)

    with pytest.raises(Several), unwrapped():
        raise ExceptionGroup("group", [Several()])


def test_an_error_that_cannot_be_changed() -> None:
    """It comes alone, too."""

    class Frozen(Exception):
        """Refuses to have a context set by anybody but Python."""

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    with pytest.raises(Frozen), unwrapped():
        raise ExceptionGroup("group", [Frozen()])
