"""A thread of the service that goes round and round: looks, does what is to be done, and waits."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

LOGGER: Final = logging.getLogger("plait.service")
LEAST: Final = 0.05
"""Seconds between two rounds, however often it is woken meanwhile."""
_JOIN: Final = 10.0
"""Seconds that a round may take to end."""


class Loop:
    """Goes round until it is stopped; a round that raises is logged, and the next one follows.

    Args:
        name: of its thread.
    """

    def __init__(self, name: str) -> None:
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.beat = time.monotonic()
        """When it last went round: for /readyz."""

    def go_round(self) -> float:
        """One round; the seconds until the next."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin; what was left by an earlier service is found in the first round."""
        self._thread.start()

    def wake(self) -> None:
        """Go round now: there is something new. From any thread."""
        self._woken.set()

    def stop(self) -> None:
        """Stop, after the round that is under way. Jobs go on."""
        self._ended.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN)

    def _run(self) -> None:
        pause = 1.0
        while not self._ended.is_set():
            self._woken.clear()
            try:
                pause = self.go_round()
            except Exception:
                LOGGER.exception("%s went wrong, and goes on", self._thread.name)
            self.beat = time.monotonic()
            self._ended.wait(LEAST)
            self._woken.wait(pause)
