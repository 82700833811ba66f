"""Write docs/reference.md: every public name, with its signature and its docstring.

    .venv/bin/python scripts/template/make_reference.py

A public name or method without a docstring is an error, since the reference would be incomplete.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a script has its own folder on the path
    sys.path.insert(0, str(ROOT))

import kernel  # noqa: E402  (found by the line above)
import kernel.errors  # noqa: E402
import kernel.events  # noqa: E402
import kernel.testing  # noqa: E402

PAGE = ROOT / "docs" / "reference.md"
HEAD = """\
# Reference

Every public name, with its docstring. The template's `make_reference.py` writes this page, and a test compares it.

- `kernel`: for `services/`, `app/init.py` and `app/commands.py`.
- `kernel.events`: the events that an `@observer` receives.
- `kernel.testing`: the test kit, a pytest plugin.
- `kernel.errors`: the exceptions that the kernel raises.

Seconds are floats unless stated otherwise. Names that are not listed here are internal, and may change.
"""
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
ERRORS = [
    name
    for name, value in vars(kernel.errors).items()
    if inspect.isclass(value) and issubclass(value, kernel.errors.KernelError)
]


def docstring(name: str, value: object) -> str:
    """Return the docstring of *value* as Markdown."""
    text = inspect.getdoc(value)
    if not text:
        raise ValueError(f"{name} has no docstring")
    return "\n\n".join(_sections(text))


def _sections(text: str) -> Iterator[str]:
    """Yield the sections of a docstring in Google's style, with arguments as Markdown lists."""
    for part in re.split(r"\n\n(?=\S)", text):
        head, _, rest = part.partition(":\n")
        if head in SECTIONS:
            yield f"{head}:\n\n{''.join(_items(textwrap.dedent(rest)))}".rstrip()
        else:
            yield part.replace("``", "`").rstrip()


def _items(text: str) -> Iterator[str]:
    for item in re.split(r"\n(?=\S)", text):
        name, _, what = item.partition(":")
        yield f"- `{name}`: {' '.join(what.split())}\n".replace("``", "`")


def signature(name: str, value: Any) -> str:
    """Return the signature of *value*: its parameters and its return type."""
    try:
        shown = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", shown)  # unquote annotations
    shown = re.sub(r"kernel\.[a-z_]+\.[a-z_]+\.|typing\.|collections\.abc\.|~", "", shown)
    return f"{name}{shown}"


def public(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that *cls* itself defines."""
    for name, value in vars(cls).items():
        if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        yield name, value


def is_made_by_us(cls: type) -> bool:
    """Return whether users only receive instances of *cls*: a parameter of its constructor is private."""
    return any(name.startswith("_") for name in inspect.signature(cls).parameters)


def entry(name: str, value: Any) -> Iterator[str]:
    """Yield the lines about a name."""
    yield f"### {name}\n"
    if inspect.isclass(value):
        bare = issubclass(value, BaseException | enum.Enum) and not attrs.has(value)
        ours = bare or getattr(value, "_is_protocol", False) or is_made_by_us(value)
        called = "" if ours else signature(name, value)
    else:
        called = signature(name, value)
    if called:
        yield f"```python\n{called.removesuffix(' -> None') if inspect.isclass(value) else called}\n```\n"
    yield f"{docstring(name, value)}\n"
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        yield f"Members: {', '.join(f'`{member.name}`' for member in value)}.\n"
    elif inspect.isclass(value) and not issubclass(value, BaseException):
        for method, part in public(value):
            shown = f"`{method}`" if isinstance(part, property) else f"`{signature(method, part)}`"
            shown = re.sub(r"\(self(, )?", "(", shown)
            text = docstring(f"{name}.{method}", part.fget if isinstance(part, property) else part)
            yield f"**{shown}**\n\n{text}\n"


def is_plain(value: object) -> bool:
    """Return whether *value* is a constant or an alias, which has no docstring of its own."""
    return not (inspect.isclass(value) or callable(value)) or not inspect.getdoc(value)


def write() -> str:
    """Return the page."""
    parts = [HEAD]
    for module, names in (
        (kernel, kernel.__all__),
        (kernel.events, kernel.events.__all__),
        (kernel.testing, kernel.testing.__all__),
        (kernel.errors, ERRORS),
    ):
        parts.append(f"## {module.__name__}\n")
        for name in names:
            value = getattr(module, name)
            home = next(
                (public for public in (kernel, kernel.events) if public is not module and name in public.__all__), None
            )
            if home is not None and module is not kernel:
                continue  # it has its entry there
            if name in NOTES:
                parts += [f"### {name}\n", f"{NOTES[name]}\n"]
            else:
                parts += entry(name, value)
    return "\n".join(parts)


NOTES = {
    "Seconds": "`float` of seconds for a config's field: read from `10s`, `1m30s`, `500ms`, or a number of seconds.",
    "Event": "Any of the events below.",
    "BACKENDS": 'The names of the backends that a test runs on: `"asyncio"` and `"trio"`.',
    "Phase": '`"start"`, `"work"` or `"clean-up"`: where `faulty` puts the fault.',
    "Fault": "What `faulty` can inject: an exception, `Hang`, `Slow`, or `CancelledWithin`.",
}


if __name__ == "__main__":
    PAGE.write_text(write())
