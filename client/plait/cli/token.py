"""``plait token``: who may ask a service, and what for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import click
from click.core import ParameterSource

from plait.cli.service_options import client_of, say, service_options, table

if TYPE_CHECKING:
    from plait.jobs import NewToken, Token, TokenRequest

ROLES = ("read", "submit", "admin")

database_option = click.option(
    "--database",
    envvar="PLAIT_DATABASE",
    metavar="URL",
    help="Not over HTTP but in the service's database, for its first token; also PLAIT_DATABASE, where no "
    "list of processes shows a password.",
)


class _Tokens(Protocol):
    """Tokens, over HTTP or in a database."""

    def create(self, request: TokenRequest, /) -> NewToken:
        """A new one."""

    def list(self) -> Sequence[Token]:
        """All of them."""

    def revoke(self, number: str, /) -> Token:
        """End one."""


@click.group()
def token() -> None:
    """Create, list and revoke tokens of a service; for administrators."""


@token.command()
@click.argument("name")
@click.option("--team", help="Whose jobs it sees; default: NAME.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="read sees jobs, submit also submits and cancels them, admin also creates tokens and "
    "sees all teams; may be repeated. Default: read.",
)
@click.option("--read", multiple=True, metavar="PREFIX", help="That specs may read; may be repeated.")
@click.option("--write", multiple=True, metavar="PREFIX", help="That specs may write; may be repeated.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Until it expires; default: never.")
@database_option
@service_options
def create(
    name: str,
    team: str | None,
    roles: tuple[str, ...],
    read: tuple[str, ...],
    write: tuple[str, ...],
    days: float | None,
    database: str | None,
    url: str | None,
    profile: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Create a token, and print its secret: the only time that it is told."""
    from plait.asking import checked
    from plait.jobs import TokenRequest

    asked = {"name": name, "team": team, "read": list(read), "write": list(write), "days": days}
    request = checked(TokenRequest, asked | ({"roles": list(roles)} if roles else {}))
    with _tokens(database, url, profile) as tokens:
        made = tokens.create(request)
    if as_json:
        say(made.model_dump(mode="json"))
        return
    click.echo(f"{made.id}: {made.name}, team {made.team}, {' '.join(made.roles)}", err=True)
    click.echo(made.secret)


@token.command(name="list")
@database_option
@service_options
def list_tokens(
    database: str | None, url: str | None, profile: str | None, as_json: bool, debug: bool
) -> None:
    """List all tokens, without their secrets."""
    with _tokens(database, url, profile) as tokens:
        found = tokens.list()
    if as_json:
        say({"tokens": [each.model_dump(mode="json") for each in found]})
        return
    titles = ("TOKEN", "NAME", "TEAM", "ROLES", "STATE", "READ", "WRITE")
    click.echo(table(titles, map(_row, found)) or "no tokens")


@token.command()
@click.argument("token_id", metavar="ID")
@database_option
@service_options
def revoke(
    token_id: str, database: str | None, url: str | None, profile: str | None, as_json: bool, debug: bool
) -> None:
    """End a token, for good."""
    with _tokens(database, url, profile) as tokens:
        ended = tokens.revoke(token_id)
    if as_json:
        say(ended.model_dump(mode="json"))
    else:
        click.echo(f"{ended.id}: {ended.name}, revoked")


@contextmanager
def _tokens(database: str | None, url: str | None, profile: str | None) -> Iterator[_Tokens]:
    over_http = url is not None or profile is not None
    if over_http and database is not None and _is_typed("database"):
        raise click.UsageError("--database excludes --url and --profile")
    if over_http or database is None:
        with client_of(url, profile) as client:
            yield client.tokens
        return
    from plait_service.jobs.database import Database
    from plait_service.jobs.tokens import Tokens

    opened = Database(database)
    try:
        opened.upgrade()
        yield Tokens(opened)
    finally:
        opened.close()


def _is_typed(option: str) -> bool:
    """Whether an option comes from the command line."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _row(found: Token) -> Sequence[str]:
    state = "valid" if found.expires is None else f"until {found.expires.astimezone():%Y-%m-%d %H:%M}"
    if found.expires is not None and found.expires <= datetime.now(UTC):
        state = "expired"
    if found.revoked is not None:
        state = "revoked"
    roles, read, write = (" ".join(each) for each in (found.roles, found.read, found.write))
    return found.id, found.name, found.team, roles, state, read, write
