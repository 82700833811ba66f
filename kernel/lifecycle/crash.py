"""What an exception that comes out of a service is: a crash, a signal, or a cancellation."""

from __future__ import annotations


def interrupts(error: BaseException) -> bool:
    """Whether *error* is a KeyboardInterrupt, or a group with one: a signal that came up here, and no crash."""
    group = isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt)
    return bool(group) or isinstance(error, KeyboardInterrupt)


def without_interrupt(error: BaseException) -> BaseException | None:
    """What *error* is besides a signal."""
    if isinstance(error, BaseExceptionGroup) and interrupts(error):
        return error.split(KeyboardInterrupt)[1]
    return None if isinstance(error, KeyboardInterrupt) else error


def leaves(error: BaseException) -> set[int]:
    """The identities of *error*, or of what is in it: groups are copied on their way up."""
    if isinstance(error, BaseExceptionGroup):
        return {leaf for one in error.exceptions for leaf in leaves(one)}
    return {id(error)}
