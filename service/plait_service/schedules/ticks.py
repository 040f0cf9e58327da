"""When a schedule is due: cron in a time zone, by the rules of Debian's cron (the library ``cronsim``).

On the days when clocks change:

* A time that the clock jumps over in spring is taken at the end of the jump: 02:30 becomes 03:00. Several
  such times become one tick.
* A time that comes twice in autumn is taken the first time alone.
* So a job at a given hour and minute runs once each day. Expressions whose minute or hour begins with
  ``*`` say an interval instead, and go by elapsed time: ``*/30 * * * *`` is every half hour, whatever the
  clock says; ``*/30 2 * * *`` has no tick on the day without that hour, twice as many on the day with two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from plait.errors import PlaitError, PlanRejected, SpecInvalid

_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Cron:
    """Moments, without end; made by :func:`parse_cron`."""

    expression: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """The first tick later than ``moment``, in UTC; None if there is none for fifty years."""
        return next(self._ticks(moment), None)

    def between(self, after: datetime, until: datetime, *, most: int) -> tuple[list[datetime], int]:
        """The last ``most`` ticks later than ``after`` and not later than ``until``, and how many there are.

        Cost: some microseconds for each tick, also for those that are left out.
        """
        last, count = deque[datetime](maxlen=most), 0
        for due in self._ticks(after):
            if due > until:
                break
            last.append(due)
            count += 1
        return list(last), count

    def _ticks(self, after: datetime) -> Iterator[datetime]:
        """Each is later than the one before: several that fall into a gap are one."""
        last = after.astimezone(UTC)
        for local in CronSim(self.expression, after.astimezone(self.zone)):
            due = local.astimezone(UTC)
            if due > last:
                yield due
                last = due


def parse_cron(expression: str, timezone: str) -> Cron:
    """A schedule's moments.

    Args:
        expression: five fields: minute, hour, day of the month, month, day of the week; ``*``, ``a-b``,
            ``a,b``, ``*/n``, names of months and days, ``L`` for the last day, ``MON#1`` the first Monday.
        timezone: an IANA name.

    Raises:
        PlanRejected: with what is wrong with each of the two.
    """
    problems: list[PlaitError] = []
    zone = _zone(timezone, problems)
    if len(expression.split()) != _FIELDS:
        problems.append(_wrong_cron(f"{len(expression.split())} fields"))
    else:
        try:
            if next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)), None) is None:
                problems.append(_wrong_cron("a date that never comes"))
        except CronSimError as error:
            problems.append(_wrong_cron(str(error).lower()))
    if problems or zone is None:
        raise PlanRejected(problems)
    return Cron(expression, zone)


def _wrong_cron(found: str) -> SpecInvalid:
    return SpecInvalid(
        "a cron expression",
        where="cron",
        expected="minute, hour, day of the month, month and day of the week, such as 30 2 * * *",
        found=found,
    )


def _zone(name: str, problems: list[PlaitError]) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # no such file; a folder; a path that leaves the database's
        problems.append(
            SpecInvalid(
                "a time zone", where="timezone", expected="an IANA name, such as Europe/Berlin or UTC"
            )
        )
        return None
