"""`just fuzz`: what it tells when it finds something, and a few of its runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel.testing import BACKENDS
from tests import fuzz, fuzz_http, generated
from tests.generated import App

pytestmark = pytest.mark.minutes


def test_a_find_ends_it_with_the_smallest_app_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(backend: str, app: App) -> None:
        assert len(app.fakes) < 2 or backend == "asyncio", "two services are too many"

    monkeypatch.setattr(fuzz, "play", broken)
    assert fuzz.main(["MINUTES=1", "SIGNALS=0", "HTTP=0", "STARVED=0", "SEED=7"]) == 1
    said = capsys.readouterr().out
    assert "FOUND: seed 7 on trio: AssertionError: two services are too many" in said
    (app,) = re.findall(r"@example\((.*)\)", said)
    assert len(eval(app, vars(generated)).fakes) == 2  # noqa: S307  (it is to be pasted into a test)
    assert len(app) < 80, "it is not the smallest"


@pytest.mark.parametrize("words", [["HOURS=1"], ["MINUTES=long"], ["MINUTES="]])
def test_what_is_not_understood_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(words) == 2
    assert f"{words[0]!r} is not understood; use: just fuzz" in capsys.readouterr().err


def test_signals_at_some_moments_end_the_real_program_well(capsys: pytest.CaptureFixture[str]) -> None:
    """The same few moments each time; `just fuzz` takes 200 others."""
    assert fuzz.main(["MINUTES=0", "HTTP=0", "SIGNALS=6", "STARVED=2", "SEED=11"]) == 0, capsys.readouterr().out


@pytest.mark.minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_http_servers_are_sent_what_no_client_should(tmp_path: Path, backend: str) -> None:
    """For half a minute the same bytes each time: no exit, no restart, no late answer, no memory that grows."""
    assert fuzz_http.fuzz(tmp_path, backend, 1, 30) > 0


def test_a_server_that_breaks_is_a_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told with the seed that shows it, and with what the program said."""

    def broken(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(fuzz_http, "status", broken)
    with pytest.raises(fuzz_http.Broken, match=r"SEED=3, after 0 conversations: the admin server does not answer"):
        fuzz_http.fuzz(tmp_path, "trio", 3, 60)
