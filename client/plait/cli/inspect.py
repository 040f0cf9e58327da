"""``plait inspect``."""

from __future__ import annotations

import json

import click

from plait.cli.options import debug_option, json_option, read_storage, storage_option


@click.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@click.option("--base", metavar="URI", help="Also count the elements that differ from this model.")
@storage_option
@json_option
@debug_option
def inspect(
    uris: tuple[str, ...], base: str | None, storage_of: str | None, as_json: bool, debug: bool
) -> None:
    """List the tensors of models, all layers of one role together.

    Without --base only headers are read; with it, every byte of the models and of the base.
    """
    from plait.cli.uris import checked_uri
    from plait_service.budget import default_threads
    from plait_service.inspecting import inspect as look
    from plait_service.show import inspection_as_json, inspection_as_text

    found = look(
        [checked_uri(uri) for uri in uris],
        checked_uri(base) if base is not None else None,
        threads=default_threads(),
        storage=read_storage(storage_of),
    )
    if as_json:
        click.echo(json.dumps({"models": [inspection_as_json(model) for model in found]}))
    else:
        click.echo("\n\n".join(inspection_as_text(model, base is not None) for model in found))
