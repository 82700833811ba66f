"""`just fuzz`: what it tells when it finds something, and a few of its runs."""

from __future__ import annotations

import pytest

from tests import fuzz
from tests.generated import App


def test_a_find_ends_it_with_the_smallest_app_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(backend: str, app: App) -> None:
        assert len(app.fakes) < 2 or backend == "asyncio", "two services are too many"

    monkeypatch.setattr(fuzz, "play", broken)
    assert fuzz.main(["MINUTES=1", "SIGNALS=0", "SEED=7"]) == 1
    said = capsys.readouterr().out
    assert "two services are too many" in said
    assert "App(fakes=(Fake(name='s0'), Fake(name='s1')), stop=0.0)" in said
    assert "FOUND: seed 7 on trio" in said


@pytest.mark.parametrize("words", [["HOURS=1"], ["MINUTES=long"], ["-h"], ["MINUTES="]])
def test_what_is_not_understood_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(words) == 2
    assert f"{words[0]!r} is not understood; use: just fuzz" in capsys.readouterr().err


def test_signals_at_some_moments_end_the_real_program_well(capsys: pytest.CaptureFixture[str]) -> None:
    """The same few moments each time; `just fuzz` takes 200 others."""
    assert fuzz.main(["MINUTES=0", "SIGNALS=6", "SEED=11"]) == 0, capsys.readouterr().out
