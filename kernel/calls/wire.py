"""What stands on the wire: subjects, headers and statuses, for both sides."""

from __future__ import annotations

from typing import Final

QUEUE: Final = "q"
CANCEL: Final = "_cancel"  # instead of a method; none of those begins with _

NOBODY: Final = "_nobody"  # on which nobody listens, unless to everything

TRACE: Final = "traceparent"
STATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
TIMEOUT: Final = "rpc-timeout"  # seconds that are left, as a decimal number
ID: Final = "rpc-id"
CONTRACT: Final = "rpc-contract"
STATUS: Final = "rpc-status"
ERROR: Final = "Nats-Service-Error"
CODE: Final = "Nats-Service-Error-Code"
SERVER_STATUS: Final = "Status"  # of the server itself
NO_RESPONDERS: Final = "503"

OK: Final = "ok"
RAISED: Final = "error"  # one that the interface declares
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
    """Where calls of a method go."""
    return f"{prefix}.{service}.{method}"
