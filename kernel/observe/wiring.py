"""What the outside world sees of a run: spans, metrics, logs, health, and signs of life.

All of it observes; nothing in the kernel's core knows of it. What nobody has asked for is not there, and its libraries
are not imported.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kernel.config.settings import Settings
from kernel.identity import Identity
from kernel.lifecycle.events import Observer
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit, nest
from kernel.observe import logs
from kernel.observe.systemd import notifier

if TYPE_CHECKING:
    from kernel.lifecycle.orchestrator import Orchestrator
    from kernel.observe.exporters import Telemetry
    from kernel.observe.loop_shares import Shares
    from kernel.observe.prometheus import Prometheus
    from kernel.observe.spans import SpanObserver
    from kernel.observe.status import View
    from kernel.process.loop_watch import LoopWatch


class Outside:
    """What is seen of one run; its methods are called in their order.

    Args:
        settings: What is asked for.
        identity: The app.
        serve: Whether ADMIN_ADDR and systemd are meant: by a run of the app they are, by a command they are not.

    """

    def __init__(self, settings: Settings, identity: Identity, *, serve: bool) -> None:
        self._settings, self._identity = settings, identity
        self._address = settings.admin if serve else None
        self._notifier = notifier(os.environ) if serve else None
        self._telemetry: Telemetry | None = None
        self._view: View | None = None
        self._prometheus: Prometheus | None = None
        self._spans: SpanObserver | None = None
        self._shares: Shares | None = None

    @property
    def exports(self) -> bool:
        """Whether anything is exported, so that there may be something to send at the end."""
        return self._telemetry is not None

    def start(self) -> None:
        """Be there before any code of the user's, so that whatever it makes is exported."""
        otel = self._settings.otel
        if otel:
            from kernel.observe.exporters import Telemetry

            self._telemetry = Telemetry(otel, self._identity, os.environ)
            self._telemetry.start()
            if self._telemetry.log_handler is not None:
                logging.getLogger().addHandler(self._telemetry.log_handler)
                logs.add_context(self._identity)
        if otel.metrics or self._address is not None:
            from kernel.observe.status import View

            self._view = View(self._identity, backend=self._settings.backend)
        if self._address is not None:
            from kernel.observe.prometheus import Prometheus

            self._prometheus = Prometheus(self._provide)
            if self._address.asked_for or otel.metrics:
                self._prometheus.start()  # else with the first who asks: it takes 0.1 s, and in `dev` few do
        elif otel.metrics:
            self._provide()

    def _provide(self, *readers: Any) -> None:
        """Have the metrics collected by *readers*, and by those that export them."""
        from kernel.observe.metrics import provide
        from kernel.observe.otel_resource import resource_of

        assert self._view is not None
        exporting = self._telemetry.metric_readers if self._telemetry is not None else []
        provide(self._view, resource_of(self._identity), [*readers, *exporting])

    def around(self, units: Iterable[Unit]) -> list[Unit]:
        """*units*, with the admin server first to start and last to stop.

        Raises:
            ConfigError: ADMIN_ADDR cannot be listened at.

        """
        if self._address is None or self._view is None or self._prometheus is None:
            return list(units)
        from kernel.observe.admin import Admin, listen

        admin = Admin(self._view, self._prometheus.render, listen(self._address))
        return nest(units, [admin.service()])

    def observers(self) -> list[Observer]:
        """Who is to be told of each event."""
        found: list[Observer] = []
        if self._view is not None:
            found.append(self._view.stats)
        if self._notifier is not None:
            found.append(self._notifier)
        dispatcher = self._telemetry.dispatcher if self._telemetry is not None else None
        if dispatcher is not None:
            from kernel.observe.spans import SpanObserver

            self._spans = SpanObserver(dispatcher)
            logs.phase_of = dispatcher.phase_of
            found.append(self._spans)
        return found

    def runs(self, orchestrator: Orchestrator, watch: LoopWatch) -> None:
        """The run begins, in the thread of its event loop."""
        if self._view is not None:
            from kernel.observe.loop_shares import Shares

            self._shares = Shares(threading.get_ident())
            self._view.runs(orchestrator)
            self._view.delay = lambda: watch.delay
            self._view.shares = self._shares.shares

    def alive(self) -> None:
        """The event loop answers."""
        if self._notifier is not None:
            self._notifier.alive()

    def ended(self, report: Report) -> None:
        """All services have ended."""
        if self._spans is not None:
            self._spans.end(report.reason, report.exit_code)
        if self._shares is not None:
            self._shares.end()

    def close(self) -> str:
        """Send what is left, for less than a second, and tell in words what could not be sent."""
        if self._telemetry is None:
            return ""
        if self._telemetry.log_handler is not None:
            logging.getLogger().removeHandler(self._telemetry.log_handler)
        return self._telemetry.end()
