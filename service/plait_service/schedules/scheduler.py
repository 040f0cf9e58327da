"""Runs schedules: notices what is due, submits jobs, follows them, and moves pointers to their results.

One thread of one service. Each step is a few transactions, and each of these is whole or not at all::

    follow    a job is over:  submitted -> succeeded, failed
    point     it succeeded:   the ``latest`` object is moved, then the tick says so; moving it twice is once
    notice    a schedule is due:  a row for each tick, and how far the schedule was looked at
    submit    sub-models are there, inputs are new, no job is open:  the job, and waiting -> submitted

So a tick whose job was submitted says so, and one that does not had none: a kill at any moment, and another
service on the same database, make none twice and lose none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache, partial
from typing import Final

from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.loop import Loop
from plait_service.jobs.records import now
from plait_service.schedules.following import follow
from plait_service.schedules.looking import impatient
from plait_service.schedules.noticing import due_schedules, notice
from plait_service.schedules.pointing import point
from plait_service.schedules.submitting import Submitter

LOGGER: Final = logging.getLogger("plait.schedules")
_THREADS: Final = 8
_KEPT_STORES: Final = 32


class Scheduler(Loop):
    """Runs the schedules of a database.

    Args:
        settings: what specs may name.
        clock: what time it is.
        wake: told after a job was submitted, from any thread.
        every: seconds between two looks.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = now,
        wake: Callable[[], None] = lambda: None,
        every: float = 1.0,
    ) -> None:
        super().__init__("plait-scheduler")
        self._database = database
        self._settings = settings
        self._clock = clock
        self._tell = wake
        self._every = every
        # A client of S3 takes a fifth of a second to make.
        self._opener = lru_cache(maxsize=_KEPT_STORES)(impatient)
        self._submitter = Submitter(database, settings, self._opener)

    def go_round(self) -> float:
        """See :class:`Loop`."""
        self.step(self._clock())
        return self._every

    def step(self, moment: datetime) -> None:
        """All that is to be done at a moment. Several may run at once, on one database."""
        follow(self._database, moment)
        point(self._database, self._settings, self._opener, moment)
        for schedule in due_schedules(self._database, moment):
            try:
                notice(self._database, schedule, moment)
            except Exception:  # one schedule's trouble is not another's
                LOGGER.exception("schedule %s: its ticks could not be noticed", schedule)
        waiting = self._submitter.waiting(moment)
        if not waiting:
            return
        with ThreadPoolExecutor(min(_THREADS, len(waiting)), thread_name_prefix="plait-tick") as pool:
            see_to = partial(self._submitter.see_to, moment=moment)
            if any(list(pool.map(see_to, waiting, waiting.values()))):
                self._tell()
