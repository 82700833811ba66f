"""Find dangerous lines of Python, with ruff's S rules and our own rules.

Our rules cover ways of anyio and asyncio to start a program, modules and code that are chosen at run time, and SQL that
is put together from strings. A bare `# noqa` is no excuse; `# noqa: S602` is, since somebody has looked at that rule.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bootstrap import VENV
from kernel_files import owners
from recipe import ROOT, project_files

OURS = ("scripts/", "tests/", "kernel/")  # where programs chosen at run time are expected
SHELLS = {"asyncio.create_subprocess_shell", "asyncio.subprocess.create_subprocess_shell"}
SHELL_METHODS = {"subprocess_shell"}
STRING_IS_SHELL = {"anyio.run_process", "anyio.open_process", "trio.run_process", "trio.lowlevel.open_process"}
PROGRAMS = {"asyncio.create_subprocess_exec", "asyncio.subprocess.create_subprocess_exec", *STRING_IS_SHELL}
PROGRAM_METHODS = {"subprocess_exec"}
NAMED = {
    **dict.fromkeys(("importlib.import_module", "__import__", "importlib.reload"), "imports a module"),
    **dict.fromkeys(("runpy.run_path", "runpy.run_module"), "runs a module"),
    **dict.fromkeys(("ctypes.CDLL", "ctypes.cdll.LoadLibrary", "ctypes.PyDLL"), "loads a library"),
    **dict.fromkeys(("logging.config.listen", "code.interact", "code.InteractiveConsole"), "runs what it is told"),
}
QUERIES = {"execute", "executemany", "executescript", "exec_driver_sql", "fetch", "fetchrow", "fetchval", "copy_expert"}
SQL = re.compile(r"(?is)^\s*(select|insert|update|delete|drop|create|alter|with|merge|replace|truncate|call|exec)\s")
EXCUSED = re.compile(r"#\s*noqa:\s*([A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)", re.IGNORECASE)


class Danger(NamedTuple):
    """A line of code, and why it is dangerous."""

    path: str
    line: int
    rule: str
    text: str


class NotLooked(Exception):
    """Raised if ruff fails; the message says why."""


def dangers(ignored: Sequence[str]) -> tuple[list[Danger], list[Danger]]:
    """Return the dangers found, and those that a comment on the line excuses.

    Args:
        ignored: Rules that the project's settings disable everywhere.

    Raises:
        NotLooked: The check could not run.

    """
    paths = [path for path in project_files() if path.endswith(".py") and (ROOT / path).is_file()]
    whose = owners(ROOT, paths)
    lines = {path: (ROOT / path).read_text(errors="replace").splitlines() for path in paths}
    found = {*_by_ruff([rule for rule in ignored if rule != "S603"])}
    for path in paths:
        found |= {*inspect(path, "\n".join(lines[path]))}
    kept: list[Danger] = []
    excused: list[Danger] = []
    for danger in sorted(found):
        is_news = danger.rule not in {"S603", "program", "module"} or not (
            danger.path.startswith(OURS) or whose.get(danger.path) == "framework"
        )
        line = lines.get(danger.path, [])[danger.line - 1 : danger.line]
        said = EXCUSED.search(line[0]) if line else None
        rules = {rule.upper() for rule in re.split(r"[\s,]+", said[1])} if said else set()
        if danger.rule in rules or any(danger.rule.startswith(rule) for rule in rules):
            excused.append(danger)
        elif is_news:
            kept.append(danger)
    return kept, excused


def _by_ruff(ignored: Sequence[str]) -> Iterator[Danger]:
    command = [
        str(VENV / "bin" / "ruff"),
        "check",
        "--output-format=json",
        "--exit-zero",
        "--ignore-noqa",
        "--select=S",
    ]
    done = subprocess.run(
        [*command, *(f"--ignore={code}" for code in ignored)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotLooked(f"ruff fails ({done.stderr.strip().splitlines()[-1]})")
    for found in json.loads(done.stdout):
        if re.fullmatch(r"S\d+", found["code"] or ""):
            path = Path(found["filename"]).relative_to(ROOT).as_posix()
            yield Danger(path, found["location"]["row"], found["code"], found["message"])


def inspect(path: str, source: str) -> Iterator[Danger]:
    """Yield the dangers in the *source* of a file that ruff's rules do not cover; nothing if it is not valid Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    names = _imported(tree)
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            values = {**_assigned(tree), **_assigned(scope)}
            for node in _within(scope):
                if isinstance(node, ast.Call):
                    for rule, text in _judge(node, _name(node.func, names), values):
                        yield Danger(path, node.lineno, rule, text)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name refers to."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _name(node: ast.expr, names: Mapping[str, str]) -> str:
    """Return the dotted name of a called function, as imported; for a method of a value, the first part is empty."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value, names)}.{node.attr}"
    return ""


def _within(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, without those of nested functions."""
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _within(node)
        else:
            yield from (child for decorator in node.decorator_list for child in ast.walk(decorator))


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Return the values assigned to each name in a scope."""
    values: dict[str, list[ast.expr]] = {}
    for node in _within(scope):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and (value := getattr(node, "value", None)) is not None:
                made = ast.BinOp(ast.Constant(""), ast.Add(), value) if isinstance(node, ast.AugAssign) else value
                values.setdefault(target.id, []).append(made)
    return values


def _judge(call: ast.Call, name: str, values: Mapping[str, list[ast.expr]]) -> Iterator[tuple[str, str]]:
    method = name.rpartition(".")[2]
    first = _first(call)
    if name in SHELLS or method in SHELL_METHODS:
        yield "shell", "passes a command to a shell; use create_subprocess_exec, or give anyio.run_process a list"
    elif name in STRING_IS_SHELL and first is not None and not _is_list(first, values):
        yield "shell", f"{method} passes a string to a shell; pass a list of words"
    elif name in PROGRAMS or method in PROGRAM_METHODS:
        program = first.elts[0] if isinstance(first, ast.List | ast.Tuple) and first.elts else first
        if program is not None and not _is_fixed(program, values):
            yield "program", "starts a program chosen at run time; make sure that nobody else can choose it"
    if name in NAMED and not (first is not None and _is_fixed(first, values)):
        yield "module", f"{NAMED[name]} chosen at run time; make sure that nobody else can choose it"
    if method in QUERIES and first is not None and _is_made(first, values):
        yield "sql", "builds a query from strings; pass the values as parameters"


def _first(call: ast.Call) -> ast.expr | None:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    found = call.args[0] if call.args else named.get("command", named.get("program", named.get("name")))
    return found.value if isinstance(found, ast.Starred) else found


def _is_list(node: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether the value is certainly a list of words."""
    if isinstance(node, ast.Name) and node.id in values:
        return all(_is_list(value, {}) for value in values[node.id])
    if isinstance(node, ast.BinOp):
        return _is_list(node.left, values) or _is_list(node.right, values)
    is_made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"list", "tuple"}
    is_split = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split"
    return isinstance(node, ast.List | ast.Tuple | ast.ListComp) or is_made or is_split


def _is_fixed(node: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether the value is a constant."""
    if isinstance(node, ast.Name) and node.id in values:
        return all(_is_fixed(value, {}) for value in values[node.id])
    if isinstance(node, ast.List | ast.Tuple):
        return bool(node.elts) and _is_fixed(node.elts[0], values)
    return isinstance(node, ast.Constant) or ast.unparse(node) == "sys.executable"


def _is_made(node: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether the value is a string that is built from other values."""
    if isinstance(node, ast.Name) and node.id in values:
        made = values[node.id]
        texts = [part.value for value in made for part in ast.walk(value) if isinstance(part, ast.Constant)]
        return any(_is_made(value, {}) for value in made) and any(SQL.match(str(text)) for text in texts)
    if isinstance(node, ast.Call):
        is_format = isinstance(node.func, ast.Attribute) and node.func.attr in {
            "format",
            "format_map",
            "join",
            "replace",
        }
        is_text = ast.unparse(node.func).rpartition(".")[2] in {"text", "SQL"} and bool(node.args)
        return is_format or (is_text and _is_made(node.args[0], values))
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        return not (_is_fixed(node.left, values) and _is_fixed(node.right, values)) or _is_made(node.left, values)
    return False
