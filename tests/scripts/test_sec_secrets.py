"""Where secrets are looked for; the scanner is a stand-in that says what a test wants."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scripts.imported import Imported

SCANNER = """\
#!/bin/sh
printf '%s\\n' "$*" >> .venv/called
cat .venv/says
cat .venv/errors >&2
exit $(cat .venv/code)
"""
KEY = b"\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01"  # how an RSA key begins


@pytest.fixture
def sec_secrets(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, in a project with that scanner."""
    imported.git("init", "-q")
    imported.write(".git/info/exclude", "/.venv\n/scripts\n")
    program = imported.write(".venv/python", SCANNER)
    program.chmod(0o755)
    answer(imported)
    sec_secrets = imported.load("sec_secrets")
    monkeypatch.setattr(sec_secrets, "sys", SimpleNamespace(executable=str(program)))
    return sec_secrets


def answer(imported: Imported, *found: tuple[str, str, int], code: int = 0, errors: bytes = b"") -> None:
    """Let the scanner find this."""
    told = [json.dumps({"finding": {"path": path, "line": line}, "rule": {"id": rule}}) for rule, path, line in found]
    imported.write(".venv/says", "\n".join(['{"summary": 1}', *told]))
    imported.write(".venv/code", str(code))
    imported.write(".venv/errors", errors)


def test_what_is_found(sec_secrets: Any, imported: Imported) -> None:
    """Each place once, in the order of the files; also keys that are no text, whatever their names are."""
    imported.write("b.txt", "x\n")
    imported.write("a/key.txt", KEY)
    imported.write("c", b"\0\0" + KEY)
    answer(
        imported, ("kf.aws", "./b.txt", 10), ("kf.aws", "./b.txt", 2), ("kf.abc", "b.txt", 10), ("kf.aws", "./b.txt", 2)
    )
    found = [tuple(secret) for secret in sec_secrets.secrets()]
    assert found == [
        ("private-key", "a/key.txt", 1),
        ("aws", "b.txt", 2),
        ("abc", "b.txt", 10),
        ("aws", "b.txt", 10),
    ]


def test_which_files_are_looked_at(sec_secrets: Any, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that git tracks or would track, some at a time; no link is followed, and a file may be gone."""
    monkeypatch.setattr(sec_secrets, "AT_ONCE", 2)
    outside = imported.write(".venv/outside", KEY)
    for path in ("a.txt", "b c.txt", "d.txt", "e/f.txt", "gone.txt"):
        imported.write(path, "")
    imported.git("add", "-A")
    (imported.root / "gone.txt").unlink()
    (imported.root / "link").symlink_to(outside)
    (imported.root / "z.txt").write_text("")
    (imported.root / "nowhere").symlink_to("nothing")
    assert list(sec_secrets.secrets()) == []
    calls = (imported.root / ".venv" / "called").read_text().splitlines()
    assert len(calls) == 3
    looked = " ".join(call.partition(" -- ")[2] for call in calls)
    assert sorted(f" {looked}".split(" ./")) == ["", "a.txt", "b c.txt", "d.txt", "e/f.txt", "z.txt"]
    for call in calls:
        assert call.startswith("-m kingfisher scan --no-validate --no-update-check ")
        rules = imported.root / "scripts" / "kernel" / "secrets.yml"
        assert f" --rules-path {rules} --ignore-comment pragma: allowlist secret " in call


@pytest.mark.parametrize("code", [0, 200, 205])
def test_exit_codes_that_are_no_failure(sec_secrets: Any, imported: Imported, code: int) -> None:
    """Nothing found, secrets found, secrets found that work."""
    imported.write("a.txt", "")
    answer(imported, ("kf.aws", "./a.txt", 1), code=code)
    assert [secret.rule for secret in sec_secrets.secrets()] == ["aws"]


@pytest.mark.parametrize(
    ("code", "errors", "told"),
    [
        (1, b"first\n\xff last\n\n", "^kingfisher: \ufffd last$"),
        (2, b" \n", "^kingfisher: exit code 2$"),
        (1, b"/x/python: No module named kingfisher\n", "^kingfisher is missing, or not for this platform$"),
        (1, b"wheel may not match your platform\nso\n", "^kingfisher is missing, or not for this platform$"),
    ],
)
def test_a_scanner_that_fails(sec_secrets: Any, imported: Imported, code: int, errors: bytes, told: str) -> None:
    """The error has its last words, or says that it is missing."""
    imported.write("a.txt", "")
    answer(imported, code=code, errors=errors)
    with pytest.raises(sec_secrets.NotLooked, match=told):
        list(sec_secrets.secrets())
