"""Connect a run to the outside: spans, metrics, logs, health, and watchdog messages.

All of this only observes; the kernel's core does not depend on it. Parts that are not configured are not loaded, nor
are the libraries they need.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kernel.config.settings import Settings
from kernel.identity import Identity
from kernel.lifecycle.events import AllReady, Event, Observer
from kernel.lifecycle.report import Report
from kernel.observe import logs
from kernel.observe.systemd import notifier
from kernel.process.contain import contained
from kernel.process.sockets import HANDED_OVER

if TYPE_CHECKING:
    from kernel.lifecycle.orchestrator import Orchestrator
    from kernel.observe.exporters import Telemetry
    from kernel.observe.http_server import Server
    from kernel.observe.loop_shares import Shares
    from kernel.observe.prometheus import Prometheus
    from kernel.observe.spans import SpanObserver
    from kernel.observe.status import View
    from kernel.process.event_loop import Wake
    from kernel.process.loop_watch import LoopWatch


ADMIN = "admin"
"""The name of a socket from systemd for the admin server. No service can have this name."""


def _say_untaken(event: Event) -> None:
    """Warn of sockets from systemd that nothing had taken by the time all services were ready."""
    if isinstance(event, AllReady):
        for name in HANDED_OVER.left():
            logs.logger.warning(
                "the socket %r from systemd is not used; FileDescriptorName= must be %r,"
                " or the name of a service that uses serve_asgi",
                name,
                ADMIN,
            )


class Outside:
    """The observability of one run, as a context manager around it.

    Inside the block: call `serve` when the services are known, `observers` and `runs` when the loop runs, `ended` when
    all services have ended, and `close` to send the remaining items. If `close` was not called, for example because of
    an error, leaving the block calls it.

    Args:
        settings: The settings of the kernel.
        identity: The app.
        serve: Whether to use ADMIN_ADDR and systemd: true for a run of the app, false for a command.

    """

    def __init__(self, settings: Settings, identity: Identity, *, serve: bool) -> None:
        self._settings, self._identity = settings, identity
        self._address = settings.admin if serve else None
        self._notifier = notifier(os.environ) if serve else None
        self._handed_over: list[socket.socket] = []
        if serve:
            HANDED_OVER.read(os.environ)
            if settings.admin is not None or not os.environ.get("ADMIN_ADDR"):  # `off` means off
                self._handed_over = HANDED_OVER.take(ADMIN)
        self._telemetry: Telemetry | None = None
        self._view: View | None = None
        self._prometheus: Prometheus | None = None
        self._spans: SpanObserver | None = None
        self._shares: Shares | None = None
        self._server: Server | None = None
        self._closed = False

    @property
    def exports(self) -> bool:
        """Whether anything is exported, so that items may be left to send at the end."""
        return self._telemetry is not None

    @property
    def _serves(self) -> bool:
        """Whether an admin server is needed."""
        return self._address is not None or bool(self._handed_over)

    def __enter__(self) -> Self:
        """Set up before the user's code runs, so that everything it creates is exported."""
        otel = self._settings.otel
        if otel is not None:
            from kernel.observe.exporters import Telemetry

            self._telemetry = Telemetry(otel, self._identity)
            with contained("telemetry"):
                self._telemetry.start()
            if self._telemetry.log_handler is not None:
                logging.getLogger().addHandler(self._telemetry.log_handler)
                logs.add_context(self._identity)
                logs.keep_handler(self._telemetry.log_handler)
            if self._telemetry.dispatcher is not None:
                from kernel.observe.spans import SpanObserver

                self._spans = SpanObserver(self._telemetry.dispatcher)
                logs.phase_of = self._telemetry.dispatcher.phase_of
                logs.left_by = self._telemetry.dispatcher.left_by
        metrics = otel is not None and bool(otel.metrics)
        if metrics or self._serves:
            from kernel.observe.status import View

            self._view = View(self._identity, backend=self._settings.backend)
        if self._serves:
            from kernel.observe.prometheus import Prometheus

            self._prometheus = Prometheus(self._provide)
            if self._address is None or self._address.asked_for or metrics:
                self._prometheus.start()  # takes 0.1 s; under `dev` it waits for the first request
        elif metrics:
            self._provide()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._closed:
            self.close()

    def _provide(self, *readers: Any) -> None:
        """Collect the metrics for *readers*, and for the readers that export them."""
        from kernel.observe.metrics import provide
        from kernel.observe.otel_resource import resource_of

        assert self._view is not None
        exporting: Sequence[Any] = []
        if self._telemetry is not None:
            with contained("the export of metrics"):
                exporting = self._telemetry.make_metric_readers()
        provide(self._view, resource_of(self._identity), [*readers, *exporting])

    def serve(self) -> None:
        """Start the admin server.

        Raises:
            ConfigError: The address in ADMIN_ADDR is not available.

        """
        if self._view is None or self._prometheus is None:
            return
        from kernel.observe.admin import Admin, open_sockets

        socks = self._handed_over
        if not socks:
            assert self._address is not None
            socks = open_sockets(self._address)
        if socks:
            self._server = Admin(self._view, self._prometheus.render).serve(socks)

    def tells(self, name: str, tell: Callable[[], Any]) -> None:
        """Add the result of *tell* to `/status` under *name*. It is called from another thread."""
        if self._view is not None:
            self._view.more[name] = tell

    def observers(self) -> list[Observer]:
        """Return the observers to call with each event."""
        stats = self._view.stats if self._view is not None else None
        untaken = _say_untaken if HANDED_OVER else None
        found: tuple[Observer | None, ...] = stats, self._notifier, untaken, self._spans
        return [observer for observer in found if observer is not None]

    def runs(
        self, orchestrator: Orchestrator, watch: LoopWatch, wake: Wake, runner: Callable[[], tuple[str, str]]
    ) -> None:
        """Begin the run, in the thread of its event loop.

        Args:
            orchestrator: The orchestrator of the run.
            watch: Watches the loop.
            wake: Wakes the loop.
            runner: Returns the service whose code the loop's thread runs, and the line of code.

        """
        if self._spans is not None:
            from kernel.lifecycle.tree import starting_tree

            clock = orchestrator.clock
            self._spans.runs(clock, lambda: starting_tree(orchestrator.supervisors.values(), clock.now()))
        if self._view is not None:
            from kernel.observe.loop_shares import Shares

            self._shares = Shares(threading.get_ident(), orchestrator.running)
            self._view.runs(orchestrator, wake)
            self._view.delay = lambda: watch.delay
            self._view.silent = lambda: watch.silent
            self._view.runner = runner
            self._view.shares = self._shares.shares

    def alive(self) -> None:
        """Record that the event loop responds."""
        if self._notifier is not None:
            self._notifier.alive()

    def ended(self, report: Report) -> None:
        """Record that all services have ended."""
        if self._spans is not None:
            self._spans.end(report.reason, report.exit_code)
        if self._shares is not None:
            self._shares.end()
        if self._view is not None:
            self._view.ended()
        if self._server is not None:
            self._server.close(wait=False)

    def close(self) -> str:
        """Close the admin server, and send the remaining items, for less than a second. Say what was not sent."""
        self._closed = True
        try:
            return self._close_exports()
        finally:
            if self._server is not None:
                self._server.close()

    def _close_exports(self) -> str:
        if self._telemetry is None:
            return ""
        if self._telemetry.log_handler is not None:
            logs.drop_handler(self._telemetry.log_handler)
        return self._telemetry.end()
