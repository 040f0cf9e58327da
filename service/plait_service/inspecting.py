"""What a model folder holds, and how much of it a fine-tune changed."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod

import numpy as np

from plait.spec_storage import StorageSpec
from plait.uri import parse_uri
from plait_workers.checkpoint.model import Checkpoint, load_checkpoint
from plait_workers.kernels.encode import convert
from plait_workers.kernels.forms import form_of
from plait_workers.kernels.select import count_changed
from plait_workers.storage.base import ObjectStore, RangeReader
from plait_workers.storage.registry import Stores
from plait_workers.working import working_dtype

_STEP = 1 << 19


@dataclass(kw_only=True)
class Group:
    """Tensors of one role, all layers together: ``model.layers.*.mlp.up_proj.weight``.

    ``changed`` counts elements that differ from the base's, of ``compared``.
    """

    name: str
    dtypes: set[str] = field(default_factory=set)
    tensors: int = 0
    elements: int = 0
    nbytes: int = 0
    compared: int = 0
    changed: int = 0


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One model."""

    uri: str
    files: int
    groups: list[Group]
    notes: list[str]


def group_name(name: str) -> str:
    """A tensor's name with the numbers of layers and experts taken out."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def inspect(
    uris: Sequence[str], base: str | None, *, threads: int, storage: StorageSpec | None = None
) -> list[Inspection]:
    """Read headers, and with a base every byte of the tensors that both have.

    Raises:
        PlanRejected: a model cannot be read.
    """
    places = Stores(storage)
    models = [_open(uri, places) for uri in uris]
    origin = _open(base, places) if base is not None else None
    return [_inspect(model, origin, threads) for model in models]


@dataclass(frozen=True, kw_only=True)
class _Model:
    store: ObjectStore
    checkpoint: Checkpoint


def _open(uri: str, places: Stores) -> _Model:
    store = places.open(parse_uri(uri))
    return _Model(store=store, checkpoint=load_checkpoint(store))


def _inspect(model: _Model, base: _Model | None, threads: int) -> Inspection:
    checkpoint = model.checkpoint
    groups: dict[str, Group] = {}
    for row, name in enumerate(checkpoint.names):
        group = groups.setdefault(group_name(name), Group(name=group_name(name)))
        group.dtypes.add(checkpoint.dtypes[row].name)
        group.tensors += 1
        group.elements += prod(checkpoint.shapes[row])
        group.nbytes += checkpoint.nbytes(row)
    notes = _compare(model, base, groups, threads) if base is not None else []
    return Inspection(
        uri=checkpoint.uri, files=len(checkpoint.files), groups=list(groups.values()), notes=notes
    )


def _compare(model: _Model, base: _Model, groups: dict[str, Group], threads: int) -> list[str]:
    comparer, checkpoint = _Comparer(model, base), model.checkpoint
    lock = threading.Lock()
    skipped: list[str] = []

    def compare(name: str) -> None:
        changed = comparer.changed(name)
        with lock:
            if changed is None:
                skipped.append(name)
                return
            group = groups[group_name(name)]
            group.compared += prod(checkpoint.shapes[checkpoint.rows[name]])
            group.changed += changed

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compare, checkpoint.names))
    comparer.close()
    return [f"not comparable with the base: {', '.join(sorted(skipped)[:20])}"] if skipped else []


class _Comparer:
    """Counts changed elements, a step at a time, whatever a tensor's size."""

    def __init__(self, model: _Model, base: _Model) -> None:
        self._sides = (model.checkpoint, base.checkpoint)
        self._readers: list[list[RangeReader]] = [
            [side.store.open(file.key, file.version) for file in side.checkpoint.files]
            for side in (model, base)
        ]

    def close(self) -> None:
        for readers in self._readers:
            for reader in readers:
                reader.check()
                reader.close()

    def changed(self, name: str) -> int | None:
        """How many elements differ; None where the two cannot be compared."""
        rows = [side.rows.get(name, -1) for side in self._sides]
        if min(rows) < 0 or self._sides[0].shapes[rows[0]] != self._sides[1].shapes[rows[1]]:
            return None
        dtypes = [side.dtypes[row] for side, row in zip(self._sides, rows, strict=True)]
        working = working_dtype(dtypes)
        if working is None or working.kind == "opaque":
            return None
        elements, count, form = prod(self._sides[0].shapes[rows[0]]), 0, form_of(working)
        with ExitStack() as stack:
            places = []
            for side, readers, row in zip(self._sides, self._readers, rows, strict=True):
                start = int(side.offset[row])
                scan = readers[int(side.file[row])].scan([(start, start + side.nbytes(row))])
                stack.callback(scan.close)
                places.append((scan, start))
            for first in range(0, elements, _STEP):
                size = min(_STEP, elements - first)
                arrays = []
                for (scan, start), dtype in zip(places, dtypes, strict=True):
                    scratch = memoryview(bytearray(size * dtype.itemsize))
                    raw = scan.read(start + first * dtype.itemsize, scratch)
                    bits = np.frombuffer(raw, dtype.storage)
                    if dtype != working:
                        bits, narrow = np.empty(size, working.storage), bits
                        convert(narrow, dtype.name, bits, working.name)
                    arrays.append(bits)
                count += count_changed(arrays[0], arrays[1], form)
        return count
