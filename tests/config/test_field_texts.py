"""What is said about fields, wherever people write it."""

from __future__ import annotations

import attrs
import pytest

from kernel.config import field_texts
from kernel.config.field_texts import text_of_field


@attrs.frozen
class Documented:
    """A config whose fields are documented in every way.

    Args:
        told: What the class's docstring says,
            in two lines.
        noted: What is said
            with: a word that looks like a field
          less: indented,
                but: still the same one.
        both: What nobody sees, as there is a docstring below.

            A second paragraph of it.
        _hidden (int): Of a private field.

    Raises:
        silent: This is no field.

    """

    told: int = 0
    noted: int = 0
    but: int = 0
    both: int = 0
    """The docstring
    of the field.

    And more of it.
    """
    behind: int = 0  # a comment behind it
    # a comment above it,
    # in two lines
    above: int = 0

    # not a comment of the next one, as a line is between

    silent: int = 0
    tool: int = 0
    with_tool: int = 0  # said
    named: int = 0  # API_NAMED
    named_and_more: int = 0  # API_NAMED_AND_MORE, in bytes
    long: int = attrs.field(
        default=0,  # said
        validator=attrs.validators.ge(0),  # over several lines
    )
    text: str = "a # no comment"
    hidden_text: str = "x"  # #1 of all
    _hidden: int = 0


@attrs.frozen
class Assigned:
    """A config without annotations.

    Args:
        What they are, in words.
        other: What is said of the other.

    """

    told = attrs.field(default=0, type=int)  # said behind
    other = attrs.field(default=0, type=int)


class Plain:
    """A class in one line."""; x: int = 0  # fmt: skip  # noqa: E702


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("told", "What the class's docstring says, in two lines."),
        ("noted", "What is said with: a word that looks like a field less: indented, but: still the same one."),
        ("but", ""),
        ("both", "The docstring of the field."),
        ("behind", "a comment behind it"),
        ("above", "a comment above it, in two lines"),
        ("silent", ""),
        ("tool", ""),
        ("with_tool", "said"),
        ("named", ""),
        ("named_and_more", "in bytes"),
        ("long", "said over several lines"),
        ("text", ""),
        ("hidden_text", "1 of all"),
        ("_hidden", "Of a private field."),
        ("missing", ""),
    ],
)
def test_what_is_said(field: str, text: str) -> None:
    """The docstring below, the comment behind, the comment above, or what the class says."""
    assert text_of_field(Documented, field, f"API_{field.upper()}") == text


def test_fields_without_annotations() -> None:
    """They are documented in the same ways; a line of the docstring that is no entry is of no field."""
    assert text_of_field(Assigned, "told") == "said behind"
    assert text_of_field(Assigned, "other") == "What is said of the other."


def test_a_class_without_source() -> None:
    """Nothing is said, and nothing fails."""
    made = attrs.make_class("Made", {"x": attrs.field(type=int, default=0)})
    assert text_of_field(made, "x") == ""
    assert text_of_field(Plain, "x") == ""


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def documented() -> None:\n    told = 0  # a function\n",
        "if True:\n    told = 0  # neither\n",
        "class Documented:\n    told = (  # not to its end\n",
        "class Documented:\n    told = 0  # two\n\n\ntold = 1\n",
        "class Documented\n    told = 0  # no colon\n",
        "class Documented:\n    told.it: int = 0  # not a name\n    told['it']: int = 0  # neither\n",
        "class Documented:\n    told.it = told['it'] = 0  # not a name\n",
        "class Documented:\n    told = 0  # a null \0\n",
    ],
)
def test_a_source_that_is_not_the_class(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has changed since it was imported: only the docstring, which is in memory, is used."""

    class Changed:
        """A class.

        Attributes:
            kept: What is known.

        """

    monkeypatch.setattr(field_texts, "source_of", lambda _: (tuple(source.splitlines(keepends=True)), 1, "x.py"))
    assert text_of_field(Changed, "told") == ""
    assert text_of_field(Changed, "kept") == "What is known."
