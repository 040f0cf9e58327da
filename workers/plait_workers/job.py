"""What a worker needs to know of a merge: a plan without its reasons, in columns, ready to be sent.

A job of 100,000 tensors from 21 sources is a few arrays of two million numbers, not two million
objects. Sources are numbered in the order of the spec's models; the base, if there is one, is last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.methods.base import Method, TensorContext

HEADER = -1
"""Stands for a shard's header where a tensor's number is expected."""


class Action(enum.Enum):
    """How a tensor of the result is made."""

    MERGE = "merge"
    IDENTICAL = "identical"  # all sources must agree bit for bit; the first one's bytes are copied
    BASE = "base"  # only the base has it


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A tensor file, pinned.

    Args:
        algorithm: of the checksum that is made of all that is read of it; empty if none is.
        checksum: what the store says that it is, in hexadecimal; empty if it keeps none.
        header_bytes, header_checksum: of what was read when the merge was planned.
    """

    key: str
    version: str
    size: int
    algorithm: str = ""
    checksum: str = ""
    header_bytes: int = 0
    header_checksum: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A sub-model or the base: a folder and its pinned tensor files."""

    uri: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutTensor:
    """A tensor of the result.

    ``working`` is the dtype in which sub-models are compared; ``dtype`` is what is written.
    ``uses_base`` is false where the method does not look at the base or the base has no such tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    working: Dtype
    action: Action
    uses_base: bool
    elements: int
    quantized: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the result."""
        return self.elements * self.dtype.bits // 8


@dataclass(frozen=True, kw_only=True)
class OutShard:
    """A file of the result.

    ``bounds[i]`` is where tensor ``first + i`` begins in the file, header included;
    ``bounds[-1]`` is the file's size.
    """

    key: str
    header: bytes
    first: int
    bounds: npt.NDArray[np.int64]
    part_size: int

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.bounds[-1])

    @property
    def num_parts(self) -> int:
        """How many parts the file is written in; an empty file has one, of 0 bytes."""
        return max(1, -(-self.size // self.part_size))

    def part_range(self, number: int) -> tuple[int, int]:
        """Bytes [start, stop) of part ``number``, which counts from 1."""
        start = (number - 1) * self.part_size
        return start, min(start + self.part_size, self.size)

    def segments(self, number: int) -> list[tuple[int, int, int]]:
        """What part ``number`` holds, in order: (tensor or HEADER, its bytes [start, stop))."""
        start, stop = self.part_range(number)
        found = []
        if start < len(self.header):
            found.append((HEADER, start, min(stop, len(self.header))))
        index = max(0, int(np.searchsorted(self.bounds, start, side="right")) - 1)
        while index < len(self.bounds) - 1 and self.bounds[index] < stop:
            begin, end = int(self.bounds[index]), int(self.bounds[index + 1])
            low, high = max(start, begin), min(stop, end)
            if low < high:
                found.append((self.first + index, low - begin, high - begin))
            index += 1
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One part of one shard: the unit of work, of retry and of the journal."""

    shard: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides the bytes of a result.

    Args:
        fingerprint: names the result; equal fingerprints give equal bytes.
        sources: K sub-models, then the base if there is one.
        num_models: K.
        file_of: (sources, tensors) the file that holds a tensor; -1 where the source lacks it.
        offset_of: (sources, tensors) where its bytes begin in that file.
        dtype_of: (sources, tensors) index into ``dtypes``.
        twins: by tensor: further copies (source, file, offset) that must agree with the source's own.
    """

    fingerprint: str
    method: Method
    seed: int
    weights: tuple[float, ...]
    sources: tuple[Source, ...]
    num_models: int
    tensors: tuple[OutTensor, ...]
    shards: tuple[OutShard, ...]
    dtypes: tuple[Dtype, ...]
    file_of: npt.NDArray[np.int32]
    offset_of: npt.NDArray[np.int64]
    dtype_of: npt.NDArray[np.int8]
    twins: Mapping[int, tuple[tuple[int, int, int], ...]]

    def units(self) -> list[Unit]:
        """All units, in the order in which a single worker does them."""
        return [
            Unit(shard=index, number=number)
            for index, shard in enumerate(self.shards)
            for number in range(1, shard.num_parts + 1)
        ]

    def sources_of(self, tensor: int) -> list[int]:
        """The sources that are read for a tensor, in order."""
        out = self.tensors[tensor]
        base = self.num_models
        if out.action is Action.BASE:
            return [base]
        read = list(range(self.num_models))
        return [*read, base] if out.uses_base else read

    def context(self, tensor: int) -> TensorContext:
        """What the method is told of a tensor."""
        out, base = self.tensors[tensor], self.num_models
        dtypes = [self.dtypes[code] for code in self.dtype_of[:, tensor]]
        return TensorContext(
            name=out.name,
            inputs=tuple(dtypes[:base]),
            base=dtypes[base] if out.uses_base else None,
            working=out.working,
            output=out.dtype,
            weights=self.weights,
            seed=self.seed,
        )
