"""What an exception that comes out of a service is: a crash, a signal, or a cancellation."""

from __future__ import annotations

from kernel.errors import StrayCancellation, add_note, one_line


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


def uncancelled(error: BaseException | None, cancellation: type[BaseException]) -> BaseException | None:
    """What *error* is besides a *cancellation* of the running loop."""
    if isinstance(error, BaseExceptionGroup):
        ours, rest = error.split(cancellation)
        return error if ours is None else rest  # `split` copies even where it takes nothing out
    return None if isinstance(error, cancellation) else error


def stray(service: str, caught: BaseException) -> StrayCancellation:
    """What the cancellation *caught* of *service* is, when nobody had cancelled it."""
    error = StrayCancellation(service)
    error.__cause__ = caught
    return error


def same(first: BaseException, later: BaseException) -> bool:
    """Whether *later* is *first*, maybe in a group by now, or shares an error with it."""
    return bool(leaves(later) & leaves(first))


def noting(first: BaseException, later: BaseException) -> BaseException:
    """Return *first*, with a note of what clean-up raised *later*."""
    add_note(first, f"its clean-up then raised {one_line(later)}")
    return first
