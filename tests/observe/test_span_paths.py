"""The critical path that a viewer draws is the true one, and its traces are whole, whatever the app."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from kernel.testing import BACKENDS
from tests.generated import App, Stage, apps
from tests.harness import run_virtually
from tests.observe.spans import Spans, bounds, check, critical_path, label, watch
from tests.shared import examples


def played(backend: str, app: App) -> Sequence[ReadableSpan]:
    """The spans of a run of *app*."""
    spans = Spans()
    stage = Stage(app)

    async def run() -> None:
        observer = spans.observer()
        stage.observers = (observer,)
        stage.begins = lambda orchestrator: watch(observer, orchestrator)
        await stage.run()
        assert stage.report is not None
        observer.end(stage.report.reason, stage.report.exit_code)

    run_virtually(backend, run)
    begin = min(bounds(span)[0] for span in spans.all)
    for one in spans.all:
        low, high = (at - begin for at in bounds(one))
        trace = one.context.trace_id % 9973 if one.context else 0
        note(f"{low:>12} {high:>12} {trace:>5} {label(one)} {dict(one.attributes or {})}")
    for when, entry in stage.log:
        note(f"{when:6.3f}  {entry}")
    return spans.all


def check_path(spans: Sequence[ReadableSpan]) -> None:
    """The path through a complete start has the services that the kernel names, in order, and no waiting."""
    for span in spans:
        chain = (span.attributes or {}).get("kernel.critical_path")
        if chain is None:
            continue
        assert isinstance(chain, tuple | list)
        path = [name for name, _ in critical_path(span, spans)]
        note(f"{path} {chain}")
        assert not [name for name in path if name.endswith(" waiting")]
        services = [name for name, _ in itertools.groupby(one.split()[0] for one in reversed(path))]
        left = iter(services)
        assert all(name in left for name in chain), f"{services} lacks some of {chain}"


@settings(
    max_examples=examples(300),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(apps(), st.booleans())
@pytest.mark.no_cover  # other tests cover as much, and the tracer would double the time
@pytest.mark.parametrize("backend", BACKENDS)
def test_generated(backend: str, app: App, patient: bool) -> None:
    """Attempts, crashes, one-shots, allowed failures; half of the apps run for long, so that their starts complete."""
    if patient:
        app = attrs.evolve(app, stop=200.0)
    spans = played(backend, app)
    check(spans)
    check_path(spans)
