"""A declarative micro-kernel for services: write each one as a plain async function, and run them all in one process.

What is named here is public and has its one home here; `kernel.testing` is the public test kit.
"""

from kernel.errors import KernelError, PlanError, ServiceError
from kernel.policy import Retry
from kernel.spec import Service, Serving, Started, Work, command, lifespan, service, started
from kernel.values import Seconds, Secret

__all__ = [
    "KernelError",
    "PlanError",
    "Retry",
    "Seconds",
    "Secret",
    "Service",
    "ServiceError",
    "Serving",
    "Started",
    "Work",
    "command",
    "lifespan",
    "service",
    "started",
]
