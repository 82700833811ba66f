"""The public test kit: run services in a test, in virtual time; call a service with fakes; inject faults.

``pytest_plugins = ["kernel.testing"]`` in the top-level `conftest.py` provides the fixtures `anyio_backend` (each async
test marked ``pytest.mark.anyio`` runs on asyncio and on trio, in virtual time) and `fake_serving`.

Only tests import this module, so it may import pytest; nothing else in the kernel imports it. trio is imported when it
is used. (PYTEST_DONT_REWRITE: a conftest may import from here before pytest loads the plugin.)
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
    """Return the backend of an async test, with virtual time."""
    return request.param, backend_options(request.param)


# -- services in a test ------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class RunFailed(KernelError):
    """A service failed and that was not allowed, or the run stopped before all were ready. The error is chained.

    Args:
        report: How each service ended.
        run: What was recorded up to the failure.

    """

    report: Report
    run: Running = attrs.field(repr=False)

    def __str__(self) -> str:
        fatal = [ending for ending in self.report.endings if ending.fatal]
        failures = [
            f"{each.service} {each.state.value}: {one_line(each.error)}" for each in fatal if each.error is not None
        ]
        return "; ".join(failures) or f"stopped before all services were ready: {self.report.reason}"


@attrs.define(eq=False)
class StateMissed(ServiceError):
    """The service ended in the state `ended`, so it will never be in the state `wanted`."""

    wanted: State
    ended: State

    def __str__(self) -> str:
        return f"{self.service} has ended ({self.ended.value}); it will never be {self.wanted.value}"


class Running:
    """The services of a `running` block, and what happened to them. Methods take a service or its name.

    They raise `NamingError` if there is no such service.
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
        """How the run ended.

        Raises:
            RuntimeError: The run has not ended yet.

        """
        if self._report is None:
            raise RuntimeError("The services are still running; leave the block of `running` to get a report")
        return self._report

    def transitions(self, service: str | AnyService) -> list[Transition]:
        """Return all moves of *service* so far, in order."""
        name = self._name(service)
        return [event for event in self.events if isinstance(event, Transition) and event.service == name]

    def states(self, service: str | AnyService) -> list[State]:
        """Return all states of *service* so far, in order. The last one is its current state."""
        return [State.WAITING, *(move.state for move in self.transitions(service))]

    def value(self, service: str | AnyService) -> Any:
        """Return the value that *service* provides; None if it is not serving, or provides no value."""
        name = self._name(service)
        return self._orchestrator.supervisors[name].value

    async def wait_for(self, service: str | AnyService, state: State) -> None:
        """Wait until *service* is in *state*; return at once if it already is. The wait can be cancelled.

        Raises:
            StateMissed: The service ended in another state.

        """
        seen = len(self.transitions(service))
        now = [self.states(service)[-1]]
        while state not in now:
            if now and now[-1] in ENDED:
                raise StateMissed(self._name(service), state, now[-1])
            await self._news.wait()
            now = [move.state for move in self.transitions(service)[seen:]]

    def stop(self, reason: str = "requested by the test") -> None:
        """Request that all services stop, in order, without waiting for it. Further calls do nothing.

        Args:
            reason: Why; completes "stopping: ...".

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
        with anyio.CancelScope(shield=True):  # a cancelled test still stops its services in order
            await self._orchestrator.run(self._at_end)
        self._tell()
        if self._failure() is not None:
            block.cancel()

    async def _started(self) -> None:
        while not self._all_ready and self._report is None:
            await self._news.wait()

    def _failure(self) -> RunFailed | None:
        fatal = [ending for ending in self.report.endings if ending.fatal]
        if self._all_ready and not fatal:
            return None
        failed = RunFailed(self.report, self)
        failed.__cause__ = next((ending.error for ending in fatal if ending.service == self.report.first), None)
        return failed


def _named(service: str | AnyService, known: Collection[str]) -> str:
    name = service if isinstance(service, str) else service.name
    if name not in known:
        hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
        raise NamingError(f"there is no service {name!r} in this block", hint=hint)
    return name


def _planned(
    services: tuple[AnyService, ...], given: Mapping[str | AnyService, object], environ: Mapping[str, str]
) -> tuple[Registry, dict[str, object]]:
    by_name = {service.name: service for service in services}
    registry = Registry(by_name, known=by_name.keys())
    errors: list[PlanError] = []
    if len(by_name) < len(services) or not services:
        names = ", ".join(service.name for service in services)
        errors.append(NamingError(f"running() takes one or more services with different names; got: {names or 'none'}"))
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
            errors.append(ConfigError(f"takes {wanted}, but got {config!r}", where=f"configs: {name}"))
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
    """Run *services* as the app does. The block runs once all are ready; when it ends, they are stopped in order.

    When a service fails and that is not allowed, the others are stopped in order and the block is cancelled. An error
    raised by the block propagates unchanged, with a note if a service failed too. If the block is cancelled, the
    services are stopped in order before the cancellation propagates. There is no limit on the wait for a service that
    ignores its cancellation.

    Args:
        services: The services, including all their dependencies. `depends` may contain services or names.
        configs: Configs, by service or by name; None for none.
        environ: The variables that all other configs are read from; None for no variables: fields keep their defaults.
        shutdown_timeout: Seconds for the whole shutdown.
        calls: How services call each other's interfaces. "checked" encodes all values as JSON, like a remote call;
            "local" passes references; "nats" uses a real server, at NATS_URL or started for the test, and needs asyncio
            and real time.

    Raises:
        PlanError: The services or their configs are wrong; several errors are raised as `Problems`.
        RunFailed: A service failed that is not allowed to, before, during or after the block; its error is chained.

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
        run.stop("the test left the block")
    failure = run._failure()  # noqa: SLF001
    if raised is not None:
        if failure is not None:
            raised.add_note(f"besides: {failure}")
        raise raised
    if failure is not None:
        raise failure


# -- a service alone ---------------------------------------------------------------------------------------------


class FakeServing:
    """A `Serving` for calling a service's function directly. Its block behaves like the kernel's.

    Args:
        name: The name of the service in errors.

    Attributes:
        value: The last value that was provided; None if there was none.
        error: The exception that the work raised; None if there is none.
        withheld: The reasons of all current `Work.unready` blocks.

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
        """Record *value*, and return the block of the service's work. Each call of the service can enter one block."""
        return Block(self, value, drain)

    @property
    def cancellation(self) -> type[BaseException]:
        """The exception that the running loop cancels with."""
        return anyio.get_cancelled_exc_class()

    async def served(self) -> Any:
        """Wait until the service serves, and return the value. There is no time limit; the wait may be cancelled."""
        await self._served.wait()
        return self.value

    def stop(self) -> None:
        """Request a stop: cancel the work, or let it drain. If the service is not serving yet, do so once it is."""
        self.requested = True
        if self._block is not None:
            self._block.stop()

    def tell_unready(self, change: int, message: str) -> None:
        """Do nothing, since `withheld` contains the reasons. Called by the block."""

    def enter(self, block: Block) -> None:
        """Record *block* as the work. Called by the block."""
        if self._block is not None:
            raise ServedTwice(self.name)  # a second call of the service needs a second fake
        self._block, self.value = block, block.value

    def serves(self) -> None:
        """Record that the block was entered. Called by the block."""
        self._served.set()
        if self.requested:
            self.stop()

    def work_ended(self, exc: BaseException | None) -> None:
        """Do nothing, since there are no consumers. Called by the block."""

    def closing(self) -> None:
        """Do nothing, since there is no time limit. Called by the block."""

    def crashed(self, error: BaseException) -> None:
        """Record *error*. Called by the block."""
        self.error = error


@pytest.fixture
def fake_serving() -> FakeServing:
    """Return a `Serving` for calling a service's function."""
    return FakeServing()
