"""``plait plan``."""

from __future__ import annotations

import json

import click

from plait.cli.options import debug_option, json_option, prepare_with_budget, read_spec, spec_options


@click.command()
@spec_options
@json_option
@debug_option
def plan(
    spec: str,
    overrides: tuple[str, ...],
    memory: int | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Say what merging SPEC will do, and everything that is wrong with it. Reads headers only."""
    from plait.errors import PlanRejected
    from plait_service.preflight import output_problems
    from plait_service.show import plan_as_json, plan_as_text

    prepared, budget = prepare_with_budget(read_spec(spec, overrides), memory, workers)
    problems = output_problems(prepared.plan, prepared.output, overwrite=overwrite)
    if problems:
        raise PlanRejected(problems)
    if as_json:
        click.echo(json.dumps(plan_as_json(prepared, budget)))
    else:
        click.echo(plan_as_text(prepared, budget))
