from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import SpecInvalid
from plait_service.schedules.template import FORMS, has_dates, literal, render, render_text
from tests.service.schedules.world import at

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")
DUE = at("2026-11-21 03:00")

MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from(
    [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata")]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("s3://runs/{date}/a", "s3://runs/2026-11-21/a"),
        ("{date - 1d}", "2026-11-20"),
        ("{date-1d}{ date +1w }", "2026-11-202026-11-28"),
        ("{date - 4h}", "2026-11-20"),
        ("{date + 12h:%Y/%m/%d-%H}", "2026/11/21-15"),
        ("{date:%Y%m%dT%H%M%S%z}", "20261121T030000+0000"),
        ("{date - 90m:%H:%M}, {date + 1s:%S}", "01:30, 01"),
        ("{date:%j %a %b %y %G-W%V-%u %%}", "325 Sat Nov 26 2026-W47-6 %"),
        ("{{date}} }", "{date} }"),
        ("{{{date}}}", "{2026-11-21}"),
        ("a}}b", "a}b"),
        ("no braces", "no braces"),
    ],
)
def test_dates(text: str, rendered: str) -> None:
    assert render_text(text, DUE, UTC_ZONE, where="x") == rendered


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "{dat}",
        "{date",
        "{date - 1}",
        "{date - 1M}",
        "{date - d}",
        "{date 1d}",
        "{date - 1d - 1d}",
        "{Date}",
        "{date:}",
        "{date:%Q}",
        "{date:%s}",
        "{date:%}",
        "{date:%-d}",
        "{date:{date}}",
        "{date - 999999d}",
        "{date + 999999w}",
        "{date.year}",
        "{a,b}",
    ],
)
def test_what_is_no_date_is_an_error_with_its_place(text: str) -> None:
    value, problems = render({"models": [{"glob": f"s3://runs/{text}/x"}], "seed": 1}, DUE, UTC_ZONE)
    assert [problem.where for problem in problems] == ["spec.models.0.glob"]
    assert isinstance(problems[0], SpecInvalid)
    assert "{date - 1d}" in str(problems[0])
    assert value["seed"] == 1


def test_all_problems_are_told_together() -> None:
    _, problems = render({"a": ["{x}", "{date}", "{y}"], "b": {"c": "{z"}}, DUE, UTC_ZONE)
    assert [problem.where for problem in problems] == ["spec.a.0", "spec.a.2", "spec.b.c"]


def test_dates_are_those_of_the_time_zone() -> None:
    late = at("2026-11-21 23:30")
    assert render_text("{date}", late, UTC_ZONE, where="x") == "2026-11-21"
    assert render_text("{date}", late, BERLIN, where="x") == "2026-11-22"
    assert render_text("{date - 1d:%d %H:%M}", late, BERLIN, where="x") == "21 00:30"


def test_days_are_steps_of_the_calendar_and_hours_are_elapsed_time() -> None:
    """On the Sunday when the clock jumps from two to three."""
    due = datetime(2026, 3, 29, 12, tzinfo=BERLIN)
    assert render_text("{date - 1d:%d %H:%M}", due, BERLIN, where="x") == "28 12:00"
    assert render_text("{date - 24h:%d %H:%M}", due, BERLIN, where="x") == "28 11:00"
    assert render_text("{date - 10h:%H:%M %z}", due, BERLIN, where="x") == "01:00 +0100"


@given(st.text(), MOMENTS, ZONES)
def test_braces_are_kept_by_doubling_them(text: str, due: datetime, zone: ZoneInfo) -> None:
    assert render_text(literal(text), due, zone, where="x") == text


@given(PLAIN, MOMENTS)
def test_rendering_never_fails_but_by_its_problems(value: Any, due: datetime) -> None:
    rendered, problems = render(value, due, UTC_ZONE)
    if not problems and not _has_braces(value):
        assert rendered == value


def _has_braces(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_braces, value.values()))
    if isinstance(value, list):
        return any(map(_has_braces, value))
    return isinstance(value, str) and has_dates(value)


@given(st.text("{}date -+:%1hYH", max_size=20), MOMENTS)
def test_what_renders_holds_no_date_any_more(text: str, due: datetime) -> None:
    """Whatever is typed gives an error or a text; and what is doubled is all that braces are left of."""
    try:
        rendered = render_text(text, due, UTC_ZONE, where="x")
    except SpecInvalid:
        return
    assert rendered.count("{") == text.count("{{")


@given(st.integers(0, 5000), st.sampled_from("+-"), MOMENTS, ZONES)
def test_a_date_and_days(count: int, sign: str, due: datetime, zone: ZoneInfo) -> None:
    step = timedelta(days=count if sign == "+" else -count)
    rendered = render_text(f"{{date {sign} {count}d}}", due, zone, where="x")
    assert rendered == (due.astimezone(zone).date() + step).isoformat()


@given(st.sampled_from(sorted(FORMS)), MOMENTS)
def test_forms_are_those_of_strftime(code: str, due: datetime) -> None:
    assert render_text(f"{{date:<%{code}>}}", due, UTC_ZONE, where="x") == due.strftime(f"<%{code}>")
