"""Which names a service may have."""

from __future__ import annotations

import pytest

from kernel.plan.discovery import ServiceFile, _refuse_name


@pytest.mark.parametrize("name", ["admin", "kernel", "log", "otel", "runner", "services", "env"])
def test_a_name_that_means_something_else_is_reserved(name: str) -> None:
    """Its variables, or its records, would be taken for those of the kernel."""
    file = ServiceFile(name, f"services.{name}", f"services/{name}.py", None, str)  # type: ignore[arg-type]
    assert f"the name {name!r} is reserved" in str(_refuse_name(file, [name], ()))
