"""What code can know of where it runs."""

from __future__ import annotations

from contextvars import ContextVar

current_service: ContextVar[str] = ContextVar("current_service", default="")
"""The name of the service in whose task tree the code runs; empty outside of any."""
