"""Whether the services fit together."""

from __future__ import annotations

import pytest

from kernel.declare.service import service
from kernel.plan.registry import Registry
from tests.lifecycle.parts import AnyService


@pytest.mark.parametrize("oneshot", [True, False])
def test_a_value_from_a_service_without_serving_is_refused(oneshot: bool) -> None:
    """It has none to hand over."""

    async def db() -> None: ...

    async def cache(db: str) -> None: ...

    declared: dict[str, AnyService] = {"db": service(oneshot=oneshot)(db), "cache": service(depends=["db"])(cache)}
    (error,), _ = Registry(declared).check()
    assert "cache takes the value of db" in str(error)
