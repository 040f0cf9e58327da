"""What a unit reads: by source, ranges of files in the order in which they are needed.

Ranges of one file that touch, or nearly, are one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plait_workers.job import HEADER, Action, Job
from plait_workers.storage.base import NEAR

Lane = tuple[int, int, int]
"""(source, copy, file): one front-to-back reading. Copy 0 is the tensor itself, others are its twins."""

FileRanges = dict[Lane, list[tuple[int, int]]]


def ranges_of(job: Job, segments: Sequence[tuple[int, int, int]]) -> FileRanges:
    """The ranges (start, stop) that a part reads, by lane.

    Args:
        segments: of :meth:`~plait_workers.job.OutShard.segments`: (tensor, its bytes [begin, end)).
    """
    found: FileRanges = {}
    last: dict[tuple[int, int], tuple[Lane, int]] = {}
    for tensor, begin, end in segments:
        if tensor == HEADER:
            continue
        for source, copy, file, start, stop in _reads(job, tensor, begin, end):
            lane = (source, copy, file)
            ranges = found.setdefault(lane, [])
            before, edge = last.get((source, copy), (None, 0))
            if before == lane and 0 <= start - edge <= NEAR:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
            last[source, copy] = (lane, stop)
    return found


def _reads(job: Job, tensor: int, begin: int, end: int) -> Iterable[tuple[int, int, int, int, int]]:
    """(source, copy, file, start, stop) of all that bytes [begin, end) of a tensor are made of."""
    out, sources = job.tensors[tensor], job.sources_of(tensor)
    for source in sources:
        low, high = begin, end
        if out.action is Action.MERGE:
            width, own = out.dtype.itemsize, job.dtypes[job.dtype_of[source, tensor]].itemsize
            low, high = begin // width * own, -(-end // width) * own
        offset = int(job.offset_of[source, tensor])
        yield source, 0, int(job.file_of[source, tensor]), offset + low, offset + high
        copy = 0
        for twin, file, twin_offset in job.twins.get(tensor, ()):
            if twin == source:
                copy += 1
                yield source, copy, file, twin_offset + low, twin_offset + high
