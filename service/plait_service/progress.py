"""How far a merge is: for the terminal, and for others as ``.plait/progress.json`` beside the claim."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from plait_service.existing import PRIVATE
from plait_workers.job import Job, Unit

PROGRESS_KEY: Final = f"{PRIVATE}progress.json"
PROGRESS_EVERY: Final = 5.0
"""Seconds between two writings of it; a merge that is done sooner writes none."""
_WINDOW: Final = 30.0
"""Seconds that a rate is the mean of."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a merge is. Bytes are of the output; ``resumed_bytes`` were there when it began."""

    total_bytes: int
    resumed_bytes: int
    done_bytes: int
    shard: str


class Meter:
    """Counts what is done. Shared by threads.

    Args:
        job: what is made.
        total: bytes of the result's tensor files.
        on_progress: told after every step.
    """

    def __init__(self, job: Job, total: int, on_progress: Callable[[Progress], None]) -> None:
        self._job = job
        self._total = total
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done = self._resumed = 0
        self._began = time.monotonic()
        self._past: deque[tuple[float, int]] = deque()
        self.phase = "claiming"

    def begin(self, resumed: int) -> None:
        """So many bytes were there already."""
        with self._lock:
            self._done, self._resumed = 0, resumed
            self._past.clear()
        self.add(0, None)

    def add(self, count: int, unit: Unit | None) -> None:
        """So many more bytes are made; fewer, if what was made is lost."""
        with self._lock:
            self._done += count
            done, now = self._done, time.monotonic()
            if not self._past or now - self._past[-1][0] >= 1.0:
                self._past.append((now, done))
                while now - self._past[0][0] > _WINDOW:
                    self._past.popleft()
        self._on_progress(
            Progress(
                total_bytes=self._total,
                resumed_bytes=self._resumed,
                done_bytes=done,
                shard=self._job.shards[unit.shard].key if unit else "",
            )
        )

    def as_json(self) -> dict[str, Any]:
        """Phase, bytes, bytes a second over the last half minute, and the seconds that are left."""
        with self._lock:
            there, now = self._resumed + self._done, time.monotonic()
            then, done = self._past[0] if self._past else (now, self._done)
            rate = (self._done - done) / (now - then) if now > then else 0.0
        return {
            "fingerprint": self._job.fingerprint,
            "phase": self.phase,
            "bytes_total": self._total,
            "bytes_done": there,
            "bytes_resumed": self._resumed,
            "rate": round(rate),
            "seconds": round(now - self._began, 1),
            "seconds_left": round((self._total - there) / rate, 1) if rate > 0 else None,
        }


def progress_file(meter: Meter, workers: Any, events: list[dict[str, Any]], updated: float) -> bytes:
    """The bytes of progress.json.

    Args:
        workers: what the executor says of those who do the work.
        events: the last ones.
        updated: seconds since 1970.
    """
    data = {**meter.as_json(), **workers, "updated": round(updated, 3), "events": events}
    return json.dumps(data, indent=1).encode()
