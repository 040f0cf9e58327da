"""Schedules: specs with dates in them, submitted by the clock. Shared by the service and its clients.

::

    {
      "name": "nightly",
      "cron": "30 2 * * *", "timezone": "Europe/Berlin",
      "spec": {
        "models": [{"glob": "s3://runs/{date - 1d}/order-*"}],
        "base": "s3://models/llama-2-7b",
        "method": {"name": "select", "resample": 4},
        "output": "s3://models/merged/{date}"
      },
      "ready": {"glob": "s3://runs/{date - 1d}/order-*", "count": 5, "marker": "_SUCCESS", "deadline": "2h"},
      "latest": "s3://models/merged/latest.json"
    }

Each moment at which a schedule is due is a tick, and each tick submits at most one job::

    waiting ──> submitted ──> succeeded, failed
       │
       └──> skipped, failed, late              missed: nobody was there when it was due

``{date}`` is the day on which a tick is due, in the schedule's time zone; ``{date - 1d}`` the day before,
``{date + 12h:%Y/%m/%d-%H}`` another moment in another form. A brace that stands for itself is doubled.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from plait.durations import DURATION_WORDS, parse_duration
from plait.jobs import MAX_LABELS, Label

SCHEDULE_ID: Final = r"^s-[0-9a-f]{24}$"
INDEX_MARKER: Final = "index"


class TickState(StrEnum):
    """What became of a tick."""

    WAITING = "waiting"
    """For sub-models, for the job before it, or for a moment of the service's time."""
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its job failed or was cancelled, or none could be submitted."""
    SKIPPED = "skipped"
    """The job before it was not over, or had the same inputs."""
    MISSED = "missed"
    """The service did not run when it was due, and was told not to catch up."""
    LATE = "late"
    """The sub-models were not there before the deadline."""

    @property
    def is_open(self) -> bool:
        """Whether something is still to come."""
        return self in (TickState.WAITING, TickState.SUBMITTED)


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _file_name(text: str) -> str:
    if "/" in text or text in (".", "..") or not text.isprintable():
        raise ValueError("a file's name, without a folder")
    return text


Duration = Annotated[str, AfterValidator(_duration), Field(description=DURATION_WORDS, examples=["2h"])]
FileName = Annotated[str, AfterValidator(_file_name), Field(min_length=1, max_length=255)]


class Ready(BaseModel):
    """What has to be there before a tick's job is submitted.

    Args:
        glob: of sub-models' folders; may hold dates.
        count: of them that must be whole, at least.
        marker: a file that each of them must have, such as ``_SUCCESS``; or ``index``: the single file, or
            the index and all shards that it names. Local files that are being written look whole to it.
        every: between two looks.
        deadline: after the tick was due; if it passes, the tick is ``late``, and the service warns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    glob: str = Field(min_length=1, max_length=4096, examples=["s3://runs/{date - 1d}/order-*"])
    count: int = Field(ge=1, le=4096, examples=[5])
    marker: FileName = Field(default=INDEX_MARKER, examples=["_SUCCESS"])
    every: Duration = "1m"
    deadline: Duration = "6h"


class _Settings(BaseModel):
    name: Label = Field(examples=["nightly"])
    spec: dict[str, Any] = Field(
        examples=[
            {
                "models": [{"glob": "s3://runs/{date - 1d}/order-*"}],
                "base": "s3://models/llama-2-7b",
                "method": {"name": "select", "resample": 4},
                "output": "s3://models/merged/{date}",
            }
        ]
    )
    cron: str = Field(min_length=1, max_length=200, examples=["30 2 * * *"])
    timezone: str = Field(default="UTC", min_length=1, max_length=64, examples=["Europe/Berlin"])
    ready: Ready | None = None
    missed: Literal["run-last", "run-all", "skip"] = "run-last"
    latest: str | None = Field(default=None, max_length=4096, examples=["s3://models/merged/latest.json"])
    labels: dict[Label, Label] = Field(
        default_factory=dict, max_length=MAX_LABELS, examples=[{"run": "nightly"}]
    )
    priority: int = Field(default=0, ge=-100, le=100)
    overwrite: bool = False
    attempts: int = Field(default=3, ge=1, le=20)


class ScheduleRequest(_Settings):
    """A schedule to create, or the new settings of one.

    Args:
        name: unique in a team.
        spec: a merge spec whose strings may hold dates.
        cron: minute, hour, day of the month, month, day of the week.
        timezone: an IANA name, in which cron and dates are read. A time that the clock jumps over in spring
            is taken at the end of the jump, and one that comes twice in autumn the first time: each day
            once. Only expressions whose minute or hour begins with ``*`` go by elapsed time instead.
        ready: what a tick waits for; nothing if absent.
        missed: what becomes of ticks that were due while the service did not run: the last of them runs, all
            of them run one after another, or none does.
        latest: an object that says where the newest result lies: it is written after each job that succeeded,
            at once and never back to an older tick.
        labels, priority, overwrite, attempts: of each job; see :class:`plait.jobs.JobRequest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tick(BaseModel):
    """A moment at which a schedule was due, and what became of it.

    Args:
        changed: when it got this state.
        job: that was submitted.
        reason: for the state, where it needs one; while it waits, what for.
        manual: whether somebody said "run now"; ``due`` is when that was.
        latest: whether the ``latest`` object was moved to its result; None if that is not to be.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    due: datetime
    state: TickState
    changed: datetime
    job: str | None = None
    reason: str | None = None
    manual: bool = False
    latest: bool | None = None


class Schedule(_Settings):
    """A schedule as it is now; its settings are those of :class:`ScheduleRequest`.

    Args:
        team, owner: of the token that created it, or that changed it last; jobs are submitted as theirs.
        next_due: the next tick; None while it is paused.
        last: the newest tick.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    team: str
    owner: str
    paused: bool
    created: datetime
    changed: datetime
    next_due: datetime | None = None
    last: Tick | None = None

    @property
    def settings(self) -> ScheduleRequest:
        """What would create it again."""
        names = set(ScheduleRequest.model_fields)
        return ScheduleRequest.model_validate(self.model_dump(include=names))


class ScheduleList(BaseModel):
    """All schedules of a team, by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schedules: list[Schedule]


class TickPage(BaseModel):
    """Some ticks, newest first.

    Args:
        next: the cursor of the next page; None at the end.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    ticks: list[Tick]
    next: str | None = None
