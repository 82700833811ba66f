"""`just bench`: measure what the kernel costs, compared with hand-written code on plain anyio and with its peers.

    just bench                              everything; takes a quarter of an hour
    just bench CASES=noop,hello RUNS=9      some cases; `noop` means `noop-10`, `noop-100` and so on
    just bench SHORT=1 PEERS=0              check that it works; the numbers are meaningless
    just bench PAGE=docs/benchmarks.md      also write the page; with FROM=.bench/result.json without a new measurement

Each run is a new process of a program in `scripts/template/contestants`, or of an app in a separate folder. Contestants
take turns, every other time in reverse, so that disturbances affect all of them. The peers are installed once into
`.bench`, each into a separate environment. A peer that cannot be installed, or fails, is reported.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import attrs
import cattrs

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a script has its own folder on the path
    sys.path.insert(0, str(ROOT))

from bench_cases import (  # noqa: E402  (found by the line above)
    BY_HAND,
    BY_HAND_LOGGING,
    KERNEL,
    LOGGING,
    SERVING,
    WRK,
    Case,
    Group,
    Outcome,
    groups,
)

from tests.conformance.program import OURS  # noqa: E402

CACHE = ROOT / ".bench"
PEERS = ("facet", "aiomisc", "mode-streaming", "launart", "asyncscope", "asphalt")
KEEP_ORDER = tuple(peer for peer in PEERS if peer != "aiomisc")  # starts in order, but stops in no order
LIMIT = 120.0  # maximum seconds of a run
COLD = 2.0  # seconds; for shorter runs the first one does not count, since it reads files that are not cached yet
OPTIONS = {"CASES": "", "RUNS": "5", "SHORT": "0", "PEERS": "1", "JSON": str(CACHE / "result.json")}
OPTIONS |= {"PAGE": "", "FROM": ""}
VALUES = {"RUNS": r"[1-9]\d*", "SHORT": "[01]", "PEERS": "[01]"}
USE = "use: just bench [CASES=noop,hello] [RUNS=5] [SHORT=1] [PEERS=0] [JSON=path] [PAGE=path] [FROM=path of a JSON]"


# -- measuring ---------------------------------------------------------------------------------------------------


class Failed(Exception):
    """The reason why a case has no numbers."""


@functools.cache
def environment(name: str) -> Path:
    """Return the Python of the peer's environment, which is created if needed.

    Raises:
        Failed: It could not be installed.

    """
    python = CACHE / name / "bin" / "python"
    if not installed(python, name):
        say(f"installing {name}")
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", name]
        for command in ([sys.executable, "-m", "venv", "--clear", str(CACHE / name)], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed(f"could not be installed: {last_line(done.stderr or done.stdout)}")
    return python


def installed(python: Path, name: str) -> str:
    """Return the version of the package installed for *python*; empty if there is none, or no such Python."""
    if not python.exists():
        return ""
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def last_line(text: str) -> str:
    """Return the last line of a program's output, which usually is the reason."""
    return (text.strip() or "nothing was said").splitlines()[-1]


@attrs.frozen
class Result:
    """The numbers of a case: for each metric, a number per run; or the reason why there are none."""

    group: str
    case: str
    numbers: dict[str, list[float]] = attrs.field(factory=dict)
    error: str = ""


@attrs.frozen
class Report:
    """All results, and the machine they were measured on."""

    machine: list[str]
    versions: dict[str, str]
    runs: int
    short: bool
    groups: dict[str, tuple[str, str]]  # text and base, by name
    results: list[Result]

    def median(self, group: str, case: str, metric: str) -> float | None:
        """Return the median of the measured values; None if there are none."""
        for result in self.results:
            if (result.group, result.case) == (group, case) and metric in result.numbers:
                return statistics.median(result.numbers[metric])
        return None


def run(case: Case) -> Outcome:
    """Run a case once, in a new process, without variables that would affect it.

    Raises:
        Failed: It did not end, or failed, or the peer could not be installed.

    """
    python = environment(case.peer) if case.peer else sys.executable
    ignored = re.compile(rf"{OURS.pattern}|(COV|COVERAGE|PYTEST)_\w+|PYTHONDONTWRITEBYTECODE")
    env = {name: value for name, value in os.environ.items() if not ignored.fullmatch(name)}
    env |= {"LOG_LEVEL": "warning", **case.env}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:  # files need no reader, unlike pipes
        begun = time.perf_counter()
        process = subprocess.Popen([python, *case.command], env=env, cwd=case.cwd, stdout=stdout, stderr=stderr)
        guard = threading.Timer(LIMIT, process.kill)
        guard.start()
        try:
            code = process.wait()  # without a timeout, which would poll the process
            seconds = time.perf_counter() - begun
        finally:
            guard.cancel()
            process.kill()  # does nothing if it has ended
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if seconds >= LIMIT:
        raise Failed(f"did not end in {LIMIT:g} s")
    if code:
        raise Failed(f"exit {code}: {last_line(texts[1])}")
    return Outcome(seconds, *texts)


def measure(group: Group, runs: int, *, warm_up: bool = True) -> list[Result]:
    """Run each case *runs* times, in turns, after one run that does not count. A case that fails is not run again."""
    results = {case.name: Result(group.name, case.name) for case in group.cases}
    for number in range(0 if warm_up else 1, runs + 1):
        say(f"{group.name}: {f'run {number} of {runs}' if number else 'warming up'}")
        for case in group.cases[:: -1 if number % 2 else 1]:
            result = results[case.name]
            if result.error or any(len(values) == runs for values in result.numbers.values()):
                continue
            try:
                outcome = run(case)
                numbers = case.parse(outcome)
            except (Failed, ValueError) as error:
                results[case.name] = Result(group.name, case.name, error=str(error))
                continue
            if number or outcome.seconds > COLD:
                for metric, value in numbers.items():
                    result.numbers.setdefault(metric, []).append(value)
    return list(results.values())


def machine() -> list[str]:
    """Describe the machine, without its host name."""
    cpu = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        found, system = None, f"{platform.system()} {platform.release()}"
    cores, python = f"{os.cpu_count()} cores", f"{platform.python_implementation()} {platform.python_version()}"
    return [found[1] if found else cpu, cores, python, f"{system} ({platform.machine()})"]


# -- targets -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Target:
    """The limit of a number, relative to another one: group, case and metric of each.

    Without another number, *limit* is absolute. The other number is multiplied by *scale*.
    """

    what: str
    group: str
    metric: str
    limit: float
    base: tuple[str, str] | None = None
    case: str = KERNEL
    scale: float = 1.0
    at_least: bool = False

    def measured(self, report: Report) -> float | None:
        """Return the ratio, or the number; None if it was not measured."""
        value = report.median(self.group, self.case, self.metric)
        if self.base is None or value is None:
            return value
        base = report.median(*self.base, self.metric)
        return value / (base * self.scale) if base else None

    def row(self, report: Report) -> list[str]:
        """Return what was measured, the target, the measured value, and whether the target was met."""
        value, unit = self.measured(report), "x" if self.base else ""
        met = value is not None and (value >= self.limit if self.at_least else value <= self.limit)
        verdict = "not measured" if value is None else "met" if met else "missed"
        measured = "" if value is None else f"{value:.4g}{unit}"
        return [self.what, f"{'>=' if self.at_least else '<='} {self.limit:g}{unit}", measured, verdict]


def _targets() -> Iterator[Target]:
    by_hand, logged = ("noop-1000", BY_HAND), ("noop-1000", BY_HAND_LOGGING)
    for what, metric, limit in (("ready", "ready ms", 1.8), ("stopped", "stopped ms", 2.2), ("memory", "kB each", 2)):
        yield Target(f"1,000 no-op services: {what}, to anyio by hand", "noop-1000", metric, limit, by_hand)
        yield Target(
            f"the same, each step logged: {what}, to that by hand", "noop-1000", metric, limit, logged, LOGGING
        )
    yield Target("1,000 that serve: stopped, to anyio by hand", "noop-1000", "stopped ms", 1.6, by_hand, SERVING)
    for peer in KEEP_ORDER:
        yield Target(f"1,000 no-op services: both, to {peer}", "noop-1000", "both ms", 1, ("noop-1000", peer))
    for what, metric, scale in (("ready", "ready ms", 10), ("stopped", "stopped ms", 10), ("memory", "kB each", 1)):
        few = ("noop-1000", KERNEL)
        yield Target(f"10,000: {what}, each, to that at 1,000", "noop-10000", metric, 1.2, few, scale=scale)
    for kind in ("uniform", "skewed"):
        group = f"sleepy-{kind}"
        for what, metric in (("start", "start / optimum"), ("stop", "stop / optimum")):
            yield Target(f"sleepy graph, {kind}: {what}, to anyio by hand", group, metric, 1.02, (group, BY_HAND))
        yield Target(f"sleepy graph, {kind}: edges violated", group, "edges violated", 0)
    yield Target("hello world, to the minimal program", "hello", "ms", 1.15, ("hello", "minimal"))
    yield Target("hello world, to one on anyio alone", "hello", "ms", 1.45, ("hello", "anyio"))
    yield Target("`app --help`, to cyclopts", "help", "ms", 1.15, ("help", "cyclopts"))
    yield Target("`app --help` with 200 services, to cyclopts", "help-200", "ms", 1.3, ("help-200", "cyclopts"))
    yield Target("`app <service> <command>`, to cyclopts", "command", "ms", 1.15, ("command", "cyclopts"))
    for case in (KERNEL, "kernel, quiet"):  # Python's smallest object has 16 bytes, so less means that nothing was left
        yield Target(f"storm, {case}: growth, bytes a restart", "storm", "growth, bytes / restart", 15, case=case)
    for kind in ("text", "json"):
        group = f"lines-{kind}"
        yield Target(f"logging, {kind}: to `logging`", group, "lines / s", 0.8, (group, "logging"), at_least=True)
    for loop in ("asyncio", "uvloop"):
        group = f"http-{loop}"
        yield Target(
            f"HTTP on {loop}: to uvicorn alone", group, "requests / s", 0.95, (group, "uvicorn"), at_least=True
        )


TARGETS = tuple(_targets())


# -- telling -----------------------------------------------------------------------------------------------------

INTRO = """\
# Benchmarks

What the kernel costs, compared with hand-written code on plain anyio and with its peers. This page is written by
`just bench PAGE=docs/benchmarks.md`; measure again instead of editing the numbers.

How to read it:

- Each number is the median of the runs, with the minimum and the maximum. Each run is a new process, and contestants
  take turns. `1.5x` is the ratio to the row that has no ratio: in most tables, hand-written code on plain anyio.
- Ratios can be compared between machines, times cannot. A difference within the spread means nothing.
- "By hand" has a task for each service, an event for its readiness, a scope by which it can be stopped alone, and
  counters for the order of the dependencies, as a careful author would write it. It has no retries and no limits, and
  logs only where the table says so.
- The kernel's services are of two kinds. The plain ones are cancelled as a whole; with `Serving`, the work of each runs
  in a scope of its own, and in a task group once it starts a background task.
- The kernel runs as under `app run`, with `LOG_LEVEL=warning`, and its garbage collector waits for 50,000 new objects
  and 50 more for each service. By hand and with the peers, the collector has Python's defaults; that is why each of
  10,000 services by hand costs twice as much as each of 1,000. It runs before each interval that is measured. The peers
  log only warnings, and each service has one waiting task. They promise less, or other things: aiomisc stops in no
  order, mode and asphalt stop one service after the other, launart goes level by level.
"""


def figure(value: float) -> str:
    """Format a number with three digits, or all digits of a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def cell(values: Sequence[float], base: Sequence[float]) -> str:
    """Format the median, the spread, and the ratio to *base*."""
    middle = statistics.median(values)
    spread = f" ({figure(min(values))}..{figure(max(values))})" if min(values) < max(values) else ""
    against = statistics.median(base) if base and base is not values else 0.0
    return f"{figure(middle)}{spread}" + (f" {middle / against:.2f}x" if against > 0 and middle > 0 else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown that is also readable in a terminal."""
    lines = [head, ["---"] * len(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def render(report: Report) -> str:
    """Return the tables as Markdown."""
    runs = f"Runs: {report.runs}{', in the short form: the numbers tell nothing' * report.short}"
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    parts = ["## The machine", textwrap.fill(f"{', '.join(report.machine)}. {packages}. {runs}.", 120)]
    rows = [target.row(report) for target in TARGETS if target.group in report.groups]
    parts += ["## Targets", table(["what", "target", "measured", ""], rows)] if rows else []
    for name, (text, base) in report.groups.items():
        results = [result for result in report.results if result.group == name]
        metrics = list(dict.fromkeys(metric for result in results for metric in result.numbers))
        bases = next((result.numbers for result in results if result.case == base), {})
        rows = [
            [result.case, *(cell(result.numbers[metric], bases.get(metric, [])) for metric in metrics)]
            for result in results
            if result.numbers
        ]
        parts += [f"## {name}", textwrap.fill(text, 120, break_on_hyphens=False)]
        parts += [table(["", *metrics], rows)] if rows else []
        parts += [f"{result.case}: {result.error}" for result in results if result.error]
    return "\n\n".join(parts) + "\n"


def say(text: str) -> None:
    """Print the progress to stderr, since stdout belongs to the tables."""
    print(text, file=sys.stderr, flush=True)


def wanted(name: str, words: str) -> bool:
    """Return whether CASES names the group."""
    cases = [word for word in words.split(",") if word]
    return not cases or any(fnmatch.fnmatch(name, word) or name.startswith(f"{word}-") for word in cases)


def collect(options: Mapping[str, str]) -> Report:
    """Measure what *options* request."""
    short, runs = options["SHORT"] == "1", int(options["RUNS"])
    peers = PEERS if options["PEERS"] == "1" else ()
    with tempfile.TemporaryDirectory() as folder:
        every = groups(Path(folder).resolve(), short=short, peers=peers)
        chosen = [group for group in every if wanted(group.name, options["CASES"])]
        if wanted("http", options["CASES"]) and not shutil.which(WRK):
            say(f"http is left out: there is no {WRK}; install it, as by `apt-get install {WRK}`")
        results = [result for group in chosen for result in measure(group, runs, warm_up=not short)]
    versions = {name: version(name) for name in ("anyio", "attrs", "cattrs", "cyclopts")}
    versions |= {name: found for name in peers if (found := installed(CACHE / name / "bin" / "python", name))}
    told_of = {group.name: (group.text, group.base) for group in chosen}
    return Report(machine(), versions, runs, short, told_of, results)


def main(words: Sequence[str]) -> int:
    """Run the benchmark. Return 1 if a run of the kernel failed, 2 if *words* are invalid."""
    if not {"--help", "-h"}.isdisjoint(words):
        print(USE.replace("use:", "Usage:", 1))
        return 0
    options = dict(OPTIONS)
    for word in words:
        name, _, value = word.partition("=")
        if name not in options or not re.fullmatch(VALUES.get(name, ".*"), value):
            say(f"error: {word!r} is not understood; {USE}")
            return 2
        options[name] = value
    if options["FROM"]:
        report = cattrs.structure(json.loads(Path(options["FROM"]).read_text()), Report)
    else:
        report = collect(options)
        if not report.results:
            say(f"error: CASES={options['CASES']} names nothing; {USE}")
            return 2
        outcome = [
            dict(zip(("what", "target", "measured", "met"), target.row(report), strict=True)) for target in TARGETS
        ]
        path = Path(options["JSON"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**cattrs.unstructure(report), "targets": outcome}, indent=1) + "\n")
        say(f"written: {path}")
    text = render(report)
    print(text, end="")
    if options["PAGE"]:
        Path(options["PAGE"]).write_text(f"{INTRO}\n{text}")
    return int(any(result.error for result in report.results if result.case.startswith(KERNEL)))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
