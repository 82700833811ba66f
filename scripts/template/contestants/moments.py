"""Shared by all contestants: the services to run, and the recorded moments of a run. Uses only the standard library.

    python -m contestants.facet noop 1000       1,000 services that do nothing until they are stopped
    python -m contestants.facet uniform 0.1     60 services that sleep 0.1 s each to open, and to close

A contestant runs a service for each node in the documented way, with one task that waits forever, like a real service.
It must be able to stop each service individually, after its dependents have ended.
"""

from __future__ import annotations

import gc
import json
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

WIDTH, LENGTH = 6, 10  # size of the sleeping graphs
SLOW = 40  # how many times longer it sleeps than the others in its chain


class Node(NamedTuple):
    """A service: the places of its dependencies, which all come before its own, and the seconds to sleep."""

    needs: tuple[int, ...]
    opening: float
    closing: float


def graph(words: Sequence[str]) -> list[Node]:
    """Return the services that the command line *words* request."""
    kind, amount = words[0], float(words[1])
    if kind == "noop":
        return [Node((), 0, 0)] * int(amount)
    nodes = []
    for level in range(LENGTH):
        for column in range(WIDTH):
            above = (level - 1) * WIDTH
            if kind == "uniform":  # each depends on two of the level above
                needs, seconds = {above + column, above + (column + 1) % WIDTH}, amount
            else:  # skewed: chains with their slow services at different levels, so waiting for whole levels adds up
                needs, seconds = {above + column}, amount * (SLOW if level == column else 1)
            nodes.append(Node(tuple(sorted(needs)) if level else (), seconds, seconds))
    return nodes


def critical_path(nodes: Sequence[Node]) -> float:
    """Return the seconds in which *nodes* can open at best; closing takes as long."""
    ends: list[float] = []
    for node in nodes:
        ends.append(node.opening + max((ends[place] for place in node.needs), default=0.0))
    return max(ends)


class Run:
    """The moments of a run. Created before the services are declared, so that their memory is included."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.nodes = graph(words or sys.argv[1:])
        self.places = range(len(self.nodes))
        # Nothing that the run stores may grow while memory is measured.
        self._launched, self._ready, self._asked, self._ended = (array("d", [0.0] * len(self.nodes)) for _ in range(4))
        self._begun = self._asked_at = self._start = self._each = 0.0
        gc.collect()
        self._before = memory("VmRSS")

    # Called by each service.

    def launched(self, place: int) -> None:
        """Record that a service has begun to open."""
        self._launched[place] = perf_counter()

    def ready(self, place: int) -> None:
        """Record that a service has opened."""
        self._ready[place] = perf_counter()

    def asked(self, place: int) -> None:
        """Record that a service begins to close."""
        self._asked[place] = perf_counter()

    def ended(self, place: int) -> None:
        """Record that a service has closed."""
        self._ended[place] = perf_counter()

    # Called by the contestant.

    def begins(self) -> None:
        """Record that all services are declared, and none is launched."""
        gc.collect()  # so that no contestant is lucky about the time of the next collection
        self._begun = perf_counter()

    def all_ready(self) -> None:
        """Record that all are ready. A stop is requested from here on."""
        self._start = perf_counter() - self._begun
        assert all(self._ready), "not all are ready"
        gc.collect()
        self._each = (memory("VmRSS") - self._before) / len(self.nodes)
        self._asked_at = perf_counter()

    def all_ended(self) -> None:
        """Record that all have ended, and print the results."""
        stop = perf_counter() - self._asked_at
        assert all(self._ended), "not all have ended"
        path = critical_path(self.nodes)
        if path:
            found = {"start / optimum": self._start / path, "stop / optimum": stop / path}
            found["edges violated"] = self._violated()
        else:
            found = {"ready ms": self._start * 1000, "stopped ms": stop * 1000, "both ms": (self._start + stop) * 1000}
            found |= {"peak MB": memory("VmHWM") / 1e6, "kB each": self._each / 1000}
        print(json.dumps(found))

    def _violated(self) -> int:
        """Count how often a service opened before its dependency had, or outlived it."""
        edges = [(place, needed) for place in self.places for needed in self.nodes[place].needs]
        early = sum(self._launched[place] < self._ready[needed] for place, needed in edges)
        return early + sum(self._asked[needed] < self._ended[place] for place, needed in edges)


def memory(field: str) -> float:
    """Return the bytes in memory: VmRSS for the current value, VmHWM for the peak.

    On Linux getrusage is not used, since it includes the parent's memory at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes, always the peak
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))
