"""Runs jobs: starts their drivers, follows what these say, and knows what became of them.

One thread of one service. What it does is always one of two things, each a transaction::

    begin    queued -> planning, with an attempt on record; then the backend starts its driver
    follow   what the driver wrote since is told as events, with how far its log was read;
             when it is over, the job ends, or is queued again

A kill between a transaction and what follows it loses nothing: starting a driver of a handle that exists
changes nothing, and a log is read again from where the last transaction left it.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from plait.errors import PlaitError, ServiceUnavailable
from plait.jobs import JobKind, JobState
from plait.uri import UriError, parse_uri
from plait_service.jobs.backends.base import MOST_AT_ONCE, Backend, DriverRequest, Life, Look
from plait_service.jobs.database import Database
from plait_service.jobs.driver_log import read_piece
from plait_service.jobs.endings import apply_events, ended, fail
from plait_service.jobs.loop import Loop
from plait_service.jobs.records import Jobs, now, transition
from plait_service.jobs.tables import AttemptRow, JobRow

LOGGER: Final = logging.getLogger("plait.service")
IDLE: Final = 1.0
"""Seconds between two looks while no driver runs."""
FORGET_EVERY: Final = 3600.0
PATIENCE_TO_STOP: Final = timedelta(seconds=15)
"""From asking a driver to end to ending it."""
_AT_ONCE: Final = 200
"""Jobs that wait, read in pieces until there are as many as may begin."""

ACTIVE: Final = tuple(state.value for state in JobState if state.is_active)


class Runner(Loop):
    """Runs the jobs of a database.

    Args:
        database: of the jobs.
        backend: where drivers run.
        slots: drivers at once.
        options: of each ``plait merge``.
        keep: how long jobs that are over stay, with their logs; None for ever.
        on_change: told each job that changed and its state, from the runner's thread.
    """

    def __init__(
        self,
        database: Database,
        backend: Backend,
        *,
        slots: int,
        options: Sequence[str] = (),
        keep: timedelta | None = None,
        on_change: Callable[[str, JobState], None] = lambda _job, _state: None,
    ) -> None:
        super().__init__("plait-runner")
        self._database = database
        self._backend = backend
        self._slots = slots
        self._options = tuple(options)
        self._keep, self._forget_at = keep, time.monotonic()
        self._on_change = on_change
        self._stopping: dict[str, float] = {}

    @property
    def backend(self) -> Backend:
        """Where its drivers run."""
        return self._backend

    def go_round(self) -> float:
        """See :class:`Loop`."""
        if self._keep is not None and time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY
            self.forget(now() - self._keep)
        return self._backend.every if self.step() else IDLE

    def forget(self, before: datetime) -> None:
        """Remove jobs that ended before a moment: their logs first, so that none is left behind."""
        while old := Jobs(self._database).ended_before(before):
            for handle in itertools.chain.from_iterable(old.values()):
                self._backend.forget(handle)
            Jobs(self._database).remove(old)

    def step(self) -> bool:
        """Follow all drivers, and begin what may begin; whether any driver runs."""
        with self._database.read() as session:
            active = session.scalars(select(JobRow.id).where(JobRow.state.in_(ACTIVE))).all()
        for job in active:
            self._guarded(job, self._follow)
        begun = self._begin_waiting()
        return bool(active or begun)

    def _guarded(self, job: str, do: Callable[[str], None]) -> None:
        """One job's trouble is not another's."""
        try:
            do(job)
        except ServiceUnavailable as error:
            LOGGER.warning("job %s waits: %s", job, error)

    # Begin.

    def _begin_waiting(self) -> int:
        begun = 0
        for job in self._next():
            self._begin(job)
            begun += 1
        return begun

    def _next(self) -> list[str]:
        """Who begins now: by priority, then age; never two that write to one place."""
        chosen: list[str] = []
        with self._database.read() as session:
            working = session.execute(
                select(JobRow.kind, JobRow.output).where(JobRow.state.in_(ACTIVE))
            ).all()
            room = self._slots - len(working)
            if room <= 0:
                return []
            taken = [output for kind, output in working if kind == JobKind.MERGE]
            moment = now()
            waiting = (
                select(JobRow.id, JobRow.kind, JobRow.output, JobRow.not_before)
                .where(JobRow.state == JobState.QUEUED)
                .order_by(JobRow.priority.desc(), JobRow.id)
                .execution_options(yield_per=_AT_ONCE)
            )
            for job, kind, output, not_before in session.execute(waiting):
                if not_before is not None and not_before > moment:
                    continue
                if kind == JobKind.MERGE:
                    if any(overlap(output, other) for other in taken):
                        continue
                    taken.append(output)
                chosen.append(job)
                if len(chosen) == room:
                    break
        return chosen

    def _begin(self, job: str) -> None:
        with self._database.begin() as session:
            row = session.get(JobRow, job, with_for_update=True)
            if row is None or row.state != JobState.QUEUED:  # cancelled a moment ago
                return
            row.attempt += 1
            row.not_before = None
            row.progress = None
            session.add(
                AttemptRow(
                    job=job, number=row.attempt, handle=f"{job}-a{row.attempt}", started=now(), offset=0
                )
            )
            transition(session, row, JobState.PLANNING, attempt=row.attempt)
        LOGGER.info("job %s begins", job)
        self._on_change(job, JobState.PLANNING)
        self._guarded(job, self._follow)

    # Follow.

    def _follow(self, job: str) -> None:
        with self._database.read() as session:
            row = session.get(JobRow, job)
            attempt = session.get(AttemptRow, (job, row.attempt)) if row is not None else None
        if row is None or attempt is None:
            return
        look = self._backend.look(attempt.handle)
        if look.life is Life.ABSENT and attempt.offset == 0 and attempt.said is None:
            if row.cancel_requested:
                look = Look(life=Life.ENDED)
            else:
                self._start(row, attempt)
                return
        elif look.life is Life.ABSENT:
            look = Look(life=Life.ENDED)
        self._read(job, attempt, look)
        if row.cancel_requested and look.life is Life.RUNNING:
            self._stop(job, attempt.handle)

    def _start(self, row: JobRow, attempt: AttemptRow) -> None:
        request = DriverRequest(
            kind=JobKind(row.kind), spec=row.spec, overwrite=row.overwrite, options=self._options
        )
        try:
            self._backend.start(attempt.handle, request)
        except ServiceUnavailable:
            raise
        except PlaitError as error:
            with self._database.begin() as session:
                again = session.get(JobRow, row.id, with_for_update=True)
                if again is not None and JobState(again.state).is_active:
                    fail(session, again, session.get_one(AttemptRow, (row.id, attempt.number)), error)
            self._on_change(row.id, JobState.FAILED)

    def _read(self, job: str, attempt: AttemptRow, look: Look) -> None:
        """Tell what is new; the look came before the reading, so of one that is over nothing is missed."""
        data = self._backend.read(attempt.handle, attempt.offset)
        is_last = look.life is Life.ENDED and len(data) < MOST_AT_ONCE
        piece = read_piece(data, is_last=is_last)
        if not piece.length and not is_last:
            return
        with self._database.begin() as session:
            row = session.get(JobRow, job, with_for_update=True)
            kept = session.get(AttemptRow, (job, attempt.number), with_for_update=True)
            if row is None or kept is None or not JobState(row.state).is_active:
                return
            kept.offset += piece.length
            kept.said = piece.said or kept.said
            apply_events(session, row, piece.events)
            if is_last:
                ended(session, row, kept, look.status)
                self._stopping.pop(attempt.handle, None)
            state, outcome = JobState(row.state), kept.outcome
        if is_last:
            LOGGER.info("job %s, attempt %d: %s; the job is %s", job, attempt.number, outcome, state)
        self._on_change(job, state)

    def _stop(self, job: str, handle: str) -> None:
        began = self._stopping.setdefault(handle, time.monotonic())
        waited = time.monotonic() - began
        self._backend.stop(handle, hard=waited > PATIENCE_TO_STOP.total_seconds())


def overlap(one: str, other: str) -> bool:
    """Whether one place lies at or below another."""
    try:
        first, second = parse_uri(one), parse_uri(other)
    except UriError:
        return one == other
    return first.contains(second) or second.contains(first)
