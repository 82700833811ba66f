"""docs/updates.md says what the recipes say."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "template"))

import make_updates


def test_the_page_is_as_it_is_really_printed(tmp_path: Path) -> None:
    """All commands of the page, one after the other, on a real project and a real upstream."""
    remedy = "run `.venv/bin/python scripts/template/make_updates.py`, and read what has changed"
    assert make_updates.play(tmp_path) == make_updates.PAGE.read_text(), remedy
