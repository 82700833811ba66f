"""Classify an exception raised by a service: a crash, a signal, or a cancellation."""

from __future__ import annotations

from kernel.errors import StrayCancellation, add_note, one_line


def interrupts(error: BaseException) -> bool:
    """Return whether *error* is a KeyboardInterrupt or a group that contains one: a signal, not a crash."""
    group = isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt)
    return bool(group) or isinstance(error, KeyboardInterrupt)


def without_interrupt(error: BaseException) -> BaseException | None:
    """Return *error* without any KeyboardInterrupt in it; None if nothing is left."""
    if isinstance(error, BaseExceptionGroup) and interrupts(error):
        return error.split(KeyboardInterrupt)[1]
    return None if isinstance(error, KeyboardInterrupt) else error


def leaves(error: BaseException) -> set[int]:
    """Return the ids of *error*, or of the errors in its group: groups are copied as they propagate."""
    if isinstance(error, BaseExceptionGroup):
        return {leaf for member in error.exceptions for leaf in leaves(member)}
    return {id(error)}


def uncancelled(error: BaseException | None, cancellation: type[BaseException]) -> BaseException | None:
    """Return *error* without any *cancellation* of the running loop in it; None if nothing is left."""
    if isinstance(error, BaseExceptionGroup):
        ours, rest = error.split(cancellation)
        return error if ours is None else rest  # `split` copies even if it removes nothing
    return None if isinstance(error, cancellation) else error


def stray(service: str, caught: BaseException) -> StrayCancellation:
    """Return the error for *caught*, a cancellation in *service* that the kernel did not cause."""
    error = StrayCancellation(service)
    error.__cause__ = caught
    return error


def same(first: BaseException, later: BaseException) -> bool:
    """Return whether *later* is *first*, possibly inside a group, or shares an error with it."""
    return bool(leaves(later) & leaves(first))


def noting(first: BaseException, later: BaseException) -> BaseException:
    """Return *first* with a note about *later*, which clean-up raised."""
    add_note(first, f"its clean-up then raised {one_line(later)}")
    return first
