"""`just jaeger` and `just jaeger-stop`: run a local Jaeger, to which `just run` sends its traces.

It runs in a container of podman or docker, or else as the program `jaeger` on the PATH. It listens on loopback only, at
two ports, keeps its traces in memory, and they are gone with it. Where traces go then stands in `.kernel/jaeger`, which
`just run` reads; what OTEL_* says goes first.
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

IMAGE = (  # by its digest, the one that other public projects pin for this tag, so that a moved tag changes nothing
    "cr.jaegertracing.io/jaegertracing/jaeger:2.20.0"
    "@sha256:46a886260e04002d8f45e213fc39063fa11a50446048fdaa64786fc0840cb9f8"
)
CONTAINER = "kernel-jaeger"
STATE = ".kernel/jaeger"
LOG = ".kernel/jaeger.log"
PROGRAM = "jaeger"
CONFIG = "KERNEL_JAEGER"  # the variable that has its configuration: a file would have to be brought into the container
INSIDE = {"UI": 16686, "OTLP": 4318}  # the ports that Jaeger has
RUNTIMES = ("podman", "docker")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 30.0  # seconds until it has to answer, once its image is there
USE = "just jaeger [UI=16686] [OTLP=4318]"


def start(values: dict[str, str]) -> None:
    """Start it, unless it runs already, and says where it is."""
    ports = {key: _port(key, values[key]) for key in INSIDE}
    runtime = _runtime()
    if _running(runtime) or _running(PROGRAM):
        raise Refusal(f"it runs already: {_where() or 'in another clone'}; `just jaeger-stop` ends it")
    _end(runtime)  # a container that has ended, and is in the way
    (ROOT / STATE).unlink(missing_ok=True)
    for key, port in ports.items():
        _refuse_taken(key, port)
    what = f"{IMAGE} with {runtime}; the first time takes as long as the download"
    print(f"starting {runtime if runtime == PROGRAM else what}", file=sys.stderr)
    url = f"http://127.0.0.1:{ports['UI']}"
    for number in SIGNALS:
        signal.signal(number, _leave)
    home(ROOT)
    try:
        pid = _begin(runtime, ports, url)
        (ROOT / STATE).write_text(f"http://127.0.0.1:{ports['OTLP']}/v1/traces\n{runtime}{pid}\n{url}\n")
    except BaseException:  # also a signal, which comes easily while an image is loaded
        _end(runtime)
        raise
    print(f"Jaeger is at {url}; `just run` sends its traces there, until `just jaeger-stop`.")


def _config(host: str, ports: dict[str, int]) -> str:
    """What Jaeger is to do. As it comes it listens at ten ports.

    Its API over gRPC cannot be turned off, so it gets a socket in the file system, whose name has to have a port.
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
    """Leave; further signals are ignored, also by what is called to undo: just hands on what a terminal has sent."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def _begin(runtime: str, ports: dict[str, int], url: str) -> str:
    """Start it, and waits until it answers at *url*; gives what is to be known of a program: a space and its pid."""
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
        (ROOT / STATE).write_text(f"\n{runtime}{pid}\n\n")  # so that it is found, whatever comes
    else:
        config = _config("0.0.0.0", INSIDE)  # noqa: S104  (in the container; it is published on loopback)
        mapped = [word for key, inside in INSIDE.items() for word in ("--publish", f"127.0.0.1:{ports[key]}:{inside}")]
        words = ("run", "--detach", "--rm", "--name", CONTAINER, *mapped, "--env", f"{CONFIG}={config}")
        begun = _call(runtime, *words, IMAGE, "--config", f"env:{CONFIG}")
        if begun.returncode:
            raise Refusal(f"{runtime} could not start {IMAGE}: {_reason(begun)}; fix that, and run this again")
    if not _answers(url):
        more = f" What it said is in {LOG}." if pid else ""
        raise Refusal(f"Jaeger did not answer at {url} within {PATIENCE:g} s, and was stopped; run this again.{more}")
    return pid


def stop(_: dict[str, str]) -> None:
    """Stop it, and with it the sending; nothing where it does not run."""
    runtime = _started_by()
    there = _running(runtime) or (
        runtime != PROGRAM and not _call(runtime, "container", "inspect", CONTAINER).returncode
    )
    reason = _end(runtime) if there else ""
    (ROOT / STATE).unlink(missing_ok=True)
    if not there:
        print("Jaeger does not run; nothing is sent to it.")
        return
    if reason:
        raise Refusal(f"{runtime} could not stop it: {reason}; fix that, and run this again")
    print("Jaeger is stopped, and its traces are gone.")


def _started_by() -> str:
    """What it was started with; else what it would be started with."""
    said = _state()
    runtime = said[1].split()[0] if len(said) > 1 and said[1].split() else ""
    return runtime if runtime == PROGRAM or (runtime in RUNTIMES and shutil.which(runtime)) else _runtime()


def _running(runtime: str) -> bool:
    if runtime == PROGRAM:
        return _pid() is not None
    found = _call(runtime, "container", "inspect", "--format", "{{.State.Running}}", CONTAINER)
    return found.stdout.strip() == "true"


def _end(runtime: str) -> str:
    """End it; gives the reason where that cannot be done."""
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
    """The process of the program that was started from here; None where it is gone."""
    try:
        name, pid = _state()[1].split()
        os.kill(int(pid), 0)
        command = subprocess.run(["ps", "-o", "args=", "-p", pid], capture_output=True, text=True, check=False).stdout
    except (OSError, ValueError, IndexError):
        return None
    return int(pid) if name in command or not command else None


def _state() -> list[str]:
    """Where traces go, by whom it runs, and where to look; nothing where it was not started from here."""
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
        raise Refusal(f"{key}={show(text)} is no port; as in: {USE}")
    return int(text)


def _runtime() -> str:
    """The first of podman and docker that is there and works, or else the program.

    Raises:
        Refusal: None does, with the reason of each.

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
            "- put `jaeger` on the PATH: a release's from jaegertracing.io, or one that Go has built;\n"
            "- send traces to a collector of yours by OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."
        )
    raise Refusal(f"{'; '.join(reasons)}; fix that, or put a program `jaeger` on the PATH, and run this again")


def _call(runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([runtime, *words], capture_output=True, text=True, errors="replace", check=False)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """What it said last, which mostly is the reason."""
    return (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]


def _refuse_taken(key: str, port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]  # Python adds the address, which is told already
        raise Refusal(f"port {port} cannot be had: {why}; free it, or name another: {key}=...") from None


def _answers(url: str) -> bool:
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # no proxy leads to loopback
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
