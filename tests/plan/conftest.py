"""What tests of services in files share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.plan.discovery import Catalogue, find_services
from tests.plan.parts import HEAD, Written


def _imported() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "services"]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Writes services with these texts, and returns them. What is imported of them is forgotten after the test."""

    def write(*absent: str, **texts: str) -> Catalogue:
        for path, text in texts.items():
            file = tmp_path / "services" / (path if "." in path else f"{path}.py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(HEAD + text)
        return Catalogue(find_services(str(tmp_path)), absent)

    before = {name: sys.modules.pop(name) for name in _imported()}
    yield write
    for name in _imported():
        del sys.modules[name]
    sys.modules.update(before)
