"""What happens to a merge, as it happens: for logs, and for progress.json.

Each event is a record of the logger ``plait`` with the fields ``job`` (the first twelve digits of the
fingerprint), ``kind``, ``unit`` (shard/part, as the journal numbers them) and ``node``. The library only
logs; a program decides where that goes. :func:`log_as_json` is what our own commands do.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Final

from plait_workers.job import Unit

LOGGER: Final = logging.getLogger("plait")
LOGGER.addHandler(logging.NullHandler())
_KEPT: Final = 50
_GRAVE: Final = frozenset({"node-lost", "worker-lost", "worker-silent", "retried", "waiting", "failed"})
"""What is logged as a warning."""


class Events:
    """Tells the log of one merge's events, and keeps the last ones. Shared by threads.

    Args:
        fingerprint: of the merge.
        on_event: told each event, too.
    """

    def __init__(
        self, fingerprint: str, on_event: Callable[[dict[str, Any]], None] = lambda _event: None
    ) -> None:
        self._job = fingerprint[:12]
        self._on_event = on_event
        self._lock = threading.Lock()
        self._recent: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def tell(self, kind: str, *, unit: Unit | None = None, node: str | None = None, **details: Any) -> None:
        """Note an event.

        Args:
            kind: what happened, such as ``node-lost``.
            unit, node: to which, if to one.
            details: plain data; no secrets.
        """
        fields = {
            "kind": kind,
            "unit": None if unit is None else f"{unit.shard}/{unit.number}",
            "node": node,
        }
        event = {key: value for key, value in fields.items() if value is not None} | details
        with self._lock:
            self._recent.append({"time": _iso(time.time()), **event})
        level = logging.WARNING if kind in _GRAVE else logging.INFO
        said = " ".join(f"{key}={value}" for key, value in event.items() if key != "kind")
        extra = {"job": self._job, **fields, "details": details}
        LOGGER.log(level, "%s", f"{kind} {said}".rstrip(), extra=extra)
        self._on_event(event)

    def recent(self) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        with self._lock:
            return list(self._recent)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, job, kind, unit, node and details; the message of what is no event."""
        line: dict[str, Any] = {"time": _iso(record.created), "level": record.levelname.lower()}
        kind = getattr(record, "kind", None)
        if kind is None:
            line |= {"message": record.getMessage()}
        for name in ("job", "kind", "unit", "node"):
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        return json.dumps(line | getattr(record, "details", {}), default=str)


def log_as_json(stream: IO[str]) -> None:
    """From now on, write the events of this process to ``stream``, a line each."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
