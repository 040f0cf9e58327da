"""When a request is made again, after how long, and for how long. No I/O."""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from tenacity import RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from plait.errors import PlaitError

LOGGER: Final = logging.getLogger("plait.client")
FIRST: Final = 0.25
"""Seconds, of which the first wait is a random share; the next ones of twice as much each."""
LONGEST: Final = 15.0
_GROWING: Final = wait_random_exponential(multiplier=FIRST, max=LONGEST)


class Again(Exception):
    """A request failed in a way that another try may help; never leaves this package.

    Args:
        error: what the caller gets to see if none does.
        after: seconds that the service asked to wait.
    """

    def __init__(self, error: PlaitError, after: float | None = None) -> None:
        self.error, self.after = error, after
        super().__init__(str(error))


def rules(patience: float) -> dict[str, Any]:
    """For tenacity's ``Retrying`` and ``AsyncRetrying``: waits grow, are random, and respect Retry-After.

    Args:
        patience: seconds after which no other try begins.
    """
    return {
        "retry": retry_if_exception_type(Again),
        "wait": _wait,
        "stop": stop_before_delay(patience),
        "before_sleep": _note,
        "reraise": True,
    }


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return _GROWING(state) + (error.after or 0.0 if isinstance(error, Again) else 0.0)


def _note(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Again):
        note(error)


def note(again: Again) -> None:
    """Log that another try follows."""
    LOGGER.info("%s; trying again", again.error)


def wait_after(failures: int, again: Again) -> float:
    """Seconds to wait after so many failures in a row; the same law, for who counts by itself."""
    high: float = min(LONGEST, FIRST * 2.0 ** min(failures - 1, 30))
    return random.uniform(0.0, high) + (again.after or 0.0)


def retry_after(value: str | None) -> float | None:
    """Seconds that a header ``Retry-After`` asks for: a number, or a date; None if it says neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
