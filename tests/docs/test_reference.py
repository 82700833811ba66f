"""docs/reference.md has every public name, as its docstring has it; docs/glossary.md has the words that they use."""

from __future__ import annotations

import re
import sys

import kernel
import kernel.events
import kernel.testing
from tests.conformance.program import REPO

sys.path.append(str(REPO / "scripts" / "template"))

import make_reference as reference

REMEDY = "run `.venv/bin/python scripts/template/make_reference.py`, and read what has changed"
GLOSSARY = (REPO / "docs" / "glossary.md").read_text()


def test_the_page_is_as_the_script_writes_it() -> None:
    """Whoever changes a docstring sees how it reads there."""
    assert reference.write() == reference.PAGE.read_text(), REMEDY


def test_every_public_name_has_an_entry() -> None:
    """None is left out, whatever the script thinks of it."""
    entries = set(re.findall(r"(?m)^### (\S+)$", reference.PAGE.read_text()))
    assert len(entries) > 50
    assert {*kernel.__all__, *kernel.events.__all__, *kernel.testing.__all__} <= entries


def test_the_words_that_the_glossary_replaces_are_gone() -> None:
    """Neither code nor pages use them."""
    replaced = re.findall(r"(?m)^\| [^|]+ \| [^|]+ \| ([^|]+) \|$", GLOSSARY)[1:]
    words = [word.strip() for cell in replaced for word in cell.split(",") if word.strip(" -")]
    assert "giver" in words
    pattern = re.compile(rf"\b({'|'.join(words)})s?\b", re.IGNORECASE)
    files = [path for folder in ("kernel", "app", "services", "docs") for path in (REPO / folder).rglob("*.*")]
    texts = {path: path.read_text() for path in files if path.suffix in {".py", ".md"} and path.name != "glossary.md"}
    assert len(texts) > 100
    found = [
        f"{path.relative_to(REPO)}: {match[0]}"
        for path, text in texts.items()
        for match in [pattern.search(text)]
        if match
    ]
    assert not found
