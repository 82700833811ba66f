"""The external programs that are running, for `/status`."""

from __future__ import annotations

running: dict[int, tuple[str, str]] = {}
"""The service that runs the program, and the program's name, by pid."""


def programs_of(service: str) -> list[dict[str, object]]:
    """Return the running programs of *service*. Thread-safe."""
    return [{"name": name, "pid": pid} for pid, (owner, name) in list(running.items()) if owner == service]
