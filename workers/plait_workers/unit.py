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

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from awscrt.checksums import crc64nvme

from plait.errors import Cancelled, InternalError, QuantizedSource, TensorMismatch
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.job import HEADER, Action, Job, OutShard, Unit
from plait_workers.methods.base import Bits, Merger, TensorContext
from plait_workers.readers import FileId, Readers
from plait_workers.storage.base import ObjectStore, PartInfo, PartWriter, RangeReader, Upload


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """What is known of a finished part: all that the journal, the manifest and a shard's completion need.

    ``counters`` holds, by tensor, the (2 K + 2) counters of :class:`~plait_workers.methods.base.Merger`
    for the elements whose first byte lies in this part.
    """

    unit: Unit
    upload: str
    size: int
    etag: str
    crc64nvme: int
    sha256: str
    counters: dict[int, list[int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Workspace:
    """A thread's buffers: made once, reused for every unit."""

    step_bytes: int
    num_sources: int
    # Sources start at different offsets of a page, or loads and stores would look alike to the CPU.
    _scratch: list[memoryview] = field(default_factory=list)

    def __post_init__(self) -> None:
        for source in range(self.num_sources + 1):
            stagger = 64 * (2 * source + 1) % 4096
            buffer = memoryview(bytearray(self.step_bytes + 4096 + 64))
            base = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
            start = -base % 64 + stagger
            self._scratch.append(buffer[start : start + self.step_bytes])

    def scratch(self, source: int, size: int) -> memoryview:
        """``size`` bytes for a source; the last one is spare."""
        return self._scratch[source][:size]


def workspace_bytes(step_bytes: int, num_sources: int) -> int:
    """Memory of a :class:`Workspace`."""
    return (num_sources + 1) * (step_bytes + 4096 + 64)


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
    ) -> None:
        self._job = job
        self._output = output
        self._uploads = uploads
        self._step = step_bytes
        self._stop = stop
        self._on_bytes = on_bytes
        self.readers = Readers(job.sources, stores)

    def workspace(self) -> Workspace:
        """Buffers for one thread."""
        return Workspace(step_bytes=self._step, num_sources=len(self._job.sources))

    def recompute(self, unit: Unit, workspace: Workspace) -> PartRecord:
        """As :meth:`run`, but write nothing: the record tells what the part's bytes would be."""
        start, stop = self._job.shards[unit.shard].part_range(unit.number)
        return self._run(unit, workspace, _NullWriter(unit.number, stop - start, self._step), "")

    def compare(self, tensor: int, workspace: Workspace) -> None:
        """Read a tensor that is not merged from all its sources, and raise if they disagree."""
        out = self._job.tensors[tensor]
        pass_ = _Pass(self, Unit(shard=0, number=0), _NullWriter(0, out.nbytes, self._step), workspace)
        files = [(source, int(self._job.file_of[source, tensor])) for source in self._job.sources_of(tensor)]
        with self.readers.borrow(files) as readers:
            pass_.tensor(tensor, 0, out.nbytes, readers)

    def run(self, unit: Unit, workspace: Workspace) -> PartRecord:
        """Do one unit.

        Raises:
            SourceChanged, TensorMismatch, QuantizedSource, StoreError, UploadGone, Cancelled.
        """
        shard = self._job.shards[unit.shard]
        start, stop = shard.part_range(unit.number)
        upload = self._uploads[unit.shard]
        writer = self._output.begin_part(
            upload, unit.number, offset=start, size=stop - start, step=self._step
        )
        return self._run(unit, workspace, writer, upload.id)

    def _run(self, unit: Unit, workspace: Workspace, writer: PartWriter, upload: str) -> PartRecord:
        shard = self._job.shards[unit.shard]
        pass_ = _Pass(self, unit, writer, workspace)
        with self.readers.borrow(self._files(shard, unit)) as readers:
            for tensor, begin, end in shard.segments(unit.number):
                if tensor == HEADER:
                    pass_.header(shard.header[begin:end])
                else:
                    pass_.tensor(tensor, begin, end, readers)
        part = writer.finish(crc64nvme=pass_.crc)
        return pass_.record(upload, part)

    def _files(self, shard: OutShard, unit: Unit) -> list[FileId]:
        job, files = self._job, dict[FileId, None]()
        for tensor, _, _ in shard.segments(unit.number):
            if tensor != HEADER:
                for source in job.sources_of(tensor):
                    files[(source, int(job.file_of[source, tensor]))] = None
                for source, file, _ in job.twins.get(tensor, ()):
                    files[(source, file)] = None
        return list(files)

    def context(self, tensor: int) -> TensorContext:
        """What the method is told of a tensor."""
        job, out, base = self._job, self._job.tensors[tensor], self._job.num_models
        dtypes = [job.dtypes[code] for code in job.dtype_of[:, tensor]]
        return TensorContext(
            name=out.name,
            inputs=tuple(dtypes[:base]),
            base=dtypes[base] if out.uses_base else None,
            working=out.working,
            output=out.dtype,
            weights=job.weights,
            seed=job.seed,
        )


def _storage(dtype: Dtype) -> np.dtype[np.unsignedinteger]:
    storage = dtype.storage
    if storage is None:
        raise InternalError("a dtype without a storage type is merged", found=dtype.name)
    return storage


class _NullWriter:
    """Takes a part and forgets it."""

    def __init__(self, number: int, size: int, step: int) -> None:
        self._number, self._size = number, size
        self._buffer = memoryview(bytearray(step))

    def reserve(self, size: int) -> memoryview:
        return self._buffer[:size]

    def commit(self) -> None:
        pass

    def finish(self, *, crc64nvme: int) -> PartInfo:
        return PartInfo(number=self._number, size=self._size, etag=f"{crc64nvme:016x}")


class _Pass:
    """One run of one unit: the running checksums and counters."""

    def __init__(self, runner: UnitRunner, unit: Unit, writer: PartWriter, workspace: Workspace) -> None:
        self._runner = runner
        self._job = runner._job
        self._unit = unit
        self._writer = writer
        self._workspace = workspace
        self._sha = hashlib.sha256()
        self._counters: dict[int, list[int]] = {}
        self.crc = 0

    def record(self, upload: str, part: PartInfo) -> PartRecord:
        return PartRecord(
            unit=self._unit,
            upload=upload,
            size=part.size,
            etag=part.etag,
            crc64nvme=self.crc,
            sha256=self._sha.hexdigest(),
            counters=self._counters,
        )

    def _reserve(self, size: int) -> memoryview:
        if self._runner._stop.is_set():
            raise Cancelled("stopped between two steps")
        return self._writer.reserve(size)

    def _commit(self, place: memoryview) -> None:
        self._sha.update(place)
        self.crc = crc64nvme(place, self.crc)
        self._writer.commit()
        self._runner._on_bytes(len(place), self._unit)

    def header(self, data: bytes) -> None:
        step = self._runner._step
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            place = self._reserve(len(piece))
            place[:] = piece
            self._commit(place)

    def tensor(self, tensor: int, begin: int, end: int, readers: dict[FileId, RangeReader]) -> None:
        """Bytes [begin, end) of a tensor. An element cut by either bound is computed whole."""
        out = self._job.tensors[tensor]
        if out.action is not Action.MERGE:
            return self._copy(tensor, begin, end, readers)
        counters = np.zeros(2 * self._job.num_models + 2, np.int64)
        ignored = np.zeros_like(counters)
        merger = self._job.method.merger(self._runner.context(tensor))
        width, step = out.dtype.itemsize, self._elements_a_step(tensor)
        at = begin
        while at < end:
            first = at // width
            if at % width:  # its first byte, and so its count, are the part's before
                stop, count = first + 1, ignored
            else:
                stop, count = min(first + step, max(end // width, first + 1)), counters
            low, high = at - first * width, min(end, stop * width) - first * width
            self._merge_step(tensor, merger, first, stop - first, (low, high), readers, count)
            at = min(end, stop * width)
        if counters.any():
            self._counters[tensor] = counters.tolist()
        return None

    def _elements_a_step(self, tensor: int) -> int:
        job, out = self._job, self._job.tensors[tensor]
        read = [job.dtypes[job.dtype_of[source, tensor]] for source in job.sources_of(tensor)]
        widest: int = max(dtype.itemsize for dtype in (*read, out.dtype, out.working))
        return max(2, self._runner._step // widest // 2 * 2)

    def _merge_step(
        self,
        tensor: int,
        merger: Merger,
        first: int,
        count: int,
        cut: tuple[int, int],
        readers: dict[FileId, RangeReader],
        counters: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> None:
        job, out = self._job, self._job.tensors[tensor]
        arrays: list[Bits] = []
        for source in job.sources_of(tensor):
            dtype = job.dtypes[job.dtype_of[source, tensor]]
            raw = self._read(tensor, source, first * dtype.itemsize, count * dtype.itemsize, readers)
            array = np.frombuffer(raw, _storage(dtype))
            if not array.flags.aligned:  # in the file; kernels want it otherwise
                scratch = self._workspace.scratch(source, array.nbytes)
                scratch[:] = raw
                array = np.frombuffer(scratch, _storage(dtype))
            arrays.append(array)
        self._compare_twins(tensor, first, arrays, readers)
        base = arrays.pop() if out.uses_base else None
        low, high = cut
        place = self._reserve(high - low)
        whole = high - low == count * out.dtype.itemsize
        target = np.frombuffer(place, np.uint8)
        if whole and target.__array_interface__["data"][0] % out.dtype.itemsize == 0:
            merger.merge(arrays[: job.num_models], base, target.view(_storage(out.dtype)), first, counters)
        else:
            spare = np.empty(count, _storage(out.dtype))
            merger.merge(arrays[: job.num_models], base, spare, first, counters)
            target[:] = spare.view(np.uint8)[low:high]
        self._commit(place)

    def _read(
        self, tensor: int, source: int, start: int, size: int, readers: dict[FileId, RangeReader]
    ) -> memoryview:
        job = self._job
        reader = readers[(source, int(job.file_of[source, tensor]))]
        scratch = self._workspace.scratch(source, size)
        return reader.read(int(job.offset_of[source, tensor]) + start, scratch)

    def _compare_twins(
        self, tensor: int, first: int, arrays: list[Bits], readers: dict[FileId, RangeReader]
    ) -> None:
        """Tied weights that a source stores twice must agree within it, bit for bit."""
        job = self._job
        read = job.sources_of(tensor)
        for source, file, offset in job.twins.get(tensor, ()):
            if source not in read:
                continue
            own = arrays[read.index(source)]
            scratch = self._workspace.scratch(len(job.sources), own.nbytes)
            twin = readers[(source, file)].read(offset + first * own.itemsize, scratch)
            if not np.array_equal(np.frombuffer(twin, own.dtype), own):
                raise TensorMismatch(
                    "weights that config.json ties together differ within one model",
                    where=f"{job.sources[source].uri}: {job.tensors[tensor].name}",
                    hint="Set tie_word_embeddings to false in its config.json if they are meant to differ",
                )

    def _copy(self, tensor: int, begin: int, end: int, readers: dict[FileId, RangeReader]) -> None:
        """Bytes that are not merged: the first source's, if every other source has the same."""
        job, step = self._job, self._runner._step
        for start in range(begin, end, step):
            size = min(step, end - start)
            place = self._reserve(size)
            first, *others = job.sources_of(tensor)
            data = self._read(tensor, first, start, size, readers)
            for other in others:
                if self._read(tensor, other, start, size, readers) != data:
                    raise self._disagree(tensor, first, other)
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
