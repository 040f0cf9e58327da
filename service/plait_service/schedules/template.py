"""Dates in the strings of a spec: ``{date}``, ``{date - 1d}``, ``{date + 12h:%Y/%m/%d-%H}``.

``date`` is the moment at which a tick is due, in the schedule's time zone, so a tick that is caught up days
later has its own day. Days and weeks are steps of the calendar (the same time of another day); hours,
minutes and seconds are elapsed time, so that ``{date - 1h:%H}`` is right on the days when clocks change.
What follows the colon is a strftime form of numbers and names of days and months; without it, ``%Y-%m-%d``.

A brace that stands for itself is doubled, ``{{`` and ``}}``; a ``}`` without an opening brace may be left
alone. Everything else in braces is an error, as it was meant for a date. Only values are read, not keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from plait.errors import PlaitError, SpecInvalid
from plait.spec_problems import dotted, shown

DEFAULT_FORM: Final = "%Y-%m-%d"
FORMS: Final = frozenset("YmdHMSjyGVuaAbBz%")
"""What may follow a ``%``; the rest of strftime depends on the machine."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{[^{}]*\}?")
_DATE: Final = re.compile(
    r"\{ *date *(?:(?P<sign>[+-]) *(?P<count>[0-9]{1,6}) *(?P<unit>[smhdw]) *)?(?::(?P<form>.+))?\}"
)
_EXPECTED: Final = (
    "{date}, {date - 1d}, {date + 12h:%Y/%m/%d}, or a doubled brace for one that stands for itself"
)
_CALENDAR: Final = {"d": "days", "w": "weeks"}
_ELAPSED: Final = {"s": "seconds", "m": "minutes", "h": "hours"}


_DEEPEST: Final = 40
"""Levels; a spec has fewer, and what reads it says so."""


class _NoDate(ValueError):
    """Worded to follow "found"."""


def render(value: Any, due: datetime, zone: tzinfo) -> tuple[Any, list[PlaitError]]:
    """``value`` with all dates filled in, and all that is wrong with its templates.

    Args:
        value: plain data: mappings, lists, strings and what they hold.
        due: the tick; has a time zone.
        zone: in which dates are read.
    """
    problems: list[PlaitError] = []
    return _rendered(value, due.astimezone(zone), (), problems), problems


def render_text(text: str, due: datetime, zone: tzinfo, *, where: str) -> str:
    """One string with its dates filled in.

    Raises:
        SpecInvalid: a template is wrong.
    """
    try:
        return _filled(text, due.astimezone(zone))
    except _NoDate as error:
        raise SpecInvalid("a date in braces", where=where, expected=_EXPECTED, found=str(error)) from None


def literal(text: str) -> str:
    """What renders as ``text``, whatever braces it has."""
    return text.replace("{", "{{").replace("}", "}}")


def has_dates(text: str) -> bool:
    """Whether rendering would change it, or fail."""
    return any(True for _ in _TOKEN.finditer(text))


def _rendered(value: Any, date: datetime, path: tuple[str | int, ...], problems: list[PlaitError]) -> Any:
    if isinstance(value, str):
        try:
            return _filled(value, date)
        except _NoDate as error:
            where = dotted(("spec", *path))
            problems.append(
                SpecInvalid("a date in braces", where=where, expected=_EXPECTED, found=str(error))
            )
            return value
    if len(path) > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {key: _rendered(each, date, (*path, str(key)), problems) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_rendered(each, date, (*path, number), problems) for number, each in enumerate(value)]
    return value


def _filled(text: str, date: datetime) -> str:
    return "".join(_pieces(text, date))


def _pieces(text: str, date: datetime) -> Iterator[str]:
    end = 0
    for match in _TOKEN.finditer(text):
        yield text[end : match.start()]
        end = match.end()
        token = match[0]
        yield token[0] if token in ("{{", "}}") else _date(token, date)
    yield text[end:]


def _date(token: str, date: datetime) -> str:
    match = _DATE.fullmatch(token)
    if match is None:
        raise _NoDate(shown(token))
    form = match["form"] or DEFAULT_FORM
    unknown = [code for code in re.findall(r"%(.?)", form, re.DOTALL) if code not in FORMS or not code]
    if unknown:
        raise _NoDate(f"%{unknown[0]} in {shown(token)}")
    try:
        return _moved(date, match).strftime(form)
    except (OverflowError, ValueError):
        raise _NoDate(f"{shown(token)}, which no calendar has") from None


def _moved(date: datetime, match: re.Match[str]) -> datetime:
    if match["sign"] is None:
        return date
    count, unit = int(f"{match['sign']}{match['count']}"), match["unit"]
    if unit in _CALENDAR:
        return date + timedelta(**{_CALENDAR[unit]: count})
    return (date.astimezone(UTC) + timedelta(**{_ELAPSED[unit]: count})).astimezone(date.tzinfo)
