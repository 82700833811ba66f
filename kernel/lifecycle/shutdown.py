"""The deadline of a shutdown, and each level's share of it.

A service that overruns is cancelled early enough for each level below it to stop in time. Let T be the deadline, n
the length of the longest chain that is still alive, and r = min(1 s, budget / 2n). A service with k levels below it
is cancelled at T - (k + 1/2) r at the latest, and abandoned at T - k r.
"""

from __future__ import annotations

import math
from collections.abc import Collection

GRACE = 1.0
"""Seconds to reach `serving` after a stop was requested while starting, or to end after being cancelled."""


def level_share(budget: float, levels: Collection[int]) -> float:
    """Return the seconds reserved for each level at the end of *budget*.

    Args:
        budget: Seconds for the whole shutdown.
        levels: The number of levels below each live service.

    """
    return min(1.0, budget / (2 * (max(levels, default=0) + 1)))


def cancelled_by(deadline: float, share: float, levels: int) -> float:
    """Return the latest time to cancel a service with *levels* below it; it is abandoned half a *share* later."""
    return deadline - (levels + 0.5) * share


class Shutdown:
    """The times of one shutdown: when it was requested, its deadline, and whether it was forced.

    Args:
        timeout: Seconds for the whole shutdown, counted from the request.

    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.requested_at: float  # set by `request`
        self.deadline = math.inf
        self.stops_services = False  # false during the drain delay
        self.forced = False
        self._share: float  # set by `share_out`

    def request(self, at: float) -> None:
        """Start the deadline, counted from *at* (seconds on the loop's clock)."""
        self.requested_at = at
        self.deadline = at + self.timeout

    def share_out(self, now: float, levels: Collection[int]) -> None:
        """Divide the remaining time among the levels, as the services begin to stop."""
        self.stops_services = True
        self._share = level_share(max(self.deadline - now, 0.0), levels)

    def force(self, now: float) -> None:
        """Limit whatever still runs to the grace period."""
        self.forced = True
        self.deadline = min(self.deadline, now + GRACE)

    def limits(self, stop_timeout: float, levels: int, requested_at: float) -> tuple[float, float]:
        """Return when a service is cancelled, and when it is abandoned.

        Args:
            stop_timeout: The service's stop_timeout, in seconds.
            levels: The number of levels below the service.
            requested_at: When its stop was requested, in seconds on the loop's clock.

        """
        own = requested_at + stop_timeout
        if not self.stops_services:
            return own, own + GRACE
        if self.forced:
            return min(own, self.deadline), self.deadline
        return min(own, cancelled_by(self.deadline, self._share, levels)), self.deadline - levels * self._share
