"""All metrics of the process as Prometheus text. Imported at the first request, since importing takes 0.1 s."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kernel.masking import mask, shown
from kernel.process.contain import contained

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader


class UnreadableAccept(ValueError):
    """Raised if the value of an Accept header cannot be parsed."""


class Prometheus:
    """The kernel's metrics, those of OpenTelemetry's API, and those of the Prometheus client.

    Args:
        start: Starts collection with the given reader, at the first request or when `start` is called.

    """

    def __init__(self, provide: Callable[[MetricReader], object]) -> None:
        self._provide = provide
        self._lock = threading.Lock()
        self._reader: MetricReader | None = None

    def start(self) -> None:
        """Start collecting."""
        from opentelemetry.exporter.prometheus import PrometheusMetricReader

        from kernel.observe.otel_resource import many_series

        with self._lock:
            if self._reader is None:
                self._reader = PrometheusMetricReader(scope_info_enabled=False, cardinality_limits=many_series())
                self._provide(self._reader)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type, in the format that *accept* requests. May be slow.

        Raises:
            UnreadableAccept: *accept* is malformed.

        """
        from prometheus_client import REGISTRY
        from prometheus_client.exposition import choose_encoder

        self.start()
        try:
            encode, content_type = choose_encoder(accept)
        except Exception as error:  # the parser may raise anything for malformed values
            raise UnreadableAccept(accept) from error
        try:
            return encode(_Masked(REGISTRY)), content_type
        except Exception:  # noqa: BLE001  (a user's collector failed; the others are still shown)
            return _each(encode, REGISTRY), content_type


def _each(encode: Callable[[Any], bytes], registry: Any) -> bytes:
    """Return what the collectors of *registry* report. A collector that fails is left out, and logged once."""
    told: list[bytes] = []
    collectors: Iterable[Any] = getattr(registry, "_collector_to_names", ())
    for collector in list(collectors):
        with contained(f"the metrics of {collector!r}"):
            told.extend([encode(_One(_masked(family))).removesuffix(END) for family in collector.collect()])
    return b"".join(told) + (END if encode(_One()).endswith(END) else b"")


END = b"# EOF\n"  # ends the OpenMetrics format


class _Masked:
    """A registry that masks the secrets of another."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Any]:
        """Return the families."""
        return map(_masked, self._registry.collect())


def _masked(family: Any) -> Any:
    """Return a *family* of series with secrets in its description and labels masked; numbers stay as they are."""
    documentation = family.documentation
    labels = "\n".join(text for sample in family.samples for pair in sample.labels.items() for text in pair)
    if mask(labels) == labels and mask(documentation) == documentation:
        return family
    made = copy.copy(family)
    made.documentation = shown(documentation)
    made.samples = [
        sample._replace(labels={_label(name): shown(text) for name, text in sample.labels.items()})
        for sample in family.samples
    ]
    return made


def _label(name: str) -> str:
    """Return the *name* of a label, valid and with secrets masked."""
    return name if mask(name) == name else "masked"


class _One:
    """A registry that contains the given families."""

    def __init__(self, *families: Any) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        """Return the families."""
        return self._families
