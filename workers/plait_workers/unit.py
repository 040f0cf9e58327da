"""One work unit: read matching ranges of all sources in steps, merge them, write one part.

States of a unit, in order::

    open    borrow pinned readers, begin the part
    step*   read K + 1 ranges -> merge -> checksum -> write       (a step fits the cache and the budget)
    check   every source is still the pinned version
    finish  hand the part to the store; return its record

Nothing of a unit is kept but the buffers of its thread, so a unit can be run again, anywhere, and
gives the same bytes. Several threads run units side by side: while one waits for a read or a write,
others merge; all three release the GIL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from plait_workers.job import HEADER, Job, Unit
from plait_workers.metering import Meter
from plait_workers.part_pass import NullWriter, PartPass, PartRecord, Settings
from plait_workers.ranges import Lane, ranges_of
from plait_workers.readers import Readers
from plait_workers.storage.base import ObjectStore, PartWriter, Scan, Upload
from plait_workers.workspace import Workspace


class UnitRunner:
    """Runs units of one job. Shared by threads; each brings its own workspace.

    Args:
        job: what to do.
        stores: of each source, in the job's order.
        output: where parts go.
        uploads: of each shard.
        step_bytes: bytes of one source in a step.
        stop: when set, running units end with ``Cancelled`` after their step.
        on_bytes: told the number of output bytes of each step.
        meter: sums what units read and write, if anybody wants to know.
    """

    def __init__(
        self,
        *,
        job: Job,
        stores: list[ObjectStore],
        output: ObjectStore,
        uploads: list[Upload],
        step_bytes: int,
        stop: threading.Event,
        on_bytes: Callable[[int, Unit], None] = lambda _count, _unit: None,
        meter: Meter | None = None,
    ) -> None:
        self._job = job
        self._meter = meter
        self._output = output
        self._uploads = uploads
        self._settings = Settings(job=job, step_bytes=step_bytes, stop=stop, on_bytes=on_bytes)
        self.readers = Readers(job.sources, stores)

    def workspace(self) -> Workspace:
        """Buffers for one thread."""
        return Workspace(step_bytes=self._settings.step_bytes, num_sources=len(self._job.sources))

    def recompute(self, unit: Unit, workspace: Workspace) -> PartRecord:
        """As :meth:`run`, but write nothing: the record tells what the part's bytes would be."""
        start, stop = self._job.shards[unit.shard].part_range(unit.number)
        return self._run(
            unit, workspace, NullWriter(unit.number, stop - start, self._settings.step_bytes), ""
        )

    def compare(self, tensor: int, workspace: Workspace) -> None:
        """Read a tensor that is not merged from all its sources, and raise if they disagree."""
        nobody = Unit(shard=0, number=0)
        nbytes = self._job.tensors[tensor].nbytes
        writer = NullWriter(0, nbytes, self._settings.step_bytes)
        with self.readers.scan(ranges_of(self._job, [(tensor, 0, nbytes)])) as scans:
            PartPass(self._settings, nobody, writer, workspace, scans).tensor(tensor, 0, nbytes)

    def run(self, unit: Unit, workspace: Workspace) -> PartRecord:
        """Do one unit.

        Raises:
            SourceChanged, TensorMismatch, QuantizedSource, StoreError, UploadGone, Cancelled.
        """
        shard = self._job.shards[unit.shard]
        start, stop = shard.part_range(unit.number)
        upload = self._uploads[unit.shard]
        writer = self._output.begin_part(
            upload, unit.number, offset=start, size=stop - start, step=self._settings.step_bytes
        )
        return self._run(unit, workspace, writer, upload.id)

    def _run(self, unit: Unit, workspace: Workspace, writer: PartWriter, upload: str) -> PartRecord:
        if self._meter is None:
            return self._pass(unit, workspace, writer, upload, lambda scans: scans)
        measured = self._meter.unit()
        try:
            return self._pass(unit, workspace, measured.writer(writer), upload, measured.scans)
        finally:
            measured.end()

    def _pass(
        self,
        unit: Unit,
        workspace: Workspace,
        writer: PartWriter,
        upload: str,
        measured: Callable[[Mapping[Lane, Scan]], Mapping[Lane, Scan]],
    ) -> PartRecord:
        shard = self._job.shards[unit.shard]
        segments = shard.segments(unit.number)
        with self.readers.scan(ranges_of(self._job, segments)) as scans:
            part_pass = PartPass(self._settings, unit, writer, workspace, measured(scans))
            for tensor, begin, end in segments:
                if tensor == HEADER:
                    part_pass.header(shard.header[begin:end])
                else:
                    part_pass.tensor(tensor, begin, end)
        return part_pass.record(upload, writer.finish(crc64nvme=part_pass.crc))
