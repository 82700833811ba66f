"""Every async test runs on asyncio and on trio, in virtual time, and none may hang."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kernel import masking
from kernel.observe import logs
from tests import shared
from tests.harness import Lab
from tests.ports import ANY_PORT

pytest_plugins = ["kernel.testing", "tests.artifacts"]  # anyio_backend; machine, built, binary, artifact

HUNG = 60  # real seconds

os.environ |= ANY_PORT

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        # As with nohup, or with & in a script. What is ignored stays so in the programs that are tested, and what has a
        # handler does not; this process goes on as if it ignored it.
        signal.signal(number, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    """Decide how much is tried before the tests are imported."""
    shared.everything = _wants_all(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Share the work of rewriting the assertions of all tests among the workers."""
    if hasattr(session.config, "workerinput") and not shared.everything:
        shared.import_share(session.config.rootpath, session.config.workerinput)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the cookbook to `just test-all`: its libraries alone take a second to import, in each worker."""
    return True if collection_path.name == "cookbook" and not shared.everything else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the long ones begin first, and leave those that take minutes to `just test-all`."""
    items.sort(key=shared.turn)
    if shared.everything:
        return
    minutes = [item for item in items if item.get_closest_marker("minutes") or "binary" in _fixtures(item)]
    later = {*minutes, *shared.left_out(items)}
    items[:] = [item for item in items if item not in later]
    config.hook.pytest_deselected(items=[*later])


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _wants_all(config: pytest.Config) -> bool:
    """Return whether to run also what takes minutes: `just test-all` says so, or whoever names tests."""
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["all"])
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.getoption("keyword")
    return bool(config.getoption("--all") or named)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker, which cannot tell a name on the command line from a default."""
    node.workerinput["all"] = _wants_all(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out units of tests to the workers, in that order."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Units(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return shared.unit(nodeid)

    return Units(config, log)


@pytest.fixture(autouse=True)
def _in_real_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that waits for ever; in virtual time nothing else would."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return

    def hung(*_: object) -> None:
        raise TimeoutError(f"hung for {HUNG} real seconds")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HUNG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _no_secrets_of_others() -> Iterator[None]:
    """Forget the secrets of each test: they would be masked in the words of the next."""
    yield
    masking._secrets.clear()
    masking._longest_first.clear()


@pytest.fixture(autouse=True)
def _levels_stay() -> Iterator[None]:
    """Fail a test that leaves a level changed: the tests after it would log less."""
    loggers = [logging.getLogger(), logs.logger]
    before = [one.level for one in loggers]
    yield
    assert [one.level for one in loggers] == before


@pytest.fixture
def lab() -> Lab:
    """Runs services and remembers what happened."""
    return Lab()
