"""From a tick that waits to a job: once, with inputs that no other job of the schedule had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from plait.durations import parse_duration
from plait.errors import InternalError, PlaitError, PlanRejected, StoreError
from plait.schedules import ScheduleRequest, TickState
from plait.spec_storage import StorageSpec
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.records import Submission, add
from plait_service.jobs.tables import JobRow, ScheduleRow, TickRow
from plait_service.schedules.inputs import fingerprint_inputs
from plait_service.schedules.ready import look
from plait_service.schedules.records import open_job, principal_of
from plait_service.schedules.resolving import Resolved, resolve
from plait_workers.storage.registry import Stores

LOGGER: Final = logging.getLogger("plait.schedules")
AGAIN: Final = timedelta(seconds=30)
"""Until a store is asked again that did not answer."""
PATIENCE: Final = timedelta(hours=1)
"""For such a store, from when the tick was noticed."""
_LONGEST: Final = 2000
_OPEN: Final = "overlap: the job before it is not over"

Opener = Callable[[StorageSpec], Stores]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A tick that waits and its schedule, as they were when they were read."""

    schedule: ScheduleRow
    tick: TickRow
    request: ScheduleRequest

    @property
    def key(self) -> str:
        """Of idempotency."""
        return f"schedule:{self.schedule.id}:{self.tick.due.isoformat()}"

    @property
    def waits_for_jobs(self) -> bool:
        """Whether it runs after the job before it, in place of being skipped."""
        return self.request.missed == "run-all" and not self.tick.manual


class Submitter:
    """Submits the jobs of ticks.

    Args:
        opener: gives the stores of a spec.
    """

    def __init__(self, database: Database, settings: Settings, opener: Opener) -> None:
        self._database = database
        self._settings = settings
        self._opener = opener

    def waiting(self, moment: datetime) -> dict[str, list[datetime]]:
        """What waits and is to be looked at, by schedule, oldest first."""
        wanted = (
            select(TickRow.schedule, TickRow.due)
            .join(ScheduleRow, ScheduleRow.id == TickRow.schedule)
            .where(TickRow.state == TickState.WAITING, TickRow.look <= moment)
            .where(or_(TickRow.manual, ScheduleRow.paused.is_(False)))
            .order_by(TickRow.schedule, TickRow.due)
        )
        found: dict[str, list[datetime]] = {}
        with self._database.read() as session:
            for schedule, due in session.execute(wanted):
                found.setdefault(schedule, []).append(due)
        return found

    def see_to(self, schedule: str, dues: list[datetime], moment: datetime) -> bool:
        """Submit, skip, fail or go on waiting, one tick after another; whether a job was submitted."""
        submitted = False
        for due in dues:
            seen = self._read(schedule, due)
            if seen is None:
                continue
            if self._is_open(seen):
                if seen.waits_for_jobs:
                    self._set(seen, TickState.WAITING, moment, _OPEN)
                    break  # as all that come after it
                self._set(seen, TickState.SKIPPED, moment, _OPEN)
                continue
            try:
                submitted |= self._submit(seen, moment)
            except PlaitError as error:
                self._failed(seen, error, moment)
            except Exception as error:
                LOGGER.exception("schedule %s: a tick went wrong", seen.request.name)
                self._failed(seen, InternalError("an unforeseen error", found=type(error).__name__), moment)
        return submitted

    def _read(self, schedule: str, due: datetime) -> Seen | None:
        with self._database.read() as session:
            row, tick = session.get(ScheduleRow, schedule), session.get(TickRow, (schedule, due))
        if row is None or tick is None:
            return None
        return Seen(schedule=row, tick=tick, request=ScheduleRequest.model_validate(row.settings))

    def _is_open(self, seen: Seen) -> bool:
        with self._database.read() as session:
            return open_job(session, seen.schedule.id) is not None

    def _submit(self, seen: Seen, moment: datetime) -> bool:
        request, due = seen.request, seen.tick.due
        principal = principal_of(seen.schedule, self._settings)
        resolved = resolve(request, due, ZoneInfo(request.timezone), principal, self._settings)
        places = self._opener(resolved.spec.storage)
        if not self._is_ready(seen, resolved, places, moment):
            return False
        inputs = fingerprint_inputs(resolved.spec, places)
        submission = Submission(
            request=resolved.request,
            output=resolved.output,
            team=seen.schedule.team,
            owner=seen.schedule.owner,
            key=seen.key,
            schedule=seen.schedule.id,
        )
        with self._database.begin() as session:
            tick = _still(session, seen)
            return tick is not None and _decide(session, tick, submission, inputs, moment)

    def _is_ready(self, seen: Seen, resolved: Resolved, places: Stores, moment: datetime) -> bool:
        """Whether the sub-models are there; if not, it waits, or is late: at once if it is to run now."""
        wanted = seen.request.ready
        if wanted is None or resolved.ready is None:
            return True
        try:
            found = look(resolved.ready, count=wanted.count, marker=wanted.marker, places=places)
            if found.is_ready:
                return True
            said = str(found)
        except StoreError as error:
            said = f"{error.kind}: {error}"
        deadline = seen.tick.due + (timedelta() if seen.tick.manual else parse_duration(wanted.deadline))
        if moment < deadline:
            again = min(moment + parse_duration(wanted.every), deadline)
            self._set(seen, TickState.WAITING, moment, said, again)
            return False
        when = "when it was to run" if seen.tick.manual else f"{wanted.deadline} after it was due"
        self._set(seen, TickState.LATE, moment, f"{said}, {when}")
        LOGGER.warning(
            "schedule %s: what is due at %s is late: %s", seen.request.name, seen.tick.due.isoformat(), said
        )
        return False

    def _failed(self, seen: Seen, error: PlaitError, moment: datetime) -> None:
        reason = str(error) if isinstance(error, PlanRejected) else f"{error.kind}: {error}"
        if _is_passing(error) and moment - seen.tick.noticed < PATIENCE:
            self._set(seen, TickState.WAITING, moment, reason, moment + AGAIN)
            return
        self._set(seen, TickState.FAILED, moment, reason)
        LOGGER.warning(
            "schedule %s: no job at %s: %s", seen.request.name, seen.tick.due.isoformat(), reason[:_LONGEST]
        )

    def _set(
        self, seen: Seen, state: TickState, moment: datetime, reason: str, again: datetime | None = None
    ) -> None:
        """Unless it is so already, or somebody else was faster."""
        reason = reason[:_LONGEST]
        if again is None and (seen.tick.state, seen.tick.reason) == (state, reason):
            return
        with self._database.begin() as session:
            tick = _still(session, seen)
            if tick is None:
                return
            if tick.state != state:
                tick.changed = moment
            tick.state, tick.reason = state, reason
            tick.look = again or moment


def _still(session: Session, seen: Seen) -> TickRow | None:
    """The tick, if it still waits and its schedule is as it was; locked until the transaction ends."""
    row = session.get(ScheduleRow, seen.schedule.id, with_for_update=True)
    if row is None or row.changed != seen.schedule.changed:
        return None
    tick = session.get(TickRow, (seen.schedule.id, seen.tick.due), with_for_update=True)
    return tick if tick is not None and tick.state == TickState.WAITING else None


def _decide(session: Session, tick: TickRow, submission: Submission, inputs: str, moment: datetime) -> bool:
    """The job and the tick's new state, in one transaction: whatever is killed, it is submitted once."""
    if open_job(session, tick.schedule) is not None:
        return False  # seen to when the tick is looked at next
    before = session.scalar(_with_inputs(tick.schedule, inputs))
    tick.changed, tick.inputs = moment, inputs
    if before is not None:
        tick.state = TickState.SKIPPED
        tick.reason = f"the same inputs as at {before.due.isoformat()}, job {before.job}"
        return False
    taken = session.scalar(
        select(JobRow.id).where(JobRow.team == submission.team, JobRow.idempotency_key == submission.key)
    )
    if taken is not None:
        tick.state = TickState.FAILED
        tick.reason = f"idempotency-conflict: job {taken} has the key {submission.key}"
        return False
    tick.job, tick.state, tick.reason = add(session, submission).id, TickState.SUBMITTED, None
    return True


def _with_inputs(schedule: str, inputs: str) -> Select[TickRow]:
    wanted = select(TickRow).where(TickRow.schedule == schedule, TickRow.inputs == inputs)
    return wanted.where(TickRow.state.in_((TickState.SUBMITTED, TickState.SUCCEEDED))).limit(1)


def _is_passing(error: PlaitError) -> bool:
    if isinstance(error, PlanRejected):
        return any(problem.retryable for problem in error.problems)
    return error.retryable or isinstance(error, InternalError)
