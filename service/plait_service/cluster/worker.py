"""A worker: threads of one process that do units, told what to do by messages. Without Ray in it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from plait import __version__
from plait.errors import Cancelled, ClusterUnsuitable, InternalError, PlaitError, UploadGone
from plait.uri import parse_uri
from plait_service.budget import Budget, budget_of, default_memory, default_threads, threads_on
from plait_service.cluster.messages import Answer, Begin, Hello, Orders, Result, Setup, Totals, boot_id
from plait_workers.job import Job, Unit
from plait_workers.metering import Meter
from plait_workers.open_files import allow_many
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import ObjectStore, Upload
from plait_workers.storage.registry import Stores
from plait_workers.unit import UnitRunner
from plait_workers.workspace import Workspace

BEAT: Final = 1.0
"""Seconds after which a worker answers, results or none."""
IDLE_BEAT: Final = 0.05
"""The same for one that has nothing to do, so that new work need not wait."""
ORPHANED: Final = 60.0
"""Seconds without a word from the driver after which nothing new is begun."""


class Worker:
    """Does units of one job, in a process of its own. Its methods may be called from several threads at once.

    Args:
        setup: of the merge.
        job: what is to be done.
        runner: makes what runs units; benchmarks have one that does nothing.
    """

    def __init__(self, setup: Setup, job: Job, runner: Callable[..., Runner] = UnitRunner) -> None:
        allow_many()
        self._make_runner = runner
        self._setup = setup
        self._job = job
        self._lock = threading.Lock()
        self._round: _Round | None = None
        self._opened: tuple[list[ObjectStore], ObjectStore] | None = None

    def begin(self, begin: Begin) -> Hello:
        """Begin a round: what an earlier one still does is stopped, and forgotten.

        Raises:
            ClusterUnsuitable: another version of Plait, or a folder that is not seen from here.
            BudgetTooSmall: not even one part fits.
        """
        if self._setup.version != __version__:
            raise ClusterUnsuitable(
                "a worker has another version of Plait than the driver",
                where=socket.gethostname(),
                expected=self._setup.version,
                found=__version__,
                hint="Install the same one on all nodes",
            )
        with self._lock:
            if self._round is None or self._round.number != begin.number:
                if self._round is not None:
                    self._round.end()
                self._round = self._new_round(begin)
            round_ = self._round
        return Hello(
            version=__version__,
            pid=os.getpid(),
            host=socket.gethostname(),
            slots=round_.budget.threads,
            peak=round_.budget.peak,
        )

    def _new_round(self, begin: Begin) -> _Round:
        stores, output = self._opened = self._opened or self._open()
        _look(self._job, stores, output, begin.uploads)
        remote = any(store.is_remote for store in (*stores, output))
        budget = _shrunk(self._job, stores, output, self._setup, begin.shrink, remote=remote)
        # Elsewhere than on the driver's machine, a part is durable only if it is synced here.
        syncs = self._setup.boot != boot_id()
        round_ = _Round(begin, budget, output if syncs else None)
        runner = self._make_runner(
            job=self._job,
            stores=stores,
            output=output,
            uploads=list(begin.uploads),
            step_bytes=budget.step_bytes,
            stop=round_.stop,
            on_bytes=round_.made,
            meter=round_.meter,
        )
        round_.start(runner)
        return round_

    def _open(self) -> tuple[list[ObjectStore], ObjectStore]:
        """Sources and output, once for all rounds: a client takes a tenth of a second to make."""
        places = Stores(self._setup.storage)
        sources = [places.open(parse_uri(uri)) for uri in self._setup.sources]
        return sources, places.open(parse_uri(self._setup.output))

    def sync(self, orders: Orders) -> Answer:
        """Take over orders; answer when there are results, and at the latest after a second."""
        round_ = self._round
        if round_ is None or round_.number != orders.number:
            return Answer(number=-1, results=(), running={}, totals=Totals())
        return round_.sync(orders)

    def end(self) -> None:
        """Stop all work."""
        with self._lock:
            if self._round is not None:
                self._round.end()
                self._round = None


def _shrunk(
    job: Job,
    stores: Sequence[ObjectStore],
    output: ObjectStore,
    setup: Setup,
    shrink: int,
    *,
    remote: bool,
) -> Budget:
    """What this life may take: half of everything for each life that had too much."""
    memory = default_memory() if setup.memory is None else setup.memory
    threads = threads_on(setup.cpus, remote=remote) if setup.cpus else default_threads(remote=remote)
    budget = budget_of(job, output, memory=memory, threads=threads, stores=stores)
    for _ in range(shrink):
        try:
            budget = budget_of(
                job, output, memory=budget.peak // 2, threads=max(1, budget.threads // 2), stores=stores
            )
        except PlaitError:  # it cannot be less
            return replace(budget, threads=1)
    return budget


def _look(job: Job, stores: Sequence[ObjectStore], output: ObjectStore, uploads: Sequence[Upload]) -> None:
    """Whether local folders are the ones that the driver sees; what is remote is looked at as it is read."""
    for source, store in zip(job.sources, stores, strict=True):
        if store.is_remote or not source.files:
            continue
        file = source.files[0]
        info = store.head(file.key)
        if info is None or info.version != file.version:
            raise _unseen(f"{store.uri}/{file.key}", "no file" if info is None else "another file")
    if uploads and not output.is_remote:
        try:
            output.list_parts(uploads[0])
        except UploadGone:
            if output.head(uploads[0].key) is None:
                raise _unseen(output.uri, "not the shard in the making") from None


def _unseen(where: str, found: str) -> ClusterUnsuitable:
    return ClusterUnsuitable(
        f"the worker on {socket.gethostname()} does not see what the driver sees",
        where=where,
        found=found,
        hint="Use s3:// for sources and output, or a file system that all nodes share",
    )


class Runner(Protocol):
    """What runs units; see :class:`~plait_workers.unit.UnitRunner`."""

    def workspace(self) -> Workspace:
        """Buffers for one thread."""
        ...

    def run(self, unit: Unit, workspace: Workspace) -> PartRecord:
        """Do one unit."""
        ...


class _Round:
    """One round of work: a queue, its threads, and the results that the driver has not seen."""

    def __init__(self, begin: Begin, budget: Budget, synced: ObjectStore | None) -> None:
        self.number = begin.number
        self.budget = budget
        self._uploads = begin.uploads
        self._synced = synced
        self.stop = threading.Event()
        self.meter = Meter()
        self._changed = threading.Condition()
        self._todo: dict[Unit, None] = {}
        self._running: dict[Unit, int] = {}
        self._results: list[Result] = []
        self._told = 0
        self._heard = time.monotonic()

    def start(self, runner: Runner) -> None:
        """Begin to work."""
        for index in range(self.budget.threads):
            name = f"plait-unit-{index}"
            threading.Thread(target=self._work, args=(runner,), name=name, daemon=True).start()

    def end(self) -> None:
        """Stop after the steps that are being taken."""
        self.stop.set()
        with self._changed:
            self._todo.clear()
            self._changed.notify_all()

    def sync(self, orders: Orders) -> Answer:
        """See :meth:`Worker.sync`."""
        with self._changed:
            self._heard = time.monotonic()
            self._results = [result for result in self._results if result.number > orders.seen]
            untold = {result.unit for result in self._results}
            self._todo = {
                unit: None for unit in orders.units if unit not in self._running and unit not in untold
            }
            self._changed.notify_all()
            self._await_results(orders)
            results = tuple(self._results)
            running = dict(self._running)
        read, written, seconds = self.meter.totals()
        return Answer(
            number=self.number,
            results=results,
            running=running,
            totals=Totals(read=read, written=written, seconds=seconds),
        )

    def _await_results(self, orders: Orders) -> None:
        """Wait for the first result, then a little for more, as long as there is more to do."""
        has_work = self._todo or self._running
        until = time.monotonic() + (BEAT if has_work else min(BEAT, IDLE_BEAT + 5 * orders.hold))
        while not self._results and (left := until - time.monotonic()) > 0 and not self.stop.is_set():
            self._changed.wait(left)
        until = min(until, time.monotonic() + orders.hold)
        while len(self._todo) > len(self._results) and (left := until - time.monotonic()) > 0:
            self._changed.wait(left)

    def made(self, count: int, unit: Unit) -> None:
        """So many more bytes of a unit that runs."""
        if unit in self._running:
            self._running[unit] += count

    def _take(self) -> Unit | None:
        """The next unit; None at the end."""
        with self._changed:
            while not self.stop.is_set():
                if self._todo and time.monotonic() - self._heard < ORPHANED:
                    unit = next(iter(self._todo))
                    del self._todo[unit]
                    self._running[unit] = 0
                    return unit
                self._changed.wait(ORPHANED)
        return None

    def _work(self, runner: Runner) -> None:
        try:
            workspace = runner.workspace()
        except MemoryError:
            os._exit(1)  # what is left cannot work; the next life takes less
        while (unit := self._take()) is not None:
            began = time.monotonic()
            record, error = self._run(runner, unit, workspace)
            if isinstance(error, Cancelled):
                return
            with self._changed:
                self._told += 1
                self._running.pop(unit, None)
                self._results.append(
                    Result(
                        number=self._told,
                        unit=unit,
                        seconds=time.monotonic() - began,
                        record=record,
                        error=error,
                        out_of_memory=isinstance(error.__cause__, MemoryError) if error else False,
                    )
                )
                self._changed.notify_all()

    def _run(
        self, runner: Runner, unit: Unit, workspace: Workspace
    ) -> tuple[PartRecord | None, PlaitError | None]:
        try:
            record = runner.run(unit, workspace)
            if self._synced is not None:
                self._synced.flush(self._uploads[unit.shard])
            return record, None
        except PlaitError as error:
            return None, error
        except Exception as error:
            bug = InternalError(
                "a unit failed in an unforeseen way",
                where=socket.gethostname(),
                found=f"{type(error).__name__}: {error}",
            )
            bug.__cause__ = error
            return None, bug
