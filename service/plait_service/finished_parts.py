"""What is known of finished parts, in columns: all the memory it takes is had before the first part.

A record as the journal has it is some fifty Python objects, 2.5 KB for five sub-models; a merge of 100,000
parts keeps them all until the manifest is written. Here a part takes a row of a few hundred bytes, and what
workers counted and read takes rows of two more arrays, whose size the plan knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plait.errors import InternalError
from plait_workers.job import Job, Unit
from plait_workers.part_pass import PartRecord

_ETAG_BYTES: Final = 48
"""Of an ETag that lies in its column: S3's and ours are shorter, with their quotes."""

READ: Final = np.dtype([("source", "i4"), ("file", "i4"), ("start", "i8"), ("stop", "i8"), ("value", "u8")])
"""A range that a unit read of a source that is checked, and its checksum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedPart:
    """What the completion of a shard and the manifest need of a part; ``etag`` is the store's."""

    number: int
    size: int
    etag: str
    crc64nvme: int
    sha256: str


class _Rows:
    """Rows that belong to parts, in one array.

    Args:
        dtype: of a row.
        parts: how many there are.
        rows: how many rows they have in all; room is made for more if a journal has them.
    """

    def __init__(self, dtype: np.dtype[Any], parts: int, rows: int) -> None:
        self._begin = np.zeros(parts, np.int64)
        self._count = np.zeros(parts, np.int64)
        self._data = _touched(max(1, rows), dtype)
        self._end = 0

    @property
    def nbytes(self) -> int:
        return self._begin.nbytes + self._count.nbytes + self._data.nbytes

    def put(self, part: int, rows: Sequence[tuple[Any, ...]]) -> None:
        """In place of what the part had."""
        begin, count = int(self._begin[part]), len(rows)
        if count != self._count[part]:
            begin, self._end = self._end, self._end + count
            if self._end > len(self._data):
                self._data = np.resize(self._data, 2 * self._end)
            self._begin[part], self._count[part] = begin, count
        self._data[begin : begin + count] = rows

    def of(self, parts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """The rows of some parts, and of each row its part."""
        counts = self._count[parts]
        before = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self._begin[parts] - before, counts)
        return np.repeat(parts, counts), self._data[places]


class FinishedParts:
    """Finished parts of one job; the last record of a part counts.

    Not to be shared by threads without a lock. ``nbytes`` is the same from the first part to the last.

    Args:
        job: whose parts; the memory taken is about 150 bytes a part, 36 a source and tensor of
            a part that is read and checked, and 16 K + 20 a tensor of a part.
    """

    def __init__(self, job: Job) -> None:
        counts = [shard.num_parts for shard in job.shards]
        self._first = np.cumsum([0, *counts])
        parts = int(self._first[-1])
        pieces = parts + len(job.tensors)  # each cut makes one more
        checked = sum(any(file.algorithm for file in source.files) for source in job.sources)
        counter = np.dtype([("tensor", "i4"), ("counts", "i8", (2 * job.num_models + 2,))])
        self._done = _touched(parts, np.dtype(np.bool_))
        self._sizes = _touched(parts, np.dtype(np.int64))
        self._crcs = _touched(parts, np.dtype(np.uint64))
        self._digests = _touched(parts, np.dtype("V32"))
        self._etags = _touched(parts, np.dtype(f"S{_ETAG_BYTES}"))
        self._long_etags: dict[int, str] = {}
        self._counters = _Rows(counter, parts, pieces)
        self._reads = _Rows(READ, parts, pieces * checked)
        self._models = job.num_models

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        columns = (self._done, self._sizes, self._crcs, self._digests, self._etags)
        return sum(column.nbytes for column in columns) + self._counters.nbytes + self._reads.nbytes

    @property
    def size(self) -> int:
        """Bytes of all finished parts."""
        return int(self._sizes[self._done].sum())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._done))

    def __contains__(self, unit: Unit) -> bool:
        return bool(self._done[self._row(unit)])

    def _row(self, unit: Unit) -> int:
        return int(self._first[unit.shard]) + unit.number - 1

    def add(self, record: PartRecord) -> None:
        """A part is finished; in place of what was known of it before."""
        row = self._row(record.unit)
        self._sizes[row] = record.size
        self._crcs[row] = record.crc64nvme
        self._digests[row] = np.void(bytes.fromhex(record.sha256))
        etag = record.etag.encode()
        self._long_etags.pop(row, None)
        if len(etag) > _ETAG_BYTES:
            self._long_etags[row] = record.etag
        else:
            self._etags[row] = etag
        self._counters.put(row, list(record.counters.items()))
        self._reads.put(row, record.reads)
        self._done[row] = True

    def discard(self, unit: Unit) -> None:
        """A part must be made again."""
        self._done[self._row(unit)] = False

    def clear(self) -> None:
        """Nothing is finished."""
        self._done[:] = False

    def of_shard(self, shard: int) -> list[FinishedPart]:
        """All parts of a shard, in order.

        Raises:
            InternalError: one is not finished.
        """
        rows = range(int(self._first[shard]), int(self._first[shard + 1]))
        if not self._done[rows.start : rows.stop].all():
            raise InternalError("a shard is completed before all of its parts are finished")
        return [
            FinishedPart(
                number=number,
                size=int(self._sizes[row]),
                etag=self._long_etags.get(row) or self._etags[row].decode(),
                crc64nvme=int(self._crcs[row]),
                sha256=self._digests[row].tobytes().hex(),
            )
            for number, row in enumerate(rows, 1)
        ]

    def counters(self) -> dict[int, list[int]]:
        """The (2 K + 2) counters of each merged tensor, summed over the parts that hold it."""
        _, rows = self._counters.of(np.flatnonzero(self._done))
        tensors, places = np.unique(rows["tensor"], return_inverse=True)
        total = np.zeros((len(tensors), 2 * self._models + 2), np.int64)
        np.add.at(total, places, rows["counts"])
        return dict(zip(tensors.tolist(), total.tolist(), strict=True))

    def reads(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """What was read of sources that are checked, by file and place in it.

        Returns:
            Of each range, for :meth:`unit`, whose it is; the ranges, of dtype ``READ``.
        """
        rows, ranges = self._reads.of(np.flatnonzero(self._done))
        order = np.lexsort((ranges["stop"], ranges["start"], ranges["file"], ranges["source"]))
        return rows[order], ranges[order]

    def unit(self, row: int) -> Unit:
        """The unit that a row is of."""
        shard = int(np.searchsorted(self._first, row, side="right")) - 1
        return Unit(shard=shard, number=row - int(self._first[shard]) + 1)


def _touched(length: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Zeros that lie in memory already: what is only promised is had when it is written to."""
    array = np.empty(length, dtype)
    array.view(np.uint8).fill(0)
    return array
