"""Jobs in the database: what may be asked of them and done to them, each in one transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from plait.errors import IdempotencyConflict, NotFound, WrongState
from plait.jobs import Attempt, Job, JobError, JobEvent, JobKind, JobPage, JobRequest, JobState, Progress
from plait_service.jobs import states
from plait_service.jobs.database import Database
from plait_service.jobs.tables import AttemptRow, EventRow, JobRow, LabelRow

MOST_IN_PAGE: Final = 200


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job that was validated and authorised.

    Args:
        request: as it came.
        output: canonical; the place that no two jobs write at once.
        team, owner: of whoever submits it.
        key: of idempotency, within the team.
        schedule: that submits it, if one does.
    """

    request: JobRequest
    output: str
    team: str
    owner: str
    kind: JobKind = JobKind.MERGE
    key: str | None = None
    schedule: str | None = None

    @property
    def body(self) -> str:
        """A hash of what is asked for."""
        asked = {"kind": self.kind, **self.request.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which jobs; ``team`` None is those of all teams."""

    team: str | None
    states: Sequence[JobState] = ()
    labels: Mapping[str, str] | None = None
    output: str | None = None
    schedule: str | None = None
    after: datetime | None = None
    before: datetime | None = None


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def new_id(prefix: str = "j") -> str:
    """An id that sorts by time: milliseconds since 1970 and 48 random bits, in hexadecimal."""
    return f"{prefix}-{time.time_ns() // 10**6:012x}{secrets.token_hex(6)}"


def first_id(moment: datetime, prefix: str = "j") -> str:
    """Less than the id of any job that was made at or after this moment, and more than all before."""
    return f"{prefix}-{int(moment.timestamp() * 1000):012x}"


class Jobs:
    """The jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self, submission: Submission, beside: Callable[[Session, str], None] = lambda _session, _job: None
    ) -> tuple[Job, bool]:
        """A new job in state ``queued``, and True; or the one that has this idempotency key, and False.

        Args:
            beside: what else is written in the transaction that makes the job, for its id.

        Raises:
            IdempotencyConflict: the key was used for another body.
        """
        try:
            with self._database.begin() as session:
                found = self._same(session, submission)
                if found is not None:
                    return to_job(session, found), False
                row = add(session, submission)
                beside(session, row.id)
                return to_job(session, row), True
        except IntegrityError:  # another submission of the same key was faster
            with self._database.read() as session:
                found = self._same(session, submission)
                if found is None:
                    raise
                return to_job(session, found), False

    def _same(self, session: Session, submission: Submission) -> JobRow | None:
        if submission.key is None:
            return None
        same = (JobRow.team == submission.team, JobRow.idempotency_key == submission.key)
        found = session.scalar(select(JobRow).where(*same))
        if found is not None and found.body != submission.body:
            raise IdempotencyConflict(
                "this Idempotency-Key was used for another job", found=found.id, hint="Use a new key"
            )
        return found

    def get(self, number: str, team: str | None) -> Job:
        """One job.

        Args:
            team: whose it must be; None for any.

        Raises:
            NotFound: there is none, or it is not theirs.
        """
        with self._database.read() as session:
            return to_job(session, _row(session, number, team))

    def page(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Some jobs, newest first.

        Args:
            cursor: ``next`` of the page before.
        """
        limit = max(1, min(limit, MOST_IN_PAGE))
        with self._database.read() as session:
            rows = session.execute(_chosen(wanted, cursor).limit(limit + 1)).all()
            page = rows[:limit]
            return JobPage(
                jobs=[to_job(session, row, attempts=False) for row in page],
                next=page[-1].id if len(rows) > limit else None,
            )

    def cancel(self, number: str, team: str | None) -> Job:
        """Cancel a job that waits, at once; ask for the end of one that runs. Idempotent.

        Raises:
            NotFound: there is none.
            WrongState: it has ended already, otherwise.
        """
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            state = JobState(row.state)
            if state is JobState.QUEUED:
                row.cancel_requested = True
                transition(session, row, JobState.CANCELLED)
            elif state.is_active:
                row.cancel_requested = True
            elif state is not JobState.CANCELLED:
                raise WrongState(
                    f"the job is {state}", where=number, hint="Only a job that is not over can be cancelled"
                )
            return to_job(session, row)

    def retry(self, number: str, team: str | None) -> Job:
        """Queue a job again that failed or was cancelled, or whose outcome is unknown; it carries on.

        Raises:
            NotFound: there is none.
            WrongState: it runs, waits, or succeeded.
        """
        with self._database.begin() as session:
            row = _row(session, number, team, lock=True)
            if JobState(row.state) not in states.RETRYABLE:
                raise WrongState(
                    f"the job is {row.state}",
                    where=number,
                    hint="Only a job that failed, was cancelled or is unknown can be retried",
                )
            row.cancel_requested = False
            row.attempts_allowed += row.attempt if row.attempt >= row.attempts_allowed else 0
            row.error = row.ended = row.not_before = None
            transition(session, row, JobState.QUEUED, retried=True)
            return to_job(session, row)

    def events(self, number: str, after: int, limit: int = 1000) -> list[JobEvent]:
        """The events of a job from the one after ``after`` on, oldest first."""
        wanted = select(EventRow).where(EventRow.job == number, EventRow.number > after)
        with self._database.read() as session:
            return [
                JobEvent(id=row.number, time=row.time, kind=row.kind, data=row.data)
                for row in session.scalars(wanted.order_by(EventRow.number).limit(limit))
            ]

    def counts(self) -> Mapping[JobState, int]:
        """Jobs in each state that is not final."""
        open_states = [state.value for state in JobState if not state.is_final]
        wanted = (
            select(JobRow.state, func.count()).where(JobRow.state.in_(open_states)).group_by(JobRow.state)
        )
        with self._database.read() as session:
            found = {JobState(state): count for state, count in session.execute(wanted)}
        return {JobState(state): found.get(JobState(state), 0) for state in open_states}

    def ended_before(self, moment: datetime, limit: int = 500) -> Mapping[str, Sequence[str]]:
        """Jobs that ended before a moment, and the handles of their attempts."""
        final = [state.value for state in JobState if state.is_final]
        old = select(JobRow.id).where(JobRow.state.in_(final), JobRow.ended < moment).limit(limit)
        with self._database.read() as session:
            found: dict[str, list[str]] = {job: [] for job in session.scalars(old)}
            attempts = select(AttemptRow).where(AttemptRow.job.in_(found))
            for attempt in session.scalars(attempts):
                found[attempt.job].append(attempt.handle)
        return found

    def remove(self, numbers: Iterable[str]) -> None:
        """Jobs that are over, and all that is kept of them. Idempotent."""
        final = [state.value for state in JobState if state.is_final]
        with self._database.begin() as session:
            session.execute(delete(JobRow).where(JobRow.id.in_(tuple(numbers)), JobRow.state.in_(final)))


def add(session: Session, submission: Submission) -> JobRow:
    """A new row, within somebody's transaction."""
    request, moment = submission.request, now()
    row = JobRow(
        id=new_id(),
        kind=submission.kind,
        team=submission.team,
        owner=submission.owner,
        state=JobState.QUEUED,
        spec=request.spec,
        output=submission.output,
        labels=dict(request.labels),
        priority=request.priority,
        overwrite=request.overwrite,
        attempts_allowed=request.attempts,
        created=moment,
        changed=moment,
        idempotency_key=submission.key,
        body=submission.body,
        schedule=submission.schedule,
        attempt=0,
        cancel_requested=False,
        last_event=0,
    )
    session.add(row)
    session.flush()
    session.add_all(LabelRow(job=row.id, key=key, value=value) for key, value in request.labels.items())
    tell(session, row, "state", {"state": row.state})
    return row


def transition(session: Session, row: JobRow, after: JobState, **why: Any) -> None:
    """The one place where a job's state changes.

    Raises:
        WrongTransition: there is no such transition.
    """
    before = JobState(row.state)
    states.check(before, after)
    row.state = after
    moment = now()
    if after is JobState.PLANNING and row.started is None:
        row.started = moment
    row.ended = moment if after.is_final else None
    tell(session, row, "state", {"state": after.value, "before": before.value, **why})


def tell(
    session: Session, row: JobRow, kind: str, data: Mapping[str, Any], when: datetime | None = None
) -> None:
    """Add an event; its number is the job's next."""
    row.last_event += 1
    row.changed = now()
    session.add(
        EventRow(job=row.id, number=row.last_event, time=when or row.changed, kind=kind, data=dict(data))
    )


def _row(session: Session, number: str, team: str | None, *, lock: bool = False) -> JobRow:
    row = session.get(JobRow, number, with_for_update=lock)
    if row is None or (team is not None and row.team != team):
        raise NotFound("no such job", where=number)
    return row


def _chosen(wanted: Filter, cursor: str | None) -> Select[*tuple[Any, ...]]:
    """Newest first, by one index; of several labels by the first one's, whose others are looked up."""
    chosen = select(*JobRow.__table__.columns)  # rows, no objects that a session tracks: half the time
    number = JobRow.id
    for index, (key, value) in enumerate((wanted.labels or {}).items()):
        label = aliased(LabelRow)
        chosen = chosen.join(label, label.job == JobRow.id).where(label.key == key, label.value == value)
        if index == 0:  # its index has them in order
            number = label.job
    if cursor is not None:
        chosen = chosen.where(number < cursor)
    team: ColumnElement[str] = JobRow.team.expression
    state: ColumnElement[str] = JobRow.state.expression
    if wanted.labels:  # not by these columns' indexes, which a planner without statistics would take
        team, state = func.coalesce(team, ""), func.coalesce(state, "")
    if wanted.team is not None:
        chosen = chosen.where(team == wanted.team)
    if wanted.states:
        chosen = chosen.where(state.in_([state.value for state in wanted.states]))
    if wanted.output is not None:
        chosen = chosen.where(JobRow.output == wanted.output)
    if wanted.schedule is not None:
        chosen = chosen.where(JobRow.schedule == wanted.schedule)
    if wanted.after is not None:
        chosen = chosen.where(number >= first_id(wanted.after))
    if wanted.before is not None:
        chosen = chosen.where(number < first_id(wanted.before))
    return chosen.order_by(number.desc())


def to_job(session: Session, row: JobRow | Row[*tuple[Any, ...]], *, attempts: bool = True) -> Job:
    """As clients see it; attempts cost a query."""
    found: Sequence[AttemptRow] = ()
    if attempts and row.attempt:
        wanted = select(AttemptRow).where(AttemptRow.job == row.id).order_by(AttemptRow.number)
        found = session.scalars(wanted).all()
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        team=row.team,
        owner=row.owner,
        state=JobState(row.state),
        spec=row.spec,
        output=row.output,
        labels=row.labels,
        priority=row.priority,
        overwrite=row.overwrite,
        created=row.created,
        changed=row.changed,
        started=row.started,
        ended=row.ended,
        plan=row.plan,
        progress=None if row.progress is None else Progress.model_validate(row.progress),
        result=row.result,
        error=None if row.error is None else JobError.model_validate(row.error),
        attempts=[
            Attempt(
                number=each.number,
                handle=each.handle,
                started=each.started,
                ended=each.ended,
                outcome=each.outcome,
            )
            for each in found
        ],
        cancel_requested=row.cancel_requested,
        schedule=row.schedule,
    )
