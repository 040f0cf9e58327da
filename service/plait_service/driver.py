"""Runs a plan: claim, resume, merge, publish. As a module it is ``plait merge``, for `ray job submit`.

Steps, in order; a driver may be killed at each of them, and run again::

    1 claim      create or join the output's claim; nothing else is written before
    2 check      quantised tensors, if any, must be the same in all sources
    3 uploads    create the shards in the making, or share those of another driver
    4 resume     read the journals: finished parts are not done again
    5 units      merge; the journal is flushed and the heartbeat renewed every few seconds
    6 sources    join the checksums of all that was read; what arrived damaged is done again
    7 publish    shards, small files, index, config.json, manifest
    8 clean up   remove the working files

Steps 3 to 7 are taken again, in a later epoch, if somebody aborts an upload meanwhile.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from plait.errors import Cancelled, PlaitError, PlanRejected, SourceCorrupt, UploadGone
from plait_service.budget import Budget
from plait_service.card import build_card
from plait_service.claim import (
    Claim,
    begin_anew,
    check_claim,
    clean_up,
    follow,
    release,
    take_claim,
)
from plait_service.events import Events
from plait_service.executor import Executor, ThreadExecutor, Work
from plait_service.existing import published_fingerprint
from plait_service.finished_parts import FinishedParts
from plait_service.housekeeping import Household, housekeeping
from plait_service.journal import Journal, confirmed_records, read_journals
from plait_service.manifest import build_manifest
from plait_service.plan import needs_agreement
from plait_service.preflight import output_problems
from plait_service.prepare import Prepared
from plait_service.progress import Meter, Progress, progress_file
from plait_service.publish import publish
from plait_service.small_files import CARD, output_keys, small_files
from plait_service.source_checks import check_sources
from plait_service.uploads import is_usable, share_uploads
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload
from plait_workers.unit import UnitRunner

_CHANCES: Final = 3
FLUSH_EVERY = 2.0
"""Seconds between two flushes of the journal: at most this much work is done again after a kill."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a merge ended well.

    Args:
        already_done: the result was there: same spec, same sources; nothing was written.
        by_another: another driver of the same merge published it first.
        resumed_parts, merged_parts: taken from an earlier run; done now.
        seconds: of the whole run after planning.
    """

    fingerprint: str
    already_done: bool
    by_another: bool
    resumed_parts: int
    merged_parts: int
    seconds: float


@dataclass(kw_only=True)
class _Run:
    claim: Claim
    finished: FinishedParts
    resumed: int = 0
    merged: int = 0


class _Halt(threading.Event):
    """Ends the work on one set of uploads: set by an error in it, or with the driver's own ``stop``."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._outer = stop

    def is_set(self) -> bool:
        return super().is_set() or self._outer.is_set()


class Driver:
    """Runs one prepared merge.

    Args:
        prepared: the plan and its stores.
        budget: memory, threads, steps of this process.
        executor: does the work; threads of this process if absent.
        events: told what happens.
        overwrite: replace what lies at the output.
        on_progress: called from worker threads, often.
        on_step: told each numbered step's name before it is done; tests kill the driver there.
        stop: set it, from any thread, to stop within a step; finished parts are kept.
    """

    def __init__(
        self,
        prepared: Prepared,
        budget: Budget,
        *,
        executor: Executor | None = None,
        events: Events | None = None,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
        on_step: Callable[[str], None] = lambda _name: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._plan = prepared.plan
        self._job = prepared.plan.job
        self._stores = list(prepared.stores)
        self._output = prepared.output
        self._copies = prepared.copies
        self._budget = budget
        self._executor = executor or ThreadExecutor(prepared, budget)
        self._events = events or Events(self._job.fingerprint)
        self._meter = Meter(self._job, prepared.plan.costs.bytes_written, on_progress)
        self._overwrite = overwrite
        self._on_step = on_step
        self._stop = stop or threading.Event()
        self._name = uuid.uuid4().hex[:12]

    def run(self) -> Outcome:
        """Merge and publish; idempotent.

        Raises:
            PlanRejected: the output cannot be written: it exists, there is no room, no permission.
            OutputClaimed: somebody else is writing there.
            SourceChanged, TensorMismatch, QuantizedSource: found while reading.
            NoSpace, AccessDenied, StoreUnavailable: of a store, on the way.
            Cancelled: ``stop`` was set.
            CommitUnknown: the outcome cannot be known; nothing was deleted.
        """
        started = time.monotonic()
        problems = output_problems(self._plan, self._output, overwrite=self._overwrite)
        if problems:
            raise PlanRejected(problems)
        costs = self._plan.costs
        self._events.tell(
            "planned",
            sub_models=self._job.num_models,
            parts=costs.num_parts,
            bytes_read=costs.bytes_read,
            bytes_written=costs.bytes_written,
        )
        files = small_files(self._plan, self._copies)
        self._step("claim")
        claim = take_claim(
            self._output,
            fingerprint=self._job.fingerprint,
            driver=self._name,
            keys=output_keys(self._plan),
            overwrite=self._overwrite,
        )
        if claim.done:
            self._events.tell("already-done")
            clean_up(self._output)
            return self._outcome(None, started, already_done=True)
        run = _Run(claim=claim, finished=FinishedParts(self._job))
        self._events.tell("claimed", epoch=claim.epoch, driver=self._name, joined=claim.joined)
        try:
            self._merge(files, run)
        except PlaitError as error:
            # A driver that shares this merge may have ended it, and removed the working files.
            if not self._published():
                with suppress(PlaitError):  # what went wrong first is what counts
                    release(self._output, run.claim)
                self._events.tell("failed", error=error.kind, message=str(error))
                raise
            clean_up(self._output)
            release(self._output, run.claim)
            return self._outcome(run, started, by_another=True)
        except BaseException:
            with suppress(PlaitError):
                release(self._output, run.claim)
            raise
        self._events.tell("committed", merged=run.merged, resumed=run.resumed)
        self._step("clean up")
        clean_up(self._output)
        release(self._output, run.claim)
        return self._outcome(run, started)

    def _published(self) -> bool:
        try:
            return published_fingerprint(self._output) == self._job.fingerprint
        except PlaitError:
            return False

    def _outcome(
        self, run: _Run | None, started: float, *, already_done: bool = False, by_another: bool = False
    ) -> Outcome:
        return Outcome(
            fingerprint=self._job.fingerprint,
            already_done=already_done,
            by_another=by_another,
            resumed_parts=run.resumed if run else 0,
            merged_parts=run.merged if run else 0,
            seconds=time.monotonic() - started,
        )

    def _merge(self, files: dict[str, bytes], run: _Run) -> None:
        self._step("check")
        self._check_agreement()
        journals: dict[int, Journal] = {}
        for chance in range(2 * len(self._job.shards) + _CHANCES, 0, -1):
            try:
                epoch = run.claim.epoch
                if epoch not in journals:
                    journals[epoch] = Journal(self._output, epoch=epoch, driver=self._name)
                self._attempt(run, journals[epoch], files)
                return
            except UploadGone:
                # Fenced off; or a driver that shares this merge completed a shard, and then all of
                # its parts are on record; or somebody aborted an upload.
                if chance == 1:
                    raise
                run.claim = follow(self._output, run.claim)

    def _attempt(self, run: _Run, journal: Journal, files: dict[str, bytes]) -> None:
        """Steps 3 to 7 on the uploads of one epoch."""
        store, claim = self._output, run.claim
        self._step("uploads")
        uploads = share_uploads(store, claim, self._job.shards)
        if not all(is_usable(store, claim, upload) for upload in uploads):
            run.claim = begin_anew(store, claim)
            raise UploadGone("an upload was aborted by somebody", where=store.uri)
        self._step("resume")
        self._resume(uploads, run)
        for _ in range(_CHANCES):
            self._step("units")
            self._run_units(claim, journal, uploads, run)
            self._step("sources")
            checked = check_sources(self._job, self._stores, run.finished)
            if not checked.damaged:
                break
            for unit in checked.damaged:
                run.finished.discard(unit)
        else:
            raise SourceCorrupt("sources keep arriving damaged", hint="Use https, and check the network")
        self._step("publish")
        self._events.tell("publishing", shards=len(self._job.shards))
        files[CARD] = build_card(self._plan, run.finished)
        sizes = {name: len(data) for name, data in files.items()}
        publish(
            store=store,
            job=self._job,
            claim=claim,
            uploads=uploads,
            finished=run.finished,
            files=files,
            manifest=build_manifest(self._plan, run.finished, sizes, checked.checksums),
            step=self._step,
        )

    def _step(self, name: str) -> None:
        self._meter.phase = name
        self._on_step(name)

    def _resume(self, uploads: list[Upload], run: _Run) -> None:
        run.finished.clear()
        for record in confirmed_records(self._output, read_journals(self._output), uploads):
            run.finished.add(record)
        there = len(run.finished)
        run.resumed = max(0, there - run.merged)
        self._meter.begin(run.finished.size)
        if there:
            self._events.tell("resumed", parts=there)

    def _check_agreement(self) -> None:
        """Compare quantised tensors before anything is written: the one read before the work starts."""
        tensors = needs_agreement(self._plan)
        if tensors:
            runner = UnitRunner(
                job=self._job,
                stores=self._stores,
                output=self._output,
                uploads=[],
                step_bytes=self._budget.step_bytes,
                stop=self._stop,
            )
            workspace = runner.workspace()
            for tensor in tensors:
                runner.compare(tensor, workspace)
            runner.readers.close()

    def _run_units(self, claim: Claim, journal: Journal, uploads: list[Upload], run: _Run) -> None:
        halt = _Halt(self._stop)
        lock = threading.Lock()

        def on_done(record: PartRecord) -> None:
            with lock:
                run.finished.add(record)
                run.merged += 1
            journal.add(record)

        house = Household(
            output=self._output,
            claim=claim,
            journal=journal,
            uploads=uploads,
            halt=halt,
            every=FLUSH_EVERY,
            progress=self._progress,
        )
        left = [unit for unit in self._job.units() if unit not in run.finished]
        work = Work(units=left, uploads=uploads, stop=halt, on_done=on_done, on_bytes=self._meter.add)
        try:
            with housekeeping(house):
                self._executor.run(work)
            if self._stop.is_set():
                raise Cancelled("stopped")
        except BaseException as error:
            # What is finished stays finished. Not synced: leaving must not take seconds.
            with suppress(PlaitError):
                check_claim(self._output, claim)
                journal.flush(uploads, durable=False)
            if isinstance(error, Cancelled):
                hint = "Run the same command again to carry on"
                raise Cancelled("the merge was stopped", hint=hint) from None
            raise
        journal.flush(uploads)

    def _progress(self) -> bytes:
        return progress_file(self._meter, self._executor.state(), self._events.recent(), time.time())


if __name__ == "__main__":
    from plait.cli import main

    main(["merge", *sys.argv[1:]])
