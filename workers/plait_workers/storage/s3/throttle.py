"""How many requests are under way at once: up slowly, down fast (AIMD)."""

from __future__ import annotations

import threading
from types import TracebackType


class Throttle:
    """Admits a limited number of requests at once; the limit halves when the store says slow down.

    Each answer gives back ``1 / limit``, so that as many good answers as the limit add one.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = float(most)
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests admitted at once, now."""
        return int(self._limit)

    def __enter__(self) -> None:
        with self._changed:
            while self._under_way >= int(self._limit):
                self._changed.wait()
            self._under_way += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._under_way -= 1
            if error is None and self._limit < self._most:
                self._limit = min(self._most, self._limit + 1 / self._limit)
            self._changed.notify()

    def slow_down(self) -> None:
        """The store asked for less."""
        with self._changed:
            self._limit = max(1.0, self._limit / 2)
