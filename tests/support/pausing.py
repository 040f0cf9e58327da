"""A driver on a thread of this process that sleeps at a step until it is woken."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.errors import PlaitError
from plait_service.claim import EXPIRY
from plait_service.driver import Driver, Outcome
from tests.support.merging import budget_for, prepared_of

PATIENCE = 60.0


class Sleeper:
    """Starts at once; ``asleep()`` returns when it sleeps, ``wake()`` lets it go on to its end.

    Args:
        data: the spec.
        at: the step at which it sleeps.
        driver: further arguments of the driver.
    """

    def __init__(self, data: Mapping[str, Any], at: str, **driver: Any) -> None:
        prepared = prepared_of(data)
        self._at = at
        self._slept, self._woken = threading.Event(), threading.Event()
        self._driver = Driver(prepared, budget_for(prepared), on_step=self._step, **driver)
        self._outcome: Outcome | None = None
        self._error: PlaitError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _step(self, name: str) -> None:
        if name == self._at and not self._slept.is_set():
            self._slept.set()
            assert self._woken.wait(PATIENCE)

    def _run(self) -> None:
        try:
            self._outcome = self._driver.run()
        except PlaitError as error:
            self._error = error

    def asleep(self) -> Sleeper:
        assert self._slept.wait(PATIENCE), (self._at, self._error)
        return self

    def _end(self) -> None:
        self._woken.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def wake(self) -> Outcome:
        """Go on, and end well."""
        self._end()
        assert self._outcome is not None, self._error
        return self._outcome

    def wake_to_fail(self) -> PlaitError:
        """Go on, and end in an error."""
        self._end()
        assert self._error is not None, self._outcome
        return self._error


def let_heartbeats_expire(folder: Path) -> None:
    """As if no driver had been heard of for longer than a claim holds."""
    beats = list((folder / ".plait").glob("alive-*"))
    assert beats
    for beat in beats:
        os.utime(beat, (time.time() - EXPIRY - 10,) * 2)
