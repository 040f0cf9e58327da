"""What the state of a job means for whoever waits for it."""

from __future__ import annotations

from plait.answered_errors import error_of
from plait.errors import Cancelled, CommitUnknown, InternalError, PlaitError
from plait.jobs import Job, JobState


def error_of_job(job: Job) -> PlaitError | None:
    """Why a job has no result, as an error of the tree; None if it succeeded, or is not over."""
    said = None if job.error is None else error_of(job.error.model_dump())
    match job.state:
        case JobState.FAILED:
            return said or InternalError("the job failed, and nobody said why", where=job.id)
        case JobState.CANCELLED:
            return Cancelled("the job was cancelled", where=job.id)
        case JobState.UNKNOWN:
            if isinstance(said, CommitUnknown):
                return said
            found = None if said is None else str(said)
            hint = "`plait verify` the output, or retry the job"
            return CommitUnknown(
                "whether the job published its result is not known", where=job.id, found=found, hint=hint
            )
        case _:
            return None


def has_verdict(job: Job) -> bool:
    """Whether the planning is over, one way or another."""
    return job.state not in (JobState.QUEUED, JobState.PLANNING)
