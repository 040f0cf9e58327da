"""Runs a plan: claim, resume, merge, publish.

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

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from plait.errors import Cancelled, PlaitError, PlanRejected, SourceCorrupt, UploadGone
from plait_service.budget import Budget
from plait_service.card import build_card
from plait_service.claim import (
    HEARTBEAT,
    Claim,
    begin_anew,
    check_claim,
    clean_up,
    follow,
    heartbeat,
    release,
    take_claim,
)
from plait_service.executor import ThreadExecutor
from plait_service.existing import published_fingerprint
from plait_service.journal import Journal, finished_parts, read_journals
from plait_service.manifest import build_manifest
from plait_service.plan import needs_agreement
from plait_service.preflight import output_problems
from plait_service.prepare import Prepared
from plait_service.publish import publish
from plait_service.small_files import CARD, output_keys, small_files
from plait_service.source_checks import check_sources
from plait_service.uploads import is_usable, share_uploads
from plait_workers.job import Unit
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload
from plait_workers.unit import UnitRunner

_CHANCES: Final = 3
FLUSH_EVERY = 2.0
"""Seconds between two flushes of the journal: at most this much work is done again after a kill."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a merge is. Bytes are of the output; ``resumed_bytes`` were there when it began."""

    total_bytes: int
    resumed_bytes: int
    done_bytes: int
    shard: str


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
    records: dict[Unit, PartRecord] = field(default_factory=dict)
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
    """Runs one prepared merge in this process.

    Args:
        prepared: the plan and its stores.
        budget: memory, threads, steps.
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
        self._overwrite = overwrite
        self._on_progress = on_progress
        self._step = on_step
        self._stop = stop or threading.Event()
        self._name = uuid.uuid4().hex[:12]
        self._done_bytes = 0
        self._resumed_bytes = 0
        self._lock = threading.Lock()

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
            clean_up(self._output)
            return self._outcome(_Run(claim=claim), started, already_done=True)
        run = _Run(claim=claim)
        try:
            self._merge(files, run)
        except PlaitError:
            # A driver that shares this merge may have ended it, and removed the working files.
            if not self._published():
                with suppress(PlaitError):  # what went wrong first is what counts
                    release(self._output, run.claim)
                raise
            clean_up(self._output)
            release(self._output, run.claim)
            return self._outcome(run, started, by_another=True)
        except BaseException:
            with suppress(PlaitError):
                release(self._output, run.claim)
            raise
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
        self, run: _Run, started: float, *, already_done: bool = False, by_another: bool = False
    ) -> Outcome:
        return Outcome(
            fingerprint=self._job.fingerprint,
            already_done=already_done,
            by_another=by_another,
            resumed_parts=run.resumed,
            merged_parts=run.merged,
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
            checked = check_sources(self._job, self._stores, run.records.values())
            if not checked.damaged:
                break
            for unit in checked.damaged:
                run.records.pop(unit, None)
        else:
            raise SourceCorrupt("sources keep arriving damaged", hint="Use https, and check the network")
        self._step("publish")
        files[CARD] = build_card(self._plan, run.records)
        sizes = {name: len(data) for name, data in files.items()}
        publish(
            store=store,
            job=self._job,
            claim=claim,
            uploads=uploads,
            records=run.records,
            files=files,
            manifest=build_manifest(self._plan, run.records, sizes, checked.checksums),
            step=self._step,
        )

    def _resume(self, uploads: list[Upload], run: _Run) -> None:
        run.records = finished_parts(self._output, read_journals(self._output), uploads)
        run.resumed = max(0, len(run.records) - run.merged)
        with self._lock:
            self._done_bytes = 0
            self._resumed_bytes = sum(record.size for record in run.records.values())
        self._report(0, None)

    def _check_agreement(self) -> None:
        """Compare quantised tensors before anything is written: the one read before the work starts."""
        tensors = needs_agreement(self._plan)
        if tensors:
            runner = self._runner([], self._stop)
            workspace = runner.workspace()
            for tensor in tensors:
                runner.compare(tensor, workspace)
            runner.readers.close()

    def _runner(self, uploads: list[Upload], stop: threading.Event) -> UnitRunner:
        return UnitRunner(
            job=self._job,
            stores=self._stores,
            output=self._output,
            uploads=uploads,
            step_bytes=self._budget.step_bytes,
            stop=stop,
            on_bytes=self._report,
        )

    def _report(self, count: int, unit: Unit | None) -> None:
        with self._lock:
            self._done_bytes += count
            done = self._done_bytes
        self._on_progress(
            Progress(
                total_bytes=self._plan.costs.bytes_written,
                resumed_bytes=self._resumed_bytes,
                done_bytes=done,
                shard=self._job.shards[unit.shard].key if unit else "",
            )
        )

    def _run_units(self, claim: Claim, journal: Journal, uploads: list[Upload], run: _Run) -> None:
        halt = _Halt(self._stop)
        runner = self._runner(uploads, halt)
        lock = threading.Lock()

        def on_done(record: PartRecord) -> None:
            with lock:
                run.records[record.unit] = record
                run.merged += 1
            journal.add(record)

        left = [unit for unit in self._job.units() if unit not in run.records]
        executor = ThreadExecutor(runner, threads=self._budget.threads, stop=halt)
        try:
            with self._housekeeping(claim, journal, uploads, halt):
                executor.run(left, on_done)
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
        finally:
            runner.readers.close()
        journal.flush(uploads)

    @contextmanager
    def _housekeeping(
        self, claim: Claim, journal: Journal, uploads: list[Upload], halt: threading.Event
    ) -> Iterator[None]:
        """Beside the work: flush the journal, renew the heartbeat, notice a takeover."""
        ended = threading.Event()
        errors: list[PlaitError] = []

        def keep_house() -> None:
            beat = time.monotonic()
            while not ended.wait(FLUSH_EVERY):
                try:
                    journal.flush(uploads)
                    if time.monotonic() - beat >= HEARTBEAT:
                        check_claim(self._output, claim)
                        heartbeat(self._output, claim)
                        beat = time.monotonic()
                except PlaitError as error:
                    errors.append(error)
                    halt.set()
                    return

        thread = threading.Thread(target=keep_house, name="plait-housekeeping", daemon=True)
        thread.start()
        try:
            yield
        except Cancelled:
            if not errors:
                raise
        finally:
            ended.set()
            thread.join(1.0 if halt.is_set() else None)
        if errors:
            raise errors[0]
