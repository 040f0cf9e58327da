"""From jobs to ticks: what became of the job of a tick, also of one that somebody retried."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import or_, select

from plait.jobs import JobState
from plait.schedules import ScheduleRequest, TickState
from plait_service.jobs.database import Database
from plait_service.jobs.tables import JobRow, ScheduleRow, TickRow
from plait_service.schedules.records import DUE

LOGGER: Final = logging.getLogger("plait.schedules")
_BAD_ENDS: Final = tuple(
    state.value for state in JobState if state.is_final and state is not JobState.SUCCEEDED
)
RETRIED: Final = timedelta(days=30)
"""A job that failed is followed for so long, in case that somebody retries it."""
_LONGEST: Final = 2000


def follow(database: Database, moment: datetime) -> None:
    """Ticks get the state that their jobs' ends give them.

    Cost: one query, and a transaction for each change.
    """
    changed = (
        select(TickRow.schedule, TickRow.due)
        .outerjoin(JobRow, JobRow.id == TickRow.job)
        .where(
            or_(
                (TickRow.state == TickState.SUBMITTED)
                & or_(JobRow.id.is_(None), JobRow.state.in_((JobState.SUCCEEDED, *_BAD_ENDS))),
                (TickRow.state == TickState.FAILED)
                & (TickRow.look > moment - RETRIED)
                & JobRow.state.not_in(_BAD_ENDS),
            )
        )
        .order_by(TickRow.schedule, TickRow.due)
    )
    with database.read() as session:
        keys = session.execute(changed).all()
    for schedule, due in keys:
        _follow(database, schedule, due, moment)


def _follow(database: Database, schedule: str, due: datetime, moment: datetime) -> None:
    with database.begin() as session:
        row = session.get(ScheduleRow, schedule, with_for_update=True)
        tick = session.get(TickRow, (schedule, due), with_for_update=True)
        if row is None or tick is None or tick.job is None:
            return
        job = session.get(JobRow, tick.job)
        state, reason = _end_of(job)
        if state == tick.state:
            return
        tick.state, tick.reason, tick.changed, tick.look = state, reason, moment, moment
        request = ScheduleRequest.model_validate(row.settings)
        if state is TickState.SUCCEEDED and request.latest is not None:
            tick.pointer = DUE
    if state is TickState.FAILED:
        LOGGER.warning("schedule %s: the job of %s failed: %s", request.name, due.isoformat(), reason)


def _end_of(job: JobRow | None) -> tuple[TickState, str | None]:
    if job is None:
        return TickState.FAILED, "the job is gone"
    state = JobState(job.state)
    if state is JobState.SUCCEEDED:
        return TickState.SUCCEEDED, None
    if not state.is_final:
        return TickState.SUBMITTED, None
    if state is JobState.CANCELLED:
        return TickState.FAILED, "the job was cancelled"
    error = job.error or {}
    said = f"{error.get('kind', state.value)}: {error.get('message', 'the job failed')}"
    return TickState.FAILED, said[:_LONGEST]
