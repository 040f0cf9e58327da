"""``plait submit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from plait.cli.options import read_spec
from plait.cli.service_options import client_of, labels_option, service_options
from plait.cli.waiting import finish, goes_on, say_job, wait_for_end

if TYPE_CHECKING:
    from plait.client import Client
    from plait.job_handle import JobHandle
    from plait.spec import MergeSpec


@click.command()
@click.argument("spec", type=click.Path())
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the spec: method.resample=2."
)
@labels_option
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    help="Of several jobs that wait the highest goes first.",
)
@click.option("--overwrite", is_flag=True, help="Replace what lies at the output, whoever made it.")
@click.option(
    "--attempts",
    type=click.IntRange(1, 20),
    default=3,
    show_default=True,
    help="Drivers that may be started, as long as what ends them is worth a retry.",
)
@click.option(
    "--key",
    metavar="KEY",
    help="The same key and job give the same job again: for scripts that are repeated.",
)
@click.option("--plan-only", is_flag=True, help="Plan, and merge nothing.")
@click.option("--wait", is_flag=True, help="Until it is over; the exit status is then that of the merge.")
@click.option(
    "--detach", "--no-wait-for-plan", "detach", is_flag=True, help="Print the job's id, and wait for nothing."
)
@service_options
def submit(
    spec: str,
    overrides: tuple[str, ...],
    labels: dict[str, str],
    priority: int,
    overwrite: bool,
    attempts: int,
    key: str | None,
    plan_only: bool,
    wait: bool,
    detach: bool,
    url: str | None,
    profile: str | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Have a service merge the models that SPEC names, and wait for its plan.

    SPEC is a YAML file, - for standard input, s3://..., or {inline YAML}. Exit status 2 if the plan found
    problems; all of them are printed. Ctrl-C ends the waiting, not the job.
    """
    if wait and detach:
        raise click.UsageError("--wait and --detach exclude each other")
    if plan_only and (priority or overwrite or attempts != 3):
        raise click.UsageError("--plan-only takes no --priority, --overwrite or --attempts")
    parsed = read_spec(spec, overrides, here=False)
    with client_of(url, profile) as client:
        handle = _submit(client, parsed, labels, priority, overwrite, attempts, key, plan_only)
        return _after(handle, plan_only, wait, detach, as_json)


def _submit(
    client: Client,
    spec: MergeSpec,
    labels: dict[str, str],
    priority: int,
    overwrite: bool,
    attempts: int,
    key: str | None,
    plan_only: bool,
) -> JobHandle:
    if plan_only:
        return client.plan(spec, labels=labels, idempotency_key=key)
    return client.submit(
        spec, labels=labels, priority=priority, overwrite=overwrite, attempts=attempts, idempotency_key=key
    )


def _after(handle: JobHandle, plan_only: bool, wait: bool, detach: bool, as_json: bool) -> int:
    """What is waited for, and printed."""
    from plait.cli.job_text import verdict
    from plait.job_states import error_of_job, has_verdict
    from plait.progress_shown import shown

    if detach:
        if as_json:
            return say_job(handle.job, None)
        click.echo(handle.id)
        return 0
    click.echo(f"{handle.id}: {handle.state}", err=True)
    enough = (lambda job: job.state.is_final) if plan_only else has_verdict
    with goes_on(handle), shown(handle.id, None) as view:
        job = handle.wait_until(enough, view=view)
    if not as_json and job.plan is not None:
        click.echo(verdict(job))
    if wait and not job.state.is_final:
        job = wait_for_end(handle)
    if job.state.is_final:
        return finish(job, as_json=as_json)
    return say_job(job, error_of_job(job)) if as_json else 0
