"""What a job will read and write, counted from the plan: pure and vectorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plait_workers.job import Action, Job
from plait_workers.storage.base import NEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Bytes and requests of a job; a request reads one range or writes one part.

    ``reads_of`` are the read requests by source.
    """

    bytes_read: int
    bytes_written: int
    read_requests: int
    write_requests: int
    num_parts: int
    reads_of: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segments:
    """Stretches of one tensor within one part, in order, as columns."""

    tensor: npt.NDArray[np.int64]
    part: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]


def _segments(job: Job) -> _Segments:
    columns: list[list[npt.NDArray[np.int64]]] = [[], [], [], []]
    parts_before = 0
    for shard in job.shards:
        cuts = np.arange(1, shard.num_parts, dtype=np.int64) * shard.part_size
        edges = np.unique(np.concatenate((shard.bounds, cuts[cuts > shard.bounds[0]])))
        low, high = edges[:-1], edges[1:]
        tensor = np.searchsorted(shard.bounds, low, side="right") - 1
        columns[0].append(tensor + shard.first)
        columns[1].append(low // shard.part_size + parts_before)
        columns[2].append(low - shard.bounds[tensor])
        columns[3].append(high - shard.bounds[tensor])
        parts_before += shard.num_parts
    tensor, part, start, stop = (np.concatenate(column) for column in columns)
    return _Segments(tensor=tensor, part=part, start=start, stop=stop)


def costs_of(job: Job) -> Costs:
    """Count a job's bytes and requests. Cost: a few array operations a source."""
    segments = _segments(job)
    out_bits = np.array([tensor.dtype.bits for tensor in job.tensors], np.int64)[segments.tensor]
    reads_base = np.array([tensor.uses_base for tensor in job.tensors])[segments.tensor]
    base_alone = np.array([tensor.action is Action.BASE for tensor in job.tensors])[segments.tensor]
    bits_of = np.array([dtype.bits for dtype in job.dtypes], np.int64)
    # Elements cut by a bound are read whole.
    first = segments.start * 8 // out_bits
    last = -(-segments.stop * 8 // out_bits)
    total, requests = 0, [0] * len(job.sources)
    for source in range(len(job.sources)):
        wanted = reads_base if source == job.num_models else ~base_alone
        pick = segments.tensor[wanted]
        file = job.file_of[source, pick]
        bits = bits_of[job.dtype_of[source, pick]]
        begin = job.offset_of[source, pick] + first[wanted] * bits // 8
        end = job.offset_of[source, pick] + -(-last[wanted] * bits // 8)
        gap = begin[1:] - end[:-1]
        part = segments.part[wanted]
        apart = (part[1:] != part[:-1]) | (file[1:] != file[:-1]) | (gap < 0) | (gap > NEAR)
        total += int((end - begin).sum())
        requests[source] += int(apart.sum()) + (1 if len(pick) else 0)
    for tensor, twins in job.twins.items():
        here, read = segments.tensor == tensor, job.sources_of(tensor)
        for source in (source for source, _, _ in twins if source in read):
            bits = bits_of[job.dtype_of[source, tensor]]
            total += int((last[here] - first[here]).sum()) * int(bits) // 8
            requests[source] += int(here.sum())
    parts = sum(shard.num_parts for shard in job.shards)
    return Costs(
        bytes_read=total,
        bytes_written=sum(shard.size for shard in job.shards),
        read_requests=sum(requests),
        reads_of=tuple(requests),
        write_requests=parts,
        num_parts=parts,
    )
