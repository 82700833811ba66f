"""One service to run, as the plan hands it to the orchestrator."""

from __future__ import annotations

from typing import Any

import attrs

from kernel.spec import Service


@attrs.frozen
class Unit:
    """One service to run.

    Args:
        service: The declaration.
        config: The value of its config parameter, or None where it has none.
        internal: Whether it belongs to the kernel or the app's lifespan: it then counts neither in "all ready", nor
            in "everything done", nor in "every service failed".
        command: Whether it is a command: it is not started again when a value it holds is lost, and its end is the
            end of the app.
        after: Names of internal services that it starts after and ends before, besides its own dependencies.

    """

    service: Service[..., Any]
    config: object = None
    internal: bool = False
    command: bool = False
    after: tuple[str, ...] = ()
