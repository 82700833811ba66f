"""What `just mutants` changes: every small change of a module that is still a valid program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
SAID = re.compile(r"(log|logger|print|warn|_log)\w*(\.\w+)?$|.*\.(debug|info|warning|error|critical|exception)$")


@attrs.frozen
class Mutant:
    """A change of a module.

    Args:
        line: The line, from 1.
        what: A description of the change.
        source: The source of the whole module, changed.
        lines: The lines of what is changed.
        around: The lines of the statement, without its body.
        inside: The lines of the function that it is in; empty if it is in none.

    """

    line: int
    what: str
    source: str
    lines: range
    around: range
    inside: range

    @property
    def key(self) -> str:
        """What it is called in the results."""
        return f"{self.line}: {self.what}"


@attrs.define
class Module:
    """A module and its source."""

    path: str
    text: str

    @classmethod
    def read(cls, path: Path, root: Path) -> Module:
        """Read the module at *path* from the tree at *root*."""
        return cls(path.relative_to(root).as_posix(), path.read_text())

    @property
    def has_mutants(self) -> bool:
        """Whether there is anything to change."""
        return next(changes(ast.parse(self.text)), None) is not None

    def line(self, mutant: Mutant) -> str:
        """Return the line that a mutant changes."""
        return self.text.splitlines()[mutant.line - 1].strip()

    def mutants(self) -> list[Mutant]:
        """Return all possible mutants that are still valid programs."""
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line.encode()))
        raw = self.text.encode()
        found: dict[tuple[int, str], Mutant] = {}
        tree = ast.parse(self.text)
        headers = [header(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        functions = [body(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node, text in changes(tree):
            if node.end_lineno is None or node.end_col_offset is None:
                continue
            begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            old = raw[begin:end].decode()
            ends = "\n" * (old.count("\n") - text.count("\n"))  # keeps the line numbers below
            new = f"({text}{ends})" if isinstance(node, ast.expr) and ends else f"{text}{ends}"
            source = (raw[:begin] + new.encode() + raw[end:]).decode()
            try:
                compile(source, self.path, "exec")
            except (SyntaxError, ValueError):
                continue
            what = f"{' '.join(old.split())[:90]}  ->  {' '.join(text.split())[:90]}"
            around = min((lines for lines in headers if node.lineno in lines), key=len)
            node_lines = range(node.lineno, node.end_lineno + 1)
            inside = min((lines for lines in functions if node.lineno in lines), key=len, default=range(0))
            found[node.lineno, what] = Mutant(node.lineno, what, source, node_lines, around, inside)
        return [found[key] for key in sorted(found)]


# -- the changes -------------------------------------------------------------------------------------------------


def header(node: ast.stmt) -> range:
    """Return the lines of a statement without its body."""
    body = getattr(node, "body", None)
    return range(node.lineno, max(body[0].lineno, node.lineno + 1) if body else (node.end_lineno or node.lineno) + 1)


def body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    """Return the lines of a function without its header."""
    return range(node.body[0].lineno, (node.end_lineno or 0) + 1)


def changes(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Yield each node that can be changed, with its replacement."""
    for node in walk(tree):
        if isinstance(node, ast.expr):
            yield from ((node, f"({text})") for text in of_expression(node))
        elif isinstance(node, ast.stmt):
            yield from ((node, text) for text in of_statement(node))
            if isinstance(node, ast.If | ast.While):
                yield from ((node.test, text) for text in ("True", "False") if text != ast.unparse(node.test))


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that affect execution, without those only for people or type checkers."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"} or isinstance(node, ast.JoinedStr):
            continue
        if name == "keywords" and is_zip(node):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST) and not is_said(child):
                yield from walk(child)


def is_said(node: ast.AST) -> bool:
    """Return whether a node is a docstring, an assertion, part of a type, or a log message.

    Whether an attrs field is a parameter (`init`) is left to type checkers as well.
    """
    if isinstance(node, ast.keyword):
        return node.arg == "init"
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return True
        if isinstance(node.value, ast.Call):
            return SAID.match(ast.unparse(node.value.func)) is not None
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


def is_default(keyword: ast.keyword) -> bool:
    """Return whether an argument is `check=False`, which is the default; linters want it to be written."""
    return ast.unparse(keyword) == "check=False"


def is_zip(node: ast.AST) -> bool:
    """Return whether a node is a call of `zip`: its ``strict`` is an assertion, or what holds anyway."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "zip"


def of_expression(node: ast.expr) -> Iterator[str]:  # noqa: C901, PLR0912  (a table, one row for each kind)
    """Yield the replacements of an expression."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARES:
            yield ast.unparse(ast.Compare(left, [COMPARES[type(op)]()], [right]))
        case ast.BoolOp(op=op, values=values):
            yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
            yield from (ast.unparse(value) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS and not is_type(node):
            yield ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse))
        case ast.Constant(value=bool() as value):
            yield repr(not value)
        case ast.Constant(value=int() | float() as value):
            yield repr(value + 1)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in NAMES:
            yield ast.unparse(ast.Call(ast.Name(NAMES[name]), args, keywords))
        case ast.Call(func=func, args=args, keywords=[_, *_] as keywords) if not is_zip(node):
            for left_out in [keyword for keyword in keywords if not (is_said(keyword) or is_default(keyword))]:
                yield ast.unparse(ast.Call(func, args, [keyword for keyword in keywords if keyword is not left_out]))
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            for place, generator in enumerate(node.generators):
                for condition in generator.ifs:
                    ifs = [kept for kept in generator.ifs if kept is not condition]
                    fewer = ast.comprehension(generator.target, generator.iter, ifs, generator.is_async)
                    generators = [*node.generators[:place], fewer, *node.generators[place + 1 :]]
                    yield ast.unparse(type(node)(node.elt, generators))


def is_type(node: ast.BinOp) -> bool:
    """Return whether it looks like `int | None`."""
    text = ast.unparse(node)
    return isinstance(node.op, ast.BitOr) and re.fullmatch(r"[\w.\[\], ]+( \| [\w.\[\], ]+)+", text) is not None


def of_statement(node: ast.stmt) -> Iterator[str]:
    """Yield the replacements of a statement."""
    match node:
        case ast.Return(value=ast.Constant(value=None | False)):
            pass  # `return None` would be as false
        case ast.Return(value=ast.expr()):
            yield "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
