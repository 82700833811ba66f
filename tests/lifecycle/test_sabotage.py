"""Whatever the kernel calls of its host may raise at any moment: the run ends as it would have, all closed in order."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import Retry, Serving, service
from kernel.lifecycle.events import Event, State
from kernel.observe.lifecycle_log import LogObserver
from kernel.testing import BACKENDS
from tests.harness import Lab, resource, run_virtually

ERRORS = (OSError, RuntimeError, MemoryError, UnicodeError, SystemExit, KeyError)
PLACES = ("getcwd", "observer", "hears", "handler", "thread", "import", "debugger", "tree", "stacks", "urandom")


class Saboteur:
    """Makes what is called raise, by chance.

    Args:
        seed: What chance comes of.
        places: What may raise.

    """

    def __init__(self, seed: int, places: frozenset[str]) -> None:
        self._rand = random.Random(seed)  # noqa: S311  (the same seed, the same failures)
        self._places = places

    def may_raise(self, place: str) -> None:
        """Raise, or not."""
        if place in self._places and self._rand.random() < 0.5:
            raise self._rand.choice(ERRORS)(place)

    def raising(self, place: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return *real*, which may raise."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.may_raise(place)
            return real(*args, **kwargs)

        return call

    def hears(self, _: State) -> bool:
        """Listen to all, as an observer."""
        self.may_raise("hears")
        return True

    def __call__(self, _: Event) -> None:
        """Be told, as an observer."""
        self.may_raise("observer")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Stand between the kernel and its host."""
        importing = builtins.__import__

        def imports(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] not in sys.modules and sys._getframe(1).f_globals["__name__"].startswith(
                "kernel"
            ):
                self.may_raise("import")
            return importing(name, *args, **kwargs)

        handler = logging.NullHandler()
        handler.handle = self.raising("handler", lambda _: True)  # type: ignore[method-assign]
        log = logging.getLogger("kernel")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getcwd", self.raising("getcwd", os.getcwd))
            patch.setattr(threading.Thread, "start", self.raising("thread", threading.Thread.start))
            patch.setattr(builtins, "__import__", imports)
            for name in ("starting_tree", "stopping_tree"):
                patch.setattr(f"kernel.lifecycle.progress.{name}", self.raising("tree", lambda *_: ()))
            patch.setattr("kernel.stacks._innermost", self.raising("stacks", lambda _: "somewhere"))
            patch.setattr(log, "handlers", [handler])
            yield


async def play(lab: Lab, saboteur: Saboteur) -> None:
    """A start that takes long, crashes, a service that overruns and one that does not, and a stop."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with resource(lab, "db", closing=0.1), serving("db"):
            await anyio.sleep_forever()

    @service(depends=[db], start_timeout=None)
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", opening=7, closing=3), serving():
            await anyio.sleep_forever()

    @service(depends=[db], allowed_failure=True, retries=Retry(times=3, delay=1))
    async def flaky(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep(0.5)
            raise ConnectionError("flaky")

    @service(start_timeout=6, allowed_failure=True)
    async def late(serving: Serving[None]) -> None:
        await anyio.sleep_forever()

    @service(depends=[db], stop_timeout=4, allowed_failure=True)
    async def hung(db: str, serving: Serving[None]) -> None:
        async with serving(drain=True):
            await anyio.sleep_forever()

    lab.stop_at(20)
    with saboteur.at_work():
        await lab.run(
            *(db, api, flaky, late, hung),
            observers=[LogObserver(), saboteur, saboteur],
            resting=saboteur.raising("debugger", bool),
        )


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), places=st.frozensets(st.sampled_from(PLACES), min_size=1))
def test_the_host_may_fail(backend: str, seed: int, places: frozenset[str]) -> None:
    """Every service ends as it would have ended, in the order in which it would have, and so does the app."""
    lab = Lab()
    run_virtually(backend, lambda: play(lab, Saboteur(seed, places)))
    assert lab.exit_code == 0
    states = {name: lab.ending(name).state.value for name in ("db", "api", "flaky", "late", "hung")}
    assert states == {"db": "stopped", "api": "stopped", "flaky": "failed", "late": "failed", "hung": "failed"}
    assert [mark for mark in lab.marked if mark.endswith("closed")] == ["api closed", "db closed"]
    assert lab.marked_at("db closed") == pytest.approx(24.1, abs=0.2)
