"""`just mutants`: break the code on purpose, one small change at a time, and check whether the tests notice.

    just mutants MODULE=kernel/lifecycle/graph.py N=20      some mutants of one module
    just mutants MODULE='kernel/plan/*' N=20 SEED=2         others, of each module of a room
    just mutants LIMIT=120                                  try harder: 120 s of tests for each mutant, not 20
    just mutants JOBS=1                                     one mutant at a time, not one for each core
    just mutants MEASURE=1                                  find out again which tests run which line

First the tests of `just test` are run once, to see which lines each of them runs, also in programs that it starts; that
takes some minutes. Later only files of tests that have changed, or in which a test failed, are run again. MEASURE=1 is
for changes of what tests share.

A mutant is created in a copy of the tree, and tested by the tests that run its lines: first those named for the module,
then the others, the shortest first, LIMIT seconds in all. For lines that run when the module is imported, these are
the tests that run any of its lines, and those of its room. The first test that fails decides, if it passes without the
mutant. Results are kept in `.mutants`, so that an interrupted run continues; a changed module starts over, and a
mutant that lives is tried again when its tests change. Strings for people and annotations are not mutated. Mutants in
`mutants_spared.toml` change nothing that matters, and are not tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from mutants_changes import Module, Mutant
from mutants_forks import Copy, Outcome, preload
from mutants_lines import Lines, digest, file_of, in_functions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / ".mutants"
OPTIONS = {"MODULE": "kernel/*", "N": "20", "SEED": "1", "LIMIT": "20", "JOBS": str(os.cpu_count()), "MEASURE": "0"}
SPARED = Path(__file__).with_name("mutants_spared.toml")
USE = "use: just mutants [MODULE=kernel/plan/check.py] [N=20] [SEED=1] [LIMIT=20] [JOBS=2] [MEASURE=1]"
MEASURED = ("kernel", "app", "scripts")  # folders with modules that can be changed
PER_JOB = 3  # tests that are measured at a time: most wait for a program
MANY = 5  # tests that are named
IMPORT = 0.1  # seconds that another file of tests takes


# -- the tests ---------------------------------------------------------------------------------------------------


def measured(copy: Copy, jobs: int, *, anew: bool) -> Lines:
    """Return which tests run which line; run those first of which that is not known."""
    path = RESULTS / "lines.json"
    lines = Lines() if anew else Lines.read(path)
    paths = [path for top in MEASURED for path in sorted((copy.root / top).rglob("*.py"))]
    modules = {path.relative_to(copy.root).as_posix(): path.read_text() for path in paths}
    folders: dict[Path, list[str]] = {}
    for file in lines.stale(copy.root):
        folders.setdefault(Path(file).parent, []).append(file)
    for number, (folder, files) in enumerate(folders.items(), 1):
        print(f"seeing which lines the tests run: {folder} ({number} of {len(folders)})", flush=True)
        lines.measure(copy.root, files, modules, PER_JOB * jobs)
        if again := sorted({file_of(test) for test in lines.failed} & {*files}):  # it may have been the load
            print(f"once more, one at a time, since tests have failed: {' '.join(again)}", flush=True)
            lines.measure(copy.root, again, modules, 1)
        lines.write(path)
    lines.follow(modules)
    if failed := sorted(lines.failed):
        print(f"not used, since they fail ({len(failed)}): {' '.join(failed[:MANY])}{' ...' * (len(failed) > MANY)}")
    return lines


@attrs.frozen
class Choice:
    """The tests for a mutant.

    Args:
        rounds: Tests with their durations in seconds, round by round.
        left_out: How many more there are, which would take too long.
        stamp: A hash of it.

    """

    rounds: list[dict[str, float]]
    left_out: int
    stamp: str


def choose(lines: Lines, module: Module, mutant: Mutant, limit: float) -> Choice:
    """Choose tests of at most *limit* seconds for a mutant."""
    folder, name = Path("tests", Path(module.path).parent.name), Path(module.path).stem
    if module.path.startswith("scripts/"):
        folder = Path("tests/scripts")
    elif len(Path(module.path).parts) == 2:  # noqa: PLR2004  (a module of no room)
        folder = Path("tests")

    # A package's tests are those of its folder.
    named, folders = ("test_", {folder}) if name == "__init__" else (f"test_{name}", {folder, Path("tests")})

    def rank(test: str) -> int:
        file = Path(file_of(test))
        return 0 if file.parent in folders and file.stem.startswith(named) else 1

    found = lines.of(module.path, mutant.lines) or lines.of(module.path, mutant.around)
    # After some generators coverage's tracer misses the rest of the lines that a caller of theirs runs, and only the
    # first test runs what is cached: a file of the module's own tests counts whole if one of them runs the function.
    own = {file_of(test) for test in lines.of(module.path, mutant.inside) if not rank(test)}
    found |= {test for test in lines.tests if file_of(test) in own}
    imported = not {*mutant.lines} <= in_functions(module.text)
    if imported or lines.unsure(module.path, mutant.around):
        found |= lines.of(module.path, None)
        found |= {test for test in lines.tests if Path(file_of(test)).parent == folder or not rank(test)}
    rounds: list[dict[str, float]] = [{}, {}]
    files: set[str] = set()
    for test in sorted(found, key=lambda test: (rank(test), lines.tests[test], test)):
        takes = lines.tests[test] + (0 if file_of(test) in files else IMPORT)
        if takes <= limit:
            limit -= takes
            files.add(file_of(test))
            rounds[rank(test)][test] = lines.tests[test]
    of = [(test, lines.files.get(file_of(test))) for tests in rounds for test in tests]
    return Choice([tests for tests in rounds if tests], len(found) - len(of), digest(repr(of)))


# -- what became of them -----------------------------------------------------------------------------------------


def draw(everyone: Sequence[Mutant], many: int, seed: str) -> list[Mutant]:
    """Draw *many* mutants; most of them are the same ones when the module has changed a little."""
    seen: Counter[str] = Counter()
    lots: dict[str, Mutant] = {}
    for mutant in everyone:
        seen[mutant.what] += 1
        lots[digest(f"{seed} {mutant.what} {seen[mutant.what]}")] = mutant
    return [lots[lot] for lot in sorted(lots)[:many]]


def spared_in(module: Module) -> set[tuple[str, str]]:
    """Return the mutants of a module that do not matter: the line, and what is changed in it."""
    told = tomllib.loads(SPARED.read_text()) if SPARED.exists() else {}
    return {(one["line"], one["change"]) for one in told.get("spared", ()) if one["module"] == module.path}


@attrs.define
class Results:
    """What is known of the mutants of a module."""

    path: Path
    module: Module
    chosen: list[Mutant]
    spared: list[Mutant]
    exist: int
    mutants: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, module: Module, many: int, seed: str) -> Results:
        """Choose mutants of a module, and read the results of earlier runs, which count if it is unchanged."""
        everyone = module.mutants()
        chosen = draw(everyone, many, f"{seed} {module.path}")
        spared = spared_in(module)
        path = RESULTS / f"{module.path.replace('/', '.')}-{seed}.json"
        told = json.loads(path.read_text()) if path.exists() else {}
        kept = told["mutants"] if told.get("text") == digest(module.text) else {}
        apart = [mutant for mutant in chosen if (module.line(mutant), mutant.what) in spared]
        return cls(path, module, [one for one in chosen if one not in apart], apart, len(everyone), kept)

    def add(self, mutant: Mutant, choice: Choice, outcome: Outcome) -> None:
        """Keep what came of a mutant, and tell it."""
        fate = {"noticed": outcome.noticed, "tests": outcome.ran, "left_out": choice.left_out, "stamp": choice.stamp}
        self.mutants[mutant.key] = {**fate, "cpu": outcome.cpu}
        self.path.write_text(json.dumps({"text": digest(self.module.text), "mutants": self.mutants}, indent=1))
        print(f"{'noticed' if outcome.noticed else 'LIVES  '} {self.module.path}:{mutant.key}", flush=True)

    def settled(self, mutant: Mutant, choice: Choice) -> bool:
        """Return whether it need not be tried."""
        fate = self.mutants.get(mutant.key)
        return fate is not None and (bool(fate["noticed"]) or fate["stamp"] == choice.stamp)

    @property
    def living(self) -> list[str]:
        """A line for each of the chosen that no test has noticed."""
        found = []
        for mutant in self.chosen:
            fate = self.mutants[mutant.key]
            if not fate["noticed"]:
                why = f"tests that do not notice: {fate['tests']}" if fate["tests"] else "no test runs this line"
                more = f", {fate['left_out']} would take too long" if fate["left_out"] else ""
                found.append(f"{self.module.path}:{mutant.key}  ({why}{more})")
        return found


@contextlib.contextmanager
def copies(many: int) -> Iterator[list[Copy]]:
    """Make copies of the tree."""
    with tempfile.TemporaryDirectory(prefix="m-") as name:
        places = [Path(name, str(number)) for number in range(many)]
        for place in places:
            place.mkdir()
        yield [Copy(ROOT, place) for place in places]


@attrs.frozen
class Task:
    """A mutant to try."""

    results: Results
    mutant: Mutant
    choice: Choice


def run(todo: Sequence[Task], free: list[Copy], lines: Lines) -> None:
    """Try mutants, in each copy one at a time."""
    waiting = [*reversed(todo)]
    keepers: dict[int, tuple[Copy, Task]] = {}
    try:
        while waiting or keepers:
            while waiting and free:
                task, copy = waiting.pop(), free.pop()
                module = task.results.module
                texts = (module.text, task.mutant.source)
                keepers[copy.keep(module.path, texts, lines.usable(task.choice.rounds), lines.sound)] = copy, task
            pid, _ = os.wait()
            copy, task = keepers.pop(pid)
            free.append(copy)
            outcome = copy.outcome()
            for test in outcome.broken:
                print(f"not used, since it fails without a mutant: {test}", flush=True)
            lines.sound.update(outcome.sound)
            lines.fails(outcome.broken)
            task.results.add(task.mutant, task.choice, outcome)
    finally:
        for pid in keepers:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        lines.write(RESULTS / "lines.json")


def summarize(everything: Sequence[Results]) -> int:
    """Print the rates and the mutants that live, and return how many do."""
    for results in everything:
        noticed = len(results.chosen) - len(results.living)
        apart = f", {len(results.spared)} spared" * bool(results.spared)
        print(f"{results.module.path}: {noticed} of {len(results.chosen)} noticed{apart}; {results.exist} exist")
    living = [line for results in everything for line in results.living]
    for line in living:
        print(f"lives: {line}")
    cpu = [results.mutants[mutant.key]["cpu"] for results in everything for mutant in results.chosen]
    if tried := len(cpu):
        rate = 100 * (tried - len(living)) / tried
        all_spared = sum(len(results.spared) for results in everything)
        print(
            f"{tried - len(living)} of {tried} noticed: {rate:.1f} %; {sum(cpu) / tried:.1f} s of a processor each; "
            f"{all_spared} more are spared"
        )
    return len(living)


def options_of(words: Sequence[str]) -> Mapping[str, str]:
    """Return the options that *words* give.

    Raises:
        ValueError: A word is not understood; it is the message.

    """
    options = dict(OPTIONS)
    for word in words:
        key, _, value = word.partition("=")
        number = value.isdecimal() and (key, value) != ("JOBS", "0")
        if key not in OPTIONS or not (number or (key == "MODULE" and value)):
            raise ValueError(f"{word!r} is not understood")
        options[key] = value
    return options


def modules_of(pattern: str) -> list[Module]:
    """Return the modules that match *pattern* and can be changed.

    Raises:
        ValueError: There is none.

    """
    pattern = pattern.removesuffix("/")
    paths = [path for path in sorted(ROOT.glob(pattern)) if path.suffix == ".py" or path.is_dir()]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    modules = [module for module in (Module.read(file, ROOT) for file in files) if module.has_mutants]
    if not modules:
        raise ValueError(f"MODULE={pattern} is not a module that can be changed")
    return modules


def main(words: Sequence[str]) -> int:
    """Run the command line, and return the exit code: 1 if a mutant survives."""
    if not {"--help", "-h"}.isdisjoint(words):
        print(USE.replace("use:", "Usage:", 1))
        return 0
    try:
        options = options_of(words)
        modules = modules_of(options["MODULE"])
    except ValueError as error:
        print(f"just mutants: {error}; {USE}", file=sys.stderr)
        return 2
    jobs, limit = int(options["JOBS"]), float(options["LIMIT"])
    with copies(jobs) as places:
        lines = measured(places[0], jobs, anew=options["MEASURE"] == "1")
        everything = [Results.read(module, int(options["N"]), options["SEED"]) for module in modules]
        tasks = [
            Task(results, mutant, choose(lines, results.module, mutant, limit))
            for results in everything
            for mutant in results.chosen
        ]
        preload()
        run([task for task in tasks if not task.results.settled(task.mutant, task.choice)], places, lines)
    return 1 if summarize(everything) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
