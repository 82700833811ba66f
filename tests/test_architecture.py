"""The imports of the kernel point one way, and this table is their only description."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNEL = ROOT / "kernel"

# Each module with those that it may import, those at the bottom first. Imports within functions count too.
MAY_IMPORT = {
    # What is said and shown
    "errors": "",
    "context": "",
    "lifecycle": "",
    "traces": "",
    # Pure: no tasks, no loop
    "policy": "",
    "values": "",
    "graph": "errors",
    "otel": "errors",
    "settings": "errors otel traces values",
    "spec": "errors policy traces",
    "unit": "spec",
    # One service, then all of them
    "clock": "",
    "serving": "",
    "tasks": "",
    "supervisor": "clock context errors lifecycle serving spec tasks traces",
    "waiting": "errors lifecycle supervisor",
    "report": "errors lifecycle",
    "orchestrator": "clock graph lifecycle report spec supervisor tasks unit waiting",
    # What there is to run
    "discovery": "errors spec traces",
    "registry": "errors graph settings spec unit",
    "plan": "discovery errors registry spec unit",
    "drawing": "graph spec",
    "check": "discovery errors graph orchestrator plan registry spec traces",
    # The process around it
    "backend": "",
    "watch": "backend",
    "debugger": "",
    "identity": "",
    "lastresort": "",
    "signals": "lastresort",
    "logs": "context errors identity settings traces",
    "journal": "errors lifecycle logs report",
    # What the outside world sees
    "stats": "lifecycle",
    "shares": "context",
    "status": "errors identity lifecycle orchestrator stats supervisor waiting",
    "resources": "errors identity logs",
    "tracing": "context",
    "spans": "errors lifecycle resources tracing",
    "metrics": "lifecycle status",
    "prometheus": "resources",
    "telemetry": "identity logs otel resources tracing",
    "systemd": "lifecycle",
    "admin": "errors logs policy settings spec status",
    "outside": "admin identity lifecycle logs metrics orchestrator prometheus report resources settings shares spans "
    "status systemd telemetry unit watch",
    "runner": "backend debugger journal lifecycle logs orchestrator outside report settings signals spec supervisor "
    "traces unit watch",
    "alone": "backend errors logs settings signals",
    "cli": "alone check discovery drawing errors identity logs outside plan runner settings spec traces",
    # What users import
    "__init__": "errors policy spec values",
    "virtual": "",
    "faults": "errors spec",
    "testing": "errors faults lifecycle orchestrator registry report serving spec virtual",
}


def imported(path: Path, package: str) -> set[str]:
    """The modules of *package* that the file imports, at any depth; the package itself is its `__init__`."""
    modules = {one.stem for one in (ROOT / package).glob("*.py")}
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the import out, from {package}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found: set[str] = set()
    for first, *rest in (name.split(".") for name in names):
        if first == package:
            found.add(rest[0] if rest and rest[0] in modules else "__init__")
    return found


@pytest.mark.parametrize("path", sorted(KERNEL.glob("*.py")), ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    """A module imports only what the table allows it to."""
    assert path.stem in MAY_IMPORT, (
        f"kernel/{path.name} is new: give it a line in MAY_IMPORT, at its place from the bottom to the top,"
        f" with what it imports now: {path.stem!r}: {' '.join(sorted(imported(path, 'kernel')))!r}"
    )
    beyond = imported(path, "kernel") - set(MAY_IMPORT[path.stem].split())
    assert not beyond, (
        f"kernel/{path.name} imports {', '.join(sorted(beyond))}, which MAY_IMPORT does not allow:"
        " move what it needs down, or say in the table why the arrow is right"
    )


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_the_table_allows_no_more_than_is_used(module: str) -> None:
    """A line of the table tells what is, not what once was."""
    path = KERNEL / f"{module}.py"
    assert path.exists(), f"kernel/{module}.py is gone: take its line out of MAY_IMPORT"
    unused = set(MAY_IMPORT[module].split()) - imported(path, "kernel")
    assert not unused, f"kernel/{module}.py no longer imports {', '.join(sorted(unused))}: take it out of MAY_IMPORT"


def test_the_table_has_no_cycle() -> None:
    """One way means that there is an order from the bottom to the top; it is the table's own."""
    table = {module: set(others.split()) for module, others in MAY_IMPORT.items()}
    graphlib.TopologicalSorter(table).prepare()
    seen: set[str] = set()
    for module, others in table.items():
        assert others <= seen, f"{module} stands in the table before {', '.join(sorted(others - seen))}"
        seen.add(module)


@pytest.mark.parametrize("path", sorted((ROOT / "services").rglob("*.py")), ids=lambda path: path.stem)
def test_services_import_only_what_is_public(path: Path) -> None:
    """A service imports from `kernel`, not from its modules."""
    assert imported(path, "kernel") <= {"__init__"}


@pytest.mark.parametrize("path", sorted(KERNEL.glob("*.py")), ids=lambda path: path.stem)
def test_the_kernel_imports_no_code_of_the_user(path: Path) -> None:
    """`services/` and `app/` are found at run time, never imported by name."""
    assert not imported(path, "services")
    assert not imported(path, "app")
