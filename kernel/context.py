"""Context variables about the running code."""

from __future__ import annotations

from contextvars import ContextVar

current_service: ContextVar[str] = ContextVar("current_service", default="")
"""The name of the service whose code runs in this task; empty outside of services."""
