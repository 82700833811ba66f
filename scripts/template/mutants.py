"""`just mutants`: break the code on purpose, one small change at a time, and check whether the tests notice.

    just mutants MODULE=kernel/lifecycle/graph.py N=20      some mutants of one module
    just mutants MODULE='kernel/plan/*' N=20 SEED=2         others, of each module of a room
    just mutants ROOM=1                                     against the tests of the module's own room only
    just mutants DEEP=1                                     mutants that no test has noticed so far, with the real
    program
    just mutants DEEP=1 TESTS=tests/conformance/test_life.py     or only against some of the tests that start it

Each mutant is created in a copy of the tree. First the module's own tests run, then those of its room, then those of
the
other rooms; with DEEP=1 also tests that start programs. The first test that fails decides. Results are kept in
`.mutants`, so that an interrupted run continues; a changed module starts over. Strings for people and annotations are
not mutated.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / ".mutants"
OPTIONS = {"MODULE": "kernel/*", "N": "20", "SEED": "1", "ROOM": "0", "DEEP": "0", "TESTS": ""}
USE = "use: just mutants [MODULE=kernel/plan/check.py] [N=20] [SEED=1] [ROOM=1] [DEEP=1] [TESTS=path,path]"
PROGRAMS = ("conformance", "docs", "examples", "scripts", "services")  # folders of tests that start programs
LIMIT = 4.0  # times the duration of the tests without a mutant, plus a minute
IGNORED = (".venv", ".git", ".mutants", ".bench", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", "build")

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

    """

    line: int
    what: str
    source: str


@attrs.define
class Module:
    """A module and its source."""

    path: str
    text: str

    @classmethod
    def read(cls, path: Path) -> Module:
        """Read the module from the tree."""
        return cls(path.relative_to(ROOT).as_posix(), path.read_text())

    def mutants(self) -> list[Mutant]:
        """Return all possible mutants that are still valid programs."""
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line.encode()))
        raw = self.text.encode()
        found: dict[tuple[int, str], Mutant] = {}
        for node, text in changes(ast.parse(self.text)):
            if node.end_lineno is None or node.end_col_offset is None:
                continue
            begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            old = raw[begin:end].decode()
            lines = "\n" * (old.count("\n") - text.count("\n"))  # keeps the line numbers below
            new = f"({text}{lines})" if isinstance(node, ast.expr) and lines else f"{text}{lines}"
            source = (raw[:begin] + new.encode() + raw[end:]).decode()
            try:
                compile(source, self.path, "exec")
            except (SyntaxError, ValueError):
                continue
            what = f"{' '.join(old.split())[:90]}  ->  {' '.join(text.split())[:90]}"
            found[node.lineno, what] = Mutant(node.lineno, what, source)
        return [found[key] for key in sorted(found)]

    @property
    def digest(self) -> str:
        """Return a hash of the source."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


# -- the changes -------------------------------------------------------------------------------------------------


def changes(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Yield each node that can be changed, with its replacement."""
    for node in walk(tree):
        if isinstance(node, ast.expr):
            yield from ((node, f"({text})") for text in of_expression(node))
        elif isinstance(node, ast.stmt):
            yield from ((node, text) for text in of_statement(node))
            if isinstance(node, ast.If | ast.While):
                yield from ((node.test, str(value)) for value in (True, False))


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that affect execution, without those only for people or type checkers."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"} or isinstance(node, ast.JoinedStr):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST) and not is_said(child):
                yield from walk(child)


def is_said(node: ast.AST) -> bool:
    """Return whether a node is a docstring, an assertion, part of a type, or a log message."""
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return True
        if isinstance(node.value, ast.Call):
            return SAID.match(ast.unparse(node.value.func)) is not None
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


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
        case ast.Call(func=func, args=args, keywords=[_, *_] as keywords):
            for left_out in keywords:
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
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"


# -- the tests ---------------------------------------------------------------------------------------------------


def stages(path: str, *, deep: bool, programs: str = "") -> list[list[str]]:
    """Return the tests to run for a mutant of the module at *path*, the most specific first."""
    tests = ROOT / "tests"
    name, room = Path(path).stem, tests / Path(path).parent.name
    if path.startswith("scripts/"):
        room = tests / "scripts"
    own = [*tests.glob(f"test_{name}*.py"), *room.glob(f"test_{name}*.py")]
    folders = [folder for folder in tests.glob("[a-z]*/") if folder.name not in PROGRAMS]
    others = [*folders, *tests.glob("test_*.py")]
    found = [own, [room] if room.is_dir() else [], others]
    if deep and programs:
        found.append([ROOT / test for test in programs.split(",")])
    elif deep or path.startswith("scripts/"):
        found.append([tests / folder for folder in PROGRAMS if (tests / folder).is_dir()])
    met: set[Path] = set()
    result = []
    for stage in found:
        files = {file for path in stage for file in (path.rglob("test_*.py") if path.is_dir() else [path])}
        if files - met:
            again = [f"--ignore={file.relative_to(ROOT).as_posix()}" for file in sorted(files & met)]
            result.append([path.relative_to(ROOT).as_posix() for path in sorted(stage)] + again)
        met |= files
    return result


class Copy:
    """A copy of the tree, in which mutants are tested.

    Args:
        folder: The folder for the copy.

    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        shutil.copytree(ROOT, self.root, symlinks=True, ignore=shutil.ignore_patterns(*IGNORED))
        (self.root / ".venv").symlink_to(ROOT / ".venv")
        self._seconds: dict[tuple[str, ...], float] = {}
        words = ["git", "init", "-q"], ["git", "add", "-A"]  # tests clone the tracked files
        for command in words:
            subprocess.run(command, cwd=self.root, check=True)

    def noticed(self, tests: Sequence[str]) -> str:
        """Run *tests*, and return the first that fails; empty if none does.

        Raises:
            SystemExit: The tests fail without a mutant.

        """
        limit = LIMIT * self._seconds[tuple(tests)] + 60
        words = ["-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider", "--artifact=tree"]
        command = [sys.executable, "-m", "pytest", *words, *tests]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=self.root, env=env, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return "it took too long"
        if done.returncode in {0, 5}:
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else (done.stdout + done.stderr).strip().splitlines()[-1]

    def settle(self, tests: Sequence[str]) -> None:
        """Check that *tests* pass without a mutant, and measure how long they take."""
        if tuple(tests) in self._seconds:
            return
        self._seconds[tuple(tests)] = 600.0
        began = time.monotonic()
        if failed := self.noticed(tests):
            sys.exit(f"just mutants: {failed} fails without any mutant; fix that first")
        self._seconds[tuple(tests)] = time.monotonic() - began

    def try_out(self, module: Module, mutant: Mutant, tests: Sequence[Sequence[str]]) -> str:
        """Return the test that noticed the mutant; empty if none did."""
        file = self.root / module.path
        for stage in tests:
            self.settle(stage)
            file.write_text(mutant.source)
            try:
                if noticed := self.noticed(stage):
                    return noticed
            finally:
                file.write_text(module.text)
        return ""


# -- what became of them -----------------------------------------------------------------------------------------


def known(path: Path, module: Module) -> dict[str, Any]:
    """Read the results for a module; they are dropped if it has changed."""
    if path.exists():
        told: dict[str, Any] = json.loads(path.read_text())
        if told["digest"] == module.digest:
            return told
    return {"module": module.path, "digest": module.digest, "mutants": {}}


def run(module: Module, options: Mapping[str, str], copy: Copy) -> tuple[int, int]:
    """Test some mutants of a module. Return how many were tested, and how many survived."""
    deep = options["DEEP"] == "1"
    everyone = module.mutants()
    chosen = random.Random(f"{options['SEED']} {module.path}").sample(  # noqa: S311  (not for security)
        everyone, min(int(options["N"]), len(everyone))
    )
    room = options["ROOM"] == "1" and not deep
    path = RESULTS / f"{module.path.replace('/', '.')}-{options['SEED']}{'-room' if room else ''}.json"
    told = known(path, module)
    tests = stages(module.path, deep=deep, programs=options["TESTS"])
    if room:
        tests = tests[:2]
    for mutant in chosen:
        key = f"{mutant.line}: {mutant.what}"
        before = told["mutants"].get(key)
        if before is None or (deep and not before["noticed"] and not before["deep"]):
            noticed = copy.try_out(module, mutant, tests if before is None else tests[-1:])
            told["mutants"][key] = {"noticed": noticed, "deep": deep}
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps(told, indent=1))
            print(f"{'noticed' if noticed else 'LIVES  '} {module.path}:{key}", flush=True)
    lives = [
        key for key in (f"{mutant.line}: {mutant.what}" for mutant in chosen) if not told["mutants"][key]["noticed"]
    ]
    print(f"{module.path}: {len(chosen) - len(lives)} of {len(chosen)} noticed; {len(everyone)} exist")
    return len(chosen), len(lives)


def main(words: Sequence[str]) -> int:
    """Run the command line, and return the exit code: 1 if a mutant survives."""
    if not {"--help", "-h"}.isdisjoint(words):
        print(USE.replace("use:", "Usage:", 1))
        return 0
    options = dict(OPTIONS)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in OPTIONS or (key in {"N", "SEED", "ROOM", "DEEP"} and not value.isdecimal()):
            print(f"just mutants: {word!r} is not understood; {USE}", file=sys.stderr)
            return 2
        options[key] = value
    pattern = options["MODULE"].removesuffix("/")
    paths = [path for path in sorted(ROOT.glob(pattern)) if path.suffix == ".py" or path.is_dir()]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    modules = [module for module in map(Module.read, files) if module.mutants()]
    if not modules:
        print(f"just mutants: MODULE={pattern} is not a module that can be changed; {USE}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        counts = [run(module, options, copy) for module in modules]
    tried, lives = map(sum, zip(*counts, strict=True))
    print(f"{tried - lives} of {tried} noticed: {100 * (tried - lives) / tried:.1f} %")
    return 1 if lives else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
