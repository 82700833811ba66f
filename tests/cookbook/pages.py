"""The code of the cookbook's pages, for its tests."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.modules import new_module

PAGES = Path(__file__).parents[2] / "docs" / "cookbook"
BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENOUGH = 20.0  # seconds within which all that is waited for comes, also on a loaded machine


def needs(server: str) -> pytest.MarkDecorator:
    """Skip a test whose server is not installed; .ci/run installs it and says so: there the test runs, or fails."""
    missing = shutil.which(server) is None and not Path(server).exists() and not os.environ.get("SERVERS_INSTALLED")
    return pytest.mark.skipif(missing, reason=f"{server} is not installed")


class Page:
    """The code of a page; each block is a module, and sees the names of those before it."""

    def __init__(self, name: str, **given: Any) -> None:
        self.names: dict[str, Any] = {"__name__": f"cookbook_{name.replace('-', '_')}", **given}
        text = (PAGES / f"{name}.md").read_text()
        found = BLOCK.findall(text)
        assert len(found) == text.count("```python"), "each block begins with its file, or with `# naive`"
        assert found[-1][0] == "naive", "each page shows a naive version"
        module = new_module(self.names["__name__"])
        sys.modules[module.__name__] = module
        module.__dict__.update(self.names)
        for path, code in found:
            exec(compile(code, f"docs/cookbook/{name}.md:{path}", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        self.names = module.__dict__

    def __getattr__(self, name: str) -> Any:
        return self.names[name]


def code_of(name: str) -> dict[str, str]:
    """The blocks of a page, by file."""
    return dict(BLOCK.findall((PAGES / f"{name}.md").read_text()))


async def until(happened: Callable[[], bool]) -> None:
    """Wait until *happened*."""
    with anyio.fail_after(ENOUGH):
        while not happened():  # noqa: ASYNC110
            await anyio.sleep(0.01)
