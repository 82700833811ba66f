"""`just jaeger` and `just jaeger-stop`: run a local Jaeger that `just run` sends its traces to.

It runs in a container of podman or docker, or else as the program `jaeger` on the PATH. It listens only on loopback, on
two ports, and keeps its traces in memory, so they are lost when it stops. The address for traces is stored in
`.kernel/jaeger`, which `just run` reads; OTEL_* variables take precedence.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from change import home
from recipe import ROOT, Refusal, run, show

IMAGE = (  # pinned by digest, as by other public projects, so that a moved tag changes nothing
    "cr.jaegertracing.io/jaegertracing/jaeger:2.20.0"
    "@sha256:46a886260e04002d8f45e213fc39063fa11a50446048fdaa64786fc0840cb9f8"
)
CONTAINER = "kernel-jaeger"
STATE = ".kernel/jaeger"
LOG = ".kernel/jaeger.log"
PROGRAM = "jaeger"
CONFIG = "KERNEL_JAEGER"  # the variable with its configuration: a file would have to be mounted
INSIDE = {"UI": 16686, "OTLP": 4318}  # the ports of Jaeger
RUNTIMES = ("podman", "docker")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 30.0  # seconds for it to respond, once its image is available
USE = "just jaeger [UI=16686] [OTLP=4318]"


def start(values: dict[str, str]) -> None:
    """Start Jaeger, unless it is running already, and print its address."""
    ports = {key: _port(key, values[key]) for key in INSIDE}
    runtime = _runtime()
    if _running(runtime) or _running(PROGRAM):
        raise Refusal(f"it is running already: {_where() or 'in another clone'}; `just jaeger-stop` stops it")
    _end(runtime)  # remove a stopped container with the same name
    (ROOT / STATE).unlink(missing_ok=True)
    for key, port in ports.items():
        _refuse_taken(key, port)
    what = f"{IMAGE} with {runtime}; the first time downloads the image"
    print(f"starting {runtime if runtime == PROGRAM else what}", file=sys.stderr)
    url = f"http://127.0.0.1:{ports['UI']}"
    for number in SIGNALS:
        signal.signal(number, _leave)
    home(ROOT)
    try:
        pid = _begin(runtime, ports, url)
        (ROOT / STATE).write_text(f"http://127.0.0.1:{ports['OTLP']}/v1/traces\n{runtime}{pid}\n{url}\n")
    except BaseException:  # including a signal, which is likely during a download
        _end(runtime)
        raise
    print(f"Jaeger is at {url}; `just run` sends its traces there, until `just jaeger-stop`.")


def _config(host: str, ports: dict[str, int]) -> str:
    """Return Jaeger's configuration. By default it would listen on ten ports.

    Its API over gRPC cannot be disabled, so it gets a Unix socket, whose name must include a port.
    """
    storage = {"backends": {"memory": {"memory": {"max_traces": 10_000}}}}
    grpc = {"transport": "unix", "endpoint": "/tmp/kernel-jaeger:0" if host == "0.0.0.0" else f"{STATE}-grpc:0"}  # noqa: S104, S108
    return json.dumps(
        {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_storage": storage,
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": f"{host}:{ports['UI']}"},
                    "grpc": grpc,
                },
            },
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{host}:{ports['OTLP']}"}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
    )


def _leave(number: int, _: object) -> None:
    """Exit, and ignore further signals, also in the programs called to clean up: just forwards those of a terminal."""
    for ignored in SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(128 + number)


def _begin(runtime: str, ports: dict[str, int], url: str) -> str:
    """Start it, and wait until it responds at *url*. Return a space and the pid for a program, otherwise nothing."""
    pid = ""
    if runtime == PROGRAM:
        (ROOT / STATE).with_name("jaeger-grpc:0").unlink(missing_ok=True)
        with (ROOT / LOG).open("w") as log:
            program = subprocess.Popen(
                [PROGRAM, "--config", f"env:{CONFIG}"],
                cwd=ROOT,
                env={**os.environ, CONFIG: _config("127.0.0.1", ports)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid = f" {program.pid}"
        (ROOT / STATE).write_text(f"\n{runtime}{pid}\n\n")  # so that it can be found and stopped in any case
    else:
        config = _config("0.0.0.0", INSIDE)  # noqa: S104  (inside the container; published on loopback only)
        mapped = [word for key, inside in INSIDE.items() for word in ("--publish", f"127.0.0.1:{ports[key]}:{inside}")]
        words = ("run", "--detach", "--rm", "--name", CONTAINER, *mapped, "--env", f"{CONFIG}={config}")
        begun = _call(runtime, *words, IMAGE, "--config", f"env:{CONFIG}")
        if begun.returncode:
            raise Refusal(f"{runtime} could not start {IMAGE}: {_reason(begun)}; fix that, and run this again")
    if not _answers(url):
        more = f" Its output is in {LOG}." if pid else ""
        raise Refusal(f"Jaeger did not answer at {url} within {PATIENCE:g} s, and was stopped; run this again.{more}")
    return pid


def stop(_: dict[str, str]) -> None:
    """Stop Jaeger, and stop sending traces to it. Do nothing if it is not running."""
    runtime = _started_by()
    there = _running(runtime) or (
        runtime != PROGRAM and not _call(runtime, "container", "inspect", CONTAINER).returncode
    )
    reason = _end(runtime) if there else ""
    (ROOT / STATE).unlink(missing_ok=True)
    if not there:
        print("Jaeger is not running; nothing is sent to it.")
        return
    if reason:
        raise Refusal(f"{runtime} could not stop it: {reason}; fix that, and run this again")
    print("Jaeger is stopped, and its traces are gone.")


def _started_by() -> str:
    """Return what it was started with, or what it would be started with."""
    said = _state()
    runtime = said[1].split()[0] if len(said) > 1 and said[1].split() else ""
    return runtime if runtime == PROGRAM or (runtime in RUNTIMES and shutil.which(runtime)) else _runtime()


def _running(runtime: str) -> bool:
    if runtime == PROGRAM:
        return _pid() is not None
    found = _call(runtime, "container", "inspect", "--format", "{{.State.Running}}", CONTAINER)
    return found.stdout.strip() == "true"


def _end(runtime: str) -> str:
    """Stop it. Return the reason if that fails."""
    if runtime == PROGRAM:
        pid = _pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        (ROOT / STATE).unlink(missing_ok=True)
        return ""
    done = _call(runtime, "rm", "--force", CONTAINER)
    return _reason(done) if done.returncode else ""


def _pid() -> int | None:
    """Return the process that was started from here; None if it has ended."""
    try:
        name, pid = _state()[1].split()
        os.kill(int(pid), 0)
        command = subprocess.run(["ps", "-o", "args=", "-p", pid], capture_output=True, text=True, check=False).stdout
    except (OSError, ValueError, IndexError):
        return None
    return int(pid) if name in command or not command else None


def _state() -> list[str]:
    """Return the address for traces, the runtime, and the page's address; empty if it was not started from here."""
    try:
        return (ROOT / STATE).read_text().splitlines()
    except FileNotFoundError:
        return []


def _where() -> str:
    return (_state() or [""])[-1]


def _port(key: str, text: str) -> int:
    if not text:
        return INSIDE[key]
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):  # noqa: PLR2004  (ports)
        raise Refusal(f"{key}={show(text)} is not a valid port; usage: {USE}")
    return int(text)


def _runtime() -> str:
    """Return podman or docker, the first that is installed and works, or else the program.

    Raises:
        Refusal: None of them works; with the reason for each.

    """
    reasons = []
    for name in RUNTIMES:
        if shutil.which(name):
            tried = _call(name, "info")
            if tried.returncode == 0:
                return name
            reasons.append(f"{name} does not work ({_reason(tried)})")
    if shutil.which(PROGRAM):
        return PROGRAM
    if not reasons:
        raise Refusal(
            "there is neither podman nor docker, nor a program `jaeger` on the PATH. Do one of these:\n"
            "- install podman or docker, which run Jaeger's image;\n"
            "- put `jaeger` on the PATH: a release from jaegertracing.io, or one built with Go;\n"
            "- send traces to your own collector by setting OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."
        )
    raise Refusal(f"{'; '.join(reasons)}; fix that, or put a program `jaeger` on the PATH, and run this again")


def _call(runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([runtime, *words], capture_output=True, text=True, errors="replace", check=False)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of its output, which usually is the reason."""
    return (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]


def _refuse_taken(key: str, port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]  # Python adds the address, which is shown already
        raise Refusal(f"port {port} cannot be used: {why}; free it, or choose another: {key}=...") from None


def _answers(url: str) -> bool:
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # proxies do not reach loopback
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            with ask(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    act = {"start": start, "stop": stop}[sys.argv.pop(1)]
    recipe, keys = ("jaeger", ("UI", "OTLP")) if act is start else ("jaeger-stop", ())
    run(recipe, USE if act is start else "just jaeger-stop", functools.partial(act), *keys)
