"""``plait clean``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from plait.cli.options import debug_option, json_option, read_storage, storage_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait_service.cleaning import Leftovers


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option("--yes", is_flag=True, help="Remove what is listed; without it nothing is changed.")
@click.option(
    "--upload-id",
    "upload_ids",
    multiple=True,
    metavar="ID",
    help="Abort this upload too, which no claim lists.",
)
@storage_option
@json_option
@debug_option
def clean(
    output: str,
    yes: bool,
    upload_ids: tuple[str, ...],
    storage_of: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """List what dead merges left at OUTPUT: uploads in parts, claims, journals.

    With --yes, aborts those uploads and removes the working files, unless somebody is at work there.
    A result, and shards that are whole, stay. Uploads that no claim lists are aborted by their id alone.
    """
    from plait.cli.uris import checked_uri
    from plait_service.cleaning import find_leftovers, remove_leftovers

    storage = read_storage(storage_of)
    found = find_leftovers(checked_uri(output), storage)
    if yes:
        remove_leftovers(found, upload_ids, storage)
    if as_json:
        click.echo(json.dumps(_as_json(found, removed=yes)))
    else:
        click.echo("\n".join(_lines(found, removed=yes)))


def _as_json(found: Leftovers, *, removed: bool) -> dict[str, object]:
    return {
        "status": "removed" if removed else "listed",
        "output": found.uri,
        "published": found.published,
        "held": found.held,
        "last_heard_seconds": found.holder,
        "working_files": list(found.working),
        "uploads": [{"key": upload.key, "id": upload.id} for upload in found.ours],
        "unlisted_uploads": [{"key": upload.key, "id": upload.id} for upload in found.unlisted],
    }


def _lines(found: Leftovers, *, removed: bool) -> Iterator[str]:
    if not (found.working or found.ours or found.unlisted):
        yield f"nothing to clean at {found.uri}"
        return
    if found.held:
        yield f"a merge is at work here: heard of {found.holder:.0f} s ago"
    for upload in found.ours:
        yield f"upload    {upload.key} {upload.id}"
    for upload in found.unlisted:
        yield f"unlisted  {upload.key} {upload.id} (aborted with --upload-id {upload.id})"
    yield f"working   {len(found.working)} file(s)"
    if removed:
        yield "removed, but for unlisted uploads that were not named"
    elif not found.held:
        yield "nothing was changed; remove it with --yes"
