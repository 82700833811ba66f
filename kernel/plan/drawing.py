"""Draw the dependency graph, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from kernel.declare.service import Service
from kernel.declare.signature import Edge
from kernel.lifecycle.graph import topological
from kernel.plan.registry import taken_interface

Services = Mapping[str, Service[..., Any]]


def draw(services: Services, style: Literal["text", "mermaid", "dot", "json"]) -> str:
    """Draw the dependency graph of *services* in *style*. Dependencies outside of *services* are marked.

    Raises:
        CycleError: There is a dependency cycle.

    """
    order = topological({name: [edge.target for edge in service.needs.edges] for name, service in services.items()})
    return {"text": _text, "mermaid": _mermaid, "dot": _dot, "json": _json}[style](
        {name: services[name] for name in order}
    )


def _kind(edge: Edge) -> str:
    if edge.kind == "started":
        return "started"
    return "value" if edge.parameter else "order"


def _text(services: Services) -> str:
    width = max(len(name) for name in services)
    lines = []
    for name, service in services.items():
        marks = [
            mark for mark, given in (("one-shot", service.oneshot), ("may fail", service.allowed_failure)) if given
        ]
        edges = [
            edge.target
            + {"value": "", "order": " (order)", "started": " (started)"}[_kind(edge)]
            + (f" ({interface})" if (interface := taken_interface(service, edge)) else "")
            + ("" if edge.target in services else " (left out)")
            for edge in service.needs.edges
        ]
        after = f"<- {', '.join(edges)}" if edges else ""
        note = f"[{', '.join(marks)}]" if marks else ""
        lines.append("  ".join(part for part in (f"{name:<{width}}", after, note) if part).rstrip())
    if apart := told_apart(services):
        lines += ["", apart]
    return "\n".join(lines)


def told_apart(services: Services) -> str:
    """Say which of *services* can run in different processes; an empty string if none can."""
    groups = apart(services)
    if not any(taken_interface(service, edge) for service in services.values() for edge in service.needs.edges):
        return ""
    return f"can run apart: {' | '.join(', '.join(group) for group in groups)}"


def apart(services: Services) -> list[list[str]]:
    """Group *services* by process: those that pass each other values other than interfaces must share one."""
    group_of = {name: [name] for name in services}
    for name, service in services.items():
        for edge in service.needs.edges:
            mine, theirs = group_of[name], group_of.get(edge.target)
            if not edge.parameter or theirs is None or theirs is mine or taken_interface(service, edge):
                continue
            theirs += mine
            group_of |= dict.fromkeys(mine, theirs)
    return list({id(group): group for group in group_of.values()}.values())


def _mermaid(services: Services) -> str:
    lines = ["graph LR"]
    lines += [f"    {name}[{name}]" for name in services]
    for name, service in services.items():
        for edge in service.needs.edges:
            interface = taken_interface(service, edge)
            value = f"-- {interface} -->" if interface else "-->"
            arrow = {"value": value, "order": "-.->", "started": "-. started .->"}[_kind(edge)]
            lines.append(f"    {edge.target} {arrow} {name}")
    return "\n".join(lines)


def _dot(services: Services) -> str:
    lines = ["digraph services {", "    rankdir=LR;"]
    lines += [
        f'    "{name}"{" [style=dashed]" if service.allowed_failure else ""};' for name, service in services.items()
    ]
    for name, service in services.items():
        for edge in service.needs.edges:
            style = {"value": "solid", "order": "dashed", "started": "dotted"}[_kind(edge)]
            label = f', label="{interface}"' if (interface := taken_interface(service, edge)) else ""
            lines.append(f'    "{edge.target}" -> "{name}" [style={style}{label}];')
    return "\n".join([*lines, "}"])


def _json(services: Services) -> str:
    import json

    return json.dumps(
        {
            name: {
                "depends": {edge.target: _kind(edge) for edge in service.needs.edges},
                "interfaces": {
                    edge.target: interface
                    for edge in service.needs.edges
                    if (interface := taken_interface(service, edge))
                },
                "optional": [edge.target for edge in service.needs.edges if edge.optional],
                "oneshot": service.oneshot,
                "allowed_failure": service.allowed_failure,
                "retries": service.retry.times,
                "start_timeout": service.start_timeout,
                "stop_timeout": service.stop_timeout,
            }
            for name, service in services.items()
        },
        indent=2,
    )
