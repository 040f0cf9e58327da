"""Durations as people write them: ``90s``, ``15m``, ``2h``, ``1d``, ``2w``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}) ?([smhdw])")
_LONGEST: Final = timedelta(days=3660)

DURATION_WORDS: Final = "a duration such as 90s, 15m, 2h or 1d"


def parse_duration(text: str) -> timedelta:
    """The time that ``text`` says: a whole number and a unit, ten years at most.

    Args:
        text: such as ``"90s"``, ``"15m"``, ``"2h"``, ``"1d"`` or ``"2w"``.

    Raises:
        ValueError: it is no duration, or a longer one.
    """
    match = _DURATION.fullmatch(text.strip(" "))
    if match is None:
        raise ValueError(f"no duration: write a whole number and one of {', '.join(_SECONDS)}")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError("longer than ten years")
    return timedelta(seconds=seconds)
