"""``plait schedule``: merges that a service submits by the clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from plait.cli.options import spec_text
from plait.cli.service_options import client_of, say, service_options, table

if TYPE_CHECKING:
    from datetime import datetime

    from plait.client import Client
    from plait.schedules import Schedule, ScheduleRequest, Tick

file_argument = click.argument("file", type=click.Path())
schedule_argument = click.argument("name", metavar="SCHEDULE")


@click.group()
def schedule() -> None:
    """Have a service submit merges by the clock. SCHEDULE is a name or an id."""


@schedule.command()
@file_argument
@service_options
def create(file: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Create the schedule that FILE describes: YAML, or - for standard input."""
    request = _read(file)
    with client_of(url, profile) as client:
        _tell(client.schedules.create(request), as_json)


@schedule.command()
@schedule_argument
@file_argument
@service_options
def replace(name: str, file: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Give a schedule the settings that FILE describes."""
    request = _read(file)
    with client_of(url, profile) as client:
        _tell(client.schedules.replace(schedule_id(client, name), request), as_json)


@schedule.command(name="list")
@service_options
def list_schedules(url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """List all schedules."""
    with client_of(url, profile) as client:
        found = client.schedules.list()
    if as_json:
        say({"schedules": [each.model_dump(mode="json") for each in found]})
    else:
        titles = ("SCHEDULE", "NAME", "CRON", "TIMEZONE", "NEXT", "LAST")
        click.echo(table(titles, map(_row, found)) or "no schedules")


@schedule.command()
@schedule_argument
@service_options
def show(name: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Show a schedule: its settings, and when it is due."""
    from plait.yaml_writer import write_yaml

    with client_of(url, profile) as client:
        found = client.schedules.get(schedule_id(client, name))
    if as_json:
        say(found.model_dump(mode="json"))
        return
    click.echo(f"# {_line(found)}")
    click.echo(f"# of {found.owner}, team {found.team}")
    if found.last is not None:
        click.echo(f"# last: {_moment(found.last.due)} {_outcome(found.last)}")
    click.echo(write_yaml(found.settings.model_dump(mode="json", exclude_defaults=True)), nl=False)


@schedule.command()
@schedule_argument
@service_options
def pause(name: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Submit nothing until the schedule is resumed."""
    with client_of(url, profile) as client:
        _tell(client.schedules.pause(schedule_id(client, name)), as_json)


@schedule.command()
@schedule_argument
@service_options
def resume(name: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Let a paused schedule go on."""
    with client_of(url, profile) as client:
        _tell(client.schedules.resume(schedule_id(client, name)), as_json)


@schedule.command()
@schedule_argument
@service_options
def run(name: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """Run a schedule now, beside its clock: late at once, if it waits for sub-models that are not there."""
    with client_of(url, profile) as client:
        tick = client.schedules.run(schedule_id(client, name))
    if as_json:
        say(tick.model_dump(mode="json"))
    else:
        click.echo(f"{name}: {_outcome(tick)}")


@schedule.command()
@schedule_argument
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most ticks to list."
)
@service_options
def ticks(name: str, limit: int, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """List when a schedule was due and what became of it, newest first."""
    with client_of(url, profile) as client:
        found = list(islice(client.schedules.ticks(schedule_id(client, name)), limit))
    if as_json:
        say({"ticks": [each.model_dump(mode="json") for each in found]})
        return
    rows = ((_moment(each.due), each.state.value, each.job or "", each.reason or "") for each in found)
    click.echo(table(("DUE", "STATE", "JOB", "REASON"), rows) or "no ticks")


@schedule.command()
@schedule_argument
@service_options
def delete(name: str, url: str | None, profile: str | None, as_json: bool, debug: bool) -> None:
    """End a schedule, for good; its jobs stay."""
    with client_of(url, profile) as client:
        number = schedule_id(client, name)
        client.schedules.delete(number)
    if as_json:
        say({"status": "deleted", "id": number})
    else:
        click.echo(f"{number}: deleted")


def _read(file: str) -> ScheduleRequest:
    from plait.asking import checked
    from plait.errors import PlanRejected, SpecInvalid
    from plait.schedules import ScheduleRequest
    from plait.yaml_source import read_yaml

    text, name = spec_text(file, kind="schedule")
    try:
        data = read_yaml(text, name=name).data
    except SpecInvalid as problem:
        raise PlanRejected([problem]) from None
    if not isinstance(data, dict):
        raise SpecInvalid("reading the schedule", where=name, expected="a mapping of keys to values")
    return checked(ScheduleRequest, data)


def schedule_id(client: Client, name: str) -> str:
    """The id of a schedule that is named by its name or its id."""
    from plait.errors import NotFound
    from plait.schedules import SCHEDULE_ID

    if re.fullmatch(SCHEDULE_ID, name):
        return name
    found = [each.id for each in client.schedules.list() if each.name == name]
    if len(found) != 1:
        hint = f"There are several: name one of {', '.join(found)}" if found else None
        raise NotFound("no such schedule", where=name, hint=hint)
    return found[0]


def _tell(found: Schedule, as_json: bool) -> None:
    if as_json:
        say(found.model_dump(mode="json"))
    else:
        click.echo(_line(found))


def _line(found: Schedule) -> str:
    due = "paused" if found.paused else f"next {_moment(found.next_due)}"
    return f"{found.id}: {found.name}, {found.cron} {found.timezone}, {due}"


def _row(found: Schedule) -> Sequence[str]:
    last = "" if found.last is None else f"{_moment(found.last.due)} {found.last.state}"
    due = "paused" if found.paused else _moment(found.next_due)
    return found.id, found.name, found.cron, found.timezone, due, last


def _outcome(tick: Tick) -> str:
    text = tick.state.value if tick.job is None else f"{tick.state}, {tick.job}"
    return text if tick.reason is None else f"{text}: {tick.reason}"


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M %z}"
