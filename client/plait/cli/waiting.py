"""Waiting for a job on a command line: what is shown meanwhile, and the exit status at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from plait.cli.service_options import say

if TYPE_CHECKING:
    from plait.errors import PlaitError
    from plait.job_handle import JobHandle
    from plait.jobs import Job


@contextmanager
def goes_on(handle: JobHandle) -> Iterator[None]:
    """Ctrl-C leaves the job as it is, and says how to come back to it."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"{handle.id} goes on: see `plait watch {handle.id}`, `plait cancel {handle.id}`", err=True
        )
        raise


def wait_for_end(handle: JobHandle, *, events: bool = False) -> Job:
    """The job once it is over; shows a bar on a terminal, and lines elsewhere.

    Args:
        events: show them, too.
    """
    from plait.progress_shown import shown

    with goes_on(handle), shown(handle.id, None, lines=True, events=events) as view:
        return handle.wait_until(lambda job: job.state.is_final, view=view)


def finish(job: Job, *, as_json: bool) -> int:
    """Say how a job ended; the exit status that ``plait merge`` would have had.

    Raises:
        PlaitError: why it failed, for what prints errors of all commands.
    """
    from plait.cli.job_text import ending
    from plait.job_states import error_of_job

    error = error_of_job(job)
    if as_json:
        return say_job(job, error)
    click.echo(ending(job))
    if error is not None:
        raise error
    return 0


def say_job(job: Job, error: PlaitError | None) -> int:
    """One JSON object: its state, the job, and why it failed if it did."""
    from plait.cli import job_text
    from plait.errors import PlanRejected

    found: dict[str, object] = {"status": job.state.value, "job": job_text.as_json(job)}
    if error is None:
        say(found)
        return 0
    click.echo(str(error) if isinstance(error, PlanRejected) else f"{error.kind}: {error}", err=True)
    say(found | {"error": error.to_json()})
    return error.exit_status
