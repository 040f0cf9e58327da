"""Schedules in the database: what may be asked of them and done to them, each in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from plait.errors import NotFound, PlaitError, SpecInvalid, WrongState
from plait.jobs import JobState
from plait.schedules import Schedule, ScheduleRequest, Tick, TickPage, TickState
from plait.uri import parse_uri
from plait_service.api.principal import Principal
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.records import new_id, now
from plait_service.jobs.tables import JobRow, ScheduleRow, TickRow
from plait_service.schedules.resolving import check
from plait_service.schedules.ticks import parse_cron

MOST_IN_PAGE: Final = 200
DUE: Final = "due"
MOVED: Final = "moved"
"""A tick's pointer that is to be moved, and one that was; anything else says that it was not."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OPEN_JOBS: Final = tuple(state.value for state in JobState if not state.is_final)


class Schedules:
    """The schedules of one database.

    ``team`` is whose a schedule must be; None for any. A schedule of another team is ``NotFound``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        request: ScheduleRequest,
        principal: Principal,
        settings: Settings,
        moment: datetime | None = None,
    ) -> Schedule:
        """A new schedule; its first tick is the next one after ``moment``.

        Raises:
            PlanRejected, Forbidden: with everything that is wrong with it; see ``resolving.check``.
            WrongState: the team has one of this name.
        """
        moment = moment or now()
        cron = check(request, principal, settings, moment)
        row = ScheduleRow(
            id=new_id("s"),
            team=principal.team,
            paused=False,
            created=moment,
            considered=moment,
            due=cron.after(moment),
        )
        _set(row, request, principal, moment)
        try:
            with self._database.begin() as session:
                session.add(row)
                session.flush()
                return _to_schedule(row, None)
        except IntegrityError:
            raise _same_name(request.name) from None

    def all(self, team: str | None) -> list[Schedule]:
        """All of a team, by name."""
        tick = aliased(TickRow)
        newest = select(func.max(tick.due)).where(tick.schedule == ScheduleRow.id).scalar_subquery()
        wanted = (
            select(ScheduleRow, TickRow)
            .outerjoin(TickRow, (TickRow.schedule == ScheduleRow.id) & (TickRow.due == newest))
            .order_by(ScheduleRow.name, ScheduleRow.id)
        )
        if team is not None:
            wanted = wanted.where(ScheduleRow.team == team)
        with self._database.read() as session:
            return [_to_schedule(row, last) for row, last in session.execute(wanted)]

    def get(self, number: str, team: str | None) -> Schedule:
        """One schedule."""
        with self._database.read() as session:
            return _seen(session, _row(session, number, team))

    def replace(
        self,
        number: str,
        request: ScheduleRequest,
        principal: Principal,
        settings: Settings,
        moment: datetime | None = None,
    ) -> Schedule:
        """New settings, also for ticks that wait; from now on it acts with the places of ``principal``.

        Raises:
            NotFound: there is none that the principal sees.
            PlanRejected, Forbidden, WrongState: as for :meth:`create`.
        """
        moment = moment or now()
        cron = check(request, principal, settings, moment)
        try:
            with self._database.begin() as session:
                row = _row(session, number, principal.sees, lock=True)
                _set(row, request, principal, moment)
                row.considered, row.due = moment, None if row.paused else cron.after(moment)
                session.flush()
                return _seen(session, row)
        except IntegrityError:
            raise _same_name(request.name) from None

    def delete(self, number: str, team: str | None) -> Schedule:
        """Forget it and its history; how it was. Jobs that it submitted go on."""
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            before = _seen(session, row)
            session.delete(row)
            return before

    def pause(self, number: str, team: str | None, moment: datetime | None = None) -> Schedule:
        """No ticks until it is resumed, and what waits goes on waiting. Jobs go on. Idempotent."""
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            if not row.paused:
                row.paused, row.due, row.changed = True, None, moment or now()
            return _seen(session, row)

    def resume(self, number: str, team: str | None, moment: datetime | None = None) -> Schedule:
        """Go on with the next tick; those that were due meanwhile are not caught up. Idempotent."""
        moment = moment or now()
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            if row.paused:
                request = ScheduleRequest.model_validate(row.settings)
                row.paused, row.considered, row.changed = False, moment, moment
                row.due = parse_cron(request.cron, request.timezone).after(moment)
            return _seen(session, row)

    def run(self, number: str, team: str | None, moment: datetime | None = None) -> Tick:
        """A tick of its own, due at this moment, which waits for no sub-models; also while paused.

        Raises:
            NotFound: there is none.
            WrongState: a job of this schedule is not over, or is about to be submitted like this.
        """
        moment = moment or now()
        moment += _MICROSECOND * (moment.microsecond == 0)  # a tick of the clock has none
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            asked = select(TickRow.due).where(
                TickRow.schedule == row.id, TickRow.state == TickState.WAITING, TickRow.manual
            )
            job = open_job(session, row.id)
            if job is not None or session.scalar(asked) is not None:
                found = job or "one that is about to be submitted"
                raise WrongState("a job of the schedule is not over", where=number, found=found)
            while session.get(TickRow, (row.id, moment)) is not None:
                moment += _MICROSECOND
            tick = new_tick(row.id, moment, moment, TickState.WAITING, manual=True)
            session.add(tick)
            return to_tick(tick)

    def ticks(self, number: str, team: str | None, *, cursor: str | None = None, limit: int = 50) -> TickPage:
        """What became of its ticks, newest first.

        Args:
            cursor: ``next`` of the page before.
        """
        limit = max(1, min(limit, MOST_IN_PAGE))
        with self._database.read() as session:
            row = _row(session, number, team)
            wanted = select(TickRow).where(TickRow.schedule == row.id)
            if cursor is not None:
                wanted = wanted.where(TickRow.due < _moment(cursor))
            rows = session.scalars(wanted.order_by(TickRow.due.desc()).limit(limit + 1)).all()
            page = rows[:limit]
            following = str((page[-1].due - _EPOCH) // _MICROSECOND) if len(rows) > limit else None
            return TickPage(ticks=[to_tick(tick) for tick in page], next=following)


def new_tick(
    schedule: str,
    due: datetime,
    moment: datetime,
    state: TickState,
    *,
    manual: bool = False,
    reason: str | None = None,
) -> TickRow:
    """A tick that was just noticed."""
    return TickRow(
        schedule=schedule,
        due=due,
        state=state,
        manual=manual,
        noticed=moment,
        changed=moment,
        look=moment,
        reason=reason,
    )


def open_job(session: Session, schedule: str) -> str | None:
    """A job of the schedule that is not over."""
    wanted = select(JobRow.id).where(JobRow.schedule == schedule, JobRow.state.in_(_OPEN_JOBS))
    return session.scalar(wanted.limit(1))


def principal_of(row: ScheduleRow, settings: Settings) -> Principal:
    """As whom a schedule submits. What needed no token has no places once the service asks for tokens."""
    return Principal(
        name=row.owner,
        team=row.team,
        roles=frozenset({"submit"}),
        read=tuple(map(parse_uri, row.read)),
        write=tuple(map(parse_uri, row.write)),
        anonymous=row.anonymous and settings.anonymous,
    )


def to_tick(row: TickRow) -> Tick:
    """As clients see it."""
    return Tick(
        due=row.due,
        state=TickState(row.state),
        changed=row.changed,
        job=row.job,
        reason=row.reason,
        manual=row.manual,
        latest=None if row.pointer is None else row.pointer == MOVED,
    )


def _set(row: ScheduleRow, request: ScheduleRequest, principal: Principal, moment: datetime) -> None:
    row.name = request.name
    row.settings = request.model_dump(mode="json")
    row.owner, row.anonymous = principal.name, principal.anonymous
    row.read, row.write = [*map(str, principal.read)], [*map(str, principal.write)]
    row.changed = moment


def _row(session: Session, number: str, team: str | None, *, lock: bool = False) -> ScheduleRow:
    row = session.get(ScheduleRow, number, with_for_update=lock)
    if row is None or (team is not None and row.team != team):
        raise NotFound("no such schedule", where=number)
    return row


def _seen(session: Session, row: ScheduleRow) -> Schedule:
    last = select(TickRow).where(TickRow.schedule == row.id).order_by(TickRow.due.desc()).limit(1)
    return _to_schedule(row, session.scalar(last))


def _to_schedule(row: ScheduleRow, last: TickRow | None) -> Schedule:
    return Schedule(
        **row.settings,
        id=row.id,
        team=row.team,
        owner=row.owner,
        paused=row.paused,
        created=row.created,
        changed=row.changed,
        next_due=row.due,
        last=None if last is None else to_tick(last),
    )


def _same_name(name: str) -> PlaitError:
    return WrongState(
        "the team has a schedule of this name", where=name, hint="Give it another name, or change that one"
    )


def _moment(cursor: str) -> datetime:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise SpecInvalid("the cursor", expected="`next` of the page before")
    try:
        return _EPOCH + int(cursor) * _MICROSECOND
    except OverflowError:
        raise SpecInvalid("the cursor", expected="`next` of the page before") from None
