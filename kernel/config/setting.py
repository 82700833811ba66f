"""A variable that the kernel itself reads: how to parse its text, and how to describe it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from kernel.errors import ConfigError
from kernel.masking import MASK


@attrs.frozen
class Setting:
    """A variable of the kernel.

    Args:
        name: The variable.
        field: The field that holds its value.
        type: Its type, in words.
        default: Its default as shown to people; if possible, a text that can be parsed.
        meaning: What it does, in a few words.
        expected: The expected format, to complete "expected ...".
        parse: Returns the value of a text that is stripped and not empty; raises ValueError if it is not valid.
        secret: Whether its value must not be shown.
        show: Returns its text with secrets masked.

    """

    name: str
    field: str
    type: str
    default: str
    meaning: str
    expected: str
    parse: Callable[[str], Any]
    secret: bool = False
    show: Callable[[str], str] = str

    def shown(self, text: str) -> str:
        """Return *text* as shown to people."""
        return MASK if self.secret else self.show(text)


def read_each(settings: Iterable[Setting], environ: Mapping[str, str]) -> tuple[dict[str, Any], list[ConfigError]]:
    """Return the values of all variables that are set, by field, and an error for each wrong value."""
    values: dict[str, Any] = {}
    errors: list[ConfigError] = []
    for setting in settings:
        text = environ.get(setting.name, "").strip()
        if text:
            try:
                values[setting.field] = setting.parse(text)
            except ValueError:
                what = "is not valid" if setting.secret else f"is {setting.show(text)!r}"
                errors.append(ConfigError(what, where=setting.name, hint=f"expected {setting.expected}"))
    return values, errors
