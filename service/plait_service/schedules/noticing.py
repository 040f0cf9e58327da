"""From the clock to ticks: each moment at which a schedule was due gets a row, once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from plait.schedules import ScheduleRequest, TickState
from plait_service.jobs.database import Database
from plait_service.jobs.tables import ScheduleRow, TickRow
from plait_service.schedules.records import new_tick
from plait_service.schedules.ticks import parse_cron

LOGGER: Final = logging.getLogger("plait.schedules")
GRACE: Final = timedelta(minutes=1)
"""A tick that is noticed later than this was missed."""
MOST: Final = 1000
"""Ticks that are noticed at once; of more than these only the newest."""
_WHY: Final = "the service did not run when it was due"


def due_schedules(database: Database, moment: datetime) -> Sequence[str]:
    """Schedules that have a tick that was not noticed."""
    wanted = select(ScheduleRow.id).where(ScheduleRow.paused.is_(False), ScheduleRow.due <= moment)
    with database.read() as session:
        return session.scalars(wanted).all()


def notice(database: Database, schedule: str, moment: datetime) -> None:
    """Rows for all ticks up to ``moment``, and which of them are to run, in one transaction.

    Whoever else notices the same ticks is told apart by ``considered``, and the rows' key.
    """
    with database.read() as session:
        seen = session.get(ScheduleRow, schedule)
    if seen is None:
        return
    request = ScheduleRequest.model_validate(seen.settings)
    cron = parse_cron(request.cron, request.timezone)
    dues, count = cron.between(seen.considered, moment, most=MOST)
    if not dues:
        return
    with database.begin() as session:
        row = session.get(ScheduleRow, schedule, with_for_update=True)
        if row is None or row.paused or (row.considered, row.changed) != (seen.considered, seen.changed):
            return
        for due, state in zip(dues, _states(request.missed, dues, moment), strict=True):
            if session.get(TickRow, (schedule, due)) is None:
                reason = _WHY if state is TickState.MISSED else None
                session.add(new_tick(schedule, due, moment, state, reason=reason))
        row.considered, row.due = dues[-1], cron.after(dues[-1])
    if count > len(dues):
        LOGGER.warning(
            "schedule %s: %d ticks are too long ago to be noticed", request.name, count - len(dues)
        )


def _states(missed: str, dues: Sequence[datetime], moment: datetime) -> list[TickState]:
    if missed == "run-all":
        return [TickState.WAITING for _ in dues]
    if missed == "run-last":
        return [*(TickState.MISSED for _ in dues[:-1]), TickState.WAITING]
    return [TickState.MISSED if moment - due > GRACE else TickState.WAITING for due in dues]
