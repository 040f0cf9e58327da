"""One pass over one part, front to back: read, merge, hash, write, a step at a time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from awscrt.checksums import crc64nvme

from plait.errors import Cancelled, InternalError, QuantizedSource, TensorMismatch
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.job import Action, Job, Unit
from plait_workers.methods.base import Bits, Merger
from plait_workers.ranges import Lane
from plait_workers.read_checksums import ReadChecksums
from plait_workers.storage.base import PartInfo, PartWriter, Scan
from plait_workers.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """What is known of a finished part: all that the journal, the manifest and a shard's completion need.

    ``counters`` holds, by tensor, the (2 K + 2) counters of :class:`~plait_workers.methods.base.Merger`
    for the elements whose first byte lies in this part. ``reads`` are the checksums of what was read of
    sources that are checked: (source, file, start, stop, checksum).
    """

    unit: Unit
    upload: str
    size: int
    etag: str
    crc64nvme: int
    sha256: str
    counters: dict[int, list[int]] = field(default_factory=dict)
    reads: list[tuple[int, int, int, int, int]] = field(default_factory=list)


def _storage(dtype: Dtype) -> np.dtype[np.unsignedinteger]:
    storage = dtype.storage
    if storage is None:
        raise InternalError("a dtype without a storage type is merged", found=dtype.name)
    return storage


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """Where a tensor lies in a source, and what its elements are."""

    source: int
    lane: Lane
    offset: int
    storage: np.dtype[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Merging:
    """What is the same for every step of a tensor."""

    tensor: int
    merger: Merger
    inputs: list[_Input]


class NullWriter:
    """Takes a part and forgets it."""

    def __init__(self, number: int, size: int, step: int) -> None:
        self._number, self._size = number, size
        self._buffer = memoryview(bytearray(step))

    def reserve(self, size: int) -> memoryview:
        """The same place every time."""
        return self._buffer[:size]

    def commit(self) -> None:
        """Nothing is kept."""

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """What a store would have said."""
        return PartInfo(number=self._number, size=self._size, etag=f"{crc64nvme:016x}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is the same for every part of a run.

    Args:
        job: what to do.
        step_bytes: bytes of one source in a step.
        stop: when set, a pass ends with ``Cancelled`` after its step.
        on_bytes: told the number of output bytes of each step, and the unit.
    """

    job: Job
    step_bytes: int
    stop: threading.Event
    on_bytes: Callable[[int, Unit], None]


class PartPass:
    """Runs one unit once; holds its running checksums and counters.

    Args:
        settings: of the run.
        unit: what is made, for progress and the record.
        writer: takes the bytes.
        workspace: the thread's buffers.
        scans: of every range that the unit needs.
    """

    def __init__(
        self,
        settings: Settings,
        unit: Unit,
        writer: PartWriter,
        workspace: Workspace,
        scans: Mapping[Lane, Scan],
    ) -> None:
        self._settings = settings
        self._job = settings.job
        self._unit = unit
        self._writer = writer
        self._workspace = workspace
        self._scans = scans
        self._checksums = ReadChecksums(settings.job)
        self._sha = hashlib.sha256()
        self._counters: dict[int, list[int]] = {}
        self.crc = 0

    def record(self, upload: str, part: PartInfo) -> PartRecord:
        """What is known of the finished part."""
        return PartRecord(
            unit=self._unit,
            upload=upload,
            size=part.size,
            etag=part.etag,
            crc64nvme=self.crc,
            sha256=self._sha.hexdigest(),
            counters=self._counters,
            reads=self._checksums.found(),
        )

    def _reserve(self, size: int) -> memoryview:
        if self._settings.stop.is_set():
            raise Cancelled("stopped between two steps")
        return self._writer.reserve(size)

    def _commit(self, place: memoryview) -> None:
        self._sha.update(place)
        self.crc = crc64nvme(place, self.crc)
        self._writer.commit()
        self._settings.on_bytes(len(place), self._unit)

    def header(self, data: bytes) -> None:
        """Bytes that are known already."""
        step = self._settings.step_bytes
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            place = self._reserve(len(piece))
            place[:] = piece
            self._commit(place)

    def tensor(self, tensor: int, begin: int, end: int) -> None:
        """Bytes [begin, end) of a tensor. An element cut by either bound is computed whole."""
        out = self._job.tensors[tensor]
        if out.action is not Action.MERGE:
            return self._copy(tensor, begin, end)
        counters = np.zeros(2 * self._job.num_models + 2, np.int64)
        ignored = np.zeros_like(counters)
        merging = self._merging(tensor)
        width, step = out.dtype.itemsize, self._elements_a_step(tensor)
        at = begin
        while at < end:
            first = at // width
            if at % width:  # its first byte, and so its count, are the part's before
                stop, count = first + 1, ignored
            else:
                stop, count = min(first + step, max(end // width, first + 1)), counters
            low, high = at - first * width, min(end, stop * width) - first * width
            self._merge_step(merging, first, stop - first, (low, high), count)
            at = min(end, stop * width)
        if counters.any():
            self._counters[tensor] = counters.tolist()
        return None

    def _elements_a_step(self, tensor: int) -> int:
        job, out = self._job, self._job.tensors[tensor]
        read = [job.dtypes[job.dtype_of[source, tensor]] for source in job.sources_of(tensor)]
        widest: int = max(dtype.itemsize for dtype in (*read, out.dtype, out.working))
        return max(2, self._settings.step_bytes // widest // 2 * 2)

    def _merging(self, tensor: int) -> _Merging:
        job = self._job
        inputs = [
            _Input(
                source=source,
                lane=(source, 0, int(job.file_of[source, tensor])),
                offset=int(job.offset_of[source, tensor]),
                storage=_storage(job.dtypes[job.dtype_of[source, tensor]]),
            )
            for source in job.sources_of(tensor)
        ]
        merger = job.method.merger(job.context(tensor))
        return _Merging(tensor=tensor, merger=merger, inputs=inputs)

    def _merge_step(
        self,
        merging: _Merging,
        first: int,
        count: int,
        cut: tuple[int, int],
        counters: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> None:
        job, out, merger = self._job, self._job.tensors[merging.tensor], merging.merger
        low, high = cut
        arrays: list[Bits] = []
        for each in merging.inputs:
            width = each.storage.itemsize
            scratch = self._workspace.scratch(each.source, count * width)
            # An element that a bound cuts is read by both neighbours; it counts where it begins.
            raw = self._read_lane(each.lane, each.offset + first * width, scratch, low == 0)
            arrays.append(np.frombuffer(raw, each.storage))
        self._compare_twins(merging.tensor, first, arrays, low == 0)
        base = arrays.pop() if out.uses_base else None
        place = self._reserve(high - low)
        target = np.frombuffer(place, np.uint8)
        if high - low == count * out.dtype.itemsize:
            merger.merge(arrays[: job.num_models], base, target.view(_storage(out.dtype)), first, counters)
        else:
            spare = np.empty(count, _storage(out.dtype))
            merger.merge(arrays[: job.num_models], base, spare, first, counters)
            target[:] = spare.view(np.uint8)[low:high]
        self._commit(place)

    def _read(self, tensor: int, source: int, start: int, size: int) -> memoryview:
        job = self._job
        lane = (source, 0, int(job.file_of[source, tensor]))
        scratch = self._workspace.scratch(source, size)
        return self._read_lane(lane, int(job.offset_of[source, tensor]) + start, scratch, True)

    def _read_lane(self, lane: Lane, offset: int, scratch: memoryview, count: bool) -> memoryview:
        data = self._scans[lane].read(offset, scratch)
        if count:
            self._checksums.add(lane, offset, data)
        return data

    def _twins(self, tensor: int) -> Iterator[tuple[Lane, int]]:
        """Each further copy of a tensor in a source that is read, and where it begins."""
        read, seen = self._job.sources_of(tensor), dict[int, int]()
        for source, file, offset in self._job.twins.get(tensor, ()):
            if source in read:
                seen[source] = seen.get(source, 0) + 1
                yield (source, seen[source], file), offset

    def _compare_twins(self, tensor: int, first: int, arrays: list[Bits], count: bool) -> None:
        """Tied weights that a source stores twice must agree within it, bit for bit."""
        if tensor not in self._job.twins:
            return
        read = self._job.sources_of(tensor)
        for lane, offset in self._twins(tensor):
            own = arrays[read.index(lane[0])]
            scratch = self._workspace.scratch(len(self._job.sources), own.nbytes)
            twin = self._read_lane(lane, offset + first * own.itemsize, scratch, count)
            if not np.array_equal(np.frombuffer(twin, own.dtype), own):
                raise self._untied(tensor, lane[0])

    def _untied(self, tensor: int, source: int) -> TensorMismatch:
        return TensorMismatch(
            "weights that config.json ties together differ within one model",
            where=f"{self._job.sources[source].uri}: {self._job.tensors[tensor].name}",
            hint="Set tie_word_embeddings to false in its config.json if they are meant to differ",
        )

    def _copy(self, tensor: int, begin: int, end: int) -> None:
        """Bytes that are not merged: the first source's, if every other source has the same."""
        job, step = self._job, self._settings.step_bytes
        for start in range(begin, end, step):
            size = min(step, end - start)
            place = self._reserve(size)
            first, *others = job.sources_of(tensor)
            data = self._read(tensor, first, start, size)
            for other in others:
                if self._read(tensor, other, start, size) != data:
                    raise self._disagree(tensor, first, other)
            for lane, offset in self._twins(tensor):
                scratch = self._workspace.scratch(len(job.sources), size)
                if self._read_lane(lane, offset + start, scratch, True) != data:
                    raise self._untied(tensor, lane[0])
            place[:] = data
            self._commit(place)

    def _disagree(self, tensor: int, first: int, other: int) -> TensorMismatch | QuantizedSource:
        job, out = self._job, self._job.tensors[tensor]
        error = QuantizedSource if out.quantized else TensorMismatch
        what = "a quantised tensor" if out.quantized else f"a tensor of dtype {out.dtype.name}"
        return error(
            f"{what} cannot be merged by {job.method.name} and is not the same in all sources",
            where=f"{job.sources[other].uri}: {out.name}",
            expected=f"the bytes of {job.sources[first].uri}",
            found="other bytes",
            hint="Merge before quantising" if out.quantized else None,
        )
