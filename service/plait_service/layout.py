"""How the result is cut into files and the files into parts: pure, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from plait.errors import SpecInvalid
from plait_workers.checkpoint.header import build_header
from plait_workers.checkpoint.model import SINGLE
from plait_workers.job import OutShard, OutTensor

MIN_PART: Final = 16 << 20
MAX_PARTS: Final = 10_000
_PART_STEP: Final = 1 << 20
_METADATA: Final = {"format": "pt"}


def part_size_of(shard_bytes: int, wanted: int | None) -> int:
    """The part size of a shard: the spec's, or one that makes at most 10,000 parts of at least 16 MiB."""
    if wanted is not None:
        return wanted
    least = -(-shard_bytes // MAX_PARTS)
    return max(MIN_PART, -(-least // _PART_STEP) * _PART_STEP)


def lay_out(tensors: Sequence[OutTensor], *, shard_size: int, part_size: int | None) -> list[OutShard]:
    """Fill shards in order; a shard ends before the tensor that would take it above ``shard_size``.

    A single tensor may be larger than that and then has a shard of its own. Headers are final.

    Raises:
        SpecInvalid: ``part_size`` cuts a shard into more than 10,000 parts.
    """
    groups: list[tuple[int, int]] = []
    first, total = 0, 0
    for index, tensor in enumerate(tensors):
        if index > first and total + tensor.nbytes > shard_size:
            groups.append((first, index))
            first, total = index, 0
        total += tensor.nbytes
    groups.append((first, len(tensors)))
    return [
        _shard(tensors[start:stop], start, shard_name(number, len(groups)), part_size)
        for number, (start, stop) in enumerate(groups, start=1)
    ]


def shard_name(number: int, count: int) -> str:
    """The file name that Hugging Face's libraries expect."""
    return SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _shard(tensors: Sequence[OutTensor], first: int, key: str, part_size: int | None) -> OutShard:
    header = build_header([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors], _METADATA)
    sizes = np.array([tensor.nbytes for tensor in tensors], np.int64)
    bounds = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64) + len(header)
    shard = OutShard(
        key=key, header=header, first=first, bounds=bounds, part_size=part_size_of(int(bounds[-1]), part_size)
    )
    if shard.num_parts > MAX_PARTS:
        raise SpecInvalid(
            "part_size cuts a shard into too many parts",
            expected=f"at most {MAX_PARTS} parts",
            found=f"{shard.num_parts} parts of {part_size} bytes in {key}",
            hint="Make part_size larger or shard_size smaller",
        )
    return shard
