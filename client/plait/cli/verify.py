"""``plait verify``."""

from __future__ import annotations

import json

import click

from plait.cli.options import debug_option, json_option, read_storage, storage_option


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of the parts to recompute from the sources.",
)
@storage_option
@json_option
@debug_option
def verify(output: str, sample: float, storage_of: str | None, as_json: bool, debug: bool) -> int:
    """Check a result's checksums, and recompute a sample of it from its sources.

    Exit status 1 if anything differs.
    """
    from plait.cli.uris import checked_uri
    from plait.sizes import format_size
    from plait_service.budget import default_threads
    from plait_service.verify import verify as check
    from plait_workers.open_files import allow_many

    allow_many()
    storage = read_storage(storage_of)
    found = check(checked_uri(output), sample=sample, threads=default_threads(), storage=storage)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "status": "failed" if found.problems else "done",
                    "fingerprint": found.fingerprint,
                    "shards": found.shards,
                    "checked_bytes": found.checked_bytes,
                    "parts": found.parts,
                    "recomputed": found.recomputed,
                    "problems": [problem.to_json() for problem in found.problems],
                }
            )
        )
    else:
        click.echo(
            f"{'NOT intact' if found.problems else 'intact'}: {found.shards} shard(s), "
            f"{format_size(found.checked_bytes)} checked; "
            f"{found.recomputed} of {found.parts} parts recomputed from the sources; "
            f"fingerprint {found.fingerprint[:12]}"
        )
    for problem in found.problems:
        click.echo(f"{problem.kind}: {problem}", err=True)
    return 1 if found.problems else 0
