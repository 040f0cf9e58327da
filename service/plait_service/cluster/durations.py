"""How long units take."""

from __future__ import annotations

from collections import deque
from typing import Final

_KEPT: Final = 256
_FEWEST: Final = 5
_ANEW_EVERY: Final = 16


class Durations:
    """The last few hundred durations, and what is usual among them."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT)
        self._sorted: list[float] = []
        self._added = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._last.append(seconds)
        self._added += 1
        if self._added % _ANEW_EVERY == 0 or self._added <= _ANEW_EVERY:
            self._sorted = sorted(self._last)

    def quantile(self, share: float) -> float | None:
        """The duration that this share of units does not exceed; None while too few are known."""
        if len(self._sorted) < _FEWEST:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]
