"""Workers that do nothing, and answer as if they had: records as large as real ones."""

from __future__ import annotations

from typing import Any

from plait_service.cluster.actor import WorkerActor, WorkerCounters
from plait_service.cluster.messages import Setup, unpack
from plait_service.cluster.worker import Worker
from plait_workers.job import HEADER, Job, Unit
from plait_workers.part_pass import PartRecord

_CHECKSUM = 2**61 + 12_345


class Noop:
    """In the place of a :class:`~plait_workers.unit.UnitRunner`."""

    def __init__(self, *, job: Job, **_rest: Any) -> None:
        self._job = job

    def workspace(self) -> Any:
        """Nothing is needed."""

    def run(self, unit: Unit, _workspace: Any) -> PartRecord:
        """What a unit would say that is merged from S3: counters of its tensors, checksums of its ranges."""
        job, shard = self._job, self._job.shards[unit.shard]
        tensors = [tensor for tensor, _, _ in shard.segments(unit.number) if tensor != HEADER]
        start, stop = shard.part_range(unit.number)
        return PartRecord(
            unit=unit,
            upload="0123456789abcdef0123456789abcdef",
            size=stop - start,
            etag="0123456789abcdef0123456789abcdef",
            crc64nvme=_CHECKSUM + unit.number,
            sha256=f"{unit.number:064x}",
            counters={
                tensor: [1_000_000 + tensor + index for index in range(2 * job.num_models + 2)]
                for tensor in tensors
            },
            reads=[
                (source, int(job.file_of[source, tensor]), start, stop, _CHECKSUM + source + unit.number)
                for source in range(len(job.sources))
                for tensor in tensors[:1]
            ],
        )


class NoopActor(WorkerActor):
    """An actor whose worker does nothing."""

    def __init__(self, setup: Setup, job: bytes, name: str) -> None:
        unpacked = unpack(job)
        self._worker = Worker(setup, unpacked, Noop)
        self._counters = WorkerCounters(unpacked.fingerprint[:12], name)
