"""The public test kit: run services inside a test, in virtual time, call one with a fake, and inject faults.

``pytest_plugins = ["kernel.testing"]`` in the top `conftest.py` gives the fixtures `anyio_backend` (each async test
marked ``pytest.mark.anyio`` runs on asyncio and on trio, in virtual time) and `fake_serving`.

Only tests import this module: nothing else of the kernel does, so that pytest may be imported here. trio is imported
when it is used. (PYTEST_DONT_REWRITE: a conftest may import from here before pytest loads the plugin.)
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from kernel.annotations import origin_of, type_name
from kernel.declare.service import Service
from kernel.errors import (
    ConfigError,
    KernelError,
    NamingError,
    PlanError,
    Problems,
    ServedTwice,
    ServiceError,
    did_you_mean,
    one_line,
)
from kernel.lifecycle.block import Block
from kernel.lifecycle.events import ENDED, AllReady, Event, State, Transition
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit
from kernel.plan.registry import Registry
from kernel.testing.calls import Calls, calling, fake
from kernel.testing.faults import CancelledWithin, Fault, Hang, InjectedFault, Phase, Slow, faulty, run_is_over
from kernel.testing.virtual_time import BACKENDS, VirtualLoop, backend_options

AnyService: TypeAlias = Service[..., Any]

__all__ = [
    "BACKENDS",
    "CancelledWithin",
    "FakeServing",
    "Fault",
    "Hang",
    "InjectedFault",
    "Phase",
    "RunFailed",
    "Running",
    "Slow",
    "State",
    "StateMissed",
    "VirtualLoop",
    "anyio_backend",
    "backend_options",
    "fake",
    "fake_serving",
    "faulty",
    "running",
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend of an async test, in virtual time."""
    return request.param, backend_options(request.param)


# -- services in a test ------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class RunFailed(KernelError):
    """A service that may not fail did, or all were stopped before they were ready; the service's error is the cause.

    Args:
        report: How each of them ended.
        run: What was recorded until then.

    """

    report: Report
    run: Running = attrs.field(repr=False)

    def __str__(self) -> str:
        fatal = [one for one in self.report.endings if one.fatal]
        told = [f"{one.service} {one.state.value}: {one_line(one.error)}" for one in fatal if one.error is not None]
        return "; ".join(told) or f"stopped before all services were ready: {self.report.reason}"


@attrs.define(eq=False)
class StateMissed(ServiceError):
    """The service has ended in the state `ended`, and so will never be in the state `wanted`."""

    wanted: State
    ended: State

    def __str__(self) -> str:
        return f"{self.service} is {self.ended.value}, for good: it will never be {self.wanted.value}"


class Running:
    """The services of one `running` block, and what became of them. Each is named by itself or by its name.

    What names a service raises `NamingError` for one that is not there.
    """

    def __init__(self, registry: Registry, units: Sequence[Unit], shutdown_timeout: float) -> None:
        self.events: list[Event] = []
        self.names = registry.services.keys()
        self._orchestrator = Orchestrator(units, shutdown_timeout=shutdown_timeout, observers=[self._observe])
        self._all_ready = False
        self._report: Report | None = None
        self._news = anyio.Event()
        self._over = anyio.Event()

    @property
    def report(self) -> Report:
        """How it all ended.

        Raises:
            RuntimeError: It has not ended yet.

        """
        if self._report is None:
            raise RuntimeError("The services still run; there is a report when the block of `running` has been left")
        return self._report

    def transitions(self, service: str | AnyService) -> list[Transition]:
        """All moves of *service* so far, in order."""
        name = self._name(service)
        return [event for event in self.events if isinstance(event, Transition) and event.service == name]

    def states(self, service: str | AnyService) -> list[State]:
        """All states of *service* so far, in order; the last one is its present state."""
        return [State.WAITING, *(move.state for move in self.transitions(service))]

    def value(self, service: str | AnyService) -> Any:
        """What *service* hands over; None while it does not serve, and where it hands over nothing."""
        name = self._name(service)
        return self._orchestrator.supervisors[name].value

    async def wait_for(self, service: str | AnyService, state: State) -> None:
        """Wait until *service* is in *state*: at once if it is now. It may be cancelled, and then changes nothing.

        Raises:
            StateMissed: The service has ended in another state.

        """
        seen = len(self.transitions(service))
        now = [self.states(service)[-1]]
        while state not in now:
            if now and now[-1] in ENDED:
                raise StateMissed(self._name(service), state, now[-1])
            await self._news.wait()
            now = [move.state for move in self.transitions(service)[seen:]]

    def stop(self, reason: str = "the test asked for it") -> None:
        """Ask all services to stop, in order, and do not wait for it; nothing happens the second time.

        Args:
            reason: Why, in words that complete "stopping: ...".

        """
        self._orchestrator.request_stop(reason)

    def _name(self, service: str | AnyService) -> str:
        return _named(service, self.names)

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        self._all_ready = self._all_ready or isinstance(event, AllReady)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def _at_end(self, report: Report) -> None:
        self._report = report
        self._over.set()

    async def _run(self, block: anyio.CancelScope) -> None:
        run_is_over.set(self._over)
        with anyio.CancelScope(shield=True):  # a test that is cancelled stops its services in order nevertheless
            await self._orchestrator.run(self._at_end)
        self._tell()
        if self._failure() is not None:
            block.cancel()

    async def _started(self) -> None:
        while not self._all_ready and self._report is None:
            await self._news.wait()

    def _failure(self) -> RunFailed | None:
        fatal = [one for one in self.report.endings if one.fatal]
        if self._all_ready and not fatal:
            return None
        failed = RunFailed(self.report, self)
        failed.__cause__ = next((one.error for one in fatal if one.service == self.report.first), None)
        return failed


def _named(service: str | AnyService, known: Collection[str]) -> str:
    name = service if isinstance(service, str) else service.name
    if name not in known:
        hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
        raise NamingError(f"there is no service {name!r} here", hint=hint)
    return name


def _planned(
    services: tuple[AnyService, ...], given: Mapping[str | AnyService, object], environ: Mapping[str, str]
) -> tuple[Registry, dict[str, object]]:
    by_name = {service.name: service for service in services}
    registry = Registry(by_name, known=by_name.keys())
    errors: list[PlanError] = []
    if len(by_name) < len(services) or not services:
        names = ", ".join(service.name for service in services)
        errors.append(
            NamingError(f"running() takes one service or more, each of another name; given: {names or 'none'}")
        )
    errors += registry.check()[0]
    configs: dict[str, object] = {}
    for service, config in given.items():
        try:
            name = _named(service, by_name)
            takes = by_name[name].needs.config
        except PlanError as error:
            errors.append(error)
            continue
        if takes is None or not isinstance(config, origin_of(takes[1])):
            wanted = "no config" if takes is None else f"a config of type {type_name(takes[1])}"
            errors.append(ConfigError(f"takes {wanted}, and was given {config!r}", where=f"configs: {name}"))
        configs[name] = config
    rest = {name: service for name, service in by_name.items() if name not in configs}
    read, wrong, misses = Registry(rest, known=by_name.keys()).read_configs(environ)
    for miss in misses:
        warnings.warn(miss, stacklevel=4)
    Problems.raise_any([*errors, *wrong])
    return registry, read | configs


@contextlib.asynccontextmanager
async def running(
    *services: AnyService,
    configs: Mapping[str | AnyService, object] | None = None,
    environ: Mapping[str, str] | None = None,
    shutdown_timeout: float = 10.0,
    calls: Calls = "checked",
) -> AsyncGenerator[Running]:
    """Run *services* as the app would, and the block once all are ready; at its end they are stopped in order.

    When a service that may not fail fails, the others are stopped in order, and then the block is cancelled. What the
    block itself raises comes out of it as it is, with a note where a service had failed, too. Cancellation of the block
    stops the services in order before it goes on. A service that cannot be cut is waited for, as long as it takes.

    Args:
        services: All there are; each dependency of each is among them. `depends` holds them or their names.
        configs: The configs of services, by name or by service; None for none.
        environ: The variables that all other configs are read from; None for none: then fields have their defaults.
        shutdown_timeout: Seconds for the whole shutdown.
        calls: How services call each other by interfaces: "checked" as if they went elsewhere, all by way of JSON;
            "local" by reference; "nats" over a real server, that of NATS_URL or one that is started, which needs
            asyncio and real time.

    Raises:
        PlanError: Something is wrong with the services or their configs; several are reported as `Problems`.
        RunFailed: A service that may not fail failed, before, in or after the block; its own error is the cause.

    """
    registry, made = _planned(services, configs or {}, environ or {})
    async with (
        calling(registry.units(made), calls) as units,
        _running(Running(registry, units, shutdown_timeout)) as run,
    ):
        yield run


@contextlib.asynccontextmanager
async def _running(run: Running) -> AsyncGenerator[Running]:
    raised: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            with anyio.CancelScope() as block:
                tasks.start_soon(run._run, block, name="services under test")  # noqa: SLF001
                await run._started()  # noqa: SLF001
                if run._all_ready:  # noqa: SLF001
                    yield run
        except BaseException as error:  # noqa: ASYNC103, BLE001  (the task group would wrap it)
            raised = error
        tasks.cancel_scope.shield = True
        run.stop("the block of the test was left")
    failure = run._failure()  # noqa: SLF001
    if raised is not None:
        if failure is not None:
            raised.add_note(f"besides: {failure}")
        raise raised
    if failure is not None:
        raise failure


# -- a service alone ---------------------------------------------------------------------------------------------


class FakeServing:
    """A `Serving` for calling a service's function, whose block behaves as the kernel's own.

    Args:
        name: The name of the service in errors.

    Attributes:
        value: What was handed over last; None before.
        error: What the work raised; None if it raised nothing.
        withheld: The reasons of the blocks of `Work.unready` that are open now.

    """

    def __init__(self, name: str = "the service") -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.requested = False
        self.live_consumers = 0
        self.config: object = None
        self.withheld: tuple[str, ...] = ()
        self.time_left = 0.0
        self.name = name
        self._block: Block | None = None
        self._served = anyio.Event()

    def __call__(self, value: Any = None, *, drain: bool = False) -> Block:
        """Take *value*; entered, the block is the service's work. One call of the service enters one."""
        return Block(self, value, drain)

    async def served(self) -> Any:
        """Wait until the service serves, and return the value; for ever if it never does. It may be cancelled."""
        await self._served.wait()
        return self.value

    def stop(self) -> None:
        """Ask the service to stop: its work is cancelled, or told to drain; at once when it serves later on."""
        self.requested = True
        if self._block is not None:
            self._block.stop()

    def tell_unready(self, change: int, message: str) -> None:
        """Do nothing: `withheld` tells; for the block only."""

    def enter(self, block: Block) -> None:
        """Take *block* as the work; for the block only."""
        if self._block is not None:
            raise ServedTwice(self.name)  # a second call of the service needs a second fake
        self._block, self.value = block, block.value

    def serves(self) -> None:
        """Take note that the block was entered; for the block only."""
        self._served.set()
        if self.requested:
            self.stop()

    def work_ended(self, exc: BaseException | None) -> None:
        """Do nothing: nobody holds the value; for the block only."""

    def closing(self) -> None:
        """Do nothing: no time limit begins; for the block only."""

    def crashed(self, error: BaseException) -> None:
        """Keep *error*; for the block only."""
        self.error = error


@pytest.fixture
def fake_serving() -> FakeServing:
    """A `Serving` for calling a service's function."""
    return FakeServing()
