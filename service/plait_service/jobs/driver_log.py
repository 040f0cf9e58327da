"""What a driver wrote, read piece by piece: events, and the object with which it ends. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from plait_service.jobs.backends.base import MOST_AT_ONCE

_FIELDS: Final = frozenset({"time", "level", "kind", "job"})


@dataclass(frozen=True, kw_only=True)
class DriverEvent:
    """A line with a ``kind``."""

    kind: str
    time: datetime
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What was in some bytes of a log.

    Args:
        length: bytes that are dealt with; the next piece begins there.
        said: the last object with a ``status``: how the driver ended.
    """

    length: int
    events: tuple[DriverEvent, ...]
    said: dict[str, Any] | None


def read_piece(data: bytes, *, is_last: bool) -> Piece:
    """Whole lines of ``data``; of the last piece also what follows the last line.

    Lines that are no JSON, or not ours, are skipped: libraries print, too.
    """
    end = len(data) if is_last else data.rfind(b"\n") + 1
    if end == 0 and len(data) >= MOST_AT_ONCE:  # no line of ours is so long
        end = len(data)
    events, said = [], None
    for line in data[:end].splitlines():
        found = _object(line)
        if found is None:
            continue
        if isinstance(found.get("kind"), str):
            events.append(_event(found))
        elif isinstance(found.get("status"), str):
            said = found
    return Piece(length=end, events=tuple(events), said=said)


def _object(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _event(found: dict[str, Any]) -> DriverEvent:
    try:
        when = datetime.fromisoformat(str(found.get("time"))).astimezone(UTC)
    except ValueError:
        when = datetime.now(UTC)
    data = {key: value for key, value in found.items() if key not in _FIELDS}
    return DriverEvent(kind=str(found["kind"])[:32], time=when, data=data)
