"""What the job service says: jobs, their states, their events. Shared by the service and its clients.

::

    queued ──> planning ──> running ──> committing ──> succeeded
      │           │            │            │
      │           ├────────────┴────────────┴──> failed, unknown
      └───────────┴────────────┴────────────┴──> cancelled

A job whose driver is lost goes back to ``queued``, and its next attempt carries on from the parts that
are finished. ``plait_service.jobs.states`` has every transition.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LABEL: Final = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
MAX_LABELS: Final = 16
JOB_ID: Final = r"^j-[0-9a-f]{24}$"


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    PLANNING = "planning"
    RUNNING = "running"
    COMMITTING = "committing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_active(self) -> bool:
        """Whether a driver is at work, or is to be."""
        return self in (JobState.PLANNING, JobState.RUNNING, JobState.COMMITTING)

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more unless somebody retries it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.UNKNOWN)


class JobKind(StrEnum):
    """What a job is to do."""

    MERGE = "merge"
    PLAN = "plan"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Said(BaseModel):
    """What a service says: keys that a client does not know yet are no error."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Label = Annotated[str, StringConstraints(pattern=LABEL)]


class JobRequest(_Model):
    """A job to submit.

    Args:
        spec: a merge spec; see :class:`plait.spec.MergeSpec`.
        labels: to find it by; at most 16.
        priority: of several that wait the highest goes first; of equals the oldest.
        overwrite: replace what lies at the output.
        attempts: drivers that may be started for it, as long as what ends them is worth a retry.
    """

    spec: dict[str, Any] = Field(
        examples=[
            {
                "models": [{"glob": "s3://runs/2026-11-21/order-*"}],
                "base": "s3://models/llama-2-7b",
                "method": {"name": "select", "resample": 4},
                "output": "s3://models/merged/2026-11-21",
            }
        ]
    )
    labels: dict[Label, Label] = Field(
        default_factory=dict, max_length=MAX_LABELS, examples=[{"run": "nightly"}]
    )
    priority: int = Field(default=0, ge=-100, le=100)
    overwrite: bool = False
    attempts: int = Field(default=3, ge=1, le=20)


class Progress(_Said):
    """How far a merge is, in bytes of its output.

    Args:
        rate: bytes a second over the last half minute.
        seconds_left: at that rate.
    """

    bytes_done: int
    bytes_total: int
    rate: float | None = None
    seconds_left: float | None = None

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.bytes_done / self.bytes_total if self.bytes_total else 1.0


class JobError(_Said):
    """Why a job failed; ``kind`` is one of :mod:`plait.errors`."""

    kind: str
    message: str
    retryable: bool = False
    problems: list[dict[str, Any]] = Field(default_factory=list)


class Attempt(_Said):
    """One driver of a job."""

    number: int
    handle: str
    started: datetime
    ended: datetime | None = None
    outcome: str | None = None


class Job(_Said):
    """A job as it is now.

    Args:
        team, owner: of the token that submitted it.
        spec: as it was submitted.
        plan: what planning found: parts, bytes to read and write; None until then.
        result: what the driver said at the end, of a job that succeeded.
        attempts: drivers that were started; empty in lists, which do not read them.
        schedule: that submitted it, if one did.
    """

    id: str
    kind: JobKind = JobKind.MERGE
    team: str
    owner: str
    state: JobState
    spec: dict[str, Any]
    output: str
    labels: dict[str, str]
    priority: int
    overwrite: bool
    created: datetime
    changed: datetime
    started: datetime | None = None
    ended: datetime | None = None
    plan: dict[str, Any] | None = None
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: JobError | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    cancel_requested: bool = False
    schedule: str | None = None


class JobPage(_Said):
    """Some jobs, newest first.

    Args:
        next: the cursor of the next page; None at the end.
    """

    jobs: list[Job]
    next: str | None = None


class JobEvent(_Said):
    """Something that happened to a job.

    Args:
        id: grows by at least one from event to event of a job.
        kind: ``state`` for a new state, ``progress``, or a driver's: ``planned``, ``claimed``, ...
        data: of that kind.
    """

    id: int
    time: datetime
    kind: str
    data: dict[str, Any]


Role = Literal["read", "submit", "admin"]


class TokenRequest(_Model):
    """A token to create.

    Args:
        team: whose jobs it sees; the name if absent.
        roles: ``read`` sees jobs, ``submit`` also submits and cancels them, ``admin`` also creates tokens and
            sees all teams.
        read, write: URI prefixes that specs may read from and write to.
        days: until it expires; None for never.
    """

    name: Label
    team: Label | None = None
    roles: list[Role] = Field(default=["read"], min_length=1)
    read: list[str] = Field(default_factory=list, max_length=64, examples=[["s3://runs/"]])
    write: list[str] = Field(default_factory=list, max_length=64, examples=[["s3://models/merged/"]])
    days: float | None = Field(default=None, gt=0, le=3650)


class Token(_Said):
    """A token, without its secret."""

    id: str
    name: str
    team: str
    roles: list[Role]
    read: list[str]
    write: list[str]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None


class NewToken(Token):
    """A token that was just created: the only time that its secret is told."""

    secret: str = Field(repr=False)


class AuditEntry(_Said):
    """Who did what."""

    id: int
    time: datetime
    who: str
    team: str
    action: str
    target: str
    outcome: str
    address: str | None = None
