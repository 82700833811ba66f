"""The imports of the kernel point one way: downwards from layer to layer, and in no cycle within one."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kernel

ROOT = Path(__file__).parents[1]
KERNEL = ROOT / "kernel"
MODULES = sorted(KERNEL.rglob("*.py"))
LAYERS = ROOT / "pyproject.toml"


def name_of(path: Path) -> str:
    """The module's full name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, package: str) -> set[str]:
    """What the file imports of *package*, at any depth, as full names of modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the import out, from {package}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == package}


def modules_of(names: set[str]) -> set[str]:
    """The modules of the kernel that hold the *names*."""
    known = {name_of(path) for path in MODULES}
    found = set()
    for name in names:
        while name not in known:
            name = name.rpartition(".")[0]  # noqa: PLW2901
        found.add(name)
    return found


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with this configuration."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-logo", "--no-cache", config], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_layers_hold() -> None:
    """No module imports from a layer above its own."""
    done = lint(LAYERS)
    assert done.returncode == 0, done.stdout


def test_swapped_layers_are_noticed(tmp_path: Path) -> None:
    """The contract looks at what is there: with two layers swapped it breaks."""
    text = LAYERS.read_text()
    swapped = text.replace('"lifecycle",\n    "declare | config",', '"declare | config",\n    "lifecycle",')
    assert swapped != text
    (tmp_path / "pyproject.toml").write_text(swapped)
    done = lint(tmp_path / "pyproject.toml")
    assert done.returncode == 1
    assert "kernel.lifecycle is not allowed to import" in done.stdout or "kernel.declare is not allowed" in done.stdout


def test_no_import_cycle() -> None:
    """The modules have an order, from the bottom to the top."""
    graph = {name_of(path): modules_of(imported(path, "kernel")) - {name_of(path)} for path in MODULES}
    assert len(graph) > 50
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "scripts" / "kernel").glob("*.py*"))], ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    """No module is longer than 450 lines."""
    assert len(path.read_text().splitlines()) <= 450


def stubs(path: Path) -> Iterator[str]:
    """The methods of protocols that give something, and whose body is a docstring alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef) or not any(
            ast.unparse(base).startswith("Protocol") for base in node.bases
        ):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.returns is not None:
                given = ast.unparse(method.returns) != "None"
                if given and len(method.body) == 1 and isinstance(method.body[0], ast.Expr):
                    value = method.body[0].value
                    if isinstance(value, ast.Constant) and value.value is not ...:
                        yield f"{path.relative_to(ROOT)}:{method.lineno} {method.name}"


@pytest.mark.parametrize("path", [KERNEL, ROOT / "services"], ids=lambda path: path.name)
def test_methods_of_protocols_have_a_body(path: Path) -> None:
    """For pyright, which most editors show, a docstring alone gives None; `...` below it stands for any body."""
    assert [stub for file in sorted(path.rglob("*.py")) for stub in stubs(file)] == []


def test_the_map_names_every_module() -> None:
    """The docstring of `kernel` is the map: it names each room, and each module in it."""
    assert kernel.__doc__ is not None
    told = set(re.findall(r"[a-z_]+", kernel.__doc__.partition("```")[2]))
    rooms = {path.parent.name for path in MODULES if path.name == "__init__.py"} - {"kernel"}
    modules = {path.stem for path in MODULES} - {"__init__"}
    assert rooms | modules <= told, f"missing from the map in kernel/__init__.py: {sorted((rooms | modules) - told)}"


@pytest.mark.parametrize("path", sorted((ROOT / "services").rglob("*.py")), ids=lambda path: path.stem)
def test_services_import_only_what_is_public(path: Path) -> None:
    """A service imports from `kernel`, not from its modules."""
    public = {f"kernel.{name}" for name in kernel.__all__}
    assert imported(path, "kernel") <= public


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_kernel_imports_no_code_of_the_user(path: Path) -> None:
    """`services/` and `app/` are found at run time, never imported by name."""
    assert not imported(path, "services")
    assert not imported(path, "app")
