"""`just jaeger` and `just jaeger-stop`: a Jaeger of one's own in a container, to which `just run` sends its traces.

It listens on loopback only, keeps its traces in memory, and is gone with its container. Where traces go then stands in
`.kernel/jaeger`, which `just run` reads; what OTEL_* says goes first.
"""

from __future__ import annotations

import functools
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from change import home
from recipe import ROOT, Refusal, run, show

IMAGE = (  # by its digest: what runs beside the app is what was looked at
    "cr.jaegertracing.io/jaegertracing/jaeger:2.21.0"
    "@sha256:3d0ac795ff98aa04d1be04311d2dac6c25b4bfc8322dc02e53bc5b170c5018c3"
)
CONTAINER = "kernel-jaeger"
STATE = ".kernel/jaeger"
INSIDE = {"UI": 16686, "OTLP": 4318}  # the ports that Jaeger has
RUNTIMES = ("podman", "docker")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 30.0  # seconds until it has to answer, once its image is there
USE = "just jaeger [UI=16686] [OTLP=4318]"


def start(values: dict[str, str]) -> None:
    """Starts it, unless it runs already, and says where it is."""
    ports = {key: _port(key, values[key]) for key in INSIDE}
    runtime = _runtime()
    if _call(runtime, "container", "inspect", "--format", "{{.State.Running}}", CONTAINER).stdout.strip() == "true":
        raise Refusal(f"it runs already: {_where() or 'in another clone'}; `just jaeger-stop` ends it")
    _call(runtime, "rm", "--force", CONTAINER)  # one that has ended, and is in the way
    (ROOT / STATE).unlink(missing_ok=True)
    for key, port in ports.items():
        _refuse_taken(key, port)
    print(f"starting {IMAGE} with {runtime}; the first time takes as long as the download", file=sys.stderr)
    url = f"http://127.0.0.1:{ports['UI']}"
    for number in SIGNALS:
        signal.signal(number, _leave)
    try:
        _begin(runtime, ports, url)
        home(ROOT)
        (ROOT / STATE).write_text(f"http://127.0.0.1:{ports['OTLP']}/v1/traces\n{runtime}\n{url}\n")
    except BaseException:  # also a signal, which comes easily while an image is loaded
        _call(runtime, "rm", "--force", CONTAINER)
        raise
    print(f"Jaeger is at {url}; `just run` sends its traces there, until `just jaeger-stop`.")


def _leave(number: int, _: object) -> None:
    """Leaves; further signals are ignored, also by what is called to undo: just hands on what a terminal has sent."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def _begin(runtime: str, ports: dict[str, int], url: str) -> None:
    """Starts the container, and waits until it answers at *url*."""
    mapped = [word for key, inside in INSIDE.items() for word in ("--publish", f"127.0.0.1:{ports[key]}:{inside}")]
    begun = _call(runtime, "run", "--detach", "--rm", "--name", CONTAINER, *mapped, IMAGE)
    if begun.returncode:
        raise Refusal(f"{runtime} could not start {IMAGE}: {_reason(begun)}; mend that, and run this again")
    if not _answers(url):
        raise Refusal(f"Jaeger did not answer at {url} within {PATIENCE:g} s, and was stopped; run this again")


def stop(_: dict[str, str]) -> None:
    """Stops it, and with it the sending; nothing where it does not run."""
    said = _state()
    (ROOT / STATE).unlink(missing_ok=True)
    runtime = said[1] if len(said) > 1 and said[1] in RUNTIMES and shutil.which(said[1]) else _runtime()
    if _call(runtime, "container", "inspect", CONTAINER).returncode:
        print("Jaeger does not run; nothing is sent to it.")
        return
    done = _call(runtime, "rm", "--force", CONTAINER)
    if done.returncode:
        raise Refusal(f"{runtime} could not stop it: {_reason(done)}; mend that, and run this again")
    print("Jaeger is stopped, and its traces are gone.")


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
    """The first of podman and docker that is there and works.

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
    if not reasons:
        raise Refusal(
            "neither podman nor docker is installed; install one, or send traces to a collector of yours by"
            " OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        )
    raise Refusal(f"{'; '.join(reasons)}; mend that, and run this again")


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
