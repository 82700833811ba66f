"""The external programs that run now: what `/status` shows of them."""

from __future__ import annotations

running: dict[int, tuple[str, str]] = {}
"""By pid: the service that runs the program, and the program's name."""


def programs_of(service: str) -> list[dict[str, object]]:
    """The programs of *service*, for any thread."""
    return [{"name": name, "pid": pid} for pid, (owner, name) in list(running.items()) if owner == service]
