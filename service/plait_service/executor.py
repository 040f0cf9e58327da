"""Runs units: the part of a driver that differs between one machine and a cluster.

A driver hands over what is left to do and is called back with records; claims, journals and
publication are the driver's and the same everywhere.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from plait.errors import Cancelled, InternalError, PlaitError
from plait_service.budget import Budget
from plait_service.prepare import Prepared
from plait_workers.job import Unit
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload
from plait_workers.unit import UnitRunner

PATIENCE: Final = 1.5
"""Seconds that threads have to end their step once they are told to stop."""
_LOOK_EVERY: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a driver hands over.

    Args:
        units: what is left to do.
        uploads: of each shard, where parts go.
        stop: ends the work early; set by the first error.
        on_done: told each finished part once, from any thread.
        on_bytes: told how many more bytes of the output are made, and of which unit; what is lost is
            taken back by a negative number.
    """

    units: Sequence[Unit]
    uploads: Sequence[Upload]
    stop: threading.Event
    on_done: Callable[[PartRecord], None]
    on_bytes: Callable[[int, Unit], None]


class Executor(Protocol):
    """Runs units, in any order, anywhere, some perhaps twice."""

    def run(self, work: Work) -> None:
        """Return when every unit is done; raise the first error once all work has stopped."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is worth telling of those who do the work: for progress.json."""
        ...


class ThreadExecutor:
    """Runs units on threads of this process.

    Args:
        prepared: the merge and its stores.
        budget: threads and steps.
    """

    def __init__(self, prepared: Prepared, budget: Budget) -> None:
        self._prepared = prepared
        self._budget = budget

    def state(self) -> Mapping[str, Any]:
        """One worker: this process."""
        return {"workers": 1}

    def run(self, work: Work) -> None:
        """As the protocol says; but a thread that waits for a store is left behind after a while.

        What it may still do, writing a part that nobody lists, changes nothing.
        """
        runner = UnitRunner(
            job=self._prepared.plan.job,
            stores=list(self._prepared.stores),
            output=self._prepared.output,
            uploads=list(work.uploads),
            step_bytes=self._budget.step_bytes,
            stop=work.stop,
            on_bytes=work.on_bytes,
        )
        try:
            _Threads(runner, work).run(self._budget.threads)
        finally:
            runner.readers.close()


class _Threads:
    """One run of all units."""

    def __init__(self, runner: UnitRunner, work: Work) -> None:
        self._runner = runner
        self._on_done = work.on_done
        self._units = work.units
        self._stop = work.stop

    def run(self, count: int) -> None:
        """Do all units on ``count`` threads."""
        todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        for unit in self._units:
            todo.put(unit)
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threads = [
            # Daemons: one that waits for a store that does not answer keeps nobody from leaving.
            threading.Thread(target=self._work, args=(todo, ended), name=f"plait-unit-{index}", daemon=True)
            for index in range(min(count, todo.qsize()))
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
    ) -> None:
        try:
            workspace = self._runner.workspace()
            while (unit := todo.get()) is not None and not self._stop.is_set():
                self._on_done(self._runner.run(unit, workspace))
            ended.put(None)
        except PlaitError as error:
            ended.put(error)
        except Exception as error:
            bug = InternalError(
                "a unit failed in an unforeseen way", found=f"{type(error).__name__}: {error}"
            )
            bug.__cause__ = error
            ended.put(bug)
