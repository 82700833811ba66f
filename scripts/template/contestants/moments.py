"""What all contestants share: the services to run, and the moments of a run. Peers have only the standard library.

    python -m contestants.facet noop 1000       1,000 services that do nothing until they are stopped
    python -m contestants.facet uniform 0.1     60 services that sleep 0.1 s each to open, and to close

A contestant runs a service for each node in the way its documentation shows, with one task that waits for ever: a
service is something that runs. It must be able to stop each one singly, when those that need it have ended.
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

WIDTH, LENGTH = 6, 10  # of the graphs that sleep
SLOW = 40  # times as long as the others in its chain


class Node(NamedTuple):
    """One service: the places of those it needs, all before its own, and seconds to sleep."""

    needs: tuple[int, ...]
    opening: float
    closing: float


def graph(words: Sequence[str]) -> list[Node]:
    """The services that *words* of the command line ask for."""
    kind, amount = words[0], float(words[1])
    if kind == "noop":
        return [Node((), 0, 0)] * int(amount)
    nodes = []
    for level in range(LENGTH):
        for column in range(WIDTH):
            above = (level - 1) * WIDTH
            if kind == "uniform":  # each needs two of the level above
                needs, seconds = {above + column, above + (column + 1) % WIDTH}, amount
            else:  # skewed: chains, each with its slow service at another level, so that who waits for levels pays all
                needs, seconds = {above + column}, amount * (SLOW if level == column else 1)
            nodes.append(Node(tuple(sorted(needs)) if level else (), seconds, seconds))
    return nodes


def critical_path(nodes: Sequence[Node]) -> float:
    """The seconds in which *nodes* can open, at best; closing takes them as long."""
    ends: list[float] = []
    for node in nodes:
        ends.append(node.opening + max((ends[place] for place in node.needs), default=0.0))
    return max(ends)


class Run:
    """The moments of one run; made before the services are declared, so that their memory counts too."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.nodes = graph(words or sys.argv[1:])
        self.places = range(len(self.nodes))
        # Nothing that the run keeps may grow while memory is measured.
        self._launched, self._ready, self._asked, self._ended = (array("d", [0.0] * len(self.nodes)) for _ in range(4))
        self._begun = self._asked_at = self._start = self._each = 0.0
        gc.collect()
        self._before = memory("VmRSS")

    # Each service tells of itself.

    def launched(self, place: int) -> None:
        """It has begun to open."""
        self._launched[place] = perf_counter()

    def ready(self, place: int) -> None:
        """It has opened."""
        self._ready[place] = perf_counter()

    def asked(self, place: int) -> None:
        """It begins to close."""
        self._asked[place] = perf_counter()

    def ended(self, place: int) -> None:
        """It has closed."""
        self._ended[place] = perf_counter()

    # The contestant tells of all of them.

    def begins(self) -> None:
        """All are declared, and none is launched."""
        gc.collect()  # so that it is by no contestant's luck when the next one falls due
        self._begun = perf_counter()

    def all_ready(self) -> None:
        """All are ready, and from here on a stop is asked for."""
        self._start = perf_counter() - self._begun
        assert all(self._ready), "not all are ready"
        gc.collect()
        self._each = (memory("VmRSS") - self._before) / len(self.nodes)
        self._asked_at = perf_counter()

    def all_ended(self) -> None:
        """All have ended: print what was measured."""
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
        """How often a service began to open before, or a needed one to close while, the other was not yet there."""
        edges = [(place, needed) for place in self.places for needed in self.nodes[place].needs]
        early = sum(self._launched[place] < self._ready[needed] for place, needed in edges)
        return early + sum(self._asked[needed] < self._ended[place] for place, needed in edges)


def memory(field: str) -> float:
    """The bytes that the process has in memory now, VmRSS, or had at most, VmHWM.

    Not from getrusage on Linux: that counts what the parent had when it forked.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes, and the peak in either case
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))
