"""A declarative micro-kernel for services: write each one as a plain async function, and run them all in one process.

The names exported here are public; `kernel.testing` is the public test kit. Everything else is internal, in the rooms
below. Imports point downwards only, which `lint-imports` checks:

```
cli/           the command line
               program       finds the command that the first word names; commands of services and of the app
               built_in      the commands of every app: `run`, `list`, `check`, ...; their logic is in plan/
               completion    shell completion, without importing services
               problems      reports why nothing was started
run/           one run of the program
               runner        signals, deadline, event loop, final report, exit code
               command       how a command is called, and its exit code
               standalone    commands that take no value, and run without services
testing/       the public test kit
               faults        faults to inject into services
               virtual_time  an event loop whose clock jumps
plan/          what there is to run
               discovery     finds services by their files, imports those that are enabled
               registry      the services as a graph, and whether they fit together
               selection     SERVICES_ENABLED, names and patterns
               check         `app check`
               drawing       `app graph`
               environment   `app env`: every variable that is read
               environment_formats  as a table, as JSON, as a `.env.example`
observe/       what can be seen of a run
               logs          the pipeline of log records, and their formats
               guard         keeps the pipeline when a library configures logging
               console journal  stdout and stderr, which may be closed, full, or systemd's journal
               plain         any value as text or JSON on one line
               levels tracebacks  LOG_LEVEL of single services; frames of libraries, folded
               lifecycle_log the log lines about each service and the end
               status        what `/readyz` and `/status` show
               admin http_server http_connection  the admin server of ADMIN_ADDR, in a thread of its own
               shown         records and tracebacks, without secrets and of bounded length
               systemd       readiness and watchdog messages to systemd
               spans span_rows  lifecycle spans, and what they are made of
               tracer        the tracer through which users' spans get their service
               metrics prometheus  instruments; `/metrics`
               loop_shares   each service's share of the event loop's time
               otel_resource what identifies the app in telemetry
               exporters     where traces, metrics and log records go: OTLP
               sayable       spans and metrics, without secrets and of bounded length
               wiring        assembles the observers of a run
bricks/        building blocks for services, imported at first use
               asgi          `serve_asgi`: an ASGI app as a service's work
               uvicorn_server hypercorn_server  the servers that run it
               clients uvicorn_clients  what their clients may take
               program program_run  `program`: an external program as a resource
               ready output  when it is ready; what it writes
               guard         the process that ends a program when the kernel is gone
               drain         how a server ends
               lifespan      the app's lifespan, whichever server runs it
               listen        sockets that listen
               unwrap        an error without the group of one around it
calls/         typed calls between services, in one process or many; imported only if a service uses them
               interface     `@interface`: what can be called of a service
               codec         how a type's values are written and read: `shape scalars containers records raised`
               contract      which changes of an interface are compatible with its callers
               proxy failures  a call within the process, and its error if the service raised one
               nats nats_client wire  the connection to NATS, by nats-py; subjects, headers and statuses
               client exporter  calls to services in other processes, and from them: `instances outgoing`
               discovery     NATS' protocol of services: found, described and counted by any client
               telemetry     spans and durations of calls
               wiring        link, stand-ins and exports, as services in the plan
               command       `app call`
lifecycle/     one service, then all of them
               events        the states, the legal moves, and the events that tell of them
               supervisor    one service: start, attempts, stop
               block tasks   the `serving` block; the tasks of a service
               crash         classifies an exception raised by a service
               host          the interface between a supervisor and its orchestrator
               orchestrator  all services: start order, stop order, failure policy
               node graph    a service in the graph; pure functions over dependencies
               units         what an orchestrator is given to run
               shutdown      the deadline, and each level's share of it
               ticks unready `work.every`, `work.unready`
               clock alarmed  alarms
               group_signal  signals to the process group, which reach child processes too
               recovery      the services that lost readiness, until all are ready again
               progress      reports what a slow start or stop waits for
               observers     delivers events to observers
               explain tree  the sentences that explain a state; the tree of what still waits
               report        the verdict, and the exit code
declare/       what users write
               service       `@service`, and its declaration
               serving       the protocols `Serving` and `Work`
               signature     what each parameter takes
               app           `@lifespan` and `@command` of the app
               retry         restart policy: `Retry`, backoff
config/        what the environment says
               values        durations, secrets, lists
               scalars       the types of single values; add a type here
               readers       how a text becomes a value of a field's type, and back
               schema        the variables of a config class
               service_config  the config of each service, and the errors in it
               setting settings  the kernel's own variables, in one table
               nats          NATS_*, in a table
               otel          OTEL_*
               otel_sdk      OTEL_*, how exports are made: batches, limits, samplers
               described     OTEL_*, for people
               near_misses   variables that nobody reads
               field_texts   what comments and docstrings say of a field
events         the events that an `@observer` gets: the public names of lifecycle/events
process/       the process around the services
               signals       SIGINT, SIGTERM, SIGHUP
               guests        shares signals with libraries that handle them too
               contain       logs failures in the kernel's own threads once
               watchdog      ends a process that exceeds its shutdown deadline
               event_loop    asyncio or trio
               loop_watch    notices a blocked event loop
               sockets       listening sockets, own ones or systemd's
               collector     makes the garbage collector run less often during start and stop
               hard_exit     ends the process if the interpreter hangs
               gate          where a new version waits under `just dev`
               programs      the external programs that are running
               debugger      suspends deadlines while one is attached
errors         every exception of the kernel
masking        masks secrets in text, and limits its length
stacks         the user's line where a coroutine or thread is
identity       the app's name, version and commit
context        which service the current code belongs to, and whether it is traced
annotations    inspects annotations
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.config.values import Seconds, Secret
from kernel.context import tracing_enabled
from kernel.declare.app import command, lifespan, observer
from kernel.declare.retry import Retry
from kernel.declare.service import Service, Started, service, started
from kernel.declare.serving import Serving, Work
from kernel.errors import (
    BadRequest,
    CallError,
    CallFailed,
    ContractMismatch,
    DeadlineExceeded,
    KernelError,
    Overloaded,
    PlanError,
    ServiceError,
    Unavailable,
)

if TYPE_CHECKING:
    from kernel.bricks.asgi import serve_asgi
    from kernel.bricks.program import Program, program
    from kernel.bricks.ready import http, output, tcp
    from kernel.calls.interface import interface

_LAZY = {
    "Program": "kernel.bricks.program",
    "http": "kernel.bricks.ready",
    "interface": "kernel.calls.interface",
    "output": "kernel.bricks.ready",
    "program": "kernel.bricks.program",
    "serve_asgi": "kernel.bricks.asgi",
    "tcp": "kernel.bricks.ready",
}
"""The modules of public names that are imported at first use: most apps do not need them."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kernel' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


__all__ = [
    "BadRequest",
    "CallError",
    "CallFailed",
    "ContractMismatch",
    "DeadlineExceeded",
    "KernelError",
    "Overloaded",
    "PlanError",
    "Program",
    "Retry",
    "Seconds",
    "Secret",
    "Service",
    "ServiceError",
    "Serving",
    "Started",
    "Unavailable",
    "Work",
    "command",
    "http",
    "interface",
    "lifespan",
    "observer",
    "output",
    "program",
    "serve_asgi",
    "service",
    "started",
    "tcp",
    "tracing_enabled",
]
