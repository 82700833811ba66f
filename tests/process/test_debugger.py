"""How a debugger is noticed."""

from __future__ import annotations

import sys

import pytest

from kernel.process.debugger import attached, resting


@pytest.mark.parametrize(
    ("modules", "found"), [((), False), (("bdb",), True), (("pydevd",), True), (("bdb", "pydevd"), True)]
)
def test_who_is_attached(monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], found: bool) -> None:
    """Any one of them is enough; it is announced once, when deadlines rest for the first time."""
    announced: list[bool] = []
    rests = resting(lambda: announced.append(True))
    for name in ("bdb", "pydevd"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # pytest itself may have imported one
    assert not attached()
    assert rests() is False
    for name in modules:
        monkeypatch.setitem(sys.modules, name, sys)
    assert attached() is found
    assert announced == []
    assert [rests(), rests()] == [found, found]
    assert announced == [True] * found
