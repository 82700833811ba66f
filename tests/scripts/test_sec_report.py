"""What `just sec` makes of its findings: what it prints, its report and its exit code; and how it asks uv."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scripts.imported import Imported

LOCK = "# Made\nidna==3.4 \\\n    --hash=sha256:1\nother-one==1.0 ; x\nother-one==2.0 ; y\n"
UV = """\
#!/bin/sh
printf '%s' "$*" > called
printf '%s' "$UV_HTTP_RETRIES" >> called
cat ../../.venv/says
cat ../../.venv/errors >&2
exit $(cat ../../.venv/code)
"""


@pytest.fixture
def sec(imported: Imported) -> Any:
    """The module, in a project that has a lock, and a stand-in for uv."""
    imported.write("pyproject.toml", '[project]\nname = "x"\nrequires-python = ">=3.11"\n')
    imported.write("scripts/requirements.lock", LOCK)
    imported.write(".venv/bin/uv", UV).chmod(0o755)
    return imported.load("sec")


# -- the report ----------------------------------------------------------------------------------------------------


def look(sec: Any, monkeypatch: pytest.MonkeyPatch, **words: str) -> dict[str, str]:
    """Let the checks find one vulnerability, and return the words of the recipe."""
    monkeypatch.setattr(sec, "vulnerabilities", lambda service: iter([sec.Finding("PYSEC-1", service, "l", 3)]))
    monkeypatch.setattr(sec, "secrets", lambda: iter([]))
    monkeypatch.setattr(sec, "dangerous_code", lambda: iter([]))
    return {"SERVICE": "", "OFFLINE": "", **words}


def runs(imported: Imported) -> dict[str, Any]:
    """Return the runs of the report, by their names."""
    told = json.loads((imported.root / "build" / "sec.sarif").read_text())
    assert told["version"] == "2.1.0"
    return {run["tool"]["driver"]["name"].removeprefix("just sec: "): run for run in told["runs"]}


def code_of(sec: Any, words: dict[str, str]) -> int:
    """Run the checks, and return the exit code."""
    try:
        sec.check(words)
    except SystemExit as end:
        return int(str(end.code))
    return 0


def test_nothing_is_found(
    sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each check says so, as often as it is run."""
    words = look(sec, monkeypatch)
    monkeypatch.setattr(sec, "vulnerabilities", lambda _: iter([]))
    for _ in range(2):
        assert code_of(sec, words) == 0
        assert capsys.readouterr().out == (
            "known vulnerabilities: none found\nsecrets: none found\ndangerous code: none found\n"
            "The report is build/sec.sarif.\n"
        )
    for run in runs(imported).values():
        assert run["invocations"] == [{"executionSuccessful": True}]
        assert (run["tool"]["driver"]["rules"], run["results"]) == ([], [])


def test_findings(
    sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each that is not excused, and its place in the report; the excused ones are counted."""
    words = look(sec, monkeypatch, SERVICE="http://[::1]:80/osv_x-1")
    found = [
        sec.Finding("S602", "a shell", "a.py", 2),
        sec.Finding("S105", "a password", "b.py", 7),
        sec.Finding("S602", "a shell", "b.py", 9),
        sec.Finding("S607", "excused", "c.py", 1, excused=True),
    ]
    monkeypatch.setattr(sec, "dangerous_code", lambda: iter(found))
    assert code_of(sec, words) == 1
    assert capsys.readouterr().out == (
        "l:3: PYSEC-1: http://[::1]:80/osv_x-1\nknown vulnerabilities: 1 found\nsecrets: none found\n"
        "a.py:2: S602: a shell\nb.py:7: S105: a password\nb.py:9: S602: a shell\ndangerous code: 3 found\n"
        "1 dangerous lines are excused by a `# noqa` that names the rule.\nThe report is build/sec.sarif.\n"
    )
    run = runs(imported)["dangerous code"]
    assert run["tool"]["driver"]["rules"] == [{"id": "S105"}, {"id": "S602"}]
    assert run["invocations"] == [{"executionSuccessful": True}]
    assert [result["message"]["text"] for result in run["results"]] == ["a shell", "a password", "a shell"]
    place = {"physicalLocation": {"artifactLocation": {"uri": "b.py"}, "region": {"startLine": 7}}}
    expected = {"ruleId": "S105", "level": "error", "message": {"text": "a password"}, "locations": [place]}
    assert run["results"][1] == expected


def test_excused_lines_are_no_failure(sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """But they are told."""
    words = look(sec, monkeypatch, OFFLINE="1")
    monkeypatch.setattr(sec, "dangerous_code", lambda: iter([sec.Finding("S607", "x", "c.py", 1, excused=True)]))
    assert code_of(sec, words) == 0
    assert runs(imported)["dangerous code"]["results"] == []


def test_offline(
    sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is asked for vulnerabilities, which is no failure, but is told."""
    assert code_of(sec, look(sec, monkeypatch, OFFLINE="1")) == 0
    assert "known vulnerabilities: NOT CHECKED: OFFLINE=1 says so\n" in capsys.readouterr().out
    (told,) = runs(imported)["known vulnerabilities"]["invocations"]
    assert told == {
        "executionSuccessful": False,
        "toolExecutionNotifications": [{"level": "error", "message": {"text": "OFFLINE=1 says so"}}],
    }


@pytest.mark.parametrize(("finds", "code"), [(False, 3), (True, 1)])
def test_a_check_that_cannot_run(
    sec: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finds: bool, code: int
) -> None:
    """The others run, and what they find counts more."""
    words = look(sec, monkeypatch, **({} if finds else {"OFFLINE": "1"}))

    def fail() -> Iterator[Any]:
        raise sec.NotDone("kingfisher is missing")
        yield

    monkeypatch.setattr(sec, "secrets", fail)
    assert code_of(sec, words) == code
    said = capsys.readouterr().out
    assert "dangerous code: none found\n" in said
    assert "secrets: NOT CHECKED: kingfisher is missing\n" in said


@pytest.mark.parametrize("service", ["x", "ftp://x", "http://", "http://a b", "http://x/$(id)", "http://x\n"])
def test_what_is_no_address(sec: Any, service: str) -> None:
    """The error shows one that is."""
    with pytest.raises(
        sec.Refusal, match=r"SERVICE='.*' is not an address; example: SERVICE=https://osv\.example\.com"
    ):
        sec.check({"SERVICE": service, "OFFLINE": "1"})


# -- the three checks ----------------------------------------------------------------------------------------------


def answer(imported: Imported, *results: Any, code: int = 0, errors: str = "", says: str | None = None) -> None:
    """Let uv say this."""
    told = [
        {
            "ruleId": rule,
            "message": {"text": f"{name} is vulnerable"},
            "properties": {"uv/package": name, "uv/version": version, **more},
        }
        for rule, name, version, more in results
    ]
    imported.write(".venv/says", json.dumps({"runs": [{"results": told}]}) if says is None else says)
    imported.write(".venv/errors", errors)
    imported.write(".venv/code", str(code))


@pytest.mark.parametrize("service", ["", "http://127.0.0.1:9"])
def test_vulnerabilities(sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    """Each has its line in the lock, and what to do; uv is told the versions of all platforms, and no index."""
    monkeypatch.delenv("UV_HTTP_RETRIES", raising=False)
    answer(
        imported,
        ("PYSEC-1", "idna", "3.4", {"uv/fixVersions": ["3.7", "4.0"]}),
        ("PYSEC-2", "other-one", "2.0", {"uv/fixVersions": None}),
        ("PYSEC-3", "other-one", "1.0", {}),
        code=1,
    )
    for _ in range(2):
        assert [(one.rule, one.text, one.path, one.line) for one in sec.vulnerabilities(service)] == [
            ("PYSEC-1", "idna is vulnerable; fixed in 3.7 or 4.0: just deps-update idna", sec.PLACE, 2),
            ("PYSEC-2", "other-one is vulnerable; not fixed yet: remove it, or wait", sec.PLACE, 5),
            ("PYSEC-3", "other-one is vulnerable; not fixed yet: remove it, or wait", sec.PLACE, 4),
        ]
    folder = imported.root / "build" / "sec"
    called = "audit --frozen --preview-features=audit-command --output-format=sarif"
    assert (folder / "called").read_text() == called + (f" --service-url {service}" if service else "") + "0"
    lock = tomllib.loads((folder / "uv.lock").read_text())
    assert (lock["version"], lock["requires-python"]) == (1, ">=3.11")
    audited, *packages = lock["package"]
    assert audited["source"] == {"virtual": "."}
    pins = [("idna", "3.4"), ("other-one", "1.0"), ("other-one", "2.0")]
    assert [(one["name"], one["version"]) for one in audited["dependencies"]] == pins
    assert [(one["name"], one["version"], one["source"]) for one in packages] == [
        (*pin, {"registry": "."}) for pin in pins
    ]
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == audited["name"]


def test_no_vulnerabilities(sec: Any, imported: Imported) -> None:
    """The exit code of uv is 0 then."""
    answer(imported)
    assert list(sec.vulnerabilities()) == []


@pytest.mark.parametrize(
    ("code", "errors", "told"),
    [
        (2, "error: no such option\n", "no such option"),
        (2, "error sending request for url\n", r"the vulnerability database does not respond \(.*\)"),
        (0, "error: nothing to say\n", "nothing to say"),
        (2, "it crashed\n \n", "it crashed"),
        (101, "", "no reason was given"),
    ],
)
def test_vulnerabilities_that_cannot_be_looked_for(
    sec: Any, imported: Imported, code: int, errors: str, told: str
) -> None:
    """The reason is uv's, or that the database does not respond."""
    answer(imported, code=code, errors=errors, says="{}" if code else "")
    with pytest.raises(sec.NotDone, match=told):
        list(sec.vulnerabilities())


def test_secrets(sec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says what to do; a scanner that cannot run is a check that could not."""
    module = sec.sec_secrets
    monkeypatch.setattr(module, "secrets", lambda: iter([module.Secret("aws", "a.txt", 3)]))
    text = "looks like a secret; remove and change it, or write `pragma: allowlist secret` behind it"
    assert list(sec.secrets()) == [sec.Finding("aws", text, "a.txt", 3)]

    def fail() -> None:
        raise module.NotLooked("it is missing")

    monkeypatch.setattr(module, "secrets", fail)
    with pytest.raises(sec.NotDone, match="it is missing"):
        list(sec.secrets())


def test_dangerous_code(sec: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of that kind which the project ignores everywhere are ignored; the excused ones are marked."""
    module = sec.sec_code
    asked: list[list[str]] = []

    def dangers(ignored: list[str]) -> Any:
        asked.append(ignored)
        return [module.Danger("a.py", 1, "S602", "x")], [module.Danger("b.py", 2, "S607", "y")]

    monkeypatch.setattr(module, "dangers", dangers)
    found = [sec.Finding("S602", "x", "a.py", 1), sec.Finding("S607", "y", "b.py", 2, excused=True)]
    assert list(sec.dangerous_code()) == found
    imported.write("pyproject.toml", '[tool.ruff.lint]\nignore = ["E501", "S101"]\nextend-ignore = ["S603", "D"]\n')
    assert list(sec.dangerous_code()) == found
    assert asked == [[], ["S101", "S603"]]

    def fail(_: object) -> None:
        raise module.NotLooked("ruff fails")

    monkeypatch.setattr(module, "dangers", fail)
    with pytest.raises(sec.NotDone, match="ruff fails"):
        list(sec.dangerous_code())
