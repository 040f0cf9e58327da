"""Jobs in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from plait.job_states import error_of_job
from plait.jobs import Attempt, Job, JobKind, JobState
from plait.progress_shown import line_of
from plait.sizes import format_size


def as_json(job: Job) -> dict[str, Any]:
    """As the service says it."""
    return job.model_dump(mode="json")


def verdict(job: Job) -> str:
    """What planning found: one line, and the plan's notes."""
    plan = job.plan or {}
    size = {
        name: format_size(plan[name]) for name in ("bytes_read", "bytes_written") if _is_count(plan.get(name))
    }
    models = plan.get("sub_models")
    if models is None and isinstance(plan.get("models"), list):
        models = len(plan["models"])
    found = [
        f"{models} sub-models" if models is not None else "",
        f"{plan['parts']} parts" if _is_count(plan.get("parts")) else "",
        f"reads {size['bytes_read']}" if "bytes_read" in size else "",
        f"writes {size['bytes_written']} to {job.output}" if "bytes_written" in size else f"to {job.output}",
    ]
    lines = [f"{job.id}: planned: {', '.join(filter(None, found))}"]
    lines += [f"note: {note}" for note in plan.get("notes") or ()]
    return "\n".join(lines)


def ending(job: Job) -> str:
    """How a job ended, in one line."""
    text = f"{job.id}: {job.state}"
    if job.started and job.ended:
        text += f" after {duration((job.ended - job.started).total_seconds())}"
    if job.state is not JobState.SUCCEEDED:
        return text
    if job.kind is JobKind.PLAN:
        return f"{text}; {job.output} can be merged"
    return f"{text}: {job.output}"


def row(job: Job) -> tuple[str, ...]:
    """For a list of jobs."""
    share = "" if job.progress is None or job.state.is_final else f"{job.progress.share:.0%}"
    labels = " ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
    age = duration((datetime.now(UTC) - job.created).total_seconds())
    state = job.state.value if job.kind is JobKind.MERGE else f"{job.state.value} ({job.kind})"
    return job.id, state, share, age, job.owner, job.output, labels


ROW = ("JOB", "STATE", "DONE", "AGE", "OWNER", "OUTPUT", "LABELS")


def described(job: Job) -> str:
    """All of a job that is worth reading."""
    return "\n".join(f"{name:<10}{text}" for name, text in _described(job) if text)


def _described(job: Job) -> Iterator[tuple[str, str]]:
    asked = ", asked to end" if job.cancel_requested and not job.state.is_final else ""
    yield "job", job.id if job.kind is JobKind.MERGE else f"{job.id} ({job.kind})"
    yield "state", f"{job.state}{asked}"
    yield "output", f"{job.output}{', to be overwritten' if job.overwrite else ''}"
    if job.progress is not None and not job.state.is_final:
        yield "progress", line_of(job.progress)
    yield "of", f"{job.owner}, team {job.team}"
    yield "labels", " ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
    yield "priority", str(job.priority) if job.priority else ""
    yield "schedule", job.schedule or ""
    yield "submitted", _moment(job.created)
    yield "began", _moment(job.started)
    yield "ended", _moment(job.ended)
    for attempt in job.attempts:
        yield f"attempt {attempt.number}", _attempt(attempt)
    if job.plan is not None:
        yield "plan", verdict(job).partition(": planned: ")[2].replace("\n", "; ")
    error = error_of_job(job)
    if error is not None:
        yield "error", str(error) if job.error and job.error.problems else f"{error.kind}: {error}"


def _attempt(attempt: Attempt) -> str:
    if attempt.ended is None:
        return f"since {_moment(attempt.started)}"
    seconds = (attempt.ended - attempt.started).total_seconds()
    return f"{attempt.outcome or 'over'} after {duration(seconds)}"


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"


def duration(seconds: float) -> str:
    """In one or two units."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    for unit, length, small, smaller in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= length:
            whole, rest = divmod(int(seconds), length)
            return f"{whole} {unit} {rest // smaller} {small}" if rest // smaller else f"{whole} {unit}"
    raise AssertionError("60 seconds are a minute")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0
