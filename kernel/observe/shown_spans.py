"""Spans as they may be sent: whatever made them, and whoever's exception they tell of."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status

from kernel import masking
from kernel.masking import shown


def without_secrets(spans: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
    """*spans*, with copies in place of those that tell a secret or too much."""
    return [_shown(span) for span in spans] if masking.known() else spans


def _shown(span: ReadableSpan) -> ReadableSpan:
    attributes, events = _values(span.attributes or {}), [_event(one) for one in span.events]
    name, description = shown(span.name), span.status.description
    status = Status(span.status.status_code, shown(description)) if description else span.status
    found = copy.copy(span)
    found._name, found._attributes, found._events, found._status = name, attributes, events, status  # noqa: SLF001
    return found


def _event(event: Event) -> Event:
    return Event(shown(event.name), _values(event.attributes or {}), event.timestamp)


def _values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in attributes.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    return (
        tuple(_value(one) for one in value) if isinstance(value, Sequence) and not isinstance(value, bytes) else value
    )
