"""The programs that are running."""

from __future__ import annotations

import pytest

from kernel.process import programs


def test_each_service_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their names and pids, in the order in which they began."""
    monkeypatch.setattr(programs, "running", {5: ("a", "redis"), 6: ("b", "nats"), 4: ("a", "nats")})
    assert programs.programs_of("a") == [{"name": "redis", "pid": 5}, {"name": "nats", "pid": 4}]
    assert programs.programs_of("c") == []
