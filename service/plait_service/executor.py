"""Runs units: the part of a driver that differs between one machine and a cluster.

A driver hands over what is left to do and is called back with records; claims, journals and
publication are the driver's and the same everywhere.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from plait.errors import InternalError, PlaitError
from plait_workers.job import Unit
from plait_workers.part_pass import PartRecord
from plait_workers.unit import UnitRunner


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
        """As the protocol says. Ctrl-C stops all threads after their step."""
        todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        for unit in units:
            todo.put(unit)
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._work, args=(todo, ended, on_done), name=f"plait-unit-{index}")
            for index in range(min(self._threads, todo.qsize()))
        ]
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.start()
        errors: list[BaseException] = []
        try:
            for _ in threads:
                error = ended.get()
                if error is not None:
                    errors.append(error)
                    self._stop.set()
        finally:
            self._stop.set() if errors or any(thread.is_alive() for thread in threads) else None
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

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
