"""The one deadline of a shutdown, and the part of it that each level of services gets.

Whoever overruns is cancelled early enough that each level below still gets its turn: with n the longest chain that is
still alive and r = min(1 s, budget / 2n), a service with k levels below it is cancelled at the latest at
T - (k + 1/2) r, and abandoned at T - k r.
"""

from __future__ import annotations

import math
from collections.abc import Collection

GRACE = 1.0
"""Seconds to reach `serving` when a stop comes while starting, and to unwind when cancelled outside a shutdown."""


def level_share(budget: float, levels: Collection[int]) -> float:
    """Return the seconds at the end of a *budget* that each level keeps for itself.

    Args:
        budget: Seconds for the whole shutdown.
        levels: For each live service the number of levels below it.

    """
    return min(1.0, budget / (2 * (max(levels, default=0) + 1)))


def cancelled_by(deadline: float, share: float, levels: int) -> float:
    """When a service with *levels* below it is cancelled at the latest; half a *share* later it is abandoned."""
    return deadline - (levels + 0.5) * share


class Shutdown:
    """When a stop was requested, when it must be over, and whether it was forced.

    Args:
        timeout: Seconds for the whole shutdown, counted from the request.

    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.requested_at = 0.0
        self.deadline = math.inf
        self.stops_services = False  # not yet in the drain delay
        self.forced = False
        self._share = 0.0

    def request(self, at: float) -> None:
        """Count from *at*."""
        self.requested_at = at
        self.deadline = at + self.timeout

    def share_out(self, now: float, levels: Collection[int]) -> None:
        """Give each level its share of what is left, as the services begin to stop."""
        self.stops_services = True
        self._share = level_share(max(self.deadline - now, 0.0), levels)

    def force(self, now: float) -> None:
        """Leave what still runs no more than the grace period."""
        self.forced = True
        self.deadline = min(self.deadline, now + GRACE)

    def limits(self, stop_timeout: float, levels: int, requested_at: float) -> tuple[float, float]:
        """Return when a service is cancelled, and when it is abandoned.

        Args:
            stop_timeout: Its own, in seconds.
            levels: How many are below it.
            requested_at: When its own stop was requested.

        """
        own = requested_at + stop_timeout
        if not self.stops_services:
            return own, own + GRACE
        if self.forced:
            return min(own, self.deadline), self.deadline
        return min(own, cancelled_by(self.deadline, self._share, levels)), self.deadline - levels * self._share
