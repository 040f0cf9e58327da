"""Errors that the service answers, as the classes of :mod:`plait.errors` that they were there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from plait import errors
from plait.errors import (
    Forbidden,
    NotFound,
    PlaitError,
    PlanRejected,
    ServiceError,
    ServiceUnavailable,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    WrongState,
)

BY_STATUS: Final[Mapping[int, type[PlaitError]]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: WrongState,
    413: TooLarge,
    429: TooManyRequests,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}
"""What an answer means that has no error of ours in it, as those of a proxy."""

_FIELDS: Final = ("where", "expected", "found", "hint")


def error_of(said: Mapping[str, Any]) -> PlaitError:
    """The error that :meth:`plait.errors.PlaitError.to_json` made this of; its text is the same.

    A kind that this version does not know gives a ``ServiceError`` that names it.

    Args:
        said: ``kind``, ``message``, and maybe ``where``, ``expected``, ``found``, ``hint``, ``problems``.
    """
    problems = [each for each in _list(said.get("problems")) if isinstance(each, Mapping)]
    if problems:
        return PlanRejected([error_of(each) for each in problems])
    kind, message = str(said.get("kind", "error")), str(said.get("message", "no reason was given"))
    known = _by_kind().get(kind)
    if known is None:
        return ServiceError(message if kind == "error" else f"{kind}: {message}")
    fields = {name: said[name] for name in _FIELDS if isinstance(said.get(name), str)}
    prefix = f"{fields['where']}: " if "where" in fields else ""
    suffix = str(PlaitError("", **{**fields, "where": None}))
    if message.startswith(prefix) and message.endswith(suffix) and len(message) >= len(prefix) + len(suffix):
        return known(message[len(prefix) : len(message) - len(suffix)], **fields)
    return known(message)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@cache
def _by_kind() -> Mapping[str, type[PlaitError]]:
    found = {each.kind: each for each in _classes(PlaitError) if "kind" in vars(each)}
    return {kind: each for kind, each in found.items() if isinstance(kind, str) and kind != "error"}


def _classes(root: type[PlaitError]) -> Iterator[type[PlaitError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _classes(child)
