"""A declarative micro-kernel for services: write each one as a plain async function, and run them all in one process.

What is named here is public and has its one home here; `kernel.testing` is the public test kit. All else is the
kernel's own, in rooms. Imports point downwards only, which `lint-imports` checks:

```
cli/           the command line
               program       finds the command that the first word names; the commands of services and of the app
               built_in      `app run`, `list`, `graph`, `check`, `version`
               completion    the shell's completion, without importing a service
               problems      says why nothing was started
run/           one run of the program
               runner        signals, deadline, event loop, last words, exit code
               command       how a user's command is called, and its exit code
               standalone    a command that asks for no value: it starts no kernel
testing/       the public test kit
               faults        what a fake service or a broken resource does
               virtual_time  an event loop whose clock jumps
plan/          what there is to run
               discovery     finds the services by their files, imports those that are enabled
               registry      the services as a graph, and what does not fit
               selection     SERVICES_ENABLED, names and patterns
               check         `app check`
               drawing       `app graph`
               environment   `app env`: every variable that is read
               environment_formats  as a table, as JSON, as a `.env.example`
observe/       what can be seen of a run
               logs          the one pipeline of log records, and their formats
               guard         keeps the pipeline when a library configures logging
               console journal  stdout and stderr, which may be closed, full, or systemd's journal
               plain         any value as text or JSON that cannot break its line
               levels tracebacks  LOG_LEVEL of single services; frames of libraries, folded
               lifecycle_log the log lines about each service and the end
               status        what `/readyz` and `/status` tell
               admin http_server http_connection  the admin server of ADMIN_ADDR, in a thread of its own
               shown         records and tracebacks, without secrets and bounded
               systemd       readiness and watchdog, told to systemd
               spans span_rows  lifecycle spans, and what they are made of
               tracer        the tracer through which users' spans get their service
               metrics prometheus  instruments; `/metrics`
               loop_shares   each service's share of the event loop's time
               otel_resource what identifies the app in telemetry
               exporters     OTLP: traces, metrics, log records
               wiring        puts the observers of a run together
bricks/        what services are made of, imported when they are first used
               asgi          `serve_asgi`: an ASGI app as a service's work
               uvicorn_server hypercorn_server  the servers that run it
               program       `program`: an external program as a resource
               ready output  when it is ready; what it writes
               guard         the process that ends it when the kernel is gone
               drain         how a server ends
               lifespan      the app's lifespan, whichever server runs it
               listen        sockets that listen
               unwrap        an error without the group of one around it
calls/         typed calls between services, in one process or many; imported only where a service uses them
               interface     `@interface`: what can be called of a service
               codec         how a type's values are written and read: `shape scalars containers records raised`
               contract      which changes of an interface its callers bear
               proxy failures  a call within the process, and what it ends with when the service raised something
               nats nats_client wire  the connection to NATS, by nats-py; subjects, headers and statuses
               client exporter  calls of a service that runs elsewhere, and from elsewhere
               discovery     NATS' protocol of services: found, described and counted by any client
               telemetry     spans and durations of calls
               wiring        link, stand-ins and exports, as services in the plan
               command       `app call`
lifecycle/     one service, then all of them
               events        the states, the legal moves, and the events that tell of them
               supervisor    one service: start, attempts, stop
               block tasks   the `serving` block; the tasks of a service
               crash         what an exception that comes out of a service is
               host          what a supervisor and its orchestrator tell each other
               orchestrator  all services: start order, stop order, failure policy
               node graph    a service in the graph; pure functions over dependencies
               units         what an orchestrator is given to run
               shutdown      the one deadline, and each level's share of it
               ticks unready `work.every`, `work.unready`
               clock alarmed  alarms
               group_signal  what a signal to the whole group does to child processes
               recovery      who is away until all are ready again
               progress      tells what a start or stop that takes long waits for
               observers     those who are told each event
               explain tree  the sentences that explain a state; the tree of what still waits
               report        the verdict, and the exit code
declare/       what users write
               service       `@service`, and the declaration that it makes
               serving       the protocols `Serving` and `Work`
               signature     what each parameter asks for
               app           `@lifespan` and `@command` of the app
               retry         restart policy: `Retry`, backoff
config/        what the environment says
               values        durations, secrets, lists
               scalars       the types of single values
               readers       how a text becomes a value of a field's type, and back
               schema        the variables of a config class
               service_config  the config of each service, and all that is wrong with it
               settings      the kernel's own variables, in one table
               otel nats     OTEL_* and NATS_*
               otel_sdk      OTEL_*, how things are exported: batches, limits, samplers
               described     OTEL_* and NATS_*, for people
               near_misses   variables that nobody reads
               field_texts   what comments and docstrings say of a field
events         what an `@observer` is told: the public names of lifecycle/events
process/       the process around the services
               signals       SIGINT, SIGTERM, SIGHUP
               guests        lets libraries have the signals too, and take none away
               contain       what fails in the kernel's own threads is said once
               watchdog      ends a process that outlives its shutdown
               event_loop    asyncio or trio
               loop_watch    notices a blocked event loop
               sockets       sockets that listen, or that systemd hands over
               collector     the garbage collector, patient at both ends of a run
               hard_exit     ends the process when the interpreter no longer answers
               gate          where a new version waits under `just dev`
               programs      the external programs that run now
               debugger      deadlines rest while one is attached
errors         every exception of the kernel
masking        secrets that are known, and texts without them; how long a text may be
stacks         where a coroutine or thread is, in the user's own lines
identity       the app's name, version and commit
context        which service the current code belongs to
annotations    types as people write them
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.config.values import Seconds, Secret
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
"""The modules of public names that most apps do not use, and a start should not pay for."""


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
]
