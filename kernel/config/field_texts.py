"""Read the descriptions of a config's fields from docstrings and comments in the source."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence

from kernel.config.schema import source_of


def text_of_field(owner: type, field: str, variable: str = "") -> str:
    """Return the description of a field in one line; empty if there is no description or no source.

    The first of these counts: the docstring below the field, the comment behind it, the comment above it, and the entry
    in the class's docstring under ``Args:`` or ``Attributes:``.

    Args:
        owner: The class whose body declares the field.
        field: The name of the field.
        variable: The variable of the field; a comment that is only this name is ignored.

    """
    documented = _documented(owner)
    for found in (*_in_body(owner).get(field, ()), documented.get(field, documented.get(field.lstrip("_"), ""))):
        if text := _without_name(found, variable):
            return text
    return ""


def _without_name(text: str, variable: str) -> str:
    """Return *text* in one line, without the name of the variable at its beginning."""
    line = " ".join(text.split())
    if re.match(rf"{re.escape(variable)}\b", line):
        line = line[len(variable) :].lstrip(" ,:;.-")
    return line


@functools.cache
def _in_body(cls: type) -> dict[str, tuple[str, str, str]]:
    """Return, for each field declared in the class, its docstring, the comment behind it and the comment above it."""
    lines, _, _ = source_of(cls)
    source = textwrap.dedent("".join(lines))
    try:
        (tree,) = ast.parse(source).body
        comments = dict(_comments(source))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return {}
    if not isinstance(tree, ast.ClassDef):
        return {}
    alone = {number for number in comments if source.splitlines()[number - 1].lstrip().startswith("#")}
    found: dict[str, tuple[str, str, str]] = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        for name in _names(node):
            behind = [comments.get(number, "") for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)]
            above = _above(node.lineno, comments, alone)
            found[name] = (_docstring(after), " ".join(comment for comment in behind if comment), above)
    return found


def _names(node: ast.stmt) -> Sequence[str]:
    """Return the names of the fields that a statement in a class's body declares."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return (node.target.id,)
    if isinstance(node, ast.Assign):
        return tuple(target.id for target in node.targets if isinstance(target, ast.Name))
    return ()


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value).partition("\n\n")[0]
    return ""


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Return the comments by line, except those for tools."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = re.split(r"\s*#\s*(?:noqa|type:|pragma|pyright:|mypy:|fmt:)", token.string)[0].lstrip("#: ").strip()
            if re.search(r"\w", text):
                yield token.start[0], text


def _above(line: int, comments: dict[int, str], alone: set[int]) -> str:
    """Return the comment directly above *line*, which may span several lines."""
    found: list[str] = []
    while (line := line - 1) in alone:
        found.append(comments[line])
    return " ".join(reversed(found))


_SECTION = re.compile(r"(Args|Arguments|Attributes|Parameters):\s*$")
_ENTRY = re.compile(r"(\s+)\*{0,2}(\w+)(?:\s*\([^)]*\))?\s*:\s+(.*)")


@functools.cache
def _documented(cls: type) -> dict[str, str]:
    """Return the descriptions of fields in the class's docstring, which is in Google's style."""
    found: dict[str, str] = {}
    inside, indent, name = False, "", ""
    for line in (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").splitlines():
        entry = _ENTRY.match(line)
        if not line.startswith((" ", "\t")):
            inside, indent, name = (bool(_SECTION.match(line)) if line else inside), "", name if not line else ""
        elif inside and entry and entry[1] == (indent or entry[1]):
            indent, name = entry[1], entry[2]
            found[name] = entry[3]
        elif inside and name:
            found[name] += f" {line.strip()}"
    return found
