"""One variable that the kernel itself reads: how its text becomes a value, and what people are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from kernel.errors import ConfigError
from kernel.masking import MASK


@attrs.frozen
class Setting:
    """A variable of the kernel's own.

    Args:
        name: The variable.
        field: The field of the settings that it becomes.
        type: Its type, for people.
        default: The default, for people; if possible, a text that reads as the default.
        meaning: What it does, in a few words.
        expected: What a text looks like, as in "expected dev or prod".
        parse: Return the value of a text that is stripped and not empty; raise ValueError if there is none.
        secret: Whether its text must not be shown.
        show: Return its text without what is secret in it.

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
        """Return *text* as people may see it."""
        return MASK if self.secret else self.show(text)


def read_each(settings: Iterable[Setting], environ: Mapping[str, str]) -> tuple[dict[str, Any], list[ConfigError]]:
    """Return the values of the variables that are set, by field, and an error for each wrong one."""
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
