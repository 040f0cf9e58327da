"""From jobs that succeeded to the ``latest`` objects of their schedules."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Final

from sqlalchemy import select

from plait.errors import InternalError, PlaitError
from plait.schedules import ScheduleRequest
from plait.spec import load_spec
from plait.uri import parse_uri
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.tables import JobRow, ScheduleRow, TickRow
from plait_service.schedules.pointer import Pointer, move
from plait_service.schedules.records import DUE, MOVED, principal_of
from plait_service.schedules.resolving import authorise_pointer
from plait_service.schedules.submitting import AGAIN, Opener

LOGGER: Final = logging.getLogger("plait.schedules")
_OLDER: Final = "older"
_REFUSED: Final = "refused"


def point(database: Database, settings: Settings, opener: Opener, moment: datetime) -> None:
    """Move the pointers of ticks that succeeded, oldest first; those whose stores fail are tried again."""
    wanted = (
        select(TickRow.schedule, TickRow.due)
        .where(TickRow.pointer == DUE, TickRow.look <= moment)
        .order_by(TickRow.due)
    )
    with database.read() as session:
        keys = session.execute(wanted).all()
    for schedule, due in keys:
        _point(database, settings, opener, moment, (schedule, due))


def _point(
    database: Database, settings: Settings, opener: Opener, moment: datetime, key: tuple[str, datetime]
) -> None:
    with database.read() as session:
        row, tick = session.get(ScheduleRow, key[0]), session.get(TickRow, key)
        job = None if tick is None else session.get(JobRow, tick.job)
    if row is None or tick is None:
        return
    request = ScheduleRequest.model_validate(row.settings)
    look, reason, state = moment, None, None
    try:
        if job is not None and request.latest is not None:
            state, reason = _move(row, tick, job, request.latest, settings, opener, moment)
    except Exception as error:
        known = (
            error if isinstance(error, PlaitError) else InternalError("moving", found=type(error).__name__)
        )
        again = known.retryable
        state, look = (DUE, moment + AGAIN) if again else (_REFUSED, moment)
        reason = f"latest: {known.kind}: {known}"
        LOGGER.warning("schedule %s: %s", request.name, reason, exc_info=known is not error)
    with database.begin() as session:
        found = session.get(TickRow, key, with_for_update=True)
        if found is not None and found.pointer == DUE:
            found.pointer, found.look, found.reason = state, look, reason


def _move(
    row: ScheduleRow,
    tick: TickRow,
    job: JobRow,
    latest: str,
    settings: Settings,
    opener: Opener,
    moment: datetime,
) -> tuple[str, str | None]:
    """The state of the tick's pointer, and why."""
    spec, place = load_spec(json.dumps(job.spec), name="spec"), parse_uri(latest)
    authorise_pointer(spec, place, principal_of(row, settings), settings)
    pointer = Pointer(
        output=job.output,
        job=job.id,
        schedule=row.id,
        due=tick.due,
        fingerprint=(job.result or {}).get("fingerprint"),
        updated=moment,
    )
    if move(place, pointer, opener(spec.storage)):
        return MOVED, None
    return _OLDER, "latest: a newer result is there already"
