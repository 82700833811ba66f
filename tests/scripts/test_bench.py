"""`just bench`: that it measures what it says, and tells it well. How long anything takes is for nobody to assert."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.program import REPO

sys.path.append(str(REPO / "scripts" / "template"))

import bench
import bench_cases
from bench import Report, Result, Target
from bench_cases import Case, Group
from contestants import moments

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a short run of everything but the peers; the page is beside it."""
    folder = tmp_path_factory.mktemp("bench")
    result = folder / "result.json"
    assert bench.main(["SHORT=1", "PEERS=0", "RUNS=1", f"JSON={result}", f"PAGE={folder / 'page.md'}"]) == 0
    return result


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table in *text*."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[re.split(r" *\| *", line)[1:-1] for line in one.splitlines()] for one in found]


@pytest.mark.minutes
def test_every_case_gives_its_numbers(result: Path) -> None:
    """One for each run, and nobody fails; neither the kernel nor what is done by hand violates an edge."""
    told = json.loads(result.read_text())
    assert {one["group"] for one in told["results"]} == set(told["groups"])
    for one in told["results"]:
        assert not one["error"], one
        assert one["numbers"]
        assert all(len(values) == 1 for values in one["numbers"].values()), one
        assert one["numbers"].get("edges violated", [0]) == [0], one
    for name, (_, base) in told["groups"].items():
        assert base in {one["case"] for one in told["results"] if one["group"] == name}
    without_wrk = set() if shutil.which(bench_cases.WRK) else {"http-asyncio", "http-uvloop"}
    left_out = {target.group for target in bench.TARGETS} - set(told["groups"])
    assert left_out == {"noop-1000", "noop-10000", *without_wrk}
    assert {target["met"] for target in told["targets"]} <= {"met", "missed", "not measured"}


@pytest.mark.minutes
def test_the_tables_are_well_formed(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row has a cell for each column; the page is made from the JSON alone, and names no host."""
    assert bench.main([f"FROM={result}"]) == 0
    said = capsys.readouterr().out
    page = result.with_name("page.md").read_text()
    assert page == f"{bench.INTRO}\n{said}"
    groups = json.loads(result.read_text())["groups"]
    assert re.findall("^## (.*)$", said, re.MULTILINE) == ["The machine", "Targets", *groups]
    found = tables(page)
    assert len(found) == 1 + len(groups)
    for one in found:
        assert len({len(line) for line in one}) == 1
        assert set(one[1]) == {"---"}
        assert all(cell for line in one[2:] for cell in line)
    assert not re.search(rf"\b{re.escape(platform.node() or 'nowhere')}\b", said.split("## Targets")[0])
    assert max(map(len, said.split("## Targets")[0].splitlines())) <= 120


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LIMIT", 0.1)
    case = Case("slow", ("-c", "import time; time.sleep(60)"))
    (result,) = bench.measure(Group("some", "", "slow", (case,)), 3)
    assert result.error == "did not end in 0.1 s"


def test_one_that_fails_is_told_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(name: str) -> Path:
        raise bench.Failed(f"could not be installed: no {name} found")

    monkeypatch.setattr(bench, "environment", nowhere)
    cases = (
        Case("fine", ("-c", "print('{\"ms\": 1}')")),
        Case("broken", ("-c", "raise SystemExit('it is broken')")),
        Case("strange", ("-c", "print('nothing')")),
        Case("loud", ("-c", "import sys; print('{}'); print('it is loud', file=sys.stderr)")),
        Case("absent", ("-m", "absent"), peer="absent"),
    )
    group = Group("some", "Some cases.", "fine", cases)
    results = bench.measure(group, 2)
    assert [one.error for one in results] == [
        "",
        "exit 1: it is broken",
        "Expecting value: line 1 column 1 (char 0)",
        "it is loud",
        "could not be installed: no absent found",
    ]
    assert results[0].numbers == {"ms": [1, 1]}
    said = bench.render(Report([], {}, 2, False, {"some": ("Some cases.", "fine")}, results))
    assert tables(said) == [[["", "ms"], ["---", "---"], ["fine", "1"]]]
    assert "\nabsent: could not be installed: no absent found\n" in said
    assert capsys.readouterr().err.splitlines() == ["some: warming up", "some: run 1 of 2", "some: run 2 of 2"]


@pytest.mark.parametrize(
    ("limit", "scale", "at_least", "row"),
    [
        (1.5, 1.0, False, ["<= 1.5x", "1.5x", "met"]),
        (1.4, 1.0, False, ["<= 1.4x", "1.5x", "missed"]),
        (1.4, 2.0, False, ["<= 1.4x", "0.75x", "met"]),
        (0.8, 2.0, True, [">= 0.8x", "0.75x", "missed"]),
    ],
)
def test_a_target_is_a_ratio_of_medians(limit: float, scale: float, at_least: bool, row: list[str]) -> None:
    results = [Result("g", "kernel", {"ms": [3, 1, 900]}), Result("g", "by hand", {"ms": [1, 2, 5]})]
    report = Report([], {}, 3, False, {}, results)
    target = Target("it", "g", "ms", limit, ("g", "by hand"), scale=scale, at_least=at_least)
    assert target.row(report) == ["it", *row]
    assert Target("it", "g", "ms", 3).row(report) == ["it", "<= 3", "3", "met"]
    assert Target("it", "g", "MB", 3).row(report) == ["it", "<= 3", "", "not measured"]


def test_a_cell_tells_median_spread_and_ratio() -> None:
    assert bench.cell([3, 1, 2.5], [2]) == "2.5 (1..3) 1.25x"
    assert bench.cell([12345.6], []) == "12,346"
    assert bench.cell([0, 0], [0]) == "0"


@pytest.mark.parametrize("words", [["HOURS=1"], ["RUNS=0"], ["SHORT=yes"], ["CASES=nothing"]])
def test_what_is_not_understood_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(words) == 2
    said = capsys.readouterr().err
    assert words[0] in said
    assert "use: just bench" in said


def test_cases_are_named_by_what_they_begin_with() -> None:
    assert bench.wanted("noop-10", "")
    assert bench.wanted("noop-10", "hello,noop")
    assert bench.wanted("noop-10", "*-10")
    assert not bench.wanted("noop-100", "noop-10")


def test_the_graphs_are_what_the_page_says() -> None:
    for kind in ("uniform", "skewed"):
        nodes = moments.graph([kind, "0.01"])
        assert len(nodes) == 60
        assert all(needed < place for place, node in enumerate(nodes) for needed in node.needs)
    assert moments.critical_path(moments.graph(["uniform", "0.01"])) == pytest.approx(0.1)
    assert moments.critical_path(moments.graph(["skewed", "0.01"])) == pytest.approx(0.49)


def test_a_violated_edge_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Who launches everything at once and stops the first first violates every edge, twice."""
    run = moments.Run(["uniform", "0.01"])
    run.begins()
    for tell in (run.launched, run.ready):
        for place in run.places:
            tell(place)
    run.all_ready()
    for place in run.places:
        run.asked(place)
        run.ended(place)
    run.all_ended()
    assert json.loads(capsys.readouterr().out)["edges violated"] == 2 * 108


@pytest.mark.parametrize("kind", ["text", "json"])
def test_the_lines_by_hand_are_the_kernels(kind: str, tmp_path: Path) -> None:
    """But for their times, and for whose turn it was."""
    found = []
    for who in ("kernel", "plain"):
        file = tmp_path / who
        case = bench_cases.program(who, "lines", who, kind, 2, file)
        bench.run(case)
        found.append(sorted(re.sub(r"^[\d:.]+ |\"ts\": \".*?\"", "", line) for line in file.read_text().splitlines()))
    assert len(found[0]) == 2000
    assert found[0] == found[1]


@pytest.mark.parametrize(("words", "cwd"), [(["--help"], "many"), (["list"], "one"), (["greeter", "status"], "one")])
def test_the_minimal_program_says_what_the_app_says(words: list[str], cwd: str, tmp_path: Path) -> None:
    """So it does the same; the order of services is the app's own."""
    chosen = [
        case
        for group in bench_cases.groups(tmp_path, short=True, peers=())
        for case in group.cases
        if case.command[-len(words) :] == tuple(words)
    ]
    app = next(case for case in chosen if case.cwd and case.cwd.name == cwd)
    minimal = next(case for case in chosen if case.env.get("SERVICES") == ("200" if cwd == "many" else "1"))
    said = [
        sorted(re.sub(r"\W+", " ", line) for line in bench.run(case).stdout.splitlines()) for case in (app, minimal)
    ]
    assert said[0] == said[1]


def test_it_is_a_script(tmp_path: Path) -> None:
    """From any folder."""
    script = str(REPO / "scripts" / "template" / "bench.py")
    command = [sys.executable, script, "CASES=hello", "RUNS=1", f"JSON={tmp_path / 'result.json'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "| kernel " in done.stdout


def test_http_needs_wrk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is missing, that is said, and the rest is measured."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not [one for one in bench_cases.groups(tmp_path, short=True, peers=()) if one.name.startswith("http")]
    assert bench.main(["CASES=http", "SHORT=1", f"JSON={tmp_path / 'result.json'}"]) == 2
    assert "http is left out: there is no wrk; install it" in capsys.readouterr().err
