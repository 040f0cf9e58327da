"""When schedules are due, above all on the days when clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import PlanRejected
from plait_service.schedules.ticks import parse_cron
from tests.service.schedules.world import at

ZONES = ["Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca"]
MINUTES = st.integers(0, 59).map(str)
HOURS = st.integers(0, 23).map(str)
FIELDS = st.tuples(
    MINUTES | st.sampled_from(["*", "*/7", "0,30", "5-50/15"]),
    HOURS | st.sampled_from(["*", "*/3", "1-4", "2,3"]),
    st.sampled_from(["*", "1", "L", "15-20"]),
    st.sampled_from(["*", "*/2", "MAR", "10"]),
    st.sampled_from(["*", "SUN", "1-5"]),
).map(" ".join)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


def local_times(expression: str, zone: str, day: str) -> list[str]:
    """Ticks of one day of a zone, in its time."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    cron = parse_cron(expression, zone)
    dues, _ = cron.between(start - timedelta(minutes=1), start + timedelta(days=1, hours=2), most=1000)
    found = [due.astimezone(ZoneInfo(zone)) for due in dues]
    return [f"{due:%H:%M%z}" for due in found if due.date() == date.fromisoformat(day)]


@pytest.mark.parametrize(
    ("expression", "zone", "day", "times"),
    [
        # Berlin: 02:00 becomes 03:00 on 29 March, and 03:00 becomes 02:00 on 25 October.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", ["02:30+0100"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["02:30+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-26", ["02:30+0100"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-25", ["02:00+0200", "03:00+0100"]),
        ("0 3 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        # Intervals go by elapsed time.
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-29",
            [f"{h:02}:30+0{1 if h < 2 else 2}00" for h in range(24) if h != 2],
        ),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-29", []),
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-10-25",
            ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"],
        ),
        # New York changes at another hour; half an hour on Lord Howe; at midnight in Sao Paulo, until 2019.
        ("30 2 * * *", "America/New_York", "2026-03-08", ["03:00-0400"]),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30-0400"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["02:30+1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["01:45+1100"]),
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-04", ["01:00-0200"]),
        ("30 2 * * *", "UTC", "2026-03-29", ["02:30+0000"]),
    ],
)
def test_days_when_clocks_change(expression: str, zone: str, day: str, times: list[str]) -> None:
    assert local_times(expression, zone, day) == times


@given(MINUTES, HOURS, st.sampled_from(ZONES), st.integers(2024, 2029))
def test_a_nightly_job_runs_once_each_day(minute: str, hour: str, zone: str, year: int) -> None:
    cron = parse_cron(f"{minute} {hour} * * *", zone)
    start = datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    end = datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    dues, count = cron.between(start, end, most=1000)
    assert count == len(dues)
    found = [due.astimezone(ZoneInfo(zone)).date() for due in dues]
    assert found == [date(year, 1, 1) + timedelta(days=number) for number in range(len(found))]
    assert len(found) == 366 - (year % 4 != 0)


@given(FIELDS, st.sampled_from(ZONES), MOMENTS, st.integers(1, 400))
def test_from_tick_to_tick_gives_the_same_as_all_at_once(
    expression: str, zone: str, start: datetime, hours: int
) -> None:
    """A service that looks at each tick, and one that slept, see the same ones."""
    cron = parse_cron(expression, zone)
    until = start + timedelta(hours=hours)
    dues, count = cron.between(start, until, most=50)
    every, _ = cron.between(start, until, most=10**6)
    assert count == len(every)
    assert dues == every[-50:]
    assert all(before < after for before, after in pairwise([start, *every]))
    for before, after in pairwise([start, *every][:30]):
        assert cron.after(before) == after
        assert cron.after(after - timedelta(seconds=1)) == after


def test_the_first_tick_is_later_than_the_moment() -> None:
    cron = parse_cron("0 3 * * *", "UTC")
    assert cron.after(at("2026-11-21 02:59:59.999999")) == at("2026-11-21 03:00")
    assert cron.after(at("2026-11-21 03:00")) == at("2026-11-22 03:00")


@pytest.mark.parametrize(
    ("expression", "timezone", "places"),
    [
        ("0 3 * *", "UTC", ["cron"]),
        ("0 0 3 * * *", "UTC", ["cron"]),
        ("60 3 * * *", "UTC", ["cron"]),
        ("0 0 30 2 *", "UTC", ["cron"]),
        ("@daily", "UTC", ["cron"]),
        ("0 3 * * *", "Europe/Atlantis", ["timezone"]),
        ("0 3 * * *", "../../etc/passwd", ["timezone"]),
        ("0 3 * * *", "Europe", ["timezone"]),
        ("0 3 * * *", "/etc/localtime", ["timezone"]),
        ("0 3 * * *", "a\0b", ["timezone"]),
        ("x", "y", ["timezone", "cron"]),
    ],
)
def test_what_is_no_time(expression: str, timezone: str, places: list[str]) -> None:
    with pytest.raises(PlanRejected) as error:
        parse_cron(expression, timezone)
    assert [problem.where for problem in error.value.problems] == places
