from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plait.cli import cli
from plait.durations import parse_duration
from plait.errors import SourceMissing
from plait.schedules import Schedule, ScheduleRequest, TickState

REQUEST: dict[str, Any] = {
    "name": "nightly",
    "cron": "30 2 * * *",
    "spec": {"models": ["a"], "output": "{date}"},
    "ready": {"glob": "runs/{date}/*", "count": 5},
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("2w", 1209600), (" 5 m ", 300), ("0s", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "h", "-1h", "1.5h", "1h30m", "1M", "1 hour", "999999999d", "٣h", "5\nm"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_a_file_that_is_not_there_is_no_spec(tmp_path: Path) -> None:
    missing = str(tmp_path / "nightly.yaml")
    with pytest.raises(SourceMissing) as caught:
        cli.main(["schedule", "create", missing], standalone_mode=False)
    assert str(caught.value).startswith(f"{missing}: no such schedule")
    assert caught.value.hint is not None
    assert "describes the schedule" in caught.value.hint


def test_a_request_says_little() -> None:
    request = ScheduleRequest.model_validate(REQUEST)
    assert (request.timezone, request.missed, request.latest, request.attempts) == (
        "UTC",
        "run-last",
        None,
        3,
    )
    assert request.ready is not None
    assert (request.ready.marker, request.ready.every, request.ready.deadline) == ("index", "1m", "6h")


@pytest.mark.parametrize(
    "wrong",
    [
        {"crom": "x"},
        {"ready": {"glob": "x", "count": 5, "markr": "x"}},
        {"ready": {"glob": "x", "count": 5, "marker": "a/b"}},
        {"ready": {"glob": "x", "count": 5, "marker": ".."}},
        {"ready": {"glob": "x", "count": 5, "marker": "\0"}},
        {"ready": {"glob": "x", "count": 5, "marker": "\ud800"}},
        {"ready": {"glob": "x", "count": 5, "every": "often"}},
        {"missed": "run-some"},
        {"attempts": 0},
        {"labels": {"a b": "c"}},
    ],
)
def test_a_request_that_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScheduleRequest.model_validate(REQUEST | wrong)


def test_what_a_newer_service_says_is_no_error() -> None:
    said = {
        **REQUEST,
        "id": "s-1",
        "team": "t",
        "owner": "o",
        "paused": False,
        "created": "2026-11-21T00:00:00Z",
        "changed": "2026-11-21T00:00:00Z",
        "last": {
            "due": "2026-11-21T00:00:00Z",
            "changed": "2026-11-21T00:00:00Z",
            "state": "late",
            "colour": "red",
        },
        "colour": "red",
    }
    schedule = Schedule.model_validate(said)
    assert schedule.settings == ScheduleRequest.model_validate(REQUEST)
    assert schedule.last is not None
    assert schedule.last.state is TickState.LATE
    assert not schedule.last.state.is_open
