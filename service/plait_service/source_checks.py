"""Whole sources, verified from what was read of them in pieces.

Workers note a checksum of every range that they read. Joined, with the few bytes between them read now,
these give the checksum of each file, which is compared with the one that its store keeps. A merge reads
nearly all of its sources, so this costs next to nothing; and it covers the way from the store's disk to
the worker's memory, which no TLS does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from plait.errors import SourceCorrupt
from plait_service.finished_parts import FinishedParts
from plait_workers.checksums import ALGORITHMS, Algorithm
from plait_workers.job import Job, SourceFile, Unit
from plait_workers.storage.base import ObjectStore, RangeReader

_STEP: Final = 1 << 20
_THREADS: Final = 8

FileId = tuple[int, int]
"""(source, file) as a job numbers them."""


class _Stretch(NamedTuple):
    """What part ``row`` read of a file."""

    row: int
    start: int
    stop: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of it.

    Args:
        checksums: of each file that is checked, in hexadecimal.
        damaged: units that read something else than what the store holds; to be done again.
    """

    checksums: Mapping[FileId, str]
    damaged: tuple[Unit, ...]


def check_sources(job: Job, stores: Sequence[ObjectStore], finished: FinishedParts) -> Checked:
    """Join what was read of each source file, and compare.

    Cost: the bytes that no unit read; a file that differs is read once more, to find out where.

    Raises:
        SourceCorrupt: a file is not what its store says, or its header arrived damaged.
        SourceChanged: it was replaced meanwhile.
    """
    rows, reads = finished.reads()
    checksums: dict[FileId, str] = {}
    damaged: set[int] = set()

    def check(span: tuple[int, int]) -> None:
        begin, end = span
        source, number = int(reads["source"][begin]), int(reads["file"][begin])
        columns = (rows, reads["start"], reads["stop"], reads["value"])
        stretches = [*map(_Stretch, *(column[begin:end].tolist() for column in columns))]
        checker = _FileCheck(job.sources[source].files[number], stores[source])
        checksums[source, number], again = checker.check(stretches)
        damaged.update(again)

    # What nobody has read, such as the base of an average, is not read for this either.
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(check, _spans(reads)))
    return Checked(checksums=checksums, damaged=tuple(finished.unit(row) for row in sorted(damaged)))


def _spans(reads: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Where in sorted reads those of each file lie."""
    if not len(reads):
        return []
    ids = np.stack([reads["source"], reads["file"]], axis=1)
    begins = [0, *(np.flatnonzero((ids[1:] != ids[:-1]).any(axis=1)) + 1).tolist()]
    return [*zip(begins, [*begins[1:], len(reads)], strict=True)]


class _FileCheck:
    """One file."""

    def __init__(self, file: SourceFile, store: ObjectStore) -> None:
        self._file = file
        self._store = store
        self._where = f"{store.uri}/{file.key}"
        self._algorithm: Algorithm = ALGORITHMS[file.algorithm]
        self._reader: RangeReader | None = None

    def check(self, stretches: Sequence[_Stretch]) -> tuple[str, list[int]]:
        """The file's checksum, and the rows of parts that must read it again."""
        try:
            found = self._algorithm.hexadecimal(self._join(stretches))
            if not self._file.checksum or found == self._file.checksum:
                return found, []
            return found, self._compare(stretches)
        finally:
            if self._reader is not None:
                self._reader.check()
                self._reader.close()

    def _join(self, stretches: Sequence[_Stretch]) -> int:
        value, at = int(self._file.header_checksum, 16), self._file.header_bytes
        for stretch in stretches:
            if stretch.start < at:  # bytes that another unit has read too
                continue
            if stretch.start > at:
                value = self._algorithm.combine(value, self._read(at, stretch.start), stretch.start - at)
            value = self._algorithm.combine(value, stretch.value, stretch.stop - stretch.start)
            at = stretch.stop
        if at < self._file.size:
            value = self._algorithm.combine(value, self._read(at, self._file.size), self._file.size - at)
        return value

    def _read(self, start: int, stop: int) -> int:
        """The checksum of a range, read now."""
        if self._reader is None:
            self._reader = self._store.open(self._file.key, self._file.version, bulk=True)
        scratch, value = memoryview(bytearray(min(_STEP, stop - start))), 0
        scan = self._reader.scan([(start, stop)])
        try:
            for at in range(start, stop, _STEP):
                value = self._algorithm.update(scan.read(at, scratch[: min(_STEP, stop - at)]), value)
        finally:
            scan.close()
        return value

    def _compare(self, stretches: Sequence[_Stretch]) -> list[int]:
        """Read the file again: where it differs from what was read before, that was damaged on its way."""
        again = [
            stretch.row for stretch in stretches if self._read(stretch.start, stretch.stop) != stretch.value
        ]
        header = self._algorithm.hexadecimal(self._read(0, self._file.header_bytes))
        if again and header == self._file.header_checksum:
            return again
        raise SourceCorrupt(
            "a source does not match the checksum that its store keeps"
            if header == self._file.header_checksum
            else "the header of a source arrived damaged when the merge was planned",
            where=self._where,
            expected=f"{self._file.algorithm} {self._file.checksum}",
            hint="Run the merge again; if it fails again, the object itself is damaged: upload it anew",
        )
