"""``plait list``, ``show``, ``watch``, ``logs``, ``cancel`` and ``retry``: jobs of a service."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from plait.cli.service_options import client_of, labels_option, say, service_options, table
from plait.cli.waiting import finish, goes_on, say_job, wait_for_end

if TYPE_CHECKING:
    from plait.errors import PlaitError
    from plait.job_handle import JobHandle
    from plait.jobs import Job

STATES = ("queued", "planning", "running", "committing", "succeeded", "failed", "cancelled", "unknown")


@click.command(name="list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Any of these.")
@labels_option
@click.option("--output", metavar="URI", help="Where the result goes.")
@click.option("--schedule", metavar="SCHEDULE", help="That submitted them; a name or an id.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most jobs to list.")
@service_options
def list_jobs(
    states: tuple[str, ...],
    labels: dict[str, str],
    output: str | None,
    schedule: str | None,
    limit: int,
    url: str | None,
    profile: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """List jobs, newest first."""
    from plait import calls
    from plait.asking import filters
    from plait.cli import job_text
    from plait.cli.schedule import schedule_id
    from plait.client import MOST_IN_PAGE

    with client_of(url, profile) as client:
        number = None if schedule is None else schedule_id(client, schedule)
        wanted = filters(states, labels, output, number, limit=min(limit + 1, MOST_IN_PAGE))
        found = list(islice(client.pages(lambda cursor: calls.jobs(wanted, cursor)), limit + 1))
    jobs, more = found[:limit], len(found) > limit
    if as_json:
        say({"jobs": [job_text.as_json(job) for job in jobs], "more": more})
        return
    click.echo(table(job_text.ROW, map(job_text.row, jobs)) or "no jobs")
    if more:
        click.echo(f"the first {limit}; --limit lists more", err=True)


@click.command()
@click.argument("job")
@service_options
def show(job: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Show a job: its state, plan, attempts, and why it failed."""
    from plait.cli import job_text

    with client_of(url, profile) as client:
        found = client.job(job).job
    if as_json:
        say(job_text.as_json(found))
    else:
        click.echo(job_text.described(found))


@click.command()
@click.argument("job")
@click.option("--log-json", is_flag=True, help="Events as lines of JSON on standard error.")
@service_options
def watch(job: str, log_json: bool, url: str | None, profile: str | None, as_json: bool, debug: bool) -> int:
    """Watch a job until it is over; the exit status is that of its merge. Ctrl-C ends the watching alone."""
    with client_of(url, profile) as client:
        handle = client.job(job)
        found = _as_lines(handle) if log_json else wait_for_end(handle, events=True)
    return finish(found, as_json=as_json)


def _as_lines(handle: JobHandle) -> Job:
    with goes_on(handle):
        for event in handle.watch():
            click.echo(event.model_dump_json(), err=True)
    return handle.job


@click.command()
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until the job is over.")
@click.option("--tail", type=click.IntRange(1, 100_000), help="The last so many lines of what is there.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which of its drivers; default: the last.")
@service_options
def logs(
    job: str,
    follow: bool,
    tail: int | None,
    attempt: int | None,
    url: str | None,
    profile: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Print what a job's driver wrote."""
    with client_of(url, profile) as client:
        lines = client.job(job).logs(follow=follow, tail=tail, attempt=attempt)
        if as_json:
            say({"job": job, "lines": list(lines)})
            return
        for line in lines:
            sys.stdout.write(line + "\n")
            if follow:
                sys.stdout.flush()


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@service_options
def cancel(jobs: tuple[str, ...], url: str | None, profile: str | None, as_json: bool, debug: bool) -> int:
    """Cancel jobs: at once if they wait, else their drivers are asked to stop. What is finished is kept."""
    from plait import calls
    from plait.cli import job_text
    from plait.errors import PlaitError

    cancelled: list[Job] = []
    failed: list[PlaitError] = []
    with client_of(url, profile) as client:
        for number in jobs:
            try:
                cancelled.append(client.send(calls.cancel(number)))
            except PlaitError as error:  # the others are cancelled all the same
                failed.append(error)
                click.echo(f"{error.kind}: {error}", err=True)
                continue
            if not as_json:
                click.echo(_cancelled(cancelled[-1]))
    if as_json:
        errors = [error.to_json() for error in failed]
        status = "failed" if failed else "done"
        say({"status": status, "jobs": [job_text.as_json(job) for job in cancelled], "errors": errors})
    return max((error.exit_status for error in failed), default=0)


def _cancelled(job: Job) -> str:
    return f"{job.id}: {job.state}" if job.state.is_final else f"{job.id}: {job.state}, asked to end"


@click.command()
@click.argument("job")
@click.option("--wait", is_flag=True, help="Until it is over; the exit status is then that of the merge.")
@service_options
def retry(job: str, wait: bool, url: str | None, profile: str | None, as_json: bool, debug: bool) -> int:
    """Queue a job again that did not succeed; it carries on from what is finished."""
    with client_of(url, profile) as client:
        handle = client.job(job)
        found = handle.retry()
        if wait:
            return finish(wait_for_end(handle), as_json=as_json)
    if as_json:
        return say_job(found, None)
    click.echo(f"{found.id}: {found.state}")
    return 0
