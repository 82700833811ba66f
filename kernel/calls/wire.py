"""What is on the wire: subjects, headers and statuses, for both sides."""

from __future__ import annotations

from typing import Final

QUEUE: Final = "q"
CANCEL: Final = "_cancel"  # instead of a method; none of those begins with _

NOBODY: Final = "_nobody"  # only those who listen to everything get this

TRACE: Final = "traceparent"
STATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
TIMEOUT: Final = "rpc-timeout"  # seconds left, as a decimal number
ID: Final = "rpc-id"
CONTRACT: Final = "rpc-contract"
STATUS: Final = "rpc-status"
ERROR: Final = "Nats-Service-Error"
CODE: Final = "Nats-Service-Error-Code"
SERVER_STATUS: Final = "Status"  # of the server itself
NO_RESPONDERS: Final = "503"

OK: Final = "ok"
RAISED: Final = "error"  # declared by the interface
FAILED: Final = "failed"
BAD_REQUEST: Final = "bad-request"
OVERLOADED: Final = "overloaded"
LATE: Final = "deadline-exceeded"
NOT_BEGUN: Final = "not-begun"

CODES: Final = {
    RAISED: "422",
    FAILED: "500",
    BAD_REQUEST: "400",
    OVERLOADED: "429",
    LATE: "504",
    NOT_BEGUN: "503",
}


def subject(prefix: str, service: str, method: str) -> str:
    """Return where calls of a method go."""
    return f"{prefix}.{service}.{method}"
