"""`pawmatch serve`: its flags are the table of settings."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pawmatch.cli import main
from pawmatch.settings import OPTIONS, Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that `serve` would start the page with."""
    calls: list[Settings] = []
    monkeypatch.setitem(sys.modules, "pawmatch.ui.server", SimpleNamespace(serve=calls.append))
    return calls


def test_serve_flags_win_over_variables_and_these_over_defaults(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAWMATCH_PORT", "8000")
    monkeypatch.setenv("PAWMATCH_HOST", "0.0.0.0")
    assert main(["serve", "--port", "9000", "--warm-up", "no"]) == 0
    assert served == [Settings(port=9000, host="0.0.0.0", warm_up=False)]


def test_serve_has_a_flag_for_every_setting(
    served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert all(option.flag in text for option in OPTIONS)
    assert main(["serve", "--port", "http"]) == 2
    assert "--port is 'http'" in capsys.readouterr().err
    assert served == []
