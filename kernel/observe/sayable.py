"""Mask secrets, and limit the length of texts, in spans and metrics before their export. Imported only with the SDK."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status

from kernel.errors import encodable
from kernel.masking import shown


def sayable_span(span: Any) -> Any:
    """Return *span* without secrets, bounded, and valid as UTF-8: one invalid text would lose the whole batch.

    Objects that are not spans are returned unchanged.
    """
    if not isinstance(span, ReadableSpan) or not any(map(_is_odd, _texts(span))):
        return span
    status = span.status
    return ReadableSpan(
        name=_sayable(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(_sayable(event.name), _attributes(event.attributes), event.timestamp) for event in span.events],
        links=[Link(link.context, _attributes(link.attributes)) for link in span.links],
        kind=span.kind,
        status=Status(status.status_code, _sayable(status.description) if status.description else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _texts(span: ReadableSpan) -> Iterator[object]:
    yield span.name
    yield span.status.description
    yield from _texts_of(span.attributes)
    for link in span.links:
        yield from _texts_of(link.attributes)
    for event in span.events:
        yield event.name
        yield from _texts_of(event.attributes)


def _texts_of(attributes: Mapping[str, Any] | None) -> Iterator[object]:
    for name, value in (attributes or {}).items():
        yield name
        yield value


def sayable_metrics(value: Any) -> Any:
    """Return a report of the SDK's metrics with secrets masked and lengths limited in all texts; numbers stay."""
    if isinstance(value, str):
        return _sayable(value)
    if isinstance(value, Mapping):
        made = _attributes(value)
        return value if made == value else made
    if isinstance(value, list | tuple):
        items = [sayable_metrics(item) for item in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for field in dataclasses.fields(value):
        before = getattr(value, field.name)
        if field.init and not isinstance(before, int | float) and (after := sayable_metrics(before)) != before:
            changed[field.name] = after
    return dataclasses.replace(value, **changed) if changed else value


def _is_odd(value: object) -> bool:
    return isinstance(value, str | tuple) and _sayable(value) != value


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {_sayable(name): _sayable(value) for name, value in (attributes or {}).items()}


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(shown(value))
    return tuple(map(_sayable, value)) if isinstance(value, tuple) else value
