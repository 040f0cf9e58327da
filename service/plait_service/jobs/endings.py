"""What a driver's words mean for its job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from plait.errors import ClusterUnsuitable, DriverLost, InternalError, PlaitError
from plait.jobs import JobState
from plait_service.jobs import states
from plait_service.jobs.driver_log import DriverEvent
from plait_service.jobs.records import now, tell, transition
from plait_service.jobs.tables import AttemptRow, JobRow

_MEANS: Final = {
    "claimed": JobState.RUNNING,
    "resumed": JobState.RUNNING,
    "publishing": JobState.COMMITTING,
}
"""What a driver's event says of its job."""
_OWN: Final = frozenset({"state", "end"})
"""Kinds of the service; a driver has none such."""
_LONGEST: Final = 60.0
_NO_COMMAND: Final = 127
"""What a shell exits with."""


def apply_events(session: Session, row: JobRow, events: Iterable[DriverEvent]) -> None:
    """Tell what a driver said, and go where it is."""
    for event in events:
        if event.kind in _OWN:
            continue
        after = _MEANS.get(event.kind)
        if after is not None and states.may(JobState(row.state), after):
            transition(session, row, after)
        if event.kind == "planned":
            row.plan = event.data
        if event.kind in ("progress", "planned"):
            row.progress = _progress(row, event.data)
        tell(session, row, event.kind, event.data, event.time)


def _progress(row: JobRow, data: dict[str, Any]) -> dict[str, Any] | None:
    if "bytes_total" in data:
        return data
    if "bytes_written" in data:
        return {"bytes_done": 0, "bytes_total": data["bytes_written"]}
    return row.progress


def ended(session: Session, row: JobRow, attempt: AttemptRow, status: int | None) -> None:
    """A driver is over: the job ends, or goes back to the queue.

    Args:
        status: with which it exited; None if nobody knows.
    """
    said = attempt.said or {}
    if said.get("status") in ("done", "planned"):
        if said["status"] == "planned":
            row.plan = said
        else:
            row.result = said
        if row.progress is not None:
            row.progress = {
                "bytes_done": row.progress["bytes_total"],
                "bytes_total": row.progress["bytes_total"],
            }
        _close(row, attempt, "succeeded")
        transition(session, row, JobState.SUCCEEDED)
        return
    error = said.get("error")
    kind = error.get("kind") if isinstance(error, dict) else None
    if kind == "commit-unknown":
        row.error = error
        _close(row, attempt, "unknown")
        transition(session, row, JobState.UNKNOWN, error=kind)
    elif row.cancel_requested:
        _close(row, attempt, "cancelled")
        transition(session, row, JobState.CANCELLED)
    elif isinstance(error, dict) and kind != "cancelled":
        _failed(session, row, attempt, error)
    elif status == _NO_COMMAND:
        none = ClusterUnsuitable(
            "there is no `plait` command where drivers run", hint="Use an image, or nodes, that have Plait"
        )
        _failed(session, row, attempt, none.to_json())
    else:  # killed, or stopped by somebody who is not us
        lost = DriverLost(
            "the driver ended without a word" if kind is None else "the driver was stopped",
            where=attempt.handle,
            found=None if status is None else f"exit status {status}",
            hint="Finished parts are kept: retry the job to carry on",
        )
        _failed(session, row, attempt, lost.to_json())


def fail(session: Session, row: JobRow, attempt: AttemptRow, error: PlaitError) -> None:
    """An attempt could not even begin, and none could."""
    row.error = error.to_json()
    _close(row, attempt, error.kind)
    transition(session, row, JobState.FAILED, error=error.kind)


def _failed(session: Session, row: JobRow, attempt: AttemptRow, error: dict[str, Any]) -> None:
    kind = str(error.get("kind", InternalError.kind))
    row.error = error
    _close(row, attempt, kind)
    if error.get("retryable") and row.attempt < row.attempts_allowed:
        wait = min(_LONGEST, 2.0 ** (row.attempt - 1))
        row.not_before = now() + timedelta(seconds=wait)
        transition(session, row, JobState.QUEUED, error=kind, attempt=row.attempt)
    else:
        transition(session, row, JobState.FAILED, error=kind)


def _close(row: JobRow, attempt: AttemptRow, outcome: str) -> None:
    attempt.ended = now()
    attempt.outcome = outcome[:32]
    if outcome == "succeeded":
        row.error = None
