"""Options of all commands that ask a job service."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from plait.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from plait.client import Client

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Any, ...] = (
    debug_option,
    json_option,
    click.option(
        "--profile",
        metavar="NAME",
        help="A table of ~/.config/plait/config.toml with URL and token; default: PLAIT_PROFILE, or default.",
    ),
    click.option(
        "--url",
        metavar="URL",
        help="Of the service; default: PLAIT_URL, the profile's, or http://127.0.0.1:8421. "
        "The token comes from PLAIT_TOKEN or the profile: as an option, lists of processes would show it.",
    ),
)


def service_options(function: F) -> F:
    """--url, --profile, --json, --debug."""
    decorated: Any = function
    for decorate in _OPTIONS:
        decorated = decorate(decorated)
    return cast(F, decorated)


labels_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda _context, _option, values: dict(map(_label, values)),
    help="To find it by; may be given several times.",
)


def _label(value: str) -> tuple[str, str]:
    key, equals, found = value.partition("=")
    if not equals:
        raise click.BadParameter(f"{value!r} is no label: write KEY=VALUE")
    return key, found


def client_of(url: str | None, profile: str | None) -> Client:
    """The service that the options name."""
    from plait.client import Client
    from plait.retries import LOGGER

    if not LOGGER.handlers:
        LOGGER.addHandler(_SaidOnce())
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
    return Client(url, profile=profile)


class _SaidOnce(logging.Handler):
    """Whoever waits knows why; once is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._said = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print the first message."""
        if not self._said:
            self._said = True
            click.echo(record.getMessage(), err=True)


def say(data: object) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(data))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns; without a title where there are no rows."""
    lines = [tuple(titles), *map(tuple, rows)]
    if len(lines) == 1:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
