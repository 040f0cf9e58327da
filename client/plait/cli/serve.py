"""``plait serve``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from plait.cli.options import debug_option


def _folder() -> Path:
    """Where a user's data lies."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "plait"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8421, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Of logs and SQLite; default: ~/.local/share/plait."
)
@click.option(
    "--database",
    envvar="PLAIT_DATABASE",
    default="",
    metavar="URL",
    help="sqlite:///FILE or postgresql+psycopg://HOST/NAME; with a password rather in $PLAIT_DATABASE.",
)
@click.option(
    "--anonymous", is_flag=True, help="No token needed; for this machine alone, on a loopback address."
)
@click.option("--backend", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--ray-address", metavar="URL", help="Of the cluster's dashboard, http://HEAD:8265.")
@click.option("--slots", type=click.IntRange(1, 1000), default=2, show_default=True, help="Merges at once.")
@click.option(
    "--merge-option",
    "merge_options",
    multiple=True,
    help="For each `plait merge`: --merge-option=--memory=8GB.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0, min_open=True),
    help="Forget jobs, with their logs, so many days after they ended; default: never.",
)
@click.option(
    "--allow", multiple=True, metavar="SCHEME", help="URI schemes that specs may name, too: file, https, ..."
)
@click.option("--allow-endpoints", is_flag=True, help="Specs may name the endpoints of stores.")
@click.option(
    "--requests-per-minute", type=click.IntRange(1), default=6000, show_default=True, help="Of one token."
)
@click.option("--cert", type=click.Path(path_type=Path, exists=True), help="TLS: certificate chain, PEM.")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="TLS: its key.")
@click.option("--root-path", default="", help="Where a proxy puts the service, such as /plait.")
@click.option("--proxy", multiple=True, metavar="IP", help="A proxy whose X-Forwarded-For is believed.")
@debug_option
def serve(
    host: str,
    port: int,
    folder: Path | None,
    database: str,
    anonymous: bool,
    backend: str,
    ray_address: str | None,
    slots: int,
    merge_options: tuple[str, ...],
    keep_days: float | None,
    allow: tuple[str, ...],
    allow_endpoints: bool,
    requests_per_minute: int,
    cert: Path | None,
    key: Path | None,
    root_path: str,
    proxy: tuple[str, ...],
    debug: bool,
) -> None:
    """Run the job service: submit, watch and schedule merges over HTTP.

    Who may use it says `plait token`; the first token is made with --database, or, without one, in the
    default folder. Jobs that run when it is stopped go on, and are found again.
    """
    from typing import Literal, cast

    from plait.cli.merge import merge
    from plait_service.api.serving import serve as run
    from plait_service.api.settings import REMOTE, Settings

    merge.make_context("plait merge", [*merge_options, "SPEC"])  # says now what every job would say
    settings = Settings(
        folder=(folder or _folder()).absolute(),
        database=database,
        host=host,
        port=port,
        anonymous=anonymous,
        backend=cast(Literal["local", "ray"], backend),
        ray_address=ray_address,
        merge_options=merge_options,
        slots=slots,
        keep_days=keep_days,
        schemes=REMOTE | set(allow),
        endpoints=allow_endpoints,
        requests_per_minute=requests_per_minute,
        cert=cert,
        key=key,
        root_path=root_path,
    )
    run(settings, proxies=proxy, debug=debug, say=lambda line: click.echo(line, err=True))
