"""Runs units: the part of a driver that differs between one machine and a cluster.

A driver hands over what is left to do and is called back with records; claims, journals and
publication are the driver's and the same everywhere.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from plait.errors import Cancelled, InternalError, PlaitError
from plait_workers.job import Unit
from plait_workers.part_pass import PartRecord
from plait_workers.unit import UnitRunner

PATIENCE: Final = 1.5
"""Seconds that threads have to end their step once they are told to stop."""
_LOOK_EVERY: Final = 0.1


class Executor(Protocol):
    """Runs all units, in any order, anywhere, some perhaps twice."""

    def run(self, units: Iterable[Unit], on_done: Callable[[PartRecord], None]) -> None:
        """Return when every unit is done; raise the first error once all work has stopped.

        ``on_done`` is called from any thread.
        """
        ...


class ThreadExecutor:
    """Runs units on threads of this process.

    Args:
        runner: shared by the threads.
        threads: how many.
        stop: set it to end early; set by the first error.
    """

    def __init__(self, runner: UnitRunner, *, threads: int, stop: threading.Event) -> None:
        self._runner = runner
        self._threads = threads
        self._stop = stop

    def run(self, units: Iterable[Unit], on_done: Callable[[PartRecord], None]) -> None:
        """As the protocol says; but a thread that waits for a store is left behind after a while.

        What it may still do, writing a part that nobody lists, changes nothing.
        """
        todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        for unit in units:
            todo.put(unit)
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threads = [
            # Daemons: one that waits for a store that does not answer keeps nobody from leaving.
            threading.Thread(
                target=self._work, args=(todo, ended, on_done), name=f"plait-unit-{index}", daemon=True
            )
            for index in range(min(self._threads, todo.qsize()))
        ]
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.start()
        errors: list[BaseException] = []
        deadline = None
        left = len(threads)
        while left:
            if self._stop.is_set() and deadline is None:
                deadline = time.monotonic() + PATIENCE
            if deadline is not None and time.monotonic() > deadline:
                break
            try:
                error = ended.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                continue
            left -= 1
            if error is not None:
                errors.append(error)
                self._stop.set()
        if errors:
            raise errors[0]
        if left:
            raise Cancelled("stopped while a store did not answer")

    def _work(
        self,
        todo: queue.SimpleQueue[Unit | None],
        ended: queue.SimpleQueue[BaseException | None],
        on_done: Callable[[PartRecord], None],
    ) -> None:
        try:
            workspace = self._runner.workspace()
            while (unit := todo.get()) is not None and not self._stop.is_set():
                on_done(self._runner.run(unit, workspace))
            ended.put(None)
        except PlaitError as error:
            ended.put(error)
        except Exception as error:
            bug = InternalError(
                "a unit failed in an unforeseen way", found=f"{type(error).__name__}: {error}"
            )
            bug.__cause__ = error
            ended.put(bug)
